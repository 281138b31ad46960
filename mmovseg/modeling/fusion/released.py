"""The head of the authors' release: similarity maps refined by attention among places and among classes, then decoded.

The paper's text (`DualEncoderFusionHead`) fuses every level with the text and decodes each class by itself. The
release compares only the last level with the text, and aggregates the resulting volume as CAT-Seg (Cho et al., 2024,
https://arxiv.org/abs/2303.11797) does, with the finer levels of CLIP and of the dense encoders as guidance.

Shapes: N images, K classes, D text dimension, C channels of the volume, G of the projected context, h w the coarse
    grid. Per-class maps are kept as (N*K, C, h, w) with the classes of one image next to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.layers.class_attention import ClassAttentionBlock
from mmovseg.layers.conv import GuidedUpsampling, fill_in, join_guidance, resize, stride_adapter, weigh_by_share
from mmovseg.layers.window_attention import WindowAttentionPair
from mmovseg.modeling.fusion.dense import DenseFusion
from mmovseg.modeling.fusion.dual_encoder import SimilarityFusion
from mmovseg.modeling.fusion.passes import plan_passes
from mmovseg.modeling.losses import IgnoredPixels, pixel_binary_cross_entropy


class AggregationLayer(nn.Module):
    """Attention among the places of each class, then among the classes of each place."""

    def __init__(
        self, channels: int, context_channels: int, *, num_heads: int, window: int, pooling: int, class_padding: int
    ) -> None:
        super().__init__()
        self.spatial = WindowAttentionPair(channels, context_channels, num_heads=num_heads, window=window)
        self.classes = ClassAttentionBlock(
            channels, context_channels, num_heads=num_heads, pooling=pooling, class_padding=class_padding
        )


class CostAggregationHead(nn.Module):
    """One similarity volume a class from CLIP and the fused dense features, aggregated, then decoded (release).

    Choices that the release leaves open, because it never meets these cases:

    * any grid: windows are padded and the padding is masked (`GuidedWindowBlock`), a class is pooled with smaller
      cells at the border. At 24x24 with windows of 12 this is the release exactly;
    * without SAR the sum of the levels is the optical term alone, and vice versa;
    * without optical input there is no CLIP map: the coarsest fused dense features, which live in the same space, stand
      in for it in the similarity and as the appearance that steers the attention; CLIP's decoder guidance is zero;
    * without dense encoders CLIP's map stands in for the dense one, and dense guidance is left out;
    * all this holds cell by cell: where pixels hold no data, what stands in is mixed in by their share of the cell. To
      the release pixels without data are data; here only padding is, as it continues the raster.

    The released weights never saw a missing modality, so their answers then are a guess.

    Args:
        dense_shapes: block name -> ShapeSpec of the dense encoders, finest block number first; None = CLIP only.
        clip_shapes: block name -> ShapeSpec of the CLIP taps; the first guides the first upsampling, the second the
            second.
        embed_dim: D.
        modalities: of the dense encoders there are; each has projections of its own.
        use_clip_guidance: False for models that never see an optical image.
        strides: of the levels in the order of the blocks; each half of the next coarser one, the last the coarsest.
        channels: C.
        context_channels: G, to which class names and CLIP's map are projected to steer the attention.
        level_channels: width of the first and the second level, of the dense encoders and of CLIP's taps alike.
        guidance_channels: width of each guidance source at the first and second upsampling.
        decoder_channels: width after the first and second upsampling.
        num_layers: aggregation layers.
        num_heads: of all attentions.
        window, pooling, class_padding: see `GuidedWindowBlock` and `ClassAttentionBlock`.
        ignored_pixels: see `pixel_binary_cross_entropy`. The default is what the released weights were trained with;
            ``exclude`` is the better choice for training of one's own.
        class_chunk: at inference, treat at most this many classes at once wherever classes are independent; None = as
            many as `plan_passes` says. Memory then grows with the vocabulary by the coarse volume and the scores alone.

    Raises:
        UserError: strides or widths that do not fit each other, or an unknown `ignored_pixels`.
    """

    # The release resizes its quarter-size scores straight to the raster.
    resize_once = True
    # The release does not tell padding from data; pixels that are marked as invalid still add nothing here.
    padding_is_data = True

    def __init__(
        self,
        dense_shapes: Mapping[str, ShapeSpec] | None,
        clip_shapes: Mapping[str, ShapeSpec],
        *,
        embed_dim: int,
        modalities: Sequence[str] = ("optical", "sar"),
        use_clip_guidance: bool = True,
        strides: Sequence[int] = (8, 4, 16),
        channels: int = 128,
        context_channels: int = 128,
        level_channels: Sequence[int] = (256, 128),
        guidance_channels: Sequence[int] = (32, 16),
        decoder_channels: Sequence[int] = (64, 32),
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 12,
        pooling: int = 2,
        class_padding: int = 256,
        ignored_pixels: IgnoredPixels = "negative",
        class_chunk: int | None = None,
    ) -> None:
        super().__init__()
        if len(strides) != 3 or strides[2] != 2 * strides[0] or strides[0] != 2 * strides[1] or len(clip_shapes) != 2:
            raise UserError(
                f"head 'released' needs strides (2s, s, 4s) and two CLIP taps; got strides {tuple(strides)}"
            )
        if ignored_pixels not in ("exclude", "negative"):
            raise UserError(f"ignored_pixels must be exclude or negative, got '{ignored_pixels}'")
        self.strides = tuple(strides)
        self.class_chunk, self.ignored_pixels = class_chunk, ignored_pixels
        self.levels = list(dense_shapes) if dense_shapes else ["level1", "level2", "level3"]
        widths = (*level_channels, embed_dim)
        self.dense = (
            DenseFusion(
                dense_shapes, out_channels=widths, strides=strides, share_projections=False, modalities=modalities
            )
            if dense_shapes
            else None
        )
        self.fusion = SimilarityFusion(channels)
        self.appearance_guidance = nn.Conv2d(embed_dim, context_channels, 3, padding=1)
        self.text_guidance = nn.Linear(embed_dim, context_channels)
        attention = dict(num_heads=num_heads, window=window, pooling=pooling, class_padding=class_padding)
        self.layers = nn.ModuleList(
            AggregationLayer(channels, context_channels, **attention) for _ in range(num_layers)
        )
        self._add_guidance(clip_shapes, level_channels, guidance_channels, use_clip_guidance=use_clip_guidance)
        sources = int(use_clip_guidance) + int(self.dense is not None)
        self.decoder = nn.ModuleList()
        for width, narrow, out in zip(
            (channels, decoder_channels[0]), guidance_channels, decoder_channels, strict=True
        ):
            if width <= narrow:
                raise UserError(f"in head 'released' channels {width} leave nothing beside the guidance of {narrow}")
            self.decoder.append(GuidedUpsampling(width, width - narrow, sources * narrow, out))
        self.classifier = nn.Conv2d(decoder_channels[-1], 1, 3, padding=1)

    def _add_guidance(
        self,
        clip_shapes: Mapping[str, ShapeSpec],
        level_channels: Sequence[int],
        guidance_channels: Sequence[int],
        *,
        use_clip_guidance: bool,
    ) -> None:
        """Add what brings CLIP's taps and the fused levels to the decoder."""
        self.clip_adapters, self.clip_guidance, self.dense_guidance = (nn.ModuleList() for _ in range(3))
        for shape, stride, width, narrow in zip(
            clip_shapes.values(), self.strides[:2], level_channels, guidance_channels, strict=True
        ):
            if use_clip_guidance:
                adapter = stride_adapter(shape.channels, width, stride_in=shape.stride, stride_out=stride)
                self.clip_adapters.append(adapter)
                self.clip_guidance.append(nn.Conv2d(width, narrow, 3, padding=1))
            if self.dense is not None:
                self.dense_guidance.append(nn.Conv2d(width, narrow, 3, padding=1))

    def forward(
        self,
        text: Tensor,
        clip: Mapping[str, Tensor] | None,
        dense: Mapping[str, Mapping[str, Tensor]],
        valid: Mapping[str, Tensor | None],
        *,
        grid: tuple[int, int],
        explain: dict[str, Tensor] | None = None,
        clip_sees: Tensor | None = None,
        dense_see: Tensor | None = None,
    ) -> Tensor:
        """Score every class everywhere.

        Args:
            text: (K, D) unit-length class embeddings.
            clip: `OpenCLIPEncoder.encode_image` output, or None without optical input.
            dense: modality -> block name -> (N, C, h, w).
            valid: modality -> (N, 1, H, W) bool or None.
            grid: size in pixels (H, W) of the network input, from which the level sizes follow.
            explain: a dict to be filled with (N, K, h, w) maps of the stages, see `MMOVSeg.explain`.
            clip_sees: (N, 1, H, W) bool, where CLIP's image holds data, None = everywhere.
            dense_see: the same for the dense encoders together: where at least one of them has data.

        Returns:
            (N, K, H / s, W / s) logits, s the finest stride.

        Raises:
            ValueError: neither optical nor SAR features are given.
        """
        if clip is None and not dense:
            raise ValueError("the head needs optical or SAR features, got neither")
        fused = self.dense(dense, valid) if self.dense is not None and dense else {}
        coarse = (grid[0] // self.strides[2], grid[1] // self.strides[2])
        z_dense = fused[self.levels[2]] if fused else None
        z_rgb = resize(clip["dense"], coarse) if clip is not None else None
        if z_dense is None or z_rgb is None:
            z_rgb = z_dense = z_rgb if z_rgb is not None else z_dense
        else:
            z_rgb, z_dense = fill_in(z_rgb, z_dense, clip_sees), fill_in(z_dense, z_rgb, dense_see)
        assert z_rgb is not None and z_dense is not None
        guidance = [self._guide(step, clip, fused, grid, (clip_sees, dense_see)) for step in range(2)]
        return self.aggregate(text, z_rgb, z_dense, z_rgb, guidance, explain)

    def aggregate(
        self,
        text: Tensor,
        z_rgb: Tensor,
        z_dense: Tensor,
        appearance: Tensor,
        guidance: Sequence[Tensor | None],
        explain: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Compare with the class names, aggregate, decode.

        Args:
            text: (K, D).
            z_rgb, z_dense, appearance: (N, D, h, w); CLIP's map, the fused dense map, and what steers the attention
                (CLIP's map as well).
            guidance: (N, G_i, 2h, 2w) and (N, G_i, 4h, 4w) for the decoder; None = nothing to guide with.
            explain: as in `forward`.

        Returns:
            (N, K, 4h, 4w) logits.
        """
        text = F.normalize(text, dim=1)
        globally, densely = (
            torch.einsum("ndhw,kd->nkhw", F.normalize(feature, dim=1), text) for feature in (z_rgb, z_dense)
        )
        context = F.relu(self.appearance_guidance(appearance))
        words = F.relu(self.text_guidance(text))
        volume = fused = self._by_class(self._fuse, torch.stack([globally, densely], dim=2))
        for layer in self.layers:
            volume = self._by_class(partial(_attend_places, layer.spatial), volume, context)
            volume = layer.classes(volume, words)
        logits = self._by_class(self._decode, volume, *guidance)[:, :, 0]
        if explain is not None:
            explain |= {"global_similarity": globally, "dense_similarity": densely, "fused": self.fusion.match(fused)}
            explain |= {"aggregated": volume.mean(dim=2), "scores": logits}
        return logits

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy of every class by itself, see `pixel_binary_cross_entropy`."""
        return pixel_binary_cross_entropy(logits, target, ignored_pixels=self.ignored_pixels)

    def to_scores(self, logits: Tensor) -> Tensor:
        """Scores are sigmoids: the probability of each class by itself; they do not add up to 1."""
        return torch.sigmoid(logits)

    def _guide(
        self,
        step: int,
        clip: Mapping[str, Tensor] | None,
        fused: Mapping[str, Tensor],
        grid: tuple[int, int],
        seen: tuple[Tensor | None, Tensor | None],
    ) -> Tensor | None:
        """Image features that join decoder step 0 or 1: (N, G, h, w), CLIP's first. An absent source is zero."""
        size = (grid[0] // self.strides[step], grid[1] // self.strides[step])
        parts: list[Tensor | None] = []
        if len(self.clip_guidance):
            taps = [value for key, value in clip.items() if key != "dense"] if clip is not None else None
            tap = resize(self.clip_adapters[step](taps[step]), size) if taps is not None else None
            guide = F.relu(self.clip_guidance[step](tap)) if tap is not None else None
            parts.append(weigh_by_share(guide, seen[0]) if guide is not None else None)
        if len(self.dense_guidance):
            guide = F.relu(self.dense_guidance[step](fused[self.levels[step]])) if fused else None
            parts.append(weigh_by_share(guide, seen[1]) if guide is not None else None)
        return join_guidance(parts)

    def _decode(self, x: Tensor, count: int, *guidance: Tensor | None) -> Tensor:
        """(N*K, C, h, w) -> (N*K, 1, 4h, 4w)."""
        for stage, guide in zip(self.decoder, guidance, strict=True):
            x = stage(x, guide, count)
        return self.classifier(x)

    def _fuse(self, x: Tensor, _: int) -> Tensor:
        """(N*K, 2, h, w) cosines, CLIP's first -> (N*K, C, h, w)."""
        return self.fusion(x[:, 1:], x[:, :1])

    def _by_class(self, step: Callable[..., Tensor], x: Tensor, *shared: Tensor | None) -> Tensor:
        """Apply ``step(maps (N'*K', ...), K', *shared (N', ...))`` to (N, K, ...) maps, at inference in portions."""
        stride = self.strides[2]
        grid = (x.shape[-2] * stride, x.shape[-1] * stride)
        rows = []
        for images, names in plan_passes(self, x.shape[0], x.shape[1], grid, self.class_chunk):
            own = [value[images] if value is not None else None for value in shared]
            parts = [(x[images, chosen].flatten(0, 1), chosen.stop - chosen.start) for chosen in names]
            done = [step(part, count, *own).unflatten(0, (-1, count)) for part, count in parts]
            rows.append(done[0] if len(done) == 1 else torch.cat(done, dim=1))
        return rows[0] if len(rows) == 1 else torch.cat(rows)


def _attend_places(block: WindowAttentionPair, x: Tensor, num_classes: int, context: Tensor) -> Tensor:
    return block(x, context, num_classes)
