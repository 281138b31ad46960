#!/usr/bin/env python
"""Draw what the model sees after augmentation: optical | clear | SAR | cloud opacity | labels | objects in boxes.

Examples:
    python tools/visualize_data.py --dataset miniearth_train --clouds varied --output output/data
    python tools/visualize_data.py --config-file configs/miniearth/mmovseg_xs.py --num 12 --output output/data
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.data.build import build_test_loader
from mmovseg.data.clouds import CLOUD_KINDS, COVERED_ALPHA, CloudSynthesizer
from mmovseg.data.datasets import get_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit
from mmovseg.data.vocabulary import Vocabulary, get_vocabulary
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.visualization.boxes import draw_boxes
from mmovseg.visualization.draw import color_labels, optical_to_rgb, overlay, sar_to_rgb
from mmovseg.visualization.figure import (
    FAINT,
    add_legend,
    legend_height_in,
    new_figure,
    place_axes,
    save_figure,
    write,
)

ROWS_PER_PAGE = 6
CELL_IN, GAP_IN = 1.6, 0.08

Cells = dict[str, np.ndarray]
Limits = tuple[float, float] | None


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config-file", help="draw the batches of a loader of this config, in training order")
    source.add_argument("--dataset", help="draw a registered data set by name, without augmentation")
    parser.add_argument("--loader", default="train", help="with --config-file: train, test or test.NAME")
    parser.add_argument(
        "--clouds", choices=list(CLOUD_KINDS), help="with --dataset: lay clouds over the optical rasters"
    )
    parser.add_argument(
        "--sar-limits",
        type=float,
        nargs=2,
        metavar=("BLACK", "WHITE"),
        help="dB of black and white, for SAR without calibration; its first channel is then shown alone",
    )
    parser.add_argument("--num", type=int, default=ROWS_PER_PAGE, help="number of samples")
    parser.add_argument("--output", required=True, help="folder for the pictures")
    parser.add_argument("overrides", nargs="*", help="with --config-file: key=value")
    return parser.parse_args(arguments)


def from_config(args: argparse.Namespace) -> tuple[Iterable[list[ModelInput]], Vocabulary | None, SarUnit]:
    """Return the batches of a config's loader, read here, the classes of its labels if any, the unit of its SAR."""
    config = apply_overrides(load_config(args.config_file), args.overrides)
    node = OmegaConf.select(config, f"dataloader.{args.loader}")
    if not isinstance(node, DictConfig) or "mapper" not in node:
        raise UserError(f"config '{args.config_file}' has no loader 'dataloader.{args.loader}' with a mapper")
    node.num_workers = 0
    mapper = instantiate(node.mapper)
    unit = getattr(mapper.reader, "sar_unit", "db")
    return instantiate(node), mapper.asked if mapper.is_train else mapper.vocabulary, unit


def from_dataset(args: argparse.Namespace) -> tuple[Iterable[list[ModelInput]], Vocabulary | None, SarUnit]:
    """Return the samples of a registered data set, its classes and the unit of its SAR."""
    dataset = get_dataset(args.dataset)
    vocabulary = get_vocabulary(MetadataCatalog.get(args.dataset).vocabulary)
    reader = MiniEarthReader() if "world" in dataset[0] else FileReader()
    clouds = CloudSynthesizer(kind=args.clouds) if args.clouds else None
    mapper = OpticalSARMapper(
        is_train=False, vocabulary=vocabulary, reader=reader, clouds=clouds, with_clear=clouds is not None
    )
    return build_test_loader(dataset=dataset[: args.num], mapper=mapper), vocabulary, _unit_of(reader(dataset[0]).sar)


def _unit_of(sar: np.ndarray | None) -> SarUnit:
    """Tell 8-bit amplitude by its values: whole numbers 0..255, which no raster in dB holds."""
    if sar is None:
        return "db"
    values = sar[np.isfinite(sar)]
    return "amplitude8" if ((values == np.rint(values)) & (values >= 0) & (values <= 255)).all() else "db"


def panels(
    item: ModelInput, vocabulary: Vocabulary | None, sar_unit: SarUnit = "db", sar_limits: Limits = None
) -> Cells:
    """Return the pictures of one sample, (H, W, 3) uint8 or (H, W) in 0..1 for opacity, by column title."""
    cells: Cells = {}
    valid = item["valid"].numpy() if "valid" in item else None
    for key, title in (("image", "optical"), ("image_clear", "without cloud")):
        if key in item:
            image = _hwc(item[key])  # type: ignore[literal-required]
            if image.shape[-1] == 6:  # two dates, the earlier first; labels are of the later
                cells[f"{title} before"], image = optical_to_rgb(image, valid), image[..., 3:]
            cells[title] = optical_to_rgb(image, valid)
    if "sar" in item:
        there = item["sar_valid"].numpy() if "sar_valid" in item else None
        sar = _hwc(item["sar"])
        if sar_unit == "amplitude8":  # copies of one band, or two dates
            sar = sar[..., -1:]
        cells["SAR"] = sar_to_rgb(sar, there, unit=sar_unit, limits_db=sar_limits)
    if "cloud_alpha" in item:
        cells["cloud opacity"] = item["cloud_alpha"].numpy()
    if "sem_seg" in item and vocabulary is not None:
        colors = color_labels(item["sem_seg"].numpy(), vocabulary.colors)
        below = cells.get("without cloud", cells.get("optical", cells.get("SAR")))
        if below is not None and below.shape == colors.shape:
            cells["labels over image"] = overlay(below, colors)
        else:  # evaluation may resize the image, but never the label
            cells["labels"] = colors
    if "instances" in item:
        cells.update(_objects(item, cells.get("optical", cells.get("SAR"))))
    return cells


