"""HiViT with iTPN's pyramid, the encoder of CoDe-MAE.

Source: HiViT (Zhang et al., 2023, https://arxiv.org/abs/2205.14949), iTPN (Tian et al., 2023,
https://arxiv.org/abs/2211.12735); sizes and order of the parts as the CoDe-MAE release has them.

Shapes: N rows, V units, k sub-tokens of a unit, C channels, D channels of the last stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timm.layers import calculate_drop_path_rates
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling.blocks import (
    MlpBlock,
    UnitEmbedding,
    UnitMerge,
    init_weights,
    sincos_positions,
    transformer_block,
)
from mmovseg.projects.codemae.modeling.encoder import CoarsePool, MaskedEncoder, Sensor, VisibleFeatures
from mmovseg.projects.codemae.modeling.pyramid import Pyramid

__all__ = ["HiViT", "Sensor", "VisibleFeatures"]

_SIDE = 4  # sub-tokens along a side of a unit at the start: two merges lead to one token


class HiViT(MaskedEncoder):
    """Hierarchical vision transformer: two stages of MLPs within units, then attention among units.

    Every unit starts as 4x4 sub-tokens. The first two stages have no attention, so that a unit knows nothing of others
    before the third, and masked units can be left out from the start. Positions are added once, before the third stage.
    There is no norm behind the last block.

    Args:
        in_chans: sensor -> channels of its images; one patch embedding each.
        sensor: whose embedding `forward` uses by default; None = the only one.
        stem_dim: width of the first stage; the others have twice and four times this.
        depths: blocks of the three stages.
        num_heads: attention heads of the third stage.
        mlp_ratios: of the three stages.
        unit_size: side of a unit in pixels, a multiple of 4; the levels have this stride, a half and a quarter of it.
        image_size: side of the square images in pixels that the positions are made for; others are interpolated.
        pyramid_dim: channels of the levels; None = no pyramid.
        pyramid_depth: see `Pyramid`.
        drop_path: chance of dropping a branch in the last block; rises linearly from 0 over all blocks (merges do not
            count). The pyramid has none.
        norm_eps: of all norms. 1e-6 in pretraining, probing and classification; the release's detection and
            segmentation ran with 1e-5, by its framework's default.
        out_features: maps of `forward`: a level by its stride (``p4``, ``p8``, ``p16`` for units of 16), two pooled
            ones (``p32``, ``p64``), ``tokens`` (the last block). None = the levels, fine to coarse; without a pyramid,
            ``tokens``.
        coarse_pool: how pooled levels come out of the coarsest.
        checkpointing: recompute the blocks in the backward pass instead of keeping their activations.
        weights: file of an encoder, or of a whole pretraining run; see `load_encoder`. None = random start.
        freeze: keep the weights fixed; the encoder then always runs in eval mode and without a graph.

    Raises:
        UserError: sizes that do not divide, no sensor, or see `MaskedEncoder`.
    """

    def __init__(
        self,
        *,
        in_chans: Mapping[Sensor, int] | None = None,
        sensor: Sensor | None = None,
        stem_dim: int = 128,
        depths: Sequence[int] = (3, 3, 24),
        num_heads: int = 8,
        mlp_ratios: Sequence[float] = (3.0, 3.0, 4.0),
        unit_size: int = 16,
        image_size: int = 224,
        pyramid_dim: int | None = 256,
        pyramid_depth: int = 1,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        out_features: Sequence[str] | None = None,
        coarse_pool: CoarsePool = "average",
        checkpointing: bool = False,
        weights: str | None = None,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        channels = dict(in_chans) if in_chans is not None else {"optical": 3, "sar": 3}
        dims = (stem_dim, 2 * stem_dim, 4 * stem_dim)
        _check_sizes(channels, depths, mlp_ratios, dims[2], num_heads, unit_size, image_size)
        self.dim, self.unit_size = dims[2], unit_size
        self.grid = (image_size // unit_size, image_size // unit_size)
        self.embed = nn.ModuleDict(
            {
                name: UnitEmbedding(count, stem_dim, unit_size=unit_size, side=_SIDE, norm_eps=norm_eps)
                for name, count in channels.items()
            }
        )
        self.positions = nn.Parameter(sincos_positions(self.grid, self.dim))
        self.blocks = _make_blocks(dims, depths, num_heads, mlp_ratios, drop_path, norm_eps)
        self.main_blocks = range(depths[0] + depths[1] + 2, len(self.blocks))
        self.pyramid = None
        self.level_dims = {}
        if pyramid_dim is not None:
            self.pyramid = Pyramid(dims, out_dim=pyramid_dim, depth=pyramid_depth, norm_eps=norm_eps)
            self.level_dims = {f"p{unit_size // step}": (step * step, pyramid_dim) for step in (1, 2, 4)}
        self.apply(init_weights)
        self._finish(
            sensor=sensor,
            out_features=out_features,
            coarse_pool=coarse_pool,
            checkpointing=checkpointing,
            weights=weights,
            freeze=freeze,
        )

    def _run(self, units: Tensor, positions: Tensor, middle_block: int | None, with_levels: bool) -> VisibleFeatures:
        x, skips, middle = units, [], None
        for index in range(self.main_blocks[0]):
            if isinstance(self.blocks[index], UnitMerge):
                skips.append(x)
            x = self._run_block(index, x)
        x = x.squeeze(2) + positions
        for index in self.main_blocks:
            x = self._run_block(index, x)
            middle = x if index == middle_block else middle
        levels: tuple[Tensor, ...] = ()
        if self.pyramid is not None and with_levels:
            levels = self.pyramid(x, skips[1], skips[0])
        return VisibleFeatures(dict(zip(self.level_dims, levels, strict=False)), x, middle)


def _make_blocks(
    dims: tuple[int, int, int],
    depths: Sequence[int],
    num_heads: int,
    mlp_ratios: Sequence[float],
    drop_path: float,
    norm_eps: float,
) -> nn.ModuleList:
    """Return all stages in one list with a merge between them; key tables and layer decay count it so."""
    rates = iter(calculate_drop_path_rates(drop_path, sum(depths)))
    blocks: list[nn.Module] = []
    for stage in (0, 1):
        for _ in range(depths[stage]):
            block = MlpBlock(dims[stage], mlp_ratio=mlp_ratios[stage], norm_eps=norm_eps, drop_path=next(rates))
            blocks.append(block)
        blocks.append(UnitMerge(dims[stage], dims[stage + 1], norm_eps=norm_eps))
    for _ in range(depths[2]):
        blocks.append(
            transformer_block(
                dims[2], num_heads=num_heads, mlp_ratio=mlp_ratios[2], norm_eps=norm_eps, drop_path=next(rates)
            )
        )
    return nn.ModuleList(blocks)


def _check_sizes(
    channels: Mapping[Sensor, int],
    depths: Sequence[int],
    mlp_ratios: Sequence[float],
    dim: int,
    num_heads: int,
    unit_size: int,
    image_size: int,
) -> None:
    if not channels or not set(channels) <= {"optical", "sar"}:
        raise UserError(f"in_chans of HiViT must name optical, sar or both, got {dict(channels)}")
    if len(depths) != 3 or len(mlp_ratios) != 3 or min(depths[:2]) < 0 or depths[2] < 1:
        raise UserError(f"HiViT has three stages, got depths={tuple(depths)} and mlp_ratios={tuple(mlp_ratios)}")
    if unit_size < _SIDE or unit_size % _SIDE or image_size < unit_size or image_size % unit_size:
        raise UserError(
            f"unit_size must be a multiple of {_SIDE} and image_size one of unit_size, got {unit_size} and {image_size}"
        )
    if dim % num_heads or dim % 4:
        raise UserError(f"width {dim} of HiViT's last stage must be a multiple of num_heads={num_heads} and of 4")
