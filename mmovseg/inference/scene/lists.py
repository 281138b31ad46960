"""Which scenes to map: a folder, a table or STAC items, each as a list of jobs.

Nothing is opened here but the list itself; a raster that is missing or damaged is a matter of its own scene.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mmovseg.config.suggest import did_you_mean
from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.data.sar import SAR_UNITS
from mmovseg.data.text import column_separator
from mmovseg.errors import UserError
from mmovseg.inference.scene.options import GDAL_NAME, MAP_SUFFIXES
from mmovseg.inference.scene.rasters import SceneInputs

OPTICAL_ASSETS = ("optical", "visual", "rgb", "image")
SAR_ASSETS = ("sar", "backscatter", "s1")
CLOUD_ASSETS = ("cloud_mask", "cloudmask", "clouds")
NO_ASSET = "none"
"""As the key of an asset: map without this sensor."""

_LARGEST_LIST_BYTES = 256 * 2**20
_NUMBERS = {"optical_bands": int, "sar_bands": int, "optical_range": float}
_NUMBER = {"optical_nodata": float, "sar_nodata": float}
_WORDS = ("sar_unit", "optical_resampling", "sar_resampling")
_PATHS = ("optical", "sar", "cloud_mask")
COLUMNS = ("name", *_PATHS, "output", *_NUMBERS, *_NUMBER, *_WORDS)
"""Columns that a table may have."""


@dataclass(frozen=True)
class SceneJob:
    """One scene of a list: what it is called, its rasters, and the map to write."""

    name: str
    inputs: SceneInputs
    output: Path


def read_jobs(
    source: str | Path,
    *,
    output_dir: str | Path,
    defaults: SceneInputs | None = None,
    optical_asset: str | None = None,
    sar_asset: str | None = None,
) -> list[SceneJob]:
    """Read a list of scenes.

    Args:
        source: a folder with ``optical/`` and ``sar/`` (or one of them; ``cloud_mask/`` where there is one) whose files
            have equal names; a ``.csv`` file with a header line of `COLUMNS`, of which ``optical`` or ``sar`` must be
            there; or STAC items: a ``.json`` or ``.geojson`` file with an item, a list of items or a feature
            collection, or a ``.jsonl`` or ``.ndjson`` file with an item a line. Paths are relative to the file;
            what only GDAL understands (``/vsizip/...``, ``NETCDF:"a.nc":vv``) stays as it is.
        output_dir: folder of the maps, each called ``<name>.tif`` unless the table says otherwise.
        defaults: how rasters are read where the list says nothing.
        optical_asset: key of the optical asset of STAC items; None takes the first of `OPTICAL_ASSETS` that an item
            has, ``none`` maps without.
        sar_asset: the same for SAR and `SAR_ASSETS`.

    Raises:
        UserError: the list cannot be read, is empty, or says something that makes no sense; the sentence names the file
            and the line or item.
    """
    path, defaults = Path(source), defaults or SceneInputs()
    assets = {"optical": _keys(optical_asset, OPTICAL_ASSETS), "sar": _keys(sar_asset, SAR_ASSETS)}
    if path.is_dir():
        jobs = list(_folder_jobs(path, Path(output_dir), defaults))
    elif path.suffix.lower() == ".csv":
        jobs = list(_table_jobs(path, Path(output_dir), defaults))
    elif path.suffix.lower() in (".json", ".geojson", ".jsonl", ".ndjson"):
        jobs = list(_stac_jobs(path, Path(output_dir), defaults, assets))
    else:
        raise UserError(f"'{path}' is no list of scenes: it must be a folder, a .csv, or STAC items in .json or .jsonl")
    if not jobs:
        raise UserError(f"'{path}' lists no scenes")
    _check_distinct(jobs, path)
    _check_list_stays(jobs, path)
    return jobs


def summary_files(jobs: Sequence[SceneJob]) -> list[Path]:
    """Return where the summary of a list goes, JSON and CSV: the folder that holds all maps."""
    folder = Path(os.path.commonpath([os.path.abspath(job.output.parent) for job in jobs]))
    return [folder / f"summary.{suffix}" for suffix in ("json", "csv")]


def _keys(chosen: str | None, usual: Sequence[str]) -> tuple[str, ...]:
    if chosen is None:
        return tuple(usual)
    return () if chosen == NO_ASSET else (chosen,)


def _folder_jobs(folder: Path, output_dir: Path, defaults: SceneInputs) -> Iterator[SceneJob]:
    found = {kind: _rasters(folder / kind) for kind in _PATHS}
    kinds = [kind for kind in ("optical", "sar") if (folder / kind).is_dir()]
    if not kinds:
        raise UserError(f"folder '{folder}' holds neither a folder 'optical' nor a folder 'sar'")
    for kind, other in (("optical", "sar"), ("sar", "optical")):
        single = sorted(found[kind].keys() - found[other].keys())
        if len(kinds) == 2 and single:
            more = f" (and {len(single) - 1} more)" if len(single) > 1 else ""
            raise UserError(f"'{found[kind][single[0]]}'{more} has no partner of that name in '{folder / other}'")
    for name in sorted(found[kinds[0]]):
        paths: dict[str, Any] = {kind: str(files[name]) for kind, files in found.items() if name in files}
        yield SceneJob(name, replace(defaults, **paths), output_dir / f"{name}.tif")


def _rasters(folder: Path) -> dict[str, Path]:
    """Return the rasters of a folder by name without suffix."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"folder '{folder}' cannot be read: {error.strerror}") from error
    for path in paths:
        if path.suffix.lower() not in RASTER_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            raise UserError(f"'{found[path.stem]}' and '{path}' have one name; which is the scene's?")
        found[path.stem] = path
    return found