def _objects(item: ModelInput, image: np.ndarray | None) -> Cells:
    """Return the boxes over the image, one colour a class; nothing where evaluation resized the image but not them."""
    found = item["instances"]
    if image is None or image.shape[:2] != found.image_size:
        return {}
    return {"objects": draw_boxes(image, found.gt_boxes.tensor.numpy(), found.gt_classes.tolist())}


def draw_page(
    items: Sequence[ModelInput],
    path: Path,
    vocabulary: Vocabulary | None,
    title: str,
    sar_unit: SarUnit = "db",
    sar_limits: Limits = None,
) -> None:
    """Draw one row a sample."""
    rows = [panels(item, vocabulary, sar_unit, sar_limits) for item in items]
    columns = list(dict.fromkeys(name for cells in rows for name in cells))
    left, top, step_x, step_y = 0.12, 0.62, CELL_IN + GAP_IN, CELL_IN + 0.26
    width = max(2 * left + step_x * len(columns) - GAP_IN, 4.0)
    bottom = 0.3 if vocabulary is None else legend_height_in(vocabulary, width)
    height = top + bottom + step_y * len(rows)
    figure = new_figure(width, height)
    write(figure, left, height - 0.18, title, size=11, bold=True, align="left")
    for j, name in enumerate(columns):
        write(figure, left + j * step_x + CELL_IN / 2, height - top + 0.12, name, size=9, bold=True)
    for i, (item, cells) in enumerate(zip(items, rows, strict=True)):
        y = height - top - i * step_y - CELL_IN
        for j, name in enumerate(columns):
            if name in cells:
                axes = place_axes(figure, left + j * step_x, y, CELL_IN, CELL_IN)
                axes.imshow(cells[name], interpolation="nearest", cmap="gray", vmin=0, vmax=1)
        write(figure, left, y - 0.1, facts(item), size=7, color=FAINT, align="left")
    shown = "as stored" if sar_unit == "amplitude8" else "VV | VH | VV - VH with fixed dB limits"
    if sar_limits is not None and sar_unit != "amplitude8":
        shown = f"first channel, {sar_limits[0]:g} to {sar_limits[1]:g} dB"
    if vocabulary is None:
        write(figure, width / 2, 0.09, f"SAR: {shown}", size=7.5, color=FAINT)
    else:
        add_legend(figure, vocabulary, note=f"white: 255, ignored.  SAR: {shown}")
    save_figure(figure, path)


def facts(item: ModelInput) -> str:
    """Return one line about a sample: name, sizes, covered and invalid shares."""
    words = [item["image_id"]] if item.get("paired", True) else ["unpaired", item["image_id"]]
    for key in ("image", "sar"):
        if key in item:
            words.append(f"{key} {'x'.join(map(str, item[key].shape))} {str(item[key].dtype)[6:]}")  # type: ignore[literal-required]
    if "cloud_alpha" in item:
        words.append(f"{100 * float((item['cloud_alpha'] > COVERED_ALPHA).float().mean()):.0f}% covered")
    if "sar_valid" in item and not item["sar_valid"].all():
        words.append(f"{100 * (1 - float(item['sar_valid'].float().mean())):.0f}% SAR invalid")
    return "   ".join(words)


def _hwc(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw pages of samples and say where they are."""
    args = parse_args(arguments)
    if args.num < 1:
        raise UserError(f"--num must be at least 1, got {args.num}")
    if args.dataset and args.overrides:
        raise UserError(f"overrides such as '{args.overrides[0]}' need --config-file")
    limits = tuple(args.sar_limits) if args.sar_limits else None
    if limits and not limits[0] < limits[1]:
        raise UserError(f"--sar-limits needs black below white, got {limits[0]:g} and {limits[1]:g}")
    batches, vocabulary, sar_unit = from_config(args) if args.config_file else from_dataset(args)
    items: list[ModelInput] = []
    for batch in batches:
        items += batch
        if len(items) >= args.num:
            break
    name = args.dataset or f"{Path(args.config_file).stem}_{args.loader}"
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for page, first in enumerate(range(0, min(len(items), args.num), ROWS_PER_PAGE), start=1):
        path = folder / f"{name}_{page:02d}.png"
        draw_page(items[first : min(first + ROWS_PER_PAGE, args.num)], path, vocabulary, name, sar_unit, limits)
        print(path)


if __name__ == "__main__":
    main()
