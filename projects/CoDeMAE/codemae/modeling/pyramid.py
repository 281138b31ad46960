"""The feature pyramid inside the encoder: three levels out of the last block and two skips, unit by unit.

Source: iTPN (Tian et al., 2023, https://arxiv.org/abs/2211.12735), with one block a level as the CoDe-MAE release has
it. All of it works within units, so it is pretrained on the visible ones and folds to feature maps afterwards.

The numbers 16, 8 and 4 in the names are the levels' strides for units of 16 pixels: coarse, middle, fine.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmovseg.projects.codemae.modeling.blocks import MlpBlock, UnitSplit


class Pyramid(nn.Module):
    """Coarse, middle and fine features of every unit.

        p16 = lateral16(z),  p8 = join8(split16(z) + lateral8(f8)),  p4 = join4(split8(p8) + lateral4(f4))

    and each through one more block; p4 reads p8 before that block.

    Args:
        dims: channels of f4, f8 and z.
        out_dim: channels of every level.
        depth: blocks after joining a level with its skip.
        norm_eps: of all norms.
        mlp_ratio: of all blocks.
    """

    def __init__(
        self,
        dims: tuple[int, int, int],
        *,
        out_dim: int = 256,
        depth: int = 1,
        norm_eps: float = 1e-6,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        fine, middle, coarse = dims

        def block() -> MlpBlock:
            return MlpBlock(out_dim, mlp_ratio=mlp_ratio, norm_eps=norm_eps)

        self.lateral16 = nn.Linear(coarse, out_dim)
        self.lateral8 = nn.Linear(middle, out_dim, bias=False)
        self.lateral4 = nn.Linear(fine, out_dim, bias=False)
        self.split16 = UnitSplit(coarse, out_dim, norm_eps=norm_eps)
        self.split8 = UnitSplit(out_dim, out_dim, norm_eps=norm_eps)
        self.join8 = nn.Sequential(*(block() for _ in range(depth)))
        self.join4 = nn.Sequential(*(block() for _ in range(depth)))
        self.out16, self.out8, self.out4 = block(), block(), block()

    def forward(self, last: Tensor, middle: Tensor, fine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Build the levels.

        Args:
            last: (N, V, C) output of the last block.
            middle: (N, V, 4, C) sub-tokens before the second merge.
            fine: (N, V, 16, C) sub-tokens before the first merge.

        Returns:
            (N, V, 1, out_dim), (N, V, 4, out_dim), (N, V, 16, out_dim).
        """
        last = last.unsqueeze(2)
        p16 = self.lateral16(last)
        p8 = self.join8(self.split16(last) + self.lateral8(middle))
        p4 = self.join4(self.split8(p8) + self.lateral4(fine))
        return self.out16(p16), self.out8(p8), self.out4(p4)
