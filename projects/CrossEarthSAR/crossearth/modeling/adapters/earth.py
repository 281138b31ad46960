"""Earth-Adapter: bottlenecks on the tokens, and on their low and high frequencies, mixed by a router.

Source: Hu et al., Earth-Adapter (2025), https://arxiv.org/abs/2504.06220, and its release for placement, window and
initial values. The paper of CrossEarth-SAR uses it (the rows marked *) and gives neither rank nor cutoff nor layers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.projects.crossearth.modeling.adapters.base import BlockAdapter

Position = Literal["first", "last"]
Start = Literal["random", "zero"]


class EarthAdapter(BlockAdapter):
    """Add ``scale * delta(x)`` to the patch tokens x behind every block.

    delta is a bottleneck C -> r -> C with ReLU. In the frequency blocks it is a mixture of three: one on x, one on the
    low frequencies of x over the token grid, one on the high ones, weighed by a softmax of a linear map of each token.
    Only what a block uses is allocated (the release allocates all of it for all blocks).

    Args:
        rank: r. The release takes 16 to 64, by benchmark; 64 is its choice in three of four.
        cutoff: rho in (0, 1): the low frequencies are a window of half-width ``int(min(h, w) * rho // 2)`` around the
            constant, but at least 1, since on grids below 7x7 nothing would be left in it.
        frequency_blocks: how many blocks have the mixture. The release: 3 or 6 of 24.
        frequency_position: whether those are the first or the last ones.
        scale_init: initial value of the factor of each block, which is learned.
        start: ``random`` (release: the features change before the first step) or ``zero``: the last map of each
            bottleneck starts at 0, and the encoder as it was.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        *,
        rank: int = 64,
        cutoff: float = 0.3,
        frequency_blocks: int = 6,
        frequency_position: Position = "first",
        scale_init: float = 0.1,
        start: Start = "random",
    ) -> None:
        super().__init__()
        if rank < 1:
            raise UserError(f"the rank of Earth-Adapter is {rank} but must be at least 1")
        if not 0 < cutoff < 1:
            raise UserError(f"the cutoff of Earth-Adapter is {cutoff} but must lie between 0 and 1")
        for name, value, choices in (
            ("frequency_position", frequency_position, ("first", "last")),
            ("start", start, ("random", "zero")),
        ):
            if value not in choices:
                raise UserError(f"{name} of Earth-Adapter is '{value}' but must be {' or '.join(choices)}")
        self.rank, self.cutoff, self.scale_init = rank, cutoff, scale_init
        self.frequency_blocks, self.frequency_position = frequency_blocks, frequency_position
        self.start: Start = start

    def allocate(self, *, width: int, depth: int, patch_size: int) -> None:
        """See `BlockAdapter`."""
        if not 0 <= self.frequency_blocks <= depth:
            raise UserError(
                f"frequency_blocks of Earth-Adapter is {self.frequency_blocks}, but {depth} blocks of the encoder run"
            )
        first = 1 if self.frequency_position == "first" else depth - self.frequency_blocks + 1
        mixed = range(first, first + self.frequency_blocks)
        self.blocks_by_number = nn.ModuleDict(
            {
                f"block{number}": _BlockDelta(
                    width, self.rank, mixed=number in mixed, scale_init=self.scale_init, start=self.start
                )
                for number in range(1, depth + 1)
            }
        )

    def adapt(self, patches: Tensor, block: int, grid: tuple[int, int]) -> Tensor:
        """See `BlockAdapter`."""
        return self.blocks_by_number[f"block{block}"](patches, grid, self.cutoff)


class _BlockDelta(nn.Module):
    """What one block has."""

    def __init__(self, width: int, rank: int, *, mixed: bool, scale_init: float, start: Start) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), scale_init))  # one axis: a plain number cannot be sharded
        self.spatial = _Bottleneck(width, rank, start)
        self.mixed = mixed
        if mixed:
            self.low, self.high = _Bottleneck(width, rank, start), _Bottleneck(width, rank, start)
            self.router = nn.Linear(width, 3)

    def forward(self, patches: Tensor, grid: tuple[int, int], cutoff: float) -> Tensor:
        delta = self.spatial(patches)
        if self.mixed:
            low = low_frequencies(patches, grid, cutoff)
            weights = self.router(patches).softmax(dim=-1)[..., None]
            high = patches - low
            delta = (
                weights[..., 0, :] * delta + weights[..., 1, :] * self.low(low) + weights[..., 2, :] * self.high(high)
            )
        return patches + self.scale * delta


class _Bottleneck(nn.Module):
    """C -> r -> C with ReLU. torch's own start of a linear map is the release's (Kaiming-uniform)."""

    def __init__(self, width: int, rank: int, start: Start) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        if start == "zero":
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.down(x)))


def low_frequencies(patches: Tensor, grid: tuple[int, int], cutoff: float) -> Tensor:
    """Return the part of the tokens within the window around the constant, in float32, also under autocast.

    The release transforms, shifts, cuts, transforms back and takes the real part; the high frequencies, which it
    transforms back too, are the rest, because the transform is linear.

    Args:
        patches: (N, h*w, C), row by row.
        grid: (h, w).
        cutoff: see `EarthAdapter`.

    Returns:
        (N, h*w, C) float32.
    """
    with torch.autocast(patches.device.type, enabled=False):
        maps = patches.float().unflatten(1, grid)
        spectrum = torch.fft.rfft2(maps, dim=(1, 2), norm="ortho")
        window = _half_window(grid, cutoff, patches.device)[..., None]
        return torch.fft.irfft2(spectrum * window, s=grid, dim=(1, 2), norm="ortho").flatten(1, 2)


@lru_cache(maxsize=16)
def _half_window(grid: tuple[int, int], cutoff: float, device: torch.device) -> Tensor:
    """(h, w // 2 + 1) weights of the frequencies of a real map.

    The window of the release holds frequency -b of an axis, but not +b. Taking the real part after such a window is
    the same as a window that holds half of both.
    """
    half = max(1, int(min(grid) * cutoff // 2))
    inside = [(torch.arange(side) - side // 2 >= -half) & (torch.arange(side) - side // 2 < half) for side in grid]
    window = torch.fft.ifftshift(inside[0][:, None] & inside[1][None, :]).float()
    mirrored = window.flip(0, 1).roll((1, 1), dims=(0, 1))  # frequency k at the place of -k
    return ((window + mirrored) / 2)[:, : grid[1] // 2 + 1].to(device)
