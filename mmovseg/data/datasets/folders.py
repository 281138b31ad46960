"""One's own pairs as dataset dicts: from folders with equal file stems, or from a table of paths."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmovseg.data.text import column_separator, read_text
from mmovseg.errors import UserError

RASTER_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".img", ".vrt", ".bmp")

_PATH_KEYS = ("file_name", "sar_file_name", "sem_seg_file_name")
_NUMBER_KEYS = {"height": int, "width": int, "gsd_m": float, "cloud_fraction": float}
_TEXT_KEYS = ("image_id", "caption")


def load_pair_folder(
    optical_dir: str | Path | None,
    sar_dir: str | Path | None = None,
    label_dir: str | Path | None = None,
    *,
    pattern: str = "*",
    label_map: Mapping[int, int] | None = None,
) -> list[dict[str, Any]]:
    """List the pairs of up to three folders; files belong together when they have the same stem.

    Args:
        optical_dir: folder of the optical rasters; None = a data set without optical.
        sar_dir: folder of the SAR rasters; None = a data set without SAR.
        label_dir: folder of the label rasters; None = without labels.
        pattern: which files to take, matched against the file name in every folder, for example ``"val_*"``.
        label_map: stored label value -> class id, for folders that number classes in their own way; it comes out under
            the key `label_map` of every dict and wins over the one of `FileReader`.

    Returns:
        Dataset dicts, sorted by stem, which is the `image_id`. Extensions may differ (``.tif .tiff .png .jpg .jpeg
        .jp2 .img .vrt .bmp``); other files are not looked at. Sizes are not read here.

    Raises:
        UserError: a folder is missing or has no raster, two files of a folder share a stem, or a partner is missing.
    """
    folders = {"file_name": optical_dir, "sar_file_name": sar_dir, "sem_seg_file_name": label_dir}
    if optical_dir is None and sar_dir is None:
        raise UserError("a data set of pairs needs a folder of optical or of SAR rasters")
    found = {key: _rasters(Path(folder), pattern) for key, folder in folders.items() if folder is not None}
    stems = sorted(set().union(*found.values()))
    for key, files in found.items():
        missing = [stem for stem in stems if stem not in files]
        if missing:
            partner = next(other[missing[0]] for other in found.values() if missing[0] in other)
            raise UserError(
                f"'{partner}' has no partner named '{missing[0]}.*' in '{folders[key]}' "
                f"({len(missing)} of {len(stems)} are missing there)"
            )
    shared: dict[str, Any] = {}
    if label_map is not None and label_dir is not None:
        shared["label_map"] = {int(stored): int(class_id) for stored, class_id in label_map.items()}
    return [{key: str(files[stem]) for key, files in found.items()} | {"image_id": stem} | shared for stem in stems]


def load_pair_csv(path: str | Path, *, root: str | Path | None = None) -> list[dict[str, Any]]:
    """List the pairs of a CSV table with a header of dataset dict keys.

    Args:
        path: columns `file_name`, `sar_file_name`, `sem_seg_file_name`, `image_id`, `height`, `width`, `gsd_m`,
            `cloud_fraction`, `caption`, all but one of the first two optional, between commas, semicolons or tabs.
            UTF-8, with or without the mark of a spreadsheet. An empty cell is an absent key.
        root: what relative paths start from; None = the folder of the table.

    Returns:
        Dataset dicts in the order of the table; a missing `image_id` is the row number.

    Raises:
        UserError: the table is missing, empty or not UTF-8, a column is unknown, a number is not one, an id comes
            twice, or a named file does not exist.
    """
    text = read_text(path, "table")
    separator = column_separator(text.partition("\n")[0])
    table = csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=separator)
    rows = [{key: value for key, value in row.items() if value} for row in table]
    return _table(rows, Path(path), root)


def load_pair_jsonl(path: str | Path, *, root: str | Path | None = None) -> list[dict[str, Any]]:
    """List the pairs of a JSON-lines file: one dataset dict a line, keys as for `load_pair_csv` and also `captions`.

    Raises:
        UserError: as `load_pair_csv`, or a line is not a JSON object.
    """
    rows = []
    for number, line in enumerate(read_text(path, "table").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"table '{path}' line {number} is not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"table '{path}' line {number} is not a JSON object: {line.strip()[:60]}")
        rows.append(row)
    return _table(rows, Path(path), root)


def _rasters(folder: Path, pattern: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"folder '{folder}' does not exist")
    files: dict[str, Path] = {}
    for file in sorted(folder.glob(pattern)):
        if file.suffix.lower() not in RASTER_SUFFIXES or file.name.startswith("."):
            continue
        if file.stem in files:
            raise UserError(
                f"folder '{folder}' has two rasters named '{file.stem}': {files[file.stem].name}, {file.name}"
            )
        files[file.stem] = file
    if not files:
        raise UserError(f"folder '{folder}' has no raster that matches '{pattern}' ({' '.join(RASTER_SUFFIXES)})")
    return files


def _table(rows: list[dict[str, Any]], path: Path, root: str | Path | None) -> list[dict[str, Any]]:
    if not rows:
        raise UserError(f"table '{path}' lists no pair")
    base = path.parent if root is None else Path(root)
    dicts = [_row(row, number, path, base) for number, row in enumerate(rows, start=1)]
    seen: set[str] = set()
    for item in dicts:
        if item["image_id"] in seen:
            raise UserError(f"table '{path}' has the image_id '{item['image_id']}' more than once")
        seen.add(item["image_id"])
    return dicts


def _row(row: Mapping[str, Any], number: int, table: Path, base: Path) -> dict[str, Any]:
    known = (*_PATH_KEYS, *_NUMBER_KEYS, *_TEXT_KEYS, "captions")
    item: dict[str, Any] = {"image_id": str(number)}
    for key, value in row.items():
        if key not in known:
            raise UserError(f"table '{table}' row {number} has the unknown column '{key}'; known: {', '.join(known)}")
        if key in _PATH_KEYS:
            file = base / str(value)
            if not file.is_file():
                raise UserError(f"table '{table}' row {number} names '{file}', which does not exist")
            item[key] = str(file)
        elif key in _NUMBER_KEYS:
            try:
                item[key] = _NUMBER_KEYS[key](value)
            except (TypeError, ValueError) as error:
                raise UserError(
                    f"table '{table}' row {number} has '{value}' as {key}, which is not a number"
                ) from error
        else:
            item[key] = [str(text) for text in value] if key == "captions" else str(value)
    if "file_name" not in item and "sar_file_name" not in item:
        raise UserError(f"table '{table}' row {number} names neither an optical nor a SAR raster")
    return item
