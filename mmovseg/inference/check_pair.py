"""`mmovseg check-pair`: do two rasters fit together? Overlap, resolution, dates and the shift that is left.

The rasters are laid over each other by their georeference, as for a map, and compared window by window. Nothing is
moved by what is found: a shift is for the user to judge, and to mend in the georeference of one of the rasters.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from mmovseg.data.sar import SAR_UNITS
from mmovseg.errors import OneLineParser, UserError, exit_on_user_error
from mmovseg.evaluation.report import write_text
from mmovseg.inference.coregistration import (
    LEAST_SEARCH_PX,
    SEARCH_PX,
    WINDOW_PX,
    Correlation,
    Shift,
    add_up,
    correlate,
    find_shift,
    share_near,
)
from mmovseg.inference.scene.disk import check_target
from mmovseg.inference.scene.failures import plain_errors
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair, WindowData
from mmovseg.visualization.draw import optical_to_rgb
from mmovseg.visualization.figure import FAINT, new_figure, place_axes, save_figure, write

_LEAST_PX = 64
_LEAST_COMMON = 0.2
_CHECKER_PX = 40
_DATE_TAGS = re.compile(r"ACQUISITION.*|.*SENSING.*|(PRODUCT_)?START_TIME|DATETIME|TIFFTAG_DATETIME", re.IGNORECASE)
_DATE = re.compile(r"(\d{4})[-:/]?(\d{2})[-:/]?(\d{2})")


@dataclass(frozen=True)
class PairWindow:
    """A window of both rasters at the coarser one's pixel size, and how well they agree.

    `row`, `col`: its centre in pixels of the optical raster. `optical` (h, w, 3), `sar` (h, w) in dB, `valid` (h, w).
    """

    row: float
    col: float
    optical: np.ndarray
    sar: np.ndarray
    valid: np.ndarray
    correlation: Correlation

    @property
    def shift(self) -> Shift:
        return find_shift(self.correlation)


def check_pair(
    inputs: SceneInputs, *, search_px: int = SEARCH_PX, windows: int = 5, picture: str | Path | None = None
) -> dict[str, Any]:
    """Compare two rasters.

    Args:
        inputs: an optical and a SAR raster; a cloud mask leaves out what it covers.
        search_px: the largest shift looked for, in pixels of the coarser raster, at least `LEAST_SEARCH_PX`.
        windows: at most so many windows of `WINDOW_PX` down and across are compared, spread over the scene.
        picture: PNG to draw, None draws none.

    Returns:
        json-able: ``optical`` and ``sar`` (crs, gsd_m, height, width, date), ``gsd_ratio`` (SAR over optical),
        ``overlap_share`` of the optical raster, ``days_apart``, ``shift`` (of the SAR content against the optical one:
        down_px, right_px in optical pixels, metres, sharpness, is_sure, windows, share_near) or None, ``verdict``.

    Raises:
        UserError: a raster is missing or unusable, the two have nothing in common, or the picture cannot be written.
    """
    if picture is not None:
        check_report_path(picture, inputs, suffix=".png", what="the picture is a PNG, so --picture")
    if inputs.optical is None or inputs.sar is None:
        raise UserError("a pair is an optical and a SAR raster; one of them is missing")
    if search_px < LEAST_SEARCH_PX or windows < 1:
        raise UserError(
            f"search must be at least {LEAST_SEARCH_PX} pixels and windows at least 1, got {search_px} and {windows}"
        )
    with ScenePair(inputs, contract=None, override_contract=True) as pair:
        facts = pair.facts
        coarser = _coarser(facts["sar"].get("pixels_per_map_pixel"))
        found, search_px = _compare(pair, coarser, search_px, windows)
        warnings = list(pair.warnings)
    dates = {kind: acquisition_date(getattr(inputs, kind)) for kind in ("optical", "sar")}
    report: dict[str, Any] = {
        kind: {key: facts[kind][key] for key in ("file", "crs", "gsd_m", "height", "width")} | {"date": dates[kind]}
        for kind in ("optical", "sar")
    }
    sizes = [facts[kind]["gsd_m"] for kind in ("sar", "optical")]
    report["gsd_ratio"] = round(sizes[0] / sizes[1], 4) if all(sizes) else None
    report["overlap_share"] = facts["overlap_share"]
    report["days_apart"] = days_between(dates["optical"], dates["sar"])
    report["searched_px"] = round(search_px * coarser, 2)
    report["shift"] = _summarise(found, coarser, facts["gsd_m"])
    report["verdict"] = verdict(report)
    report["warnings"] = warnings
    if picture is not None and found:
        draw_pair(found, picture, coarser=coarser, report=report)
        report["picture"] = str(picture)
    return report


def check_report_path(path: str | Path, inputs: SceneInputs, *, suffix: str, what: str) -> None:
    """Refuse a file that is not called after its format, or would be written over a raster, before any work.

    Args:
        path: of what will be written.
        inputs: the rasters.
        suffix: how the name must end.
        what: how the sentence begins.

    Raises:
        UserError: the name ends otherwise, it is that of a raster or folder, or nothing can be written there.
    """
    if Path(path).suffix.lower() != suffix:
        raise UserError(f"{what} '{path}' must end in {suffix}")
    check_target(Path(path), [file for file in (inputs.optical, inputs.sar, inputs.cloud_mask) if file is not None])


def _coarser(per_pixel: Sequence[float] | None) -> float:
    """Return how many optical pixels make a pixel of the coarser raster."""
    return max(1.0, 1.0 / max(min(per_pixel), 1e-6)) if per_pixel else 1.0


def _compare(pair: ScenePair, coarser: float, search_px: int, windows: int) -> tuple[list[PairWindow], int]:
    """Read and correlate the windows; those with too little in common are left out."""
    height, width = (int(size / coarser) for size in (pair.grid.height, pair.grid.width))
    if min(height, width) < _LEAST_PX:
        raise UserError(
            f"'{pair.grid.source}' has {height}x{width} pixels at the size of the coarser raster; "
            f"a shift cannot be told from fewer than {_LEAST_PX}x{_LEAST_PX}"
        )
    side = min(WINDOW_PX, height, width)
    search_px = min(search_px, side // 4)
    found = []
    for row in _starts(height, side, windows):
        for col in _starts(width, side, windows):
            top, left = round(row * coarser), round(col * coarser)
            span = min(round(side * coarser), pair.grid.height - top, pair.grid.width - left)
            data = pair.read(top, left, span, span, out_shape=None if coarser == 1.0 else (side, side))
            window = _window(data, top + span / 2, left + span / 2, search_px)
            if window is not None:
                found.append(window)
    return found, search_px


def _starts(size: int, side: int, most: int) -> list[int]:
    count = min(most, max(1, round(size / side)))
    if count == 1:
        return [(size - side) // 2]
    return [round(number * (size - side) / (count - 1)) for number in range(count)]


def _window(data: WindowData, row: float, col: float, search_px: int) -> PairWindow | None:
    assert data.optical is not None and data.sar is not None
    optical_valid = data.optical_valid if data.clouded is None else data.optical_valid & ~data.clouded
    if (optical_valid & data.sar_valid).mean() < _LEAST_COMMON:
        return None
    sar = np.where(data.sar_valid, data.sar.mean(axis=-1), 0.0)
    grey = data.optical.astype(np.float32).mean(axis=-1)
    correlation = correlate(grey, sar, optical_valid, data.sar_valid, search_px=search_px)
    valid = data.optical_valid & data.sar_valid
    return PairWindow(row, col, optical_to_rgb(np.asarray(data.optical), data.optical_valid), sar, valid, correlation)


def _summarise(found: Sequence[PairWindow], coarser: float, gsd_m: float | None) -> dict[str, Any] | None:
    if not found:
        return None
    whole = find_shift(add_up(window.correlation for window in found))
    near = share_near([window.shift for window in found], whole)
    return {
        "down_px": round(whole.dy * coarser, 2),
        "right_px": round(whole.dx * coarser, 2),
        "length_px": round(whole.length * coarser, 2),
        "metres": None if gsd_m is None else round(whole.length * coarser * gsd_m, 2),
        "step_px": round(coarser, 3),
        "sharpness": round(whole.sharpness, 2),
        "agreement": round(whole.agreement, 4),
        "is_sure": whole.is_sure,
        "windows": len(found),
        "share_near": None if near is None else round(near, 3),
    }


def verdict(report: Mapping[str, Any]) -> str:
    """Return the finding about the shift as a sentence."""
    shift = report["shift"]
    if shift is None:
        return "The two have too little in common to tell whether they are shifted against each other."
    if not shift["is_sure"]:
        return (
            f"Whether they are shifted cannot be told (sharpness {shift['sharpness']}): cloud, water or time may hide "
            f"what both show, or the shift is larger than the {report['searched_px']:g} pixels looked for."
        )
    metres = "" if shift["metres"] is None else f" ({shift['metres']:g} m)"
    where = f"{abs(shift['down_px']):g} px {'down' if shift['down_px'] >= 0 else 'up'} and "
    where += f"{abs(shift['right_px']):g} px {'right' if shift['right_px'] >= 0 else 'left'}"
    if shift["length_px"] <= 1.5 * shift["step_px"]:
        return f"They fit: what SAR shows lies {where}{metres}, within one and a half pixels of the coarser raster."
    return f"They are shifted: what SAR shows lies {where}{metres} of the optical image; mend the georeference of one."


def acquisition_date(path: str | Path | None) -> str | None:
    """Return the day (ISO) that the tags of a raster, or a STAC item beside it, name; None where none is named."""
    if path is None:
        return None
    with rasterio.open(path) as raster:
        tags = {**raster.tags(), **raster.tags(ns="IMAGERY")}
    named = sorted((key for key in tags if _DATE_TAGS.fullmatch(key)), key=lambda key: (key.startswith("TIFF"), key))
    texts = [tags[key] for key in named]
    item = Path(path).with_suffix(".json")
    try:
        properties = json.loads(item.read_text(encoding="utf-8"))["properties"]
        texts.insert(0, str(properties.get("datetime") or properties.get("start_datetime")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return next((day for text in texts if (day := _day(text)) is not None), None)


def _day(text: str) -> str | None:
    found = _DATE.search(text)
    try:
        return datetime.date(*(int(part) for part in found.groups())).isoformat() if found else None
    except ValueError:
        return None


def days_between(first: str | None, second: str | None) -> int | None:
    """Return the days from one ISO date to another without sign, None where one is unknown."""
    if first is None or second is None:
        return None
    return abs((datetime.date.fromisoformat(first) - datetime.date.fromisoformat(second)).days)


def draw_pair(found: Sequence[PairWindow], path: str | Path, *, coarser: float, report: Mapping[str, Any]) -> None:
    """Draw the window that agrees best (optical, SAR, both as a chessboard) and the shift of every window.

    Args:
        found: at least one window.
        path: PNG to write.
        coarser: optical pixels that make one of the window.
        report: of `check_pair`, for the text.
    """
    best = max(found, key=lambda window: window.shift.sharpness)
    low, high = np.percentile(best.sar[best.valid], (2, 98)) if best.valid.any() else (-25.0, 0.0)
    grey = np.clip((best.sar - low) / max(float(high - low), 1e-6), 0, 1)
    sar = (np.repeat(grey[..., None], 3, axis=-1) * 255).astype(np.uint8)
    rows, cols = np.indices(grey.shape)
    board = ((rows // _CHECKER_PX + cols // _CHECKER_PX) % 2 == 0)[..., None]
    cell, gap = 3.2, 0.12
    figure = new_figure(4 * cell + 5 * gap, cell + 0.95)
    views = (("optical", best.optical), ("SAR (dB)", sar), ("both", np.where(board, best.optical, sar)))
    for number, (name, image) in enumerate(views):
        left = gap + number * (cell + gap)
        place_axes(figure, left, 0.5, cell, cell).imshow(image, interpolation="nearest")
        write(figure, left + cell / 2, cell + 0.62, name, size=9)
    left = gap + 3 * (cell + gap)
    axes = place_axes(figure, left, 0.5, cell, cell)
    _draw_arrows(axes, found, coarser, report)
    write(figure, left + cell / 2, cell + 0.62, "shift of SAR by window (grey: not sure)", size=9)
    write(figure, gap, 0.25, report["verdict"], size=8, color=FAINT, align="left")
    save_figure(figure, path)


def _draw_arrows(axes: Any, found: Sequence[PairWindow], coarser: float, report: Mapping[str, Any]) -> None:
    height, width = report["optical"]["height"], report["optical"]["width"]
    shifts = [window.shift for window in found]
    longest = max([one.length * coarser for one in shifts if one.is_sure] + [coarser])
    scale = 0.12 * max(height, width) / longest
    for window, one in zip(found, shifts, strict=True):
        color = "#c0392b" if one.is_sure else "#c7c7cc"
        axes.plot([window.col], [window.row], ".", color=color, markersize=4)
        if one.is_sure:
            end = (window.col + one.dx * coarser * scale, window.row + one.dy * coarser * scale)
            axes.annotate("", end, (window.col, window.row), arrowprops={"arrowstyle": "->", "color": color})
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("equal")
    axes.text(0.02 * width, 0.97 * height, f"longest: {longest:.1f} px", size=7, color=FAINT)


def describe(report: Mapping[str, Any]) -> str:
    """Return the report for people."""
    lines = []
    for kind in ("optical", "sar"):
        part = report[kind]
        size = "pixel size unknown" if part["gsd_m"] is None else f"{part['gsd_m']:g} m"
        date = f", {part['date']}" if part["date"] else ""
        lines.append((kind, f"{part['width']} x {part['height']} px, {size}, {part['crs'] or 'no CRS'}{date}"))
    if report["gsd_ratio"] is not None:
        lines.append(("resolution", f"a SAR pixel is {report['gsd_ratio']:g} times as wide as an optical one"))
    lines.append(("overlap", f"{100 * report['overlap_share']:.1f} % of the optical raster"))
    days = report["days_apart"]
    lines.append(("dates", "not both are tagged" if days is None else f"{days} days apart"))
    if report["shift"] is not None:
        shift = report["shift"]
        near = "" if shift["share_near"] is None else f"; {100 * shift['share_near']:.0f} % of the sure ones agree"
        lines.append(("compared", f"{shift['windows']} windows, sharpness {shift['sharpness']:g}{near}"))
    lines.append(("shift", report["verdict"]))
    lines += [("note", note) for note in report["warnings"]]
    return "\n".join(f"{name:12}{text}" for name, text in lines)


def argument_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Return the parser."""
    parser = OneLineParser(prog=prog, description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--optical", required=True, metavar="FILE", help="optical raster")
    parser.add_argument("--sar", required=True, metavar="FILE", help="SAR raster, on any grid")
    parser.add_argument("--cloud-mask", metavar="FILE", help="raster that is not 0 where the optical one shows cloud")
    parser.add_argument("--optical-bands", type=int, nargs="+", metavar="N", help="1-based red, green and blue band")
    parser.add_argument("--optical-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="black and white")
    parser.add_argument("--optical-nodata", type=float, metavar="V", help="value that means no data")
    parser.add_argument("--sar-bands", type=int, nargs="+", metavar="N", help="1-based (default: all, averaged)")
    parser.add_argument("--sar-unit", choices=SAR_UNITS, help="of the file (default: what it says, else db)")
    parser.add_argument("--sar-nodata", type=float, metavar="V", help="value that means no data")
    parser.add_argument(
        "--search",
        type=int,
        default=SEARCH_PX,
        metavar="PX",
        help="largest shift, pixels of the coarser raster (11 or more; 24)",
    )
    parser.add_argument("--windows", type=int, default=5, metavar="N", help="at most N x N windows (default: 5)")
    parser.add_argument("--picture", metavar="PNG", help="draw the best window and the shifts of all")
    parser.add_argument("--json", metavar="FILE", help="write the report")
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run the command line; `argv` None takes that of the process.

    Returns:
        0; that two rasters do not fit is a finding, not a failure.

    Raises:
        SystemExit: 2 after one line on what to mend.
    """
    args = argument_parser(prog).parse_args(argv)
    names = ("optical_bands", "optical_range", "sar_bands")
    lists: dict[str, Any] = {name: tuple(getattr(args, name)) for name in names if getattr(args, name) is not None}
    for name in ("optical_nodata", "sar_nodata"):
        if getattr(args, name) is not None and math.isinf(getattr(args, name)):
            raise UserError(f"--{name.replace('_', '-')} is {getattr(args, name)}, it must be a number or nan")
    inputs = SceneInputs(
        optical=args.optical,
        sar=args.sar,
        cloud_mask=args.cloud_mask,
        optical_nodata=args.optical_nodata,
        sar_unit=args.sar_unit,
        sar_nodata=args.sar_nodata,
        **lists,
    )
    with plain_errors():
        if args.json is not None:
            check_report_path(args.json, inputs, suffix=".json", what="the report is JSON, so --json")
        report = check_pair(inputs, search_px=args.search, windows=args.windows, picture=args.picture)
        if args.json is not None:
            write_text(args.json, json.dumps(report, indent=1, allow_nan=False) + "\n")
    print(describe(report))
    return 0
