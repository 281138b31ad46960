"""All files that a scene is written to, checked together before any work is done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from PIL import Image

from mmovseg.errors import UserError
from mmovseg.inference.scene.disk import check_target, is_same_file
from mmovseg.inference.scene.options import MAP_SUFFIXES, SceneOptions
from mmovseg.inference.scene.parts import PLAN_TAG
from mmovseg.inference.scene.polygons import check_polygon_path

_REPORT_KEYS = {"classes", "plan", "resident_mib"}


def check_map_path(path: str | Path) -> Path:
    """Return the path of a map.

    Raises:
        UserError: it does not end like a GeoTIFF.
    """
    if Path(path).suffix.lower() not in MAP_SUFFIXES:
        raise UserError(f"the map is a GeoTIFF, so --output '{path}' must end in .tif")
    return Path(path)


def layer_suffixes(options: SceneOptions, *, clouds: bool) -> list[str]:
    """Return `Layer.suffix` of what is written, the map first; `clouds`: there is a cloud mask."""
    wanted = {
        "": True,
        "confidence": options.confidence,
        "quality": options.quality or clouds,
        "probabilities": options.probabilities,
    }
    return [suffix for suffix, is_wanted in wanted.items() if is_wanted]


def output_files(output: str | Path, options: SceneOptions, *, clouds: bool) -> dict[str, Path]:
    """Return what is written, by its name in a sentence; `clouds`: there is a cloud mask."""
    output = Path(output)
    files = {"the map": output}
    for suffix in layer_suffixes(options, clouds=clouds)[1:]:
        files[f"the {suffix} of the map"] = output.with_name(f"{output.stem}.{suffix}{output.suffix}")
    files["the report"] = output.with_suffix(".json")
    if options.polygons is not None:
        files["the polygons"] = Path(options.polygons)
    if options.picture is not None:
        files["the picture"] = Path(options.picture)
    return files


def check_outputs(
    output: str | Path,
    *,
    options: SceneOptions,
    plan: str,
    inputs: Sequence[str | Path] = (),
    clouds: bool = False,
) -> None:
    """Refuse a scene that could not be written as a whole, or would write over what is not its own.

    A map that is there with another plan is refused by `PartStore.begin`, since an interrupted run may go on. A report
    may replace any report, polygons and a picture those of the same plan; `options.overwrite` lets them replace all.

    Args:
        output: the map.
        options: name the other files.
        plan: of the map, `PartStore.digest`.
        inputs: rasters, and the files that are read through them, such as the sources of a VRT.
        clouds: there is a cloud mask, and so a layer of quality.

    Raises:
        UserError: a file has a wrong ending, is an input, is asked for twice, is a folder, cannot be written, or is
            there and not ours.
    """
    check_map_path(output)
    if options.picture is not None and Path(options.picture).suffix != ".png":
        raise UserError(f"the picture is a PNG, so --picture '{options.picture}' must end in .png")
    files = output_files(output, options, clouds=clouds)
    _check_distinct(files)
    for path in files.values():
        check_target(path, inputs)
    if options.polygons is not None:
        check_polygon_path(options.polygons, overwrite=options.overwrite, plan=plan)
    report = files["the report"]
    if report.exists() and not options.overwrite and not _is_report(report):
        raise UserError(
            f"'{report}' is where the report goes, and it holds something else; give --overwrite, or another --output"
        )
    picture = files.get("the picture")
    if picture is not None and picture.exists() and not options.overwrite and _plan_of_picture(picture) != plan:
        raise UserError(
            f"'{picture}' exists and is not the picture of this map; give --overwrite to replace it, or another name"
        )


def _check_distinct(files: Mapping[str, Path]) -> None:
    for (what, path), (other, other_path) in combinations(files.items(), 2):
        if os.path.realpath(path) == os.path.realpath(other_path) or is_same_file(path, other_path):
            raise UserError(f"'{other_path}' cannot hold both {what} and {other}; give each a name of its own")


def _is_report(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and set(content) >= _REPORT_KEYS


def _plan_of_picture(path: Path) -> str | None:
    """Return the plan of the map that a picture shows, None when it is of another kind."""
    try:
        with Image.open(path) as picture:
            return picture.info.get(PLAN_TAG)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
