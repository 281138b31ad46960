r"""Draw what a pretrained model makes of masked pairs: each sensor from itself and from the other (paper, Fig. 4b).

python -m mmovseg.projects.codemae.analysis.panels --config-file projects/CoDeMAE/configs/codemae_xs.py \
    --checkpoint output/codemae/xs/model_final.safetensors --images 4 --output output/panels.png

Units are masked at random as in training, or with `--region ROW COLUMN HEIGHT WIDTH` those that the rectangle touches,
in both sensors. Predicted patches have the mean and deviation of the true ones, since models predict patches without
them; where a patch is visible, the true one is shown, but for what is predicted across sensors, which is shown whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit
from mmovseg.engine.analysis import Findings, load_models, model_parser, run_analysis, sar_unit_of
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.codemae.analysis.features import (
    add_loader,
    choose_pairs,
)
from mmovseg.visualization.draw import normalize_map, optical_to_rgb, sar_to_rgb
from mmovseg.visualization.figure import FAINT, FONT, new_figure, place_axes, save_figure, write
from mmovseg.visualization.plots import note_below

_CELL_IN, _GAP_IN, _CAPTION_IN, _LEFT_IN, _TOP_IN, _BOTTOM_IN = 1.35, 0.07, 0.2, 0.12, 0.75, 0.35
_MASKED = 128  # grey
_KEYS = {"optical": "image", "sar": "sar"}
_NAMES = {"optical": "optical", "sar": "SAR"}
_OTHER = {"optical": "SAR", "sar": "optical"}

Cells = dict[str, tuple[np.ndarray, str]]


def units_of_region(region: Sequence[int], grid: tuple[int, int], unit_size: int) -> Tensor:
    """Return the units (V,) that a rectangle of pixels does not touch, row by row.

    Args:
        region: row, column, height, width in pixels.
        grid: units of the image.
        unit_size: side of a unit, pixels.

    Raises:
        UserError: the rectangle lies outside, or leaves nothing visible.
    """
    row, column, height, width = region
    inside = min(row, column) >= 0 and min(height, width) > 0
    if not inside or row + height > grid[0] * unit_size or column + width > grid[1] * unit_size:
        raise UserError(
            f"--region {' '.join(map(str, region))} does not lie inside images of {grid[0] * unit_size} x "
            f"{grid[1] * unit_size} px"
        )
    masked = torch.zeros(grid, dtype=torch.bool)
    last = (row + height - 1) // unit_size, (column + width - 1) // unit_size
    masked[row // unit_size : last[0] + 1, column // unit_size : last[1] + 1] = True
    if bool(masked.all()):
        raise UserError(f"--region {' '.join(map(str, region))} touches every unit, so nothing is left to predict from")
    return (~masked).flatten().nonzero()[:, 0]


def masked_correlation(predicted: Tensor, truth: Tensor, mask: Tensor, unit_size: int) -> float | None:
    """Return Pearson's correlation of the pixels of masked units, each unit and channel less its mean.

    The mean of a unit is given to a model and not predicted; it alone would make any two images alike.

    Args:
        predicted, truth: (C, H, W) of any scale.
        mask: (h, w) bool, True = masked; units that the image does not fill are left out.
        unit_size: side of a unit, pixels.

    Returns:
        None if nothing is left that varies.
    """
    units = []
    rows, columns = truth.shape[-2] // unit_size, truth.shape[-1] // unit_size
    for image in (predicted, truth):
        whole = image[:, : rows * unit_size, : columns * unit_size].double()
        cells = whole.unfold(1, unit_size, unit_size).unfold(2, unit_size, unit_size)
        inside = cells[:, mask[:rows, :columns]].flatten(2)
        units.append((inside - inside.mean(dim=2, keepdim=True)).flatten())
    scale = units[0].norm() * units[1].norm()
    return float(units[0] @ units[1] / scale) if float(scale) > 1e-9 else None


def pixel_mask(mask: Tensor, unit_size: int, size: tuple[int, int]) -> Tensor:
    """Return (H, W) bool of units (h, w) bool."""
    return mask.repeat_interleave(unit_size, 0).repeat_interleave(unit_size, 1)[: size[0], : size[1]]


def figures_of(item: ModelInput, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return `masked_correlation` by kind and sensor.

    ``own``: a sensor from itself. ``cross``: a sensor's target from the other sensor, masked units of it alone.
    """
    found: dict[str, Any] = {"image_id": item["image_id"], "masked share": float(answer["mask"].double().mean())}
    for kind in ("own", "cross"):
        for sensor, predicted in answer.get(kind, {}).items():
            truth = item[_KEYS[sensor]] if kind == "own" else answer["cross_target"][sensor]  # type: ignore[literal-required]
            mask, size = answer["mask"].cpu(), answer["unit_size"]
            correlation = masked_correlation(predicted.cpu(), truth.cpu(), mask, size)
            found.setdefault(kind, {})[sensor] = correlation
    return found


