"""Dual-encoder fusion (DEF) head of the paper: similarities to text, fused level by level, decoded class by class.

Shapes: N images, K classes, D text dimension, C_i embedding channels of level i, h_i w_i its grid. Per-class maps are
    kept as
(N*K, C, h, w) with the classes of one image next to each other; no operation mixes classes, so scores permute with
the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from mmovseg.layers.conv import (
    GuidedDoubleConv,
    WideConv2d,
    join_guidance,
    masked_mean_pool,
    resize,
    stride_adapter,
    weigh_by_share,
)
from mmovseg.modeling.fusion.dense import DenseFusion
from mmovseg.modeling.fusion.passes import plan_passes
from mmovseg.modeling.losses import pixel_cross_entropy


class SimilarityFusion(nn.Module):
    """h_fuse = phi(conv7([h_dt; h_gt])) + h_gt with h_dt, h_gt = phi(conv7(similarity)), phi = sigmoid (Sec. 3.2.3).

    With a text-aligned similarity of SAR, h_st, the concatenation is [h_dt; h_gt; h_st]. The convolution of a
    concatenation is a sum, and the part of h_st is one 7x7 convolution of the cosines themselves:
    h_fuse = phi(conv7([h_dt; h_gt]) + conv7(h_st)) + h_gt. It costs 1 / (2 C_i) of the convolution beside it, where an
    embedding of its own would cost half of it, and it starts at 0: the fusion begins as the one without h_st.

    Args:
        channels: C_i.
        scale: cosines are multiplied by this first. 1 is the paper; a larger value spreads the sigmoids of small
            models that have only hundreds of steps to learn the 7x7 filters' gain.
        sar_text: whether there is an h_st.
    """

    def __init__(self, channels: int, *, scale: float = 1.0, sar_text: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.embed_dense = nn.Conv2d(1, channels, 7, padding=3)
        self.embed_global = nn.Conv2d(1, channels, 7, padding=3)
        self.fuse = WideConv2d(2 * channels, channels, 7, padding=3)
        self.fuse_sar_text = nn.Parameter(torch.zeros(channels, 1, 7, 7)) if sar_text else None

    def forward(self, dense: Tensor, globally: Tensor, sar_text: Tensor | None = None) -> Tensor:
        """Fuse two or three (N*K, 1, h, w) cosine maps in [-1, 1] into (N*K, C, h, w) in (0, 2)."""
        # One convolution for both, with zeros where a map must not see the other, gives them side by side at once.
        weights = self.embed_dense.weight * self.scale, self.embed_global.weight * self.scale
        weight = torch.cat([F.pad(weights[0], (0, 0, 0, 0, 0, 1)), F.pad(weights[1], (0, 0, 0, 0, 1, 0))])
        bias = torch.cat([self.embed_dense.bias, self.embed_global.bias])
        both = F.conv2d(torch.cat([dense, globally], dim=1), weight, bias, padding=3).sigmoid_()
        fused = self.fuse(both)
        if self.fuse_sar_text is not None and sar_text is not None:
            fused = fused + F.conv2d(sar_text, self.fuse_sar_text * self.scale, padding=3)
        return fused.sigmoid_() + both[:, len(weights[0]) :]

    def match(self, fused: Tensor) -> Tensor:
        """Read h_fuse as one map, for pictures: (..., C, h, w) -> (..., h, w), higher where the match is better.

        Training leaves some channels rising and others falling with the match, so their mean can show the reverse. Each
        is weighed by its change from the worst match everywhere, both cosines -1, to the best, both 1.
        """
        side = 13  # what two 7x7 kernels see
        ends = fused.new_tensor([-1.0, 1.0])[:, None, None, None].expand(-1, 1, side, side)
        worst, best = self(ends, ends, ends)[:, :, side // 2, side // 2]
        weights = best - worst
        return torch.einsum("...chw,c->...hw", fused, weights) / weights.abs().sum().clamp_min(1e-12)


@dataclass
class _Compared:
    """A map that is compared with the names.

    Products with the names are weighted, not the map brought to unit length: the same cosines, and a map of one channel
    a name to write instead of D.

    Attributes:
        feature: (N, D, h, w).
        weight: (N, 1, h, w), one over the length of the feature, times `share`.
        share: (N, 1, h, w) in [0, 1], how much of a cell the map speaks for; None = for all of it.
    """

    feature: Tensor
    weight: Tensor
    share: Tensor | None

    @classmethod
    def make(cls, feature: Tensor, seen: Tensor | None = None) -> _Compared:
        """Weigh a map; `seen` (N, 1, H, W) bool tells where it has something to say."""
        # in half precision the least length would be 0, and the blank of a map not a number
        dtype = torch.promote_types(feature.dtype, torch.float32)
        weight = 1 / torch.linalg.vector_norm(feature, dim=1, keepdim=True, dtype=dtype).clamp_min(1e-12)
        if seen is None:
            return cls(feature, weight, None)
        share = masked_mean_pool(seen, (feature.shape[-2], feature.shape[-1])).to(feature.dtype)
        return cls(feature, weight * share, share)

    def of(self, images: slice) -> _Compared:
        """The part of some images."""
        return _Compared(
            self.feature[images], self.weight[images], self.share[images] if self.share is not None else None
        )

    def similarity(self, text: Tensor) -> Tensor:
        """Cosines (N, K, h, w) with (K, D) unit-length names, times `share`."""
        places = self.feature.flatten(2)
        products = torch.bmm(text.to(places.dtype).expand(len(places), -1, -1), places)
        return (products.unflatten(2, self.feature.shape[-2:]) * self.weight).to(self.feature.dtype)


@dataclass
class SARText:
    """What a CLIP that learned SAR from captions says of a batch: places and class names in its own space.

    Attributes:
        z: (N, D', h, w) dense map, not normalised.
        names: (K, D') unit-length embeddings of the classes, in the order of the head's `text`.
        seen: (N, 1, H, W) bool, where the SAR raster holds data; None = everywhere.
    """

    z: Tensor
    names: Tensor
    seen: Tensor | None = None


@dataclass
class _ImageFeatures:
    """What all classes of a batch are compared with or guided by.

    Attributes:
        z: the global map; None = the coarsest dense similarity alone speaks. Where `z` has no share, that one does.
        fused: level -> f_d. Where it has no share, the global similarity has it.
        guidance: (N, G, h, w) of the two decoder steps.
        sar_text: the map of a `SARText`. Where it has no share, the global similarity has it.
    """

    z: _Compared | None
    fused: dict[str, _Compared]
    guidance: list[Tensor | None]
    sar_text: _Compared | None = None

    def of(self, images: slice) -> _ImageFeatures:
        """The part of some images."""
        return _ImageFeatures(
            self.z.of(images) if self.z is not None else None,
            {level: compared.of(images) for level, compared in self.fused.items()},
            [guide[images] if guide is not None else None for guide in self.guidance],
            self.sar_text.of(images) if self.sar_text is not None else None,
        )


class DualEncoderFusionHead(nn.Module):
    """DEF: dense-text and global-text similarity, fusion, FPN-style decoder, one linear classifier for every class.

    Why per class: the classifier sees only how well places match one name, never which name, so it works for names that
    training never saw. Source: Sec. 3.2.3 and Fig. 2(b). Choices where the paper is silent:

    * level strides 8/4/16 for blocks 4/8/12, as in the release (`strides`);
    * embedding widths 64/32/128: each level's 7x7 convolutions then cost the same (`channels`);
    * decoder guidance widths 32 and 16 a source, as in the release (`guidance_channels`);
    * z_rgb is CLIP's dense map, since a pooled vector has no place (`OpenCLIPEncoder.dense`);
    * without optical input there is no z_rgb: the coarsest dense similarity stands in for h_gt, and CLIP guidance is
      left out;
    * with a CLIP for SAR (appendix E) h_gt compares z_rgb + z_sar, summed before the sum gets unit length, and z_sar
      alone without optical input. Its blocks do not guide the decoder;
    * with `sar_text` (ours) every level is also given h_st, see `SimilarityFusion`: SAR compared with the names by a
      CLIP that learned SAR from captions, in that CLIP's own space. h_gt stays what it is, also where there is no
      optical data, so that the option adds one map and changes none; where SAR holds no data h_st is h_gt;
    * without dense encoders (Table 3, 'w/o CMU&DEF') h_dt is h_gt at each level, and DINO guidance is left out;
    * all this holds cell by cell: where pixels hold no data, the rule for the absent modality has the weight of their
      share of the cell. Linear, as in f_d, so that a coast of the data neither depends on a threshold nor jumps when
      the grid moves by a pixel. What attention carries from the blank to its neighbours stays.

    Args:
        dense_shapes: block name -> ShapeSpec of the dense encoders, finest block number first; None = CLIP only.
        clip_shapes: block name -> ShapeSpec of the CLIP taps that guide the decoder; the first guides the first
            upsampling, the second the second.
        embed_dim: D.
        modalities: of the dense encoders there are.
        strides: of the levels, in the order of the blocks; the last must be the coarsest.
        channels: C_i in the same order.
        guidance_channels: width of each guidance source at the first and second upsampling.
        similarity_scale: see `SimilarityFusion`.
        share_projections: see `DenseFusion`.
        use_clip_guidance: False for models whose CLIP never sees an image.
        sar_text: give the fusions a third map, h_st. Off by default, then no weight is added and none changes. On it
            adds 49 C_i weights a level, which start at 0, so that a model without it can be trained on from there.
        class_chunk: at inference, decode at most this many classes at once; None = as many as `plan_passes` says. But
            for the scores themselves, memory does not grow with the vocabulary.
    """

    # Logits go to the network's input grid first and from there to the raster.
    resize_once = False
    # Padded pixels add nothing to the sum of the modalities.
    padding_is_data = False

    def __init__(
        self,
        dense_shapes: Mapping[str, ShapeSpec] | None,
        clip_shapes: Mapping[str, ShapeSpec],
        *,
        embed_dim: int,
        modalities: Sequence[str] = ("optical", "sar"),
        strides: Sequence[int] = (8, 4, 16),
        channels: Sequence[int] = (64, 32, 128),
        guidance_channels: Sequence[int] = (32, 16),
        similarity_scale: float = 1.0,
        share_projections: bool = True,
        use_clip_guidance: bool = True,
        sar_text: bool = False,
        class_chunk: int | None = None,
    ) -> None:
        super().__init__()
        if not len(strides) == len(channels) == 3 or strides[-1] != max(strides) or len(clip_shapes) != 2:
            raise ValueError(f"need three levels, the coarsest last, and two CLIP taps; got strides {tuple(strides)}")
        self.strides = tuple(strides)
        self.sar_text = sar_text
        self.class_chunk = class_chunk
        self.levels = list(dense_shapes) if dense_shapes else ["level1", "level2", "level3"]
        self.dense = (
            DenseFusion(
                dense_shapes,
                out_channels=embed_dim,
                strides=strides,
                share_projections=share_projections,
                modalities=modalities,
            )
            if dense_shapes
            else None
        )
        self.fusions = nn.ModuleList(
            SimilarityFusion(width, scale=similarity_scale, sar_text=sar_text) for width in channels
        )
        self.clip_guidance = nn.ModuleList()
        self.dense_guidance = nn.ModuleList()
        # Paper, Fig. 2(b): decoder levels are joined by the features of the block that has their stride.
        for shape, stride, width in zip(clip_shapes.values(), strides[:2], guidance_channels, strict=True):
            if use_clip_guidance:
                adapter = stride_adapter(shape.channels, 4 * width, stride_in=shape.stride, stride_out=stride)
                squeeze = nn.Conv2d(4 * width, width, 3, padding=1)
                self.clip_guidance.append(nn.Sequential(adapter, squeeze, nn.ReLU()))
            if dense_shapes:
                self.dense_guidance.append(nn.Sequential(nn.Conv2d(embed_dim, width, 3, padding=1), nn.ReLU()))
        sources = int(use_clip_guidance) + int(bool(dense_shapes))
        mid, fine, coarse = channels
        self.decode_mid = GuidedDoubleConv(coarse + mid, sources * guidance_channels[0], mid)
        self.decode_fine = GuidedDoubleConv(mid + fine, sources * guidance_channels[1], fine)
        self.classifier = nn.Conv2d(fine, 1, 1)

    def forward(
        self,
        text: Tensor,
        clip: Mapping[str, Tensor] | None,
        dense: Mapping[str, Mapping[str, Tensor]],
        valid: Mapping[str, Tensor | None],
        *,
        grid: tuple[int, int],
        explain: dict[str, Tensor] | None = None,
        z_sar: Tensor | None = None,
        clip_sees: Tensor | None = None,
        dense_see: Tensor | None = None,
        sar_text: SARText | None = None,
    ) -> Tensor:
        """Score every class everywhere.

        Args:
            text: (K, D) unit-length class embeddings.
            clip: `OpenCLIPEncoder.encode_image` output, or None without optical input.
            dense: modality -> block name -> (N, C, h, w).
            valid: modality -> (N, 1, H, W) bool or None.
            grid: size in pixels (H, W) of the padded network input, from which the level sizes follow.
            explain: a dict to be filled with (N, K, h, w) maps of the stages, see `MMOVSeg.explain`.
            z_sar: (N, D, h, w) map of a CLIP for SAR on the grid of CLIP's, not normalised, 0 where there is no data.
            clip_sees: (N, 1, H, W) bool, where CLIP's image holds data, None = everywhere.
            dense_see: the same for the dense encoders together: where at least one of them has data.
            sar_text: for heads with `sar_text`; None = there is no SAR.

        Returns:
            (N, K, H / s, W / s) logits, s the finest stride.

        Raises:
            ValueError: neither optical nor SAR features are given.
        """
        if clip is None and z_sar is None and not dense:
            raise ValueError("the head needs optical or SAR features, got neither")
        fused = self.dense(dense, valid) if self.dense is not None and dense else {}
        features = _ImageFeatures(
            z=_global_map(clip, z_sar, clip_sees),
            fused={level: _Compared.make(feature, dense_see) for level, feature in fused.items()},
            guidance=[
                self._guide(step, clip, fused, self._size(grid, step), (clip_sees, dense_see)) for step in range(2)
            ],
            sar_text=_Compared.make(sar_text.z, sar_text.seen) if sar_text is not None else None,
        )
        own_names = sar_text.names if sar_text is not None else text
        rows: list[Tensor] = []
        shown: list[dict[str, Tensor]] = []
        for images, names in plan_passes(self, _batch_size(clip, z_sar, dense), len(text), grid, self.class_chunk):
            part = features.of(images)
            shown.append({})
            stages = shown[-1] if explain is not None else None
            rows.append(
                _join([self._score((text[chosen], own_names[chosen]), part, grid, stages) for chosen in names], dim=1)
            )
        if explain is not None:
            explain |= {name: torch.cat([stages[name] for stages in shown]) for name in shown[0]}
        return _join(rows, dim=0)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Softmax cross-entropy over the classes asked for, see `pixel_cross_entropy`."""
        return pixel_cross_entropy(logits, target)

    def to_scores(self, logits: Tensor) -> Tensor:
        """Scores are the logits; softmax over the classes gives probabilities."""
        return logits

    def _size(self, grid: tuple[int, int], level: int) -> tuple[int, int]:
        return (grid[0] // self.strides[level], grid[1] // self.strides[level])

    def _guide(
        self,
        step: int,
        clip: Mapping[str, Tensor] | None,
        fused: Mapping[str, Tensor],
        size: tuple[int, int],
        seen: tuple[Tensor | None, Tensor | None],
    ) -> Tensor | None:
        """Image features that join decoder step 0 (middle) or 1 (fine): (N, G, h, w). An absent source is zero."""
        parts: list[Tensor | None] = []
        if len(self.clip_guidance):
            taps = [value for key, value in clip.items() if key != "dense"] if clip is not None else None
            guide = resize(self.clip_guidance[step](taps[step]), size) if taps is not None else None
            parts.append(weigh_by_share(guide, seen[0]) if guide is not None else None)
        if len(self.dense_guidance):
            guide = self.dense_guidance[step](fused[self.levels[step]]) if fused else None
            parts.append(weigh_by_share(guide, seen[1]) if guide is not None else None)
        return join_guidance(parts)

    def _similarities(
        self, names: tuple[Tensor, Tensor], features: _ImageFeatures, grid: tuple[int, int]
    ) -> tuple[list[tuple[Tensor, ...]], dict[str, Tensor]]:
        """Cosines with the names in both spaces: (dense, global) and perhaps SAR's of each level at its size.

        Also what `explain` shows of them.
        """
        text, own_names = names
        dense_maps = {level: compared.similarity(text) for level, compared in features.fused.items()}
        stand_in = dense_maps.get(self.levels[-1])
        global_map = features.z.similarity(text) if features.z is not None else stand_in
        assert global_map is not None
        share = features.z.share if features.z is not None and stand_in is not None else None

        def globally(size: tuple[int, int]) -> Tensor:
            found = resize(global_map, size)
            return found if share is None else found + (1 - resize(share, size)) * resize(stand_in, size)

        sar_text = features.sar_text
        sar_map = sar_text.similarity(own_names) if sar_text is not None else None
        levels: list[tuple[Tensor, ...]] = []
        for index, level in enumerate(self.levels):
            size = self._size(grid, index)
            whole = globally(size)
            local = resize(dense_maps[level], size) if dense_maps else whole
            rest = features.fused[level].share if dense_maps else None
            maps: tuple[Tensor, ...] = (local if rest is None else local + (1 - resize(rest, size)) * whole, whole)
            if sar_text is not None and sar_map is not None:
                third, share_of_sar = resize(sar_map, size), sar_text.share
                maps += (third if share_of_sar is None else third + (1 - resize(share_of_sar, size)) * whole,)
            elif self.sar_text:
                maps += (whole,)
            levels.append(maps)
        shown = globally((global_map.shape[-2], global_map.shape[-1]))
        stages = {"global_similarity": shown, "dense_similarity": stand_in if stand_in is not None else shown}
        return levels, stages | ({"sar_text_similarity": sar_map} if sar_map is not None else {})

    def _score(
        self,
        names: tuple[Tensor, Tensor],
        features: _ImageFeatures,
        grid: tuple[int, int],
        explain: dict[str, Tensor] | None,
    ) -> Tensor:
        num_classes = len(names[0])
        levels, shown = self._similarities(names, features, grid)
        mid, fine, x = (
            fusion(*(cosines.flatten(0, 1)[:, None] for cosines in maps))
            for fusion, maps in zip(self.fusions, levels, strict=True)
        )
        fused, guidance = x, features.guidance
        for lateral, decode, guide in ((mid, self.decode_mid, guidance[0]), (fine, self.decode_fine, guidance[1])):
            x = decode(
                torch.cat([resize(x, (lateral.shape[-2], lateral.shape[-1])), lateral], dim=1), guide, num_classes
            )
        logits = self.classifier(x)[:, 0].unflatten(0, (-1, num_classes))
        if explain is not None:
            match = self.fusions[-1].match(fused).unflatten(0, (-1, num_classes))  # type: ignore[operator]
            for name, value in {**shown, "fused": match, "scores": logits}.items():
                explain[name] = torch.cat([explain[name], value], dim=1) if name in explain else value
        return logits


def _join(parts: list[Tensor], *, dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)


def _batch_size(
    clip: Mapping[str, Tensor] | None, z_sar: Tensor | None, dense: Mapping[str, Mapping[str, Tensor]]
) -> int:
    if clip is not None:
        return len(clip["dense"])
    return len(z_sar) if z_sar is not None else len(next(iter(next(iter(dense.values())).values())))


def _global_map(clip: Mapping[str, Tensor] | None, z_sar: Tensor | None, clip_sees: Tensor | None) -> _Compared | None:
    """`z` of `_ImageFeatures`."""
    if clip is None:
        return _Compared.make(z_sar) if z_sar is not None else None
    if z_sar is not None:
        return _Compared.make(weigh_by_share(clip["dense"], clip_sees) + z_sar)
    return _Compared.make(clip["dense"], clip_sees)
