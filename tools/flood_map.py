#!/usr/bin/env python
r"""Map a flood from images before and after it: a GeoTIFF, hectares and a picture.

    tools/flood_map.py --optical-before b.tif --optical-after a.tif --sar-before c.tif --sar-after d.tif \
        --config-file F --weights W.safetensors --output flood.tif

All rasters must lie on one grid. Two ways, chosen by --method:

    water    ask the model for water on each date; flooded = water after and not before. With the later date alone,
             water is written as "water, state before unknown".
    direct   one look of a model that was trained to tell flooded from dry (configs/ombria); it gets both dates stacked
             if it reads as many bands.

Written: OUTPUT (dry 0, permanent water 1, flooded 2, water of unknown past 3, no data 255), and beside it .json and
.csv with hectares and .png. Rasters are read whole; large ones are shrunk for the model (--max-size).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmovseg.checkpoint.load import file_sha256
from mmovseg.data.io import read_optical, read_sar
from mmovseg.data.sar import SAR_UNITS, convert_sar
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.evaluation.provenance import source_commit
from mmovseg.evaluation.report import text_table
from mmovseg.inference.area import row_pixel_areas
from mmovseg.inference.flood import (
    CLASSES,
    area_report,
    combine_dates,
    from_flood_classes,
    write_product,
    write_report,
)
from mmovseg.inference.grid import common_grid
from mmovseg.inference.pair import add_override_argument, check_files
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.disk import check_target
from mmovseg.visualization.floods import draw_flood, show_date
from mmovseg.weights import resolve

METHODS = ("water", "direct")
WATER_NAMES = ("water",)
FLOOD_NAMES = ("flood water", "flooded land", "flooded")
BESIDE = (".json", ".csv", ".png")
"""Endings of what is written beside the product."""


@dataclass(frozen=True)
class Date:
    """The rasters of one date, each with NaN where it has no data, or None; `valid` (H, W): either has data."""

    optical: np.ndarray | None
    sar: np.ndarray | None

    @property
    def valid(self) -> np.ndarray:
        masks = [np.isfinite(raster).all(axis=-1) for raster in (self.optical, self.sar) if raster is not None]
        return np.logical_or.reduce(masks)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    for option, what in (
        ("--optical-before", "optical image of the earlier date"),
        ("--sar-before", "SAR image of the earlier date"),
        ("--optical-after", "optical image of the later date"),
        ("--sar-after", "SAR image of the later date"),
    ):
        parser.add_argument(option, metavar="FILE", help=what)
    parser.add_argument("--config-file", required=True, metavar="F", help="model")
    parser.add_argument("--weights", metavar="F", help="checkpoint (default: the one that the config names)")
    parser.add_argument("--method", choices=METHODS, default="water", help="see above (default: %(default)s)")
    parser.add_argument("--prompts", metavar="NAMES", help="classes to ask for (default: those of the config)")
    parser.add_argument(
        "--water", metavar="NAMES", help="which of them are water, or flooded with --method direct (default: by name)"
    )
    parser.add_argument("--output", default="output/flood.tif", metavar="FILE", help="product (default: %(default)s)")
    parser.add_argument("--optical-bands", type=int, nargs=3, metavar="N", help="1-based red, green, blue")
    parser.add_argument(
        "--optical-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of black and white"
    )
    parser.add_argument("--sar-bands", type=int, nargs="+", metavar="N", help="1-based, in the order of the model")
    parser.add_argument("--sar-unit", choices=SAR_UNITS, default="db", help="of the files (default: %(default)s)")
    add_override_argument(parser)
    parser.add_argument("--max-size", type=int, default=512, metavar="PX", help="larger rasters are shrunk")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def read_date(args: argparse.Namespace, date: str, predictor: Predictor) -> Date | None:
    """Read what the command line names for ``before`` or ``after``; None when it names nothing.

    Raises:
        UserError: a file is unusable, or does not look like what the model was trained on.
    """
    optical_path, sar_path = getattr(args, f"optical_{date}"), getattr(args, f"sar_{date}")
    if not optical_path and not sar_path:
        return None
    optical = sar = None
    if optical_path:
        image, valid = read_optical(optical_path, bands=args.optical_bands, optical_range=args.optical_range)
        optical = np.where(valid[..., None], image.astype(np.float32), np.float32(np.nan))
    if sar_path:
        sar, _ = read_sar(sar_path, bands=args.sar_bands)
        sar = convert_sar(sar, unit_in=args.sar_unit, unit_out=predictor.sar_unit)
    check_files(args, predictor, optical=optical_path, sar=sar_path, sar_unit=args.sar_unit)
    return Date(optical, sar)


def chosen_classes(vocabulary: Vocabulary, wanted: str | None, usual: Sequence[str], what: str) -> list[int]:
    """Return the positions of the classes that count as water or as flooded.

    Raises:
        UserError: a name that was not asked for, or none of the usual names is among the prompts.
    """
    names = [name.strip() for name in wanted.split(",")] if wanted else list(usual)
    found = [vocabulary.find(name) for name in names]
    if wanted and None in found:
        raise UserError(f"--water names '{names[found.index(None)]}', which is not among the classes asked for")
    chosen = [index for index in found if index is not None]
    if not chosen or len(set(chosen)) == len(vocabulary):
        raise UserError(
            f"the classes asked for ({', '.join(vocabulary.names)}) must hold one that is {what} and one that is not; "
            "see --prompts and --water"
        )
    return chosen


def segment(predictor: Predictor, date: Date, vocabulary: Vocabulary, chosen: Sequence[int]) -> np.ndarray:
    """Return where one of the chosen classes wins: (H, W) bool."""
    winner = predictor(date.optical, date.sar, vocabulary).argmax(dim=0).numpy()
    return np.isin(winner, list(chosen))


def stack_dates(predictor: Predictor, before: Date | None, after: Date) -> Date:
    """Return what a flood model reads: the later date, or both in one raster when it reads as many bands.

    Raises:
        UserError: the model needs the earlier date and it is missing.
    """
    wants = {"optical": predictor.num_optical_bands, "sar": predictor.num_polarisations}
    joined: dict[str, np.ndarray | None] = {}
    for role in ("optical", "sar"):
        later: np.ndarray | None = getattr(after, role)
        if later is None or wants[role] in (None, later.shape[-1]):
            joined[role] = later
            continue
        earlier = getattr(before, role) if before is not None else None
        if earlier is None:
            raise UserError(f"this model reads {wants[role]} {role} bands, both dates; give --{role}-before as well")
        joined[role] = np.concatenate([earlier, later], axis=-1)
    return Date(joined["optical"], joined["sar"])


def make_product(
    predictor: Predictor, args: argparse.Namespace, before: Date | None, after: Date
) -> tuple[np.ndarray, dict[str, Any]]:
    """Run the model and return the product and facts on how it came about."""
    vocabulary = predictor.ask_for(args.prompts) if args.prompts else predictor.vocabulary
    if vocabulary is None:
        raise UserError(f"config '{args.config_file}' names no classes to ask for; give --prompts")
    direct = args.method == "direct"
    usual, what = (FLOOD_NAMES, "flooded") if direct else (WATER_NAMES, "water")
    chosen = chosen_classes(vocabulary, args.water, usual, what)
    facts = {"method": args.method, "prompts": vocabulary.names, what: [vocabulary.names[index] for index in chosen]}
    if direct:
        flooded = segment(predictor, stack_dates(predictor, before, after), vocabulary, chosen)
        return from_flood_classes(flooded, after.valid), facts
    water_after = segment(predictor, after, vocabulary, chosen)
    if before is None:
        return combine_dates(water_after, after.valid), facts
    return combine_dates(water_after, after.valid, segment(predictor, before, vocabulary, chosen), before.valid), facts


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command line; `argv` None takes that of the process. Returns the area report."""
    args = argument_parser().parse_args(argv)
    output = Path(args.output)
    if output.suffix.lower() not in (".tif", ".tiff"):
        raise UserError(f"--output '{output}' must end in .tif")
    names = ("optical_after", "sar_after", "optical_before", "sar_before")
    inputs = {name: getattr(args, name) for name in names if getattr(args, name)}
    if not args.optical_after and not args.sar_after:
        raise UserError("there is no image of the date after the event: give --optical-after, --sar-after or both")
    grid = common_grid(list(inputs.values()))
    # Without hectares there is no report; better told now than after the model has run.
    row_pixel_areas((grid.height, grid.width), crs=grid.crs, transform=grid.transform, source=grid.source)
    for suffix in (output.suffix, *BESIDE):
        check_target(output.with_suffix(suffix), list(inputs.values()))
    predictor = Predictor(args.config_file, args.weights, args.device, max_size_px=args.max_size)
    after = read_date(args, "after", predictor)
    assert after is not None
    before = read_date(args, "before", predictor)
    product, facts = make_product(predictor, args, before, after)
    weights = args.weights or predictor.config.train.init_checkpoint
    facts |= {"inputs": inputs, "config": args.config_file, "weights": str(weights)}
    facts |= {"weights_sha256": file_sha256(resolve(weights)), "commit": source_commit()}
    report = area_report(product, grid, facts=facts)
    write_product(output, product, grid, tags={"METHOD": args.method, "PROMPTS": ", ".join(facts["prompts"])})
    json_path, csv_path, picture = (output.with_suffix(suffix) for suffix in BESIDE)
    write_report(report, json_path, csv_path)
    dates = [date and show_date(date.optical, date.sar, sar_unit=predictor.sar_unit) for date in (before, after)]
    areas = {name: row["hectares"] for name, row in report["classes"].items()}
    draw_flood(picture, product, before=dates[0], after=dates[1], classes=CLASSES, hectares=areas)
    rows = [[name, str(row["pixels"]), f"{row['hectares']:.2f}"] for name, row in report["classes"].items()]
    print(text_table(rows, ["class", "pixels", "hectares"], text_columns=1))
    print(f"wrote {output} and beside it {', '.join(BESIDE)}")
    return report


if __name__ == "__main__":
    main()
