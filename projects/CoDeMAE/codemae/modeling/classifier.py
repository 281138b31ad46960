"""Classes of whole images from an encoder: a linear probe on frozen features, or fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.layers import trunc_normal_
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import Modality, ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.meta_arch.batching import batch_view

_RASTERS: dict[str, tuple[str, str]] = {"optical": ("image", "valid"), "sar": ("sar", "sar_valid")}
_INIT_STD = 0.01


@dataclass(frozen=True)
class Mixing:
    """Mixup and CutMix of timm, for images of one class each.

    mixup_alpha, cutmix_alpha: of the beta distributions, 0 = off. prob: that a batch is mixed. switch_prob: that it is
    CutMix when both are on.
    """

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5


class ClassifierHead(nn.Module):
    """Pooled features -> norm over channels, perhaps batch norm, linear layer.

    Args:
        in_features: of one sensor.
        num_sensors: whose features are normalised apart and put side by side.
        num_classes: K.
        learned_norm: whether the norm over channels has weights. A linear probe has none: they are not in the
            checkpoint, and nothing but the linear layer learns.
        batch_norm: standardise features by batch, without weights, before the linear layer. Several processes each take
            their share of the batch.
        init: distribution of the first weights, of deviation 0.01: ``normal`` (probe), ``truncated`` (fine-tuning).
        norm_eps: of both norms.
    """

    def __init__(
        self,
        in_features: int,
        *,
        num_sensors: int,
        num_classes: int,
        learned_norm: bool,
        batch_norm: bool,
        init: Literal["normal", "truncated"],
        norm_eps: float,
    ) -> None:
        super().__init__()
        width = in_features * num_sensors
        self.norm = nn.LayerNorm(in_features, eps=norm_eps, elementwise_affine=learned_norm)
        self.batch_norm = nn.BatchNorm1d(width, affine=False, eps=norm_eps) if batch_norm else None
        self.linear = nn.Linear(width, num_classes)
        if init == "normal":
            nn.init.normal_(self.linear.weight, std=_INIT_STD)
        else:
            trunc_normal_(self.linear.weight, std=_INIT_STD)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, sensors, C) pooled tokens -> (N, K) scores."""
        x = self.norm(features).flatten(1)
        if self.batch_norm is not None:
            if self.training and len(x) < 2:
                raise UserError("batch norm needs at least 2 images of a batch on every process, got 1")
            x = self.batch_norm(x)
        return self.linear(x)


