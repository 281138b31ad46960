"""MM-OVSeg: open-vocabulary segmentation of optical and SAR images (paper Sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.checkpoint.encoder_contract import check_encoder_contract
from mmovseg.data.sample import MODALITIES, Modality, ModelInput, Prediction
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.layers.conv import resize, weigh_by_share
from mmovseg.layers.norm import PixelNorm, SourceNorm, same_constants
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder, trainable_elements
from mmovseg.modeling.fusion import DualEncoderFusionHead, FusionHead, SARText, build_head
from mmovseg.modeling.meta_arch.auxiliary import auxiliary_losses
from mmovseg.modeling.meta_arch.batching import (
    RASTER_KEYS,
    View,
    answer_alike,
    batch_labels,
    batch_view,
    seen_by_any,
    shared_vocabulary,
    without_blank,
)
from mmovseg.modeling.meta_arch.sar_text import SARTextEncoder

ClipInput = Literal["optical", "sar"]
_MAPS_AT_ONCE = 16  # when scores are resized twice


@META_ARCH_REGISTRY.register()
class MMOVSeg(nn.Module):
    """CLIP for meaning, two dense encoders for detail, text for the classes; optical, SAR or both.

    One documented branch for an absent modality: a modality whose key is missing from the inputs, or that `modality`
    switches off, contributes nothing to f_d, and without optical input the dense similarity stands in for CLIP's
    (see `DualEncoderFusionHead` and `CostAggregationHead`). The same holds place by place where the pixels of a
    modality hold no data (`valid`, `sar_valid`, NaN): an image without any gives the scores of an absent one. A key may
    be missing from a part of a batch: at test those inputs are scored apart, in training their raster is blank.

    Args:
        clip: image and text encoder.
        clip_input: which raster `clip` reads, ``optical`` (the paper) or ``sar``, for a CLIP that learned SAR from
            captions. `clip_norm` and `clip_bands` are then of that raster: (0, 0, 0) gives the first SAR band as grey.
            With ``sar`` an absent SAR image is to CLIP what an absent optical image is otherwise.
        optical_encoder, sar_encoder: dense encoders with the same taps, or None to do without.
        clip_sar_encoder: CLIP's visual tower for SAR, in the form of a timm encoder that taps its last block; None, the
            default and the paper's model, lets SAR do without CLIP. Its tokens through CLIP's visual projection are
            z_sar, which is added to z_rgb before the comparison with the text (appendix E, models 2 and 4). The
            paper does not say how the two are joined; a sum is how f_d joins them. It reads what `sar_norm` gives.
        sar_text: a second CLIP, one that learned SAR from captions. Its similarity of SAR to the class names becomes a
            third map of the fusion (see `DualEncoderFusionHead`), here called h_st. None, the default, changes nothing.
            The weights it adds to the head start at 0: with `train.init_allow_missing` for ``sar_text.*`` and
            ``head.fusions.*.fuse_sar_text`` a checkpoint without it goes on from its own scores. In MM-OVSeg XS that is
            3,136 weights to train, and a step takes no longer than steps differ by themselves.
        head: ``name`` (``paper``, the default, or ``released``) and keyword arguments of `DualEncoderFusionHead` or
            `CostAggregationHead` beyond the shapes, which come from the encoders. The head also decides the loss and
            what scores are: logits (``paper``) or sigmoid probabilities (``released``).
        clip_norm, optical_norm, sar_norm: pixel constants for CLIP's and the dense encoders' inputs, raster units. The
            dense encoders' may be by source; `input_contract` is then that of `contract_of_sources`.
        clip_bands: which channels of its raster CLIP reads (0-based, in this order) when there are more than the three
            of a photo, for example two dates stacked; None = all. `clip_norm` then has the constants of these
            channels, `optical_norm` and `optical_encoder` read all of them.
        modality: which modalities to use when the input has both.
        clip_grid_stride: pixels of network input a CLIP patch stands for. CLIP's input is resized so that its patches
            form the
            grid of this stride: 16 for a ViT-L/14 beside dense ViT-L/16 encoders (384 px -> 336 px, as in the release).
        network_size: resize the padded input to this side in pixels for all encoders, whatever its shape, as the
            release does with 384; None = encoders read the input at its own size.
        pad_multiple: inputs are padded at the bottom and right to a multiple of this (release: 32); None = the
            coarsest stride or patch.
        init_projection_from_clip: start the coarsest sigma from CLIP's own visual projection. Right when the dense
            encoders start from CLIP's tower (XS); the paper starts all new weights at random.
        input_contract: what the rasters must be like; stored in checkpoints. An encoder whose weights are a file with a
            contract of its own must agree with it, see `check_encoder_contract`.

    Raises:
        UserError: unknown modality, `clip_input` or head, a modality without an encoder, an encoder for other inputs, a
            `clip_sar_encoder` that is no such tower, it or a `sar_text` beside the head ``released``, `clip_bands` or
            `clip_input` ``sar`` without an `optical_norm`, or a `network_size` or `pad_multiple` that strides and
            patches do not divide.
    """

    @configurable
    def __init__(
        self,
        *,
        clip: OpenCLIPEncoder,
        optical_encoder: TimmEncoder | None,
        sar_encoder: TimmEncoder | None,
        clip_sar_encoder: TimmEncoder | None = None,
        sar_text: SARTextEncoder | None = None,
        head: dict[str, Any],
        clip_norm: PixelNorm,
        optical_norm: PixelNorm | SourceNorm | None = None,
        sar_norm: PixelNorm | SourceNorm | None = None,
        clip_bands: Sequence[int] | None = None,
        clip_input: ClipInput = "optical",
        modality: Modality = "both",
        clip_grid_stride: int | None = None,
        network_size: int | None = None,
        pad_multiple: int | None = None,
        init_projection_from_clip: bool = False,
        input_contract: InputContract | None = None,
    ) -> None:
        super().__init__()
        needs_norm = sar_encoder is not None or clip_sar_encoder is not None
        _check_modality(modality, has_sar=needs_norm or clip_input == "sar")
        if needs_norm != (sar_norm is not None):
            raise UserError("a sar_encoder and its sar_norm come together, only one of them is given")
        self.clip, self.optical_encoder, self.sar_encoder = clip, optical_encoder, sar_encoder
        self.clip_sar_encoder, self.sar_text = clip_sar_encoder, sar_text
        self.clip_norm, self.optical_norm, self.sar_norm = clip_norm, optical_norm, sar_norm
        self.modality: Modality = modality
        self.clip_input: ClipInput = clip_input
        self._check_clip_input()
        if clip_bands is not None and optical_encoder is not None and optical_norm is None:
            raise UserError("clip_bands needs an optical_norm: the optical encoder reads all channels, CLIP only some")
        self.clip_bands = tuple(int(band) for band in clip_bands) if clip_bands is not None else None
        # Otherwise both read one and the same normalised image.
        self._dense_reads_apart = optical_norm is not None and (
            clip_bands is not None or clip_input == "sar" or not same_constants(optical_norm, clip_norm)
        )
        self.clip_grid_stride = clip_grid_stride or clip.patch_size
        self.input_contract = input_contract.to_dict() if input_contract is not None else None
        self._check_contracts(input_contract)
        dense = optical_encoder if optical_encoder is not None else sar_encoder
        sees = modality in ("both", clip_input)
        self.head = self._build_head(head, dense, use_clip_guidance=sees)
        if clip_sar_encoder is not None:
            _check_clip_sar(clip_sar_encoder, clip, self.head)
        if not sees:
            clip.freeze_visual()
        self.stride = max(self.head.strides)
        smallest = max([self.stride, self.clip_grid_stride, *(e.patch_size for e in (dense,) if e is not None)])
        _check_multiples(smallest, network_size=network_size, pad_multiple=pad_multiple)
        self.network_size, self.multiple = network_size, pad_multiple or smallest
        if init_projection_from_clip:
            self._copy_clip_projection()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translate a yacs config, see `mmovseg.modeling.yacs`."""
        from mmovseg.modeling.yacs import mmovseg_arguments  # that module imports the encoders, as this one does

        return mmovseg_arguments(cfg)

    def _build_head(
        self, arguments: Mapping[str, Any], dense: TimmEncoder | None, *, use_clip_guidance: bool
    ) -> FusionHead:
        """Build the head over the encoders there are; `dense` stands for both dense ones, which have equal taps."""
        if self.sar_text is not None:
            _check_sar_text(arguments, self.modality)
            arguments = {**arguments, "sar_text": True}
        encoders = (("optical", self.optical_encoder), ("sar", self.sar_encoder))
        shape = ShapeSpec(channels=self.clip.visual_width, stride=self.clip_grid_stride)
        return build_head(
            arguments,
            dense.output_shape() if dense is not None else None,
            {f"block{tap}": shape for tap in self.clip.taps},
            embed_dim=self.clip.embed_dim,
            modalities=[name for name, part in encoders if part is not None],
            use_clip_guidance=use_clip_guidance,
        )

    def _check_contracts(self, own: InputContract | None) -> None:
        for role in ("optical_encoder", "sar_encoder", "clip_sar_encoder"):
            encoder: TimmEncoder | None = getattr(self, role)
            if encoder is not None:
                modality: Literal["optical", "sar"] = "optical" if role == "optical_encoder" else "sar"
                check_encoder_contract(encoder.weights, own, role=role, modality=modality)
        own_norms: list[tuple[str, OpenCLIPEncoder, Sequence[int] | None]] = []
        if self.clip_input == "sar":
            own_norms.append(("clip", self.clip, self.clip_bands))
        if self.sar_text is not None:
            own_norms.append(("sar_text", self.sar_text.clip, self.sar_text.bands))
        for role, clip, bands in own_norms:
            check_encoder_contract(clip.weights_file, own, role=role, modality="sar", bands=bands, has_own_norm=True)

    def _check_clip_input(self) -> None:
        if self.clip_input not in get_args(ClipInput):
            raise UserError(f"clip_input must be optical or sar, got '{self.clip_input}'")
        if self.clip_input == "optical":
            return
        if self.optical_encoder is not None and self.optical_norm is None:
            raise UserError("clip_input 'sar' needs an optical_norm: clip_norm is of the SAR that CLIP reads")
        if self.clip_sar_encoder is not None:
            raise UserError("clip_input 'sar' and a clip_sar_encoder exclude each other: CLIP reads the SAR itself")
        if self.modality == "optical" and self.optical_encoder is None:
            raise UserError("modality 'optical' needs an optical_encoder where clip_input is 'sar'")

    def _copy_clip_projection(self) -> None:
        """Let every sigma start as CLIP's visual projection, the same at each place of its kernel."""
        if self.head.dense is None or not isinstance(self.head, DualEncoderFusionHead):
            raise UserError("init_projection_from_clip needs the head 'paper' and dense encoders")
        projection = self.clip.model.visual.proj  # (C, D)
        for levels in self.head.dense.projections.values():
            for layer in levels.values():
                with torch.no_grad():
                    if isinstance(layer, nn.ConvTranspose2d):  # (C, D, k, k): each output pixel sees one input pixel
                        layer.weight.copy_(projection[:, :, None, None].expand_as(layer.weight))
                    else:  # (D, C, k, k): the mean over the kernel
                        layer.weight.copy_(projection.T[:, :, None, None].expand_as(layer.weight))
                        layer.weight.div_(layer.weight[0, 0].numel())
                    layer.bias.zero_()

    @property
    def device(self) -> torch.device:
        return self.clip_norm.mean.device

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Train or predict.

        Args:
            batched_inputs: see `mmovseg.data.sample.ModelInput`; any batch size, sizes may differ.

        Returns:
            Training: ``{"loss_sem_seg": 0-d}``, and what `auxiliary_losses` finds in the encoders. Otherwise one dict
            an image: ``sem_seg`` (K, height, width) float32 scores in the order of the vocabulary asked for. Head
            ``paper``: logits, softmax over K gives probabilities. Head ``released``: the probability of each class by
            itself. The largest wins in both.
        """
        if not self.training:
            shared_vocabulary(batched_inputs)
            return answer_alike(batched_inputs, self._predict, keys=RASTER_KEYS[self.modality], multiple=self.multiple)
        logits, size = self._logits(batched_inputs)
        target = batch_labels(batched_inputs, self.device)
        # Labels cover the unpadded image, logits the padded one.
        logits = resize(logits.float(), size)[..., : target.shape[-2], : target.shape[-1]]
        encoders = (self.optical_encoder, self.sar_encoder, self.clip_sar_encoder)
        return {"loss_sem_seg": self.head.loss(logits, target), **auxiliary_losses(*encoders)}

    def _predict(self, inputs: Sequence[ModelInput]) -> list[Prediction]:
        scores, size = self.raw_scores(inputs)
        return [self._postprocess(maps, item, size) for maps, item in zip(scores, inputs, strict=True)]

    def raw_scores(self, batched_inputs: Sequence[ModelInput]) -> tuple[Tensor, tuple[int, int]]:
        """Scores on the head's own grid, for callers that resample or blend themselves.

        Args:
            batched_inputs: as for `forward`, but of one size and with the same modalities, or what an image is given
                depends on the others: all are padded to the largest.

        Returns:
            (N, K, h, w) float32 scores as `forward` gives them, and the (height, width) in pixels that they cover: the
            batch's largest image, padded at the bottom and right.
        """
        logits, size = self._logits(batched_inputs)
        return self.head.to_scores(logits.float()), size

    @torch.no_grad()
    def explain(self, batched_inputs: Sequence[ModelInput]) -> list[dict[str, Tensor]]:
        """Return the stages of the fusion for each image, for pictures as in Fig. 5.

        Returns:
            One dict an image: ``global_similarity``, ``dense_similarity``, with `sar_text` and SAR also
            ``sar_text_similarity`` (cosines), ``fused`` (h_fuse, its channels weighed by `SimilarityFusion.match`),
            with the head ``released`` ``aggregated`` (mean over channels after all attention), ``scores`` (logits),
            each (K, h, w) on its own grid.
        """
        was_training = self.training
        self.eval()
        found = answer_alike(batched_inputs, self._explain, keys=RASTER_KEYS[self.modality], multiple=self.multiple)
        self.train(was_training)
        return found

    def _explain(self, inputs: Sequence[ModelInput]) -> list[dict[str, Tensor]]:
        stages: dict[str, Tensor] = {}
        self._logits(inputs, stages)
        return [{name: value[index].float().cpu() for name, value in stages.items()} for index in range(len(inputs))]

    def _views(self, inputs: Sequence[ModelInput]) -> tuple[View | None, View | None, View | None]:
        """Batch CLIP's raster, optical for the dense encoder, and SAR, according to `modality` and what is there."""
        use_optical, use_sar = self.modality != "sar", self.modality != "optical"
        self._check_rasters(inputs)
        # In training a modality that a part of the batch lacks is blank there, which gives the scores of an absent one.
        view = partial(
            batch_view,
            inputs,
            multiple=self.multiple,
            padding_is_data=self.head.padding_is_data,
            blank_where_absent=True,
        )
        of_sar = self.clip_input == "sar"
        keys = ("sar", "sar_valid") if of_sar else ("image", "valid")
        use_clip = use_sar if of_sar else use_optical
        for_clip = view(*keys, self.clip_norm, bands=self.clip_bands) if use_clip else None
        for_dense = None if of_sar else for_clip
        if use_optical and self.optical_encoder is not None and self._dense_reads_apart:
            assert self.optical_norm is not None
            for_dense = view("image", "valid", self.optical_norm)
        sar = view("sar", "sar_valid", self.sar_norm) if use_sar and self.sar_norm is not None else None
        _check_sizes(for_dense if of_sar else for_clip, for_clip if of_sar and sar is None else sar, inputs)
        # While training every weight must get a gradient, which a group of processes waits for.
        if self.training:
            return for_clip, for_dense, sar
        for_clip, for_dense, sar = without_blank(for_clip, for_dense, sar)
        return for_clip, for_dense, sar

    def _check_rasters(self, inputs: Sequence[ModelInput]) -> None:
        """Raise `UserError` unless every input has a raster that is read for more than `sar_text`."""
        of_sar = self.clip_input == "sar"
        optical = not of_sar or self.optical_encoder is not None
        read = {"image": optical, "sar": of_sar or self.sar_norm is not None}
        keys = [key for key in RASTER_KEYS[self.modality] if read[key]]
        for item in inputs:
            if not any(key in item for key in keys):
                wanted = "neither 'image' nor 'sar'" if optical else "no 'sar'"
                raise UserError(f"modality '{self.modality}' finds {wanted} in the input '{_name([item])}'")

    def _logits(
        self, inputs: Sequence[ModelInput], explain: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        vocabulary = shared_vocabulary(inputs)
        for_clip, for_dense, sar = self._views(inputs)
        # plain numbers also under a tracer, for example the one that counts operations
        height, width = map(int, (for_clip or for_dense or sar).x.shape[-2:])  # type: ignore[union-attr]
        grid = (self.network_size, self.network_size) if self.network_size is not None else (height, width)
        encoders = {"optical": (self.optical_encoder, for_dense), "sar": (self.sar_encoder, sar)}
        read = {name: (part, view) for name, (part, view) in encoders.items() if part is not None and view is not None}
        dense = {name: part(resize(view.x, grid)) for name, (part, view) in read.items()}
        valid = {name: view.valid for name, (_, view) in read.items()}
        scale = self.clip.patch_size / self.clip_grid_stride
        clip_size = round(grid[0] * scale), round(grid[1] * scale)
        clip = self.clip.encode_image(resize(for_clip.x, clip_size)) if for_clip is not None else None
        text = self.clip.encode_vocabulary(vocabulary)
        extra = {"z_sar": self._encode_clip_sar(sar, clip_size)} if self.clip_sar_encoder is not None else {}
        extra["clip_sees"] = for_clip.seen if for_clip is not None else None
        extra["dense_see"] = seen_by_any([view for _, view in read.values()])
        if self.sar_text is not None:
            extra["sar_text"] = self._encode_sar_text(inputs, (for_clip or for_dense or sar), vocabulary, grid)
        logits = self.head(text, clip, dense, valid, grid=grid, explain=explain, **extra)
        return logits, (height, width)

    def _encode_sar_text(
        self, inputs: Sequence[ModelInput], other: View | None, vocabulary: Vocabulary, grid: tuple[int, int]
    ) -> SARText | None:
        """Return what h_st is made of, None without SAR or, at inference, where it is all blank."""
        assert self.sar_text is not None
        view = self.sar_text.view(inputs, multiple=self.multiple) if self.modality != "optical" else None
        if view is None or (not self.training and view.seen is not None and not bool(view.seen.any())):
            return None
        _check_sizes(other, view, inputs)
        return self.sar_text(view, vocabulary, grid)

    def _encode_clip_sar(self, sar: View | None, size: tuple[int, int]) -> Tensor | None:
        """Return z_sar, (N, D, h, w) on the grid of CLIP's dense map, weighted by the share of pixels with data.

        The tower's last tokens went through its final norm, as CLIP's did, so that CLIP's projection fits them. Without
        SAR, or without a tower for it, None.
        """
        encoder = self.clip_sar_encoder
        if encoder is None or sar is None:
            return None
        tokens = encoder(resize(sar.x, size))[f"block{len(encoder.model.blocks)}"]
        return weigh_by_share(torch.einsum("nchw,cd->ndhw", tokens, self.clip.model.visual.proj), sar.valid)

    def _postprocess(self, scores: Tensor, item: ModelInput, padded: tuple[int, int]) -> Prediction:
        """Resize to the padded input, cut the padding off, resize to the original raster.

        With `resize_once` of the head and nothing to cut off, the first step is left out.
        """
        height, width = _image_size(item)
        final = (item.get("height", height), item.get("width", width))
        once = self.head.resize_once and (height, width) == padded

        def finish(maps: Tensor) -> Tensor:
            maps = maps[None] if once else resize(maps[None], padded)[..., :height, :width]
            return resize(maps, final)[0]

        if once or final == (height, width):  # one resize at most
            return {"sem_seg": finish(scores)}
        whole = scores.new_empty(len(scores), *final)
        for start in range(0, len(scores), _MAPS_AT_ONCE):  # never all classes at full size twice
            whole[start : start + _MAPS_AT_ONCE] = finish(scores[start : start + _MAPS_AT_ONCE])
        return {"sem_seg": whole}

    def count_parameters(self) -> dict[str, tuple[int, int]]:
        """Return (all, trainable) parameter counts by part, and their ``total``."""
        parts = {
            "clip": self.clip,
            "optical_encoder": self.optical_encoder,
            "sar_encoder": self.sar_encoder,
            "clip_sar_encoder": self.clip_sar_encoder,
            "sar_text": self.sar_text,
            "head": self.head,
        }
        counts = {
            name: (sum(p.numel() for p in part.parameters()), sum(trainable_elements(p) for p in part.parameters()))
            for name, part in parts.items()
            if part is not None
        }
        counts["total"] = (sum(a for a, _ in counts.values()), sum(b for _, b in counts.values()))
        return counts


def _image_size(item: ModelInput) -> tuple[int, int]:
    height, width = (item["image"] if "image" in item else item["sar"]).shape[-2:]
    return height, width


def _name(inputs: Sequence[ModelInput]) -> str:
    return str(inputs[0].get("file_name", "?"))


def _check_sizes(optical: View | None, sar: View | None, inputs: Sequence[ModelInput]) -> None:
    if optical is not None and sar is not None and optical.x.shape[-2:] != sar.x.shape[-2:]:
        sizes = tuple(optical.x.shape[-2:]), tuple(sar.x.shape[-2:])
        raise UserError(f"optical and SAR differ in size in '{_name(inputs)}': {sizes[0]} against {sizes[1]} pixels")


def _check_sar_text(head: Mapping[str, Any], modality: str) -> None:
    if head.get("name", "paper") != "paper":
        raise UserError("sar_text needs the head 'paper'; the release fuses two maps")
    if modality == "optical":
        raise UserError("sar_text reads SAR, which modality 'optical' leaves out")


def _check_modality(modality: str, *, has_sar: bool) -> None:
    if modality not in MODALITIES:
        raise UserError(f"modality must be one of {', '.join(MODALITIES)}, got '{modality}'")
    if modality == "sar" and not has_sar:
        raise UserError("modality 'sar' needs a sar_encoder")


def _check_multiples(smallest: int, **sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and (size <= 0 or size % smallest):
            raise UserError(f"{name} must be a multiple of {smallest}, the coarsest stride, got {size}")


def _check_clip_sar(encoder: TimmEncoder, clip: OpenCLIPEncoder, head: nn.Module) -> None:
    if not isinstance(head, DualEncoderFusionHead):
        raise UserError("a clip_sar_encoder needs the head 'paper'; the release has no place for it")
    depth = len(encoder.model.blocks)
    if depth not in encoder.taps:
        raise UserError(f"clip_sar_encoder must tap its last block, {depth}; it taps {encoder.taps}")
    width = int(encoder.model.embed_dim)
    if (encoder.patch_size, width) != (clip.patch_size, clip.visual_width):
        raise UserError(
            f"clip_sar_encoder must have the patch size and width of CLIP's tower, ({clip.patch_size}, "
            f"{clip.visual_width}), got ({encoder.patch_size}, {width})"
        )
