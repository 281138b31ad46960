"""Sum of projected optical and SAR features, level by level (paper Sec. 3.2.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from mmovseg.layers.conv import stride_adapter, weigh_by_share


class DenseFusion(nn.Module):
    """f_d^i = sigma_i(f_rgb^i) + sigma_i(f_sar^i), sigma_i a convolution to the level's width and stride.

    Source: Sec. 3.2.3. The paper writes one sigma_i for both modalities; the release has one each
        (`share_projections`).
    A modality that is absent, or a pixel without data, adds nothing: the sum then is the other modality's term alone.

    Args:
        shapes: block name -> ShapeSpec(channels, stride) of the dense encoders, coarse blocks last, as `taps` gives
            them.
        out_channels: width of all levels (the text dimension D in the paper), or one a level.
        strides: stride of each level, in the order of `shapes`. The release has 8, 4, 16 for blocks 4, 8, 12.
        share_projections: one sigma_i for both modalities (paper) or one each (release).
        modalities: which ones there are, if each has its own sigma_i.
    """

    def __init__(
        self,
        shapes: Mapping[str, ShapeSpec],
        *,
        out_channels: int | Sequence[int],
        strides: Sequence[int],
        share_projections: bool = True,
        modalities: Sequence[str] = ("optical", "sar"),
    ) -> None:
        super().__init__()
        if len(strides) != len(shapes):
            raise ValueError(f"{len(shapes)} levels need as many strides, got {len(strides)}")
        widths = [out_channels] * len(shapes) if isinstance(out_channels, int) else list(out_channels)
        names = ["shared"] if share_projections else list(modalities)
        self.share_projections = share_projections
        self.projections = nn.ModuleDict()
        for name in names:
            levels = nn.ModuleDict()
            for (level, shape), stride, width in zip(shapes.items(), strides, widths, strict=True):
                levels[level] = stride_adapter(shape.channels, width, stride_in=shape.stride, stride_out=stride)
            self.projections[name] = levels

    def forward(
        self, features: Mapping[str, Mapping[str, Tensor]], valid: Mapping[str, Tensor | None]
    ) -> dict[str, Tensor]:
        """Fuse.

        Args:
            features: modality -> block name -> (N, C, h, w); at least one modality.
            valid: modality -> (N, 1, H, W) bool, False where the modality holds no data; None = all valid.

        Returns:
            block name -> (N, D_i, h_i, w_i).
        """
        if self.share_projections and all(valid.get(modality) is None for modality in features):
            return self._fuse_before_projection(features)
        fused: dict[str, Tensor] = {}
        for modality, maps in features.items():
            projections = self.projections["shared" if self.share_projections else modality]
            mask = valid.get(modality)
            for level, feature in maps.items():
                term = weigh_by_share(projections[level](feature), mask)
                fused[level] = fused[level] + term if level in fused else term
        return fused

    def _fuse_before_projection(self, features: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The same sum with half of the work: sigma is affine, so sigma(a) + sigma(b) = sigma(a + b) + sigma(0)."""
        first, *others = features.values()
        fused = {}
        for level, feature in first.items():
            layer = self.projections["shared"][level]
            total = feature
            for other in others:
                total = total + other[level]
            fused[level] = layer(total)
            if others:
                fused[level] = fused[level] + len(others) * layer.bias[:, None, None]
        return fused