def cells_of(item: ModelInput, answer: Mapping[str, Any], found: Mapping[str, Any], *, sar_unit: SarUnit) -> Cells:
    """Return the pictures of one pair: column title -> (H, W, 3) uint8 and a caption."""
    cells: Cells = {}
    for sensor in ("optical", "sar"):
        truth = item[_KEYS[sensor]].cpu()  # type: ignore[literal-required]
        shown = _picture(truth, sensor, sar_unit)
        hidden = pixel_mask(answer["mask"], answer["unit_size"], shown.shape[:2]).cpu().numpy()
        masked = np.where(hidden[..., None], np.uint8(_MASKED), shown)
        cells[_NAMES[sensor]] = (shown, "")
        cells[f"{_NAMES[sensor]}, masked"] = (masked, f"{100 * found['masked share']:.0f}%")
        predicted = _picture(answer["own"][sensor].cpu(), sensor, sar_unit)
        caption = _caption(found["own"][sensor])
        cells[f"{_NAMES[sensor]} from itself"] = (np.where(hidden[..., None], predicted, shown), caption)
        if sensor in answer.get("cross", {}):
            target, predicted = answer["cross_target"][sensor].cpu(), answer["cross"][sensor].cpu()
            if answer["cross_in_raster_units"]:
                wanted, made = (_picture(part, sensor, sar_unit) for part in (target, predicted))
            else:
                wanted, made = _planes(target, predicted)
            cells[f"{_NAMES[sensor]} target"] = (wanted, "")
            cells[f"{_NAMES[sensor]} from {_OTHER[sensor]}"] = (made, _caption(found["cross"][sensor]))
    return cells


def _picture(image: Tensor, sensor: str, sar_unit: SarUnit) -> np.ndarray:
    values = image.permute(1, 2, 0).float().numpy()
    return optical_to_rgb(values) if sensor == "optical" else sar_to_rgb(values, unit=sar_unit)


def _planes(target: Tensor, predicted: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both in grey, stretched alike: the mean over planes that are no colours."""
    both = torch.stack([target.float().mean(dim=0), predicted.float().mean(dim=0)]).numpy()
    stretched = (255 * normalize_map(both)).round().astype(np.uint8)
    return np.repeat(stretched[0][..., None], 3, axis=2), np.repeat(stretched[1][..., None], 3, axis=2)


def _caption(correlation: float | None) -> str:
    return "" if correlation is None else f"r = {correlation:.2f}"


def draw_reconstructions(rows: Sequence[Cells], path: str | Path, *, title: str, note: str) -> None:
    """Draw one line of pictures for each pair.

    Args:
        rows: of `cells_of`; all have the same columns.
        path: PNG file; the same pictures give the same bytes.
        title: above everything.
        note: one line at the bottom.
    """
    columns = list(rows[0])
    step_x, step_y = _CELL_IN + _GAP_IN, _CELL_IN + _GAP_IN + _CAPTION_IN
    width = 2 * _LEFT_IN + step_x * len(columns) - _GAP_IN
    height = _TOP_IN + _BOTTOM_IN + step_y * len(rows)
    figure = new_figure(width, height)
    write(figure, _LEFT_IN, height - 0.22, title, size=11, bold=True, align="left")
    for j, name in enumerate(columns):
        write(figure, _LEFT_IN + j * step_x + _CELL_IN / 2, height - _TOP_IN + 0.14, name, size=8.5, bold=True)
    for i, row in enumerate(rows):
        for j, name in enumerate(columns):
            image, caption = row[name]
            y = height - _TOP_IN - i * step_y - _CELL_IN
            axes = place_axes(figure, _LEFT_IN + j * step_x, y, _CELL_IN, _CELL_IN)
            axes.imshow(image, interpolation="nearest", vmin=0, vmax=255)
            axes.set_xlabel(caption, fontsize=7.5, color=FAINT, family=FONT, labelpad=3)
    note_below(figure, note)
    save_figure(figure, path)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = model_parser(__doc__, several=False, output="output/panels.png", images=4, what="pairs")
    add_loader(parser)
    parser.add_argument(
        "--region", nargs=4, type=int, metavar=("ROW", "COLUMN", "HEIGHT", "WIDTH"), help="mask this rectangle, pixels"
    )
    return parser


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    (analysed,) = load_models(args)
    model: Any = analysed.model
    if not hasattr(model, "reconstruct"):
        raise UserError(f"a {type(model).__name__} reconstructs nothing; give a pretraining config")
    items = choose_pairs(analysed.config, loader=args.loader, images=args.images, seed=args.seed)
    torch.manual_seed(args.seed)  # masks
    rows, figures = [], []
    for item in items:  # one by one: the mask of a pair then depends on its place in the list alone
        keep = None
        if args.region:
            grid = tuple(-(-side // model.unit_size) for side in item["image"].shape[-2:])
            keep = units_of_region(args.region, (grid[0], grid[1]), model.unit_size)[None]
        (answer,) = model.reconstruct([item], keep=keep)
        figures.append(figures_of(item, answer))
        rows.append(cells_of(item, answer, figures[-1], sar_unit=sar_unit_of(model)))
    title = f"Masked pairs, filled in ({analysed.label})"
    note = "r: correlation of predicted and true pixels of masked units, each unit less its mean, which is given"
    draw_reconstructions(rows, args.output, title=title, note=note)
    content = {"definition": note, "model": analysed.facts(), "images": figures}
    return Findings(content, ["pairs: " + ", ".join(str(found["image_id"]) for found in figures)])


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("panels", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