def _table_jobs(path: Path, output_dir: Path, defaults: SceneInputs) -> Iterator[SceneJob]:
    lines = _text(path).splitlines()
    separator = column_separator(lines[0] if lines else "")
    try:
        rows = list(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error as error:
        raise UserError(f"'{path}' is no table: {error}") from error
    columns = [name.strip() for name in rows[0]] if rows else []
    for name in columns:
        if name not in COLUMNS:
            hint = did_you_mean(name, COLUMNS)
            raise UserError(f"'{path}' has a column '{name}' that is not known{hint}; known: {', '.join(COLUMNS)}")
        if columns.count(name) > 1:
            raise UserError(f"'{path}' has two columns '{name}'")
    if not {"optical", "sar"} & set(columns):
        raise UserError(f"'{path}' needs a header line with a column 'optical' or 'sar', or both")
    for number, row in enumerate(rows[1:], start=2):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        where = f"'{path}', line {number}"
        if len(cells) != len(columns):
            raise UserError(f"{where} has {len(cells)} fields, the header {len(columns)}")
        yield _table_job(dict(zip(columns, cells, strict=True)), path, output_dir, defaults, where)


def _table_job(cells: Mapping[str, str], path: Path, output_dir: Path, defaults: SceneInputs, where: str) -> SceneJob:
    values: dict[str, Any] = {name: _locate(cells[name], path) for name in _PATHS if cells.get(name)}
    if "optical" not in values and "sar" not in values:
        raise UserError(f"{where} names neither an optical nor a SAR raster")
    for name, kind in _NUMBERS.items():
        if cells.get(name):
            values[name] = tuple(_number(word, kind, name, where) for word in re.split(r"[\s,/]+", cells[name]))
    for name, kind in _NUMBER.items():
        if cells.get(name):
            values[name] = _number(cells[name], kind, name, where)
    values |= {name: cells[name] for name in _WORDS if cells.get(name)}
    if values.get("sar_unit", "db") not in SAR_UNITS:
        raise UserError(f"{where}: sar_unit is '{values['sar_unit']}', it must be one of {', '.join(SAR_UNITS)}")
    if len(values.get("optical_range", (0, 1))) != 2:
        raise UserError(f"{where}: optical_range is '{cells['optical_range']}', it must be two numbers")
    output = Path(cells.get("output") or f"{_safe(cells.get('name') or _stem(values, where))}.tif")
    if output.suffix.lower() not in MAP_SUFFIXES:
        raise UserError(f"{where}: the map is a GeoTIFF, so output '{output}' must end in .tif")
    return SceneJob(cells.get("name") or output.stem, replace(defaults, **values), output_dir / output)


def _number(word: str, kind: type[int] | type[float], name: str, where: str) -> float:
    try:
        return kind(word)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise UserError(f"{where}: {name} holds '{word}', which is not {wanted}") from error


def _stac_jobs(
    path: Path, output_dir: Path, defaults: SceneInputs, assets: Mapping[str, Sequence[str]]
) -> Iterator[SceneJob]:
    for number, item in enumerate(_items(path), start=1):
        if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
            raise UserError(f"'{path}': entry {number} is no STAC item (it has no 'assets')")
        name = str(item.get("id") or f"scene_{number}")
        where = f"'{path}', item '{name}'"
        values: dict[str, Any] = {
            kind: _asset(item["assets"], keys, kind, path, where) for kind, keys in assets.items() if keys
        }
        if not values:
            raise UserError(f"both assets are '{NO_ASSET}': there is nothing to map in '{path}'")
        clouds = next((key for key in CLOUD_ASSETS if key in item["assets"]), None)
        if clouds is not None and "optical" in values:
            values["cloud_mask"] = _asset(item["assets"], (clouds,), "cloud mask", path, where)
        yield SceneJob(name, replace(defaults, **values), output_dir / f"{_safe(name)}.tif")


def _items(path: Path) -> list[Any]:
    """Return the items of a file, whatever holds them."""
    text = _text(path)
    try:
        if path.suffix.lower() in (".jsonl", ".ndjson"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not valid JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("features"), list):
        return content["features"]
    if isinstance(content, dict) and content.get("type") in ("Collection", "Catalog"):
        raise UserError(f"'{path}' is a STAC {content['type'].lower()}; give its items, as a feature collection")
    return content if isinstance(content, list) else [content]


def _asset(assets: Mapping[str, Any], keys: Sequence[str], kind: str, path: Path, where: str) -> str:
    key = next((key for key in keys if key in assets), None)
    if key is None:
        option = f"--{kind}-asset"
        raise UserError(
            f"{where} has no asset {' or '.join(repr(key) for key in keys)}; it has: {', '.join(assets) or 'none'}; "
            f"choose with {option}, or map without by {option} {NO_ASSET}"
        )
    href = assets[key].get("href") if isinstance(assets[key], dict) else None
    if not isinstance(href, str) or not href:
        raise UserError(f"{where}: asset '{key}' has no 'href'")
    return _locate(unquote(urlsplit(href).path) if href.startswith("file://") else href, path)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_LIST_BYTES:
            raise UserError(f"'{path}' is no list of scenes: it has more than {_LARGEST_LIST_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"list of scenes '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"list of scenes '{path}' is no text in UTF-8") from error
    if "\0" in text or "\\u0000" in text:
        raise UserError(f"list of scenes '{path}' is no text: it holds a NUL character")
    return text


def _locate(text: str, beside: Path) -> str:
    """Return a path relative to the list, or what only GDAL understands as it is."""
    path = str(beside.parent / text)
    return text if GDAL_NAME.match(text) and not os.path.exists(path) else path


def _stem(values: Mapping[str, Any], where: str) -> str:
    raster = values.get("optical") or values["sar"]
    stem = Path(raster).stem
    if not stem:
        raise UserError(f"{where}: '{raster}' has no file name; name the scene")
    return stem


def _safe(name: str) -> str:
    """Return a name that is one file in one folder on every system."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "scene"


def _check_distinct(jobs: Sequence[SceneJob], path: Path) -> None:
    seen: dict[Path, SceneJob] = {}
    for job in jobs:
        other = seen.setdefault(job.output, job)
        if other is not job:
            raise UserError(
                f"'{path}' lists two scenes whose map is '{job.output.name}' ('{other.name}' and '{job.name}'); "
                "give each a name of its own"
            )


def _check_list_stays(jobs: Sequence[SceneJob], path: Path) -> None:
    place = os.path.realpath(path)
    for written in (*summary_files(jobs), *(job.output.with_suffix(".json") for job in jobs)):
        if os.path.realpath(written) == place:
            raise UserError(
                f"the list '{path}' lies where a report or the summary of its maps goes; move it, or choose another "
                "--output-dir"
            )