class ImageClassifier(nn.Module):
    """Mean of an encoder's last tokens -> class scores, for optical, SAR, or both side by side.

    Source: the release of CoDe-MAE, linear probe and classification. There is no result for both sensors in the paper;
    here they are encoded by their own embeddings, normalised apart and concatenated.

    With `freeze_encoder` and `cache_features` the encoder runs once on every image that says which `view` it is, so
    that the epochs of a probe cost next to nothing. Other inputs, augmented ones, are encoded every time.

    Args:
        encoder: with `encode` (`codemae.modeling.hivit.HiViT`, `MaskedViT`).
        classes: names; position = label.
        sensor: what is read.
        optical_norm, sar_norm: pixel constants; needed for the sensors that are read.
        multi_label: an image can be of several classes: multi-label soft margin instead of cross-entropy.
        freeze_encoder: only the head learns; the encoder stays in evaluation mode.
        cache_features: see above.
        learned_norm, batch_norm, init: see `ClassifierHead`.
        label_smoothing: share of the target that goes to all classes alike.
        mixing: mixup and CutMix in training; None = off.
        erase_prob: chance that a rectangle of a training image becomes noise of unit deviation (timm's RandomErasing,
            mode "pixel"), after normalisation.
        norm_eps: of the norms of the head.
        input_contract: stored with the weights.

    Raises:
        UserError: unknown sensor, a norm is missing, no class, or options that exclude each other.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        classes: Sequence[str],
        sensor: Modality = "sar",
        optical_norm: PixelNorm | SourceNorm | None = None,
        sar_norm: PixelNorm | SourceNorm | None = None,
        multi_label: bool = False,
        freeze_encoder: bool = False,
        cache_features: bool = False,
        learned_norm: bool = True,
        batch_norm: bool = False,
        init: Literal["normal", "truncated"] = "truncated",
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        erase_prob: float = 0.0,
        norm_eps: float = 1e-6,
        input_contract: InputContract | None = None,
    ) -> None:
        super().__init__()
        norms = {"optical": optical_norm, "sar": sar_norm}
        if sensor not in get_args(Modality):
            raise UserError(f"unknown sensor '{sensor}'; known: {', '.join(get_args(Modality))}")
        self.sensors = ("optical", "sar") if sensor == "both" else (sensor,)
        for name in self.sensors:
            if norms[name] is None:
                raise UserError(f"a classifier of sensor '{sensor}' needs model.{name}_norm, which is null")
        if not classes:
            raise UserError("a classifier needs at least one class")
        soft = mixing is not None or label_smoothing > 0
        if multi_label and soft:
            raise UserError(
                "mixing and label smoothing are for images of one class; this classifier has multi_label=True"
            )
        if freeze_encoder and (mixing is not None or erase_prob > 0) and cache_features:
            raise UserError("cache_features needs images that stay as they are; switch off mixing and erase_prob")
        if not 0 <= erase_prob <= 1 or not 0 <= label_smoothing < 1:
            raise UserError(f"erase_prob {erase_prob} must lie in 0..1 and label_smoothing {label_smoothing} in 0..1")
        self.encoder, self.classes, self.multi_label = encoder, list(classes), multi_label
        self.norms = nn.ModuleDict({name: norms[name] for name in self.sensors})
        self.freeze_encoder, self.cache_features = freeze_encoder, cache_features and freeze_encoder
        self.label_smoothing, self.mixing = float(label_smoothing), mixing
        self.erase = RandomErasing(erase_prob, mode="pixel", device="cpu") if erase_prob > 0 else None
        self._features: dict[tuple[str, str, int], Tensor] = {}
        self.head = ClassifierHead(
            int(encoder.dim),  # type: ignore[arg-type]
            num_sensors=len(self.sensors),
            num_classes=len(self.classes),
            learned_norm=learned_norm,
            batch_norm=batch_norm,
            init=init,
            norm_eps=norm_eps,
        )
        self.input_contract = input_contract.to_dict() if input_contract is not None else None
        if freeze_encoder:
            encoder.requires_grad_(False)
            encoder.eval()
        _freeze_unused(encoder, self.sensors)
        self.register_load_state_dict_post_hook(lambda module, _: module._features.clear())

    def train(self, mode: bool = True) -> ImageClassifier:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Learn or classify.

        Args:
            batched_inputs: with the rasters of `sensor` and, in training, `label`.

        Returns:
            Training: ``{"loss_classification": 0-d}``. Otherwise one dict an image: `class_scores` (K,).

        Raises:
            UserError: a raster is missing, or a label is missing or none of the classes.
        """
        if not self.training:
            return [{"class_scores": row} for row in self.head(self._features_of(batched_inputs)).float()]
        targets = self._targets(batched_inputs)
        if self.erase is None and self.mixing is None:
            features = self._features_of(batched_inputs)
        else:
            images, targets = self._augment(self._images(batched_inputs), targets)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
                features = self._pool(images)
        return {"loss_classification": self._loss(self.head(features), targets)}

    # ------------------------------------------------------------------ features

    def _images(self, inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """Return normalised, padded images (N, C, H, W) of each sensor."""
        images = {}
        for name in self.sensors:
            key, valid = _RASTERS[name]
            norm: Any = self.norms[name]
            view = batch_view(inputs, key, valid, norm, int(self.encoder.unit_size))  # type: ignore[arg-type]
            if view is None:
                raise UserError(
                    f"the classifier reads '{key}', which is missing in '{inputs[0].get('file_name', '?')}'; "
                    "sensor and modality of the data must agree"
                )
            sizes = {tuple(item[key].shape[-2:]) for item in inputs}  # type: ignore[literal-required]
            if len(sizes) > 1:
                raise UserError(
                    f"the images of a batch differ in size, {min(sizes)} and {max(sizes)} pixels; resize them first"
                )
            images[name] = view.x
        return images

    def _pool(self, images: dict[str, Tensor]) -> Tensor:
        """(N, sensors, C): the mean over all tokens of the last block."""
        tokens = self.encoder.encode(images, with_levels=False).tokens  # type: ignore[operator]
        rows = tokens.mean(dim=1)
        return torch.stack(rows.chunk(len(self.sensors)), dim=1)

    def _features_of(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Return features (N, sensors, C), those that are known from memory."""
        if not self.freeze_encoder:
            return self._pool(self._images(inputs))
        names = [_view_of(item) if self.cache_features else None for item in inputs]
        new = [index for index, name in enumerate(names) if name is None or name not in self._features]
        rows: dict[int, Tensor] = {}
        if new:
            with torch.no_grad():
                fresh = self._pool(self._images([inputs[index] for index in new]))
            rows = dict(zip(new, fresh, strict=True))
            self._features.update({name: rows[i] for i in new if (name := names[i]) is not None})
        rows |= {i: self._features[name] for i, name in enumerate(names) if i not in rows and name is not None}
        return torch.stack([rows[index] for index in range(len(inputs))])

    # ------------------------------------------------------------------ learning

    def _targets(self, inputs: Sequence[ModelInput]) -> Tensor:
        """Return (N,) int64, or (N, K) float32 of 0 and 1."""
        count, rows = len(self.classes), []
        for item in inputs:
            name = item.get("file_name", "?")
            if "label" not in item:
                raise UserError(f"training needs a label, and '{name}' has none")
            label = item["label"]
            if self.multi_label and tuple(label.shape) != (count,):
                raise UserError(
                    f"the label of '{name}' has the shape {tuple(label.shape)}, not one number for {count} classes"
                )
            if not self.multi_label and (label.ndim or not 0 <= int(label) < count):
                raise UserError(
                    f"the label of '{name}' is {label.tolist()}, not one of the {count} classes 0..{count - 1}"
                )
            rows.append(label)
        return torch.stack(rows).to(self.head.linear.weight.device)

    def _augment(self, images: dict[str, Tensor], targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Erase and mix; both sensors of an image alike, so they go through as channels of one image."""
        widths = [image.shape[1] for image in images.values()]
        if len({image.shape[-2:] for image in images.values()}) > 1:
            raise UserError("mixing and erasing need optical and SAR images of one size")
        stack = torch.cat(list(images.values()), dim=1)
        if self.erase is not None:
            self.erase.device = stack.device
            stack = self.erase(stack)
        if self.mixing is not None:
            if len(stack) % 2:
                raise UserError(f"mixing needs an even number of images a batch, got {len(stack)}")
            mix = Mixup(
                mixup_alpha=self.mixing.mixup_alpha,
                cutmix_alpha=self.mixing.cutmix_alpha,
                prob=self.mixing.prob,
                switch_prob=self.mixing.switch_prob,
                label_smoothing=self.label_smoothing,
                num_classes=len(self.classes),
            )
            stack, targets = mix(stack, targets)
        return dict(zip(images, stack.split(widths, dim=1), strict=True)), targets

    def _loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        if self.multi_label:
            return F.multilabel_soft_margin_loss(scores.float(), targets)
        # mixed targets are smoothed already
        smoothing = 0.0 if targets.is_floating_point() else self.label_smoothing
        return F.cross_entropy(scores.float(), targets, label_smoothing=smoothing)


def _freeze_unused(encoder: nn.Module, sensors: Sequence[str]) -> None:
    """Freeze the embeddings of other sensors and the pyramid: they get no gradient, for which DDP would wait."""
    for name, embedding in encoder.embed.items():  # type: ignore[operator, union-attr]
        if name not in sensors:
            embedding.requires_grad_(False)
    pyramid = getattr(encoder, "pyramid", None)
    if pyramid is not None:
        pyramid.requires_grad_(False)


def _view_of(item: ModelInput) -> tuple[str, str, int] | None:
    """Return what an image that is shown in one way is called, None for others."""
    if "view" not in item:
        return None
    return str(item.get("image_id", "")), str(item.get("file_name", "")), int(item["view"])
