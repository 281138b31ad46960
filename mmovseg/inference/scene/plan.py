"""From a scene, a model and a user's choices to windows, and what they will cost, before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rasterio.transform import Affine

from mmovseg.errors import UserError
from mmovseg.inference.grid import Grid
from mmovseg.inference.scene.blend import BandBlender
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.tiling import Tiling, check_overlap, lattice_phase, make_tiling

DEFAULT_TILE = 384
"""Network pixels, for a model that does not say what it was trained with; the crop of the paper (Sec. 4.1)."""
BATCH_PIXELS = 131_072
"""Network pixels in a batch: 32 windows of 64 px or one of 384. More does not make a CPU faster, only memory larger."""
GSD_TOLERANCE = 1.1
"""A raster is not resampled when its pixels are at most so much larger or smaller than the model's."""
MOST_RESAMPLING = 64.0
"""Pixels whose side differs by more from what the model knows cannot show it anything."""


@dataclass(frozen=True)
class ScenePlan:
    """What will be done.

    tile_net: side of a window as the model sees it, pixels. tile: the same in pixels of the output, `tiling`'s unit.
    gsd_m: of the output, None where its grid has no lengths. model_gsd_m: of what the model sees.
    """

    grid: Grid
    tiling: Tiling
    tile: int
    tile_net: int
    overlap: int
    margin: int
    gsd_m: float | None
    model_gsd_m: float | None
    num_classes: int

    @property
    def resampled(self) -> bool:
        """Whether the model sees other pixels than those of the output."""
        return self.tile != self.tile_net

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the model sees a window of `height` x `width` output pixels."""
        if not self.resampled:
            return height, width
        scale = self.tile_net / self.tile
        return max(1, round(height * scale)), max(1, round(width * scale))

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the pixels, json-able."""
        return {
            "tile": self.tile,
            "network_tile": self.tile_net,
            "overlap": self.overlap,
            "margin": self.margin,
            "batch": self.tiling.batch,
            "first_windows": [self.tiling.rows.starts[:2], self.tiling.columns.starts[:2]],
            "windows": [len(self.tiling.rows.starts), len(self.tiling.columns.starts)],
            "parts": len(self.tiling.parts),
            "gsd_m": self.gsd_m,
            "model_gsd_m": self.model_gsd_m,
        }

    def sums_bytes(self) -> int:
        """Return what the scores of one row of windows take, on the device of the model."""
        return BandBlender.bytes_needed(self.tiling, self.num_classes)

    def part_bytes(self, layer_bytes: int) -> int:
        """Return what the layers of one part take, `layer_bytes` a pixel."""
        rows = max(last - first for first, last in self.tiling.parts)
        return rows * self.tiling.columns.size * layer_bytes


def make_plan(
    grid: Grid,
    *,
    contract: Mapping[str, Any] | None,
    num_classes: int,
    options: SceneOptions,
    network_size: int | None = None,
) -> ScenePlan:
    """Lay windows over a scene.

    Args:
        grid: of the output.
        contract: of the model (`InputContract.to_dict`), or None.
        num_classes: asked for.
        options: of the user.
        network_size: side to which the model resizes whatever it is given, or None.

    Raises:
        UserError: tile, overlap and margin do not fit each other, or the scene's pixels are far from the model's.
    """
    tile_net = options.tile or (contract or {}).get("train_size") or network_size or DEFAULT_TILE
    gsd, model_gsd = grid.gsd_m(), choose_gsd(grid, contract, options)
    scale = 1.0 if gsd is None or model_gsd is None else gsd / model_gsd
    if not 1 / MOST_RESAMPLING <= scale <= MOST_RESAMPLING:
        raise UserError(
            f"'{grid.source}' has pixels of {gsd:g} m and the model is to see {model_gsd:g} m, "
            f"{max(scale, 1 / scale):.0f} times apart; resample it first, or say with --gsd what it shall see"
        )
    tile = max(1, round(tile_net / scale))
    overlap = round(tile * options.overlap)
    margin = round(options.margin / scale)
    check_overlap(tile, overlap, margin)
    transform = grid.transform if grid.crs is not None else Affine.identity()
    phase = lattice_phase(transform, tile - overlap, options.anchor)
    batch = options.batch or max(1, BATCH_PIXELS // tile_net**2)
    tiling = make_tiling(grid.height, grid.width, tile=tile, overlap=overlap, margin=margin, batch=batch, phase=phase)
    return ScenePlan(grid, tiling, tile, tile_net, overlap, margin, gsd, model_gsd, num_classes)


def choose_gsd(grid: Grid, contract: Mapping[str, Any] | None, options: SceneOptions) -> float | None:
    """Return the metres per pixel that the model is to see; None = those of the output, whatever they are.

    The user's wish goes first, then the nearest of what the model was trained on. A pixel within `GSD_TOLERANCE` of it
    is left as it is.
    """
    gsd = grid.gsd_m()
    if gsd is None:
        return None
    trained = (contract or {}).get("gsd_m")
    if options.gsd is not None:
        low = high = options.gsd
    elif trained:
        low, high = (float(value) for value in trained)
    else:
        return gsd
    nearest = min(max(gsd, low), high)
    return gsd if max(gsd / nearest, nearest / gsd) <= GSD_TOLERANCE else nearest


def describe(plan: ScenePlan, facts: Mapping[str, Any], estimate: Mapping[str, float], *, device: str) -> str:
    """Return the plan as lines for people.

    Args:
        plan: what will be done.
        facts: of the scene, see `ScenePair.facts`.
        estimate: ``seconds`` of the windows that are left to do, ``memory_mib`` beyond the loaded model, and on CUDA
            ``gpu_mib``, the same of the GPU.
        device: that does them.
    """
    grid, tiling = plan.grid, plan.tiling
    pixels = f", {plan.gsd_m:.3g} m" if plan.gsd_m is not None else ""
    seen = f"; the model sees {plan.tile_net} px of {plan.model_gsd_m:.3g} m" if plan.resampled else ""
    gpu = f" and {estimate['gpu_mib']:.0f} MiB of the GPU" if "gpu_mib" in estimate else ""
    lines = [
        ("map", f"{grid.width} x {grid.height} px{pixels}, {grid.crs or 'no coordinate system'}"),
        (
            "windows",
            f"{len(tiling.columns.starts)} x {len(tiling.rows.starts)} of {plan.tile} px, overlap {plan.overlap}, "
            f"margin {plan.margin}{seen}; {tiling.batch} a batch; in {len(tiling.parts)} part(s)",
        ),
        ("memory", f"about {estimate['memory_mib']:.0f} MiB{gpu} beyond the loaded model"),
        ("time", f"about {spell_seconds(estimate['seconds'])} on {device}"),
    ]
    overlap = facts.get("overlap_share")
    if overlap is not None:
        lines.insert(1, ("overlap", f"the rasters share {100 * float(overlap):.1f} % of the map"))
    return "\n".join(f"{name:13}{text}" for name, text in lines)


def spell_seconds(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
