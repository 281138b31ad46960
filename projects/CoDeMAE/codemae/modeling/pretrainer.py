"""CoDe-MAE: one masked autoencoder of optical and SAR, held together by what both have in common.

Source: CoDe-MAE (paper Sec. III). Where its text lacks the formulas, what the authors' release does.

Shapes: B pairs, N = 2B rows (optical rows first, SAR rows below), L units of an image on an (h, w) grid, V of them
visible, D width of the fused tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError
from mmovseg.layers.conv import masked_mean_pool
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.meta_arch.batching import View, answer_alike, batch_view
from mmovseg.projects.codemae.losses import (
    ConditionedContrast,
    ContrastSpec,
    CrossReconstruction,
    CrossSpec,
    DistillationSpec,
    MaskedReconstruction,
    OpticalDistillation,
)
from mmovseg.projects.codemae.losses.silence import zero_of
from mmovseg.projects.codemae.modeling.blocks import init_weights, resize_positions, sincos_positions
from mmovseg.projects.codemae.modeling.decoder import DecoderSpec, LevelFusion, PatchDecoder
from mmovseg.projects.codemae.modeling.encoder import TOKENS, MaskedEncoder, Sensor, VisibleFeatures
from mmovseg.projects.codemae.modeling.masking import draw_visible, masked_units, visible_shares
from mmovseg.projects.codemae.modeling.reconstruct import items_of_sar, reconstruct_pairs

SENSORS: tuple[Sensor, ...] = ("optical", "sar")
FUSED = "fused"

_KEYS = {"optical": ("image", "valid"), "sar": ("sar", "sar_valid")}
_LOSSES = ("mae", "okd", "okd_aux", "ccl", "cdr")
_ROUNDING = 1e-6  # of the mean over a unit


class PerSensor(nn.ModuleDict):
    """One module for each sensor, where the method shares one among both."""


class CoDeMAE(nn.Module):
    r"""Pretrain an encoder on optical and SAR images, pairs and others.

        L = L_MAE + L_OKD + 1[paired] ( L_CCL + L_CDR )                                                   (paper Eq. 6)

    with all weights 1; L_OKD has two terms. The losses: `MaskedReconstruction`, `OpticalDistillation`,
    `ConditionedContrast`, `CrossReconstruction`. Without the last three it is a plain masked autoencoder of both.

    Every input holds an optical and a SAR image, and one mask serves both. The two need not show one place: inputs say
    so with `paired`, and a batch counts as paired if all of its inputs are. If not, the losses of pairs are exactly 0
    and so are their gradients, whatever the numbers are (`losses.silence`); their parameters still have gradients, for
    which other processes wait.

    Pixels without data (`valid`, `sar_valid`, not finite, padding) read as the mean of the training data. They are no
    target of any reconstruction, and units count in distillation and contrast by their share of pixels with data.

    In evaluation mode the answer is the features themselves, for `EncoderEvaluator`.

    Args:
        encoder: of both sensors.
        decoder: size of the pixel decoder and of the cross decoder.
        optical_norm, sar_norm: pixel constants, one set or one a source.
        cross: cross-modal reconstruction; None = without.
        distillation: from a frozen optical model; None = without.
        contrast: of the images of a pair; None = without.
        mask_ratio: share of units that are masked.
        share_encoder: one encoder for both sensors, but for the embeddings. False: one for each, which start alike; the
            parts are then called ``encoder.optical`` and ``encoder.sar``.
        share_decoder: one fusion of levels, decoder and cross decoder for both sensors. False: one for each.
        loss_weights: weight of ``mae``, ``okd``, ``okd_aux``, ``ccl`` and ``cdr``; a name left out has weight 1.
        features: levels that evaluation gives: ``tokens`` (last block), ``fused``, or levels of the encoder, whose
            sub-tokens are averaged.
        min_valid: least share of pixels with data of a unit that evaluation compares.
        input_contract: kept with the weights.

    Raises:
        UserError: the parts do not fit together, or an option is unknown or impossible.
    """

    decoder_positions: Tensor

    def __init__(
        self,
        *,
        encoder: MaskedEncoder,
        decoder: DecoderSpec,
        optical_norm: PixelNorm | SourceNorm,
        sar_norm: PixelNorm | SourceNorm,
        cross: CrossSpec | None = None,
        distillation: DistillationSpec | None = None,
        contrast: ContrastSpec | None = None,
        mask_ratio: float = 0.75,
        share_encoder: bool = True,
        share_decoder: bool = True,
        loss_weights: Mapping[str, float] | None = None,
        features: Sequence[str] = (TOKENS,),
        min_valid: float = 1.0,
        input_contract: InputContract | None = None,
    ) -> None:
        super().__init__()
        self.loss_weights = dict.fromkeys(_LOSSES, 1.0) | dict(loss_weights or {})
        levels = encoder.level_dims or {TOKENS: (1, encoder.dim)}
        _check(encoder, mask_ratio, self.loss_weights, features, (TOKENS, FUSED, *encoder.level_dims))
        self.mask_ratio, self.features, self.min_valid = float(mask_ratio), tuple(features), float(min_valid)
        self.unit_size, self.grid = encoder.unit_size, encoder.grid
        self.optical_norm, self.sar_norm = optical_norm, sar_norm
        channels = {sensor: cast(Any, encoder.embed[sensor]).in_chans for sensor in SENSORS}
        self.main_blocks = encoder.main_blocks
        self.encoder: nn.Module = encoder if share_encoder else _one_for_each(encoder)
        self.fuse = _build(lambda: LevelFusion(levels, dim=decoder.dim), shared=share_decoder)

        def build_decoder(num_values: int, sensors: Sequence[str]) -> nn.Module:
            def build() -> PatchDecoder:
                return PatchDecoder(decoder, num_values=num_values, num_levels=len(levels))

            return _build(build, shared=share_decoder, sensors=sensors)

        # The sensors may differ in channels; of what a shared decoder says, the first of every pixel are read.
        self.decoder = build_decoder(max(channels.values()) * encoder.unit_size**2, SENSORS)
        self.register_buffer("decoder_positions", sincos_positions(encoder.grid, decoder.dim))
        self.reconstruction = MaskedReconstruction(patch=encoder.unit_size)
        self.cross: nn.Module | None = None
        if cross is not None:
            self.cross_reconstruction = CrossReconstruction(cross, patch=encoder.unit_size, in_chans=channels)
            self.cross = build_decoder(self.cross_reconstruction.num_values, self.cross_reconstruction.sources)
        self.distillation = self.contrast = None
        if distillation is not None:
            self.distillation = OpticalDistillation(distillation, dim=decoder.dim, encoder_dim=encoder.dim)
            self.distillation.apply(init_weights)
            self.middle_block = encoder.main_blocks[int(distillation.middle * len(encoder.main_blocks))]
        if contrast is not None:
            self.contrast = ConditionedContrast(contrast, dim=decoder.dim)
            self.contrast.apply(init_weights)
        self.fuse.apply(init_weights)
        self.input_contract = input_contract.to_dict() if input_contract is not None else None

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Return the losses or, in evaluation mode, the features.

        Args:
            batched_inputs: training: with `image` and `sar` of one size, and `paired` (absent = True). Evaluation: with
                either or both.

        Returns:
            Training: ``loss_mae``, and of what is switched on ``loss_okd``, ``loss_okd_aux``, ``loss_ccl``,
            ``loss_cdr``, weighted; ``paired_share``: 1 if the batch counts as paired, else 0. Evaluation: one dict an
            image: ``student`` (level -> (C, h, w)) and ``student_global`` (level -> (C,), mean of the valid units) of
            SAR where there is SAR, else of optical; where there are both, ``teacher`` and ``teacher_global``: what the
            same encoder says of optical; ``patch_valid`` (h, w) bool and ``patch_size``, input pixels.

        Raises:
            UserError: a sensor is missing, the images of a pair differ in size, or those of a batch do once padded.
        """
        if self.training:
            return self._losses(batched_inputs)
        keys = tuple(key for key, _ in _KEYS.values())
        return answer_alike(batched_inputs, self._answers, keys=keys, multiple=self.unit_size)

    # ------------------------------------------------------------------ training

    def _losses(self, inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        views = self.views(inputs)
        for sensor in SENSORS:
            if sensor not in views:
                raise UserError(
                    f"pretraining needs the key '{_KEYS[sensor][0]}' in every input; it is missing in "
                    f"'{inputs[0].get('file_name')}'"
                )
        paired = all(item.get("paired", True) for item in inputs)
        if paired:
            _check_registered(inputs)
        images = {sensor: views[sensor].x for sensor in SENSORS}
        valid = {sensor: views[sensor].valid for sensor in SENSORS}
        grid = self.grid_of(images["optical"])
        keep = draw_visible(len(inputs), grid[0] * grid[1], self.mask_ratio).to(images["optical"].device)
        masked = masked_units(keep, grid[0] * grid[1])
        shares = tuple(visible_shares(valid[sensor], grid, keep) for sensor in SENSORS)
        features = self.encode(images, keep, with_middle=self.distillation is not None)
        fused = self.fuse_levels(features)

        losses = {"mae": self.reconstruction(self.decode(self.decoder, fused, keep, grid), images, masked, valid)}
        if self.distillation is not None:
            losses |= self._distil(inputs, features, fused, keep, grid, shares[0])
        if self.contrast is not None:
            optical, sar = fused.chunk(2)
            losses["ccl"] = self.contrast(optical, sar, shares=shares, paired=paired)
        if self.cross is not None:
            losses["cdr"] = self._cross(fused, keep, grid, images, masked, valid, paired=paired)
        share = torch.tensor(float(paired), device=fused.device)
        return {f"loss_{name}": self.loss_weights[name] * loss for name, loss in losses.items()} | {
            "paired_share": share
        }

    def _distil(
        self,
        inputs: Sequence[ModelInput],
        features: VisibleFeatures,
        fused: Tensor,
        keep: Tensor,
        grid: tuple[int, int],
        shares: Tensor | None,
    ) -> dict[str, Tensor]:
        assert self.distillation is not None
        teacher = self.distillation.teacher.to(fused.device)
        said = teacher.tokens(inputs, unit_size=self.unit_size, grid=grid)
        targets = said.gather(1, keep[..., None].expand(-1, -1, said.shape[2]))
        middle = None if features.middle is None else features.middle.chunk(2)[0]
        return self.distillation(fused.chunk(2)[0], middle, targets, shares)

    def _cross(
        self,
        fused: Tensor,
        keep: Tensor,
        grid: tuple[int, int],
        images: Mapping[str, Tensor],
        masked: Tensor,
        valid: Mapping[str, Tensor | None],
        *,
        paired: bool,
    ) -> Tensor:
        assert self.cross is not None
        predicted = self.decode_cross(fused, keep, grid) if paired else None
        loss = self.cross_reconstruction(predicted, images, masked, valid)
        return zero_of(self.cross.parameters()) if loss is None else loss

    # ------------------------------------------------------------------ parts

    def views(self, inputs: Sequence[ModelInput]) -> dict[Sensor, View]:
        """Batch and normalise the sensors that the inputs have."""
        found = {
            "optical": batch_view(inputs, *_KEYS["optical"], self.optical_norm, self.unit_size),
            "sar": batch_view(items_of_sar(inputs), *_KEYS["sar"], self.sar_norm, self.unit_size),
        }
        return {cast(Sensor, sensor): view for sensor, view in found.items() if view is not None}

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        """Units of images (N, C, H, W): (h, w)."""
        return images.shape[2] // self.unit_size, images.shape[3] // self.unit_size

    def encode(
        self, images: Mapping[Sensor, Tensor], keep: Tensor | None, *, with_middle: bool, with_levels: bool = True
    ) -> VisibleFeatures:
        """Encode images of the sensors given, the rows of one below those of the other.

        Args:
            images: (B, C, H, W) a sensor.
            keep: (B, V) visible units of all of them; None = all units.
            with_middle: also give what the auxiliary distillation reads.
            with_levels: compute the pyramid, which costs more than the rest where units are many.
        """
        options: dict[str, Any] = {"with_levels": with_levels}
        auxiliary = with_middle and self.distillation is not None and self.distillation.auxiliary
        options["middle_block"] = self.middle_block if auxiliary else None
        if not isinstance(self.encoder, PerSensor):
            rows = None if keep is None else keep.repeat(len(images), 1)
            return cast(MaskedEncoder, self.encoder).encode(images, keep=rows, **options)
        parts = [
            cast(MaskedEncoder, self.encoder[sensor]).encode({sensor: image}, keep=keep, **options)
            for sensor, image in images.items()
        ]
        return VisibleFeatures(
            levels={name: torch.cat([part.levels[name] for part in parts]) for name in parts[0].levels},
            tokens=torch.cat([part.tokens for part in parts]),
            middle=torch.cat([cast(Tensor, part.middle) for part in parts]) if auxiliary else None,
        )

    def fuse_levels(self, features: VisibleFeatures, sensors: Sequence[Sensor] = SENSORS) -> Tensor:
        """Return the fused tokens (N, V, D) of rows of these sensors, one below the other."""
        levels = list(features.levels.values()) or [features.tokens.unsqueeze(2)]
        if not isinstance(self.fuse, PerSensor):
            return cast(LevelFusion, self.fuse).fuse(levels)
        parts = zip(*(level.chunk(len(sensors)) for level in levels), strict=True)
        return torch.cat([cast(LevelFusion, self.fuse[s]).fuse(part) for s, part in zip(sensors, parts, strict=True)])

    def decode(
        self,
        decoder: nn.Module,
        fused: Tensor,
        keep: Tensor,
        grid: tuple[int, int],
        sensors: Sequence[str] = SENSORS,
    ) -> dict[str, Tensor]:
        """Predict all patches: (B, L, values) by the sensor whose rows they come from.

        Args:
            decoder: one for all sensors or `PerSensor`.
            fused: (len(sensors) * B, V, D).
            keep: (B, V).
            grid: (h, w) in units.
            sensors: of the rows.
        """
        positions = resize_positions(self.decoder_positions, self.grid, grid)
        if isinstance(decoder, PerSensor):
            rows = zip(sensors, fused.chunk(len(sensors)), strict=True)
            return {sensor: decoder[sensor](part, keep, positions) for sensor, part in rows}
        predicted = decoder(fused, keep.repeat(len(sensors), 1), positions)
        return dict(zip(sensors, predicted.chunk(len(sensors)), strict=True))

    def decode_cross(self, fused: Tensor, keep: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Predict the other sensor's patches from the rows (2B, V, D), by the sensor that they come from."""
        assert self.cross is not None
        sources = self.cross_reconstruction.sources
        return self.decode(self.cross, fused if len(sources) == 2 else fused.chunk(2)[1], keep, grid, sources)

    # ------------------------------------------------------------------ evaluation

    def _answers(self, inputs: Sequence[ModelInput]) -> list[dict[str, Any]]:
        views = self.views(inputs)
        if not views:
            raise UserError(f"'{inputs[0].get('file_name')}' has neither 'image' nor 'sar'")
        names = {"student": "sar" if "sar" in views else "optical"} | ({"teacher": "optical"} if len(views) > 1 else {})
        maps = {name: self._maps(cast(Sensor, sensor), views[cast(Sensor, sensor)].x) for name, sensor in names.items()}
        grid = next(iter(maps["student"].values())).shape[2:]
        valid = torch.ones(len(inputs), *grid, dtype=torch.bool, device=next(iter(maps["student"].values())).device)
        for view in views.values():
            if view.valid is not None:
                valid &= masked_mean_pool(view.valid, (grid[0], grid[1]))[:, 0] >= self.min_valid - _ROUNDING
        answers: list[dict[str, Any]] = [{"patch_valid": mask, "patch_size": self.unit_size} for mask in valid]
        weights = valid[:, None].float()
        for name, levels in maps.items():
            pooled = {
                level: (x * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp_min(1.0)
                for level, x in levels.items()
            }
            for index, answer in enumerate(answers):
                answer[name] = {level: x[index] for level, x in levels.items()}
                answer[f"{name}_global"] = {level: x[index] for level, x in pooled.items()}
        return answers

    def _maps(self, sensor: Sensor, images: Tensor) -> dict[str, Tensor]:
        """Level -> (B, C, h, w) of whole images of one sensor."""
        with_levels = any(name != TOKENS for name in self.features)
        features = self.encode({sensor: images}, None, with_middle=False, with_levels=with_levels)
        grid = self.grid_of(images)
        found = {TOKENS: features.tokens} | {name: level.mean(dim=2) for name, level in features.levels.items()}
        if FUSED in self.features:
            found[FUSED] = self.fuse_levels(features, (sensor,))
        return {name: found[name].transpose(1, 2).unflatten(2, grid) for name in self.features}

    @torch.no_grad()
    def reconstruct(self, inputs: Sequence[ModelInput], *, keep: Tensor | None = None) -> list[dict[str, Any]]:
        """Predict what is masked of both sensors, for looking at; see `reconstruct_pairs`."""
        return reconstruct_pairs(self, inputs, keep=keep)


def _build(build: Any, *, shared: bool, sensors: Sequence[str] = SENSORS) -> nn.Module:
    return build() if shared else PerSensor({sensor: build() for sensor in sensors})


def _one_for_each(encoder: MaskedEncoder) -> PerSensor:
    """Two copies of an encoder, each with the embedding of its own sensor alone."""
    encoders = PerSensor()
    for sensor in SENSORS:
        own = copy.deepcopy(encoder)
        for other in SENSORS:
            if other != sensor:
                del own.embed[other]
        own.sensor = sensor
        encoders[sensor] = own
    return encoders


def _check_registered(inputs: Sequence[ModelInput]) -> None:
    """Refuse pairs of unequal size; padding to whole units would hide it, and units would show different ground."""
    for item in inputs:
        optical, sar = (tuple(item[key].shape[-2:]) for key in ("image", "sar"))  # type: ignore[literal-required]
        if optical != sar:
            raise UserError(
                f"pair '{item.get('file_name')}' has an optical image of {optical[0]} x {optical[1]} px but a SAR "
                f"image of {sar[0]} x {sar[1]} px"
            )


def _check(
    encoder: MaskedEncoder,
    mask_ratio: float,
    weights: Mapping[str, float],
    features: Sequence[str],
    known_features: Sequence[str],
) -> None:
    missing = [sensor for sensor in SENSORS if sensor not in encoder.sensors]
    if missing:
        raise UserError(f"pretraining needs an encoder of both sensors; model.encoder.in_chans lacks '{missing[0]}'")
    if not 0.0 < mask_ratio < 1.0:
        raise UserError(f"model.mask_ratio is {mask_ratio} but must lie between 0 and 1")
    unknown = sorted(set(weights) - set(_LOSSES))
    if unknown:
        raise UserError(f"pretraining has no loss '{unknown[0]}'; it has: {', '.join(_LOSSES)}")
    odd = [name for name in features if name not in known_features]
    if odd or not features:
        raise UserError(f"model.features must be some of {', '.join(known_features)}, got {list(features)}")
