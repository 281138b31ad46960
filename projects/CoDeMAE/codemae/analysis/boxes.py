r"""Draw what a detector finds beside what is there: one row an image of the test loader.

python -m mmovseg.projects.codemae.analysis.boxes \
    --config-file projects/CoDeMAE/configs/faster_rcnn_miniearth_xs.py \
    --checkpoint output/codemae/faster_rcnn_xs/model_final.safetensors --output output/boxes.png

The figures go beside the picture as .json: objects and detections of every image, in pixels of the original.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from torch import nn

from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit
from mmovseg.engine.analysis import Findings, choose_items, load_models, model_parser, run_analysis, sar_unit_of
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.codemae.modeling.detector import Detector
from mmovseg.visualization.boxes import add_box_legend, draw_boxes
from mmovseg.visualization.draw import optical_to_rgb, sar_to_rgb
from mmovseg.visualization.figure import FAINT, new_figure, place_axes, save_figure, write

_CELL_IN, _GAP_IN, _SIDE_IN, _TOP_IN, _BOTTOM_IN, _LINE_IN = 3.0, 0.1, 0.12, 0.3, 0.42, 0.2


@dataclass(frozen=True)
class Found:
    """One image with its objects and the detections that are drawn."""

    item: ModelInput
    truth: Instances
    detections: Instances


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = model_parser(__doc__, several=False, output="output/boxes.png", images=4)
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is drawn, 0 to 1 (default: 0.3)")
    return parser


@torch.no_grad()
def detect(model: nn.Module, items: Sequence[ModelInput], score: float) -> list[Found]:
    """Return objects and detections of every image, on the CPU; detections of a lower score are left out."""
    model.eval()
    found = []
    for item in items:
        detections: Instances = model([item])[0]["instances"].to("cpu")
        found.append(Found(item, item["instances"], detections[detections.scores >= score]))
    return found


def image_of(item: ModelInput, size: tuple[int, int], unit: SarUnit) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 of the raster that the model reads, in the size of the original."""
    key = "image" if "image" in item else "sar"
    raster: torch.Tensor = item[key]  # type: ignore[literal-required]
    if raster.shape[1:] != size:
        raster = nn.functional.interpolate(raster[None].float(), size=size, mode="bilinear", antialias=True)[0]
    array = raster.permute(1, 2, 0).numpy()
    return optical_to_rgb(array) if key == "image" else sar_to_rgb(array, unit=unit)


def draw_page(found: Sequence[Found], categories: Sequence[str], path: str | Path, *, unit: SarUnit, note: str) -> None:
    """Draw one row an image: the truth on the left, detections on the right.

    Args:
        found: from `detect`.
        categories: names of the classes.
        path: PNG file.
        unit: of SAR.
        note: one line at the bottom.
    """
    step = _CELL_IN + _LINE_IN
    width = 2 * _SIDE_IN + 2 * _CELL_IN + _GAP_IN
    figure = new_figure(width, _TOP_IN + len(found) * step + _BOTTOM_IN)
    top = figure.get_figheight() - _TOP_IN
    for column, title in enumerate(("truth", "detections")):
        write(figure, _SIDE_IN + column * (_CELL_IN + _GAP_IN) + _CELL_IN / 2, top + 0.14, title, size=10, bold=True)
    for row, one in enumerate(found):
        image = image_of(one.item, one.truth.image_size, unit)
        sides = (
            (one.truth.gt_boxes.tensor.numpy(), one.truth.gt_classes.tolist()),
            (one.detections.pred_boxes.tensor.numpy(), one.detections.pred_classes.tolist()),
        )
        bottom = top - row * step - _CELL_IN
        for column, (boxes, classes) in enumerate(sides):
            axes = place_axes(figure, _SIDE_IN + column * (_CELL_IN + _GAP_IN), bottom, _CELL_IN, _CELL_IN)
            axes.imshow(draw_boxes(image, boxes, classes))
        counts = (_counted(len(one.truth), "object"), _counted(len(one.detections), "detection"))
        words = f"{one.item['image_id']}   {', '.join(counts)}"
        write(figure, _SIDE_IN, bottom - 0.1, words, size=7, color=FAINT, align="left")
    add_box_legend(figure, categories)
    write(figure, width / 2, 0.06, note, size=7, color=FAINT)
    save_figure(figure, path)


def figures(found: Sequence[Found], categories: Sequence[str]) -> list[dict[str, Any]]:
    """Return objects and detections of every image as plain values."""
    return [
        {
            "image_id": one.item["image_id"],
            "objects": _listed(categories, one.truth.gt_classes, one.truth.gt_boxes.tensor),
            "detections": [
                {**entry, "score": round(float(score), 4)}
                for entry, score in zip(
                    _listed(categories, one.detections.pred_classes, one.detections.pred_boxes.tensor),
                    one.detections.scores,
                    strict=True,
                )
            ],
        }
        for one in found
    ]


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _listed(categories: Sequence[str], classes: torch.Tensor, boxes: torch.Tensor) -> list[dict[str, Any]]:
    pairs = zip(classes.tolist(), boxes.tolist(), strict=True)
    return [{"category": categories[number], "box": [round(value, 2) for value in box]} for number, box in pairs]


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    if not 0 <= args.score <= 1:
        raise UserError(f"--score must lie in 0 .. 1, got {args.score:g}")
    (analysed,) = load_models(args)
    model = analysed.model
    if not isinstance(model, Detector):
        raise UserError(f"config '{args.config_file}' builds a {type(model).__name__}, which finds no boxes")
    items = choose_items(analysed.config, loader=None, images=args.images, seed=args.seed)
    found = detect(model, items, args.score)
    note = f"detections with a score of {args.score:g} or more, by {args.checkpoint}"
    draw_page(found, model.categories, args.output, unit=sar_unit_of(model), note=note)
    return Findings({"images": figures(found, model.categories)})


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("boxes", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
