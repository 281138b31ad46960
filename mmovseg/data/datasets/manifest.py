"""The manifest of a prepared data set: what every file was when it was made.

``<root>/<set>/manifest.json``: ``{"version", "made_by", "files": {path: facts}}``, paths relative to `<set>`, sorted.
Facts: `sha256`, `bytes`, `height`, `width`, `bands`, `dtype`, `crs` (absent if there is none), of labels also `values`.
No times, so that the same data set has the same manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from tqdm import tqdm

from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.errors import UserError

MANIFEST_FILE = "manifest.json"
VERSION = 1
_LABEL_PREFIXES = ("label", "D2masks")


def write_manifest(
    root: str | Path,
    *,
    made_by: Mapping[str, Any] | None = None,
    files: Iterable[Path] | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Describe the rasters below a folder and write ``manifest.json`` into it, atomically.

    Args:
        root: folder of a data set.
        made_by: json-able facts of how it was made; None keeps those of the manifest that is there.
        files: which files; None = all rasters below `root`.
        show_progress: draw a progress bar on stderr.

    Returns:
        The manifest.

    Raises:
        UserError: the folder is missing or not writable, or a raster is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"folder '{root}' does not exist")
    before = read_manifest(root)
    paths = sorted(_rasters(root) if files is None else files)
    described = {
        path.relative_to(root).as_posix(): describe_file(path)
        for path in tqdm(paths, desc="manifest", unit="file", disable=not show_progress)
    }
    facts = dict(made_by) if made_by is not None else (before or {}).get("made_by", {})
    manifest = {"version": VERSION, "made_by": facts, "files": described}
    path, partial = root / MANIFEST_FILE, root / f".{MANIFEST_FILE}.partial-{os.getpid()}"
    try:
        partial.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"manifest '{path}' cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def read_manifest(root: str | Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or None if it has none.

    Raises:
        UserError: it is damaged or of another version.
    """
    path = Path(root) / MANIFEST_FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"manifest '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"manifest '{path}' is not valid JSON: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise UserError(f"manifest '{path}' has no table 'files'")
    if manifest.get("version") != VERSION:
        raise UserError(f"manifest '{path}' has version {manifest.get('version')}; this program reads {VERSION}")
    return manifest


def describe_file(path: Path) -> dict[str, Any]:
    """Return the facts of one raster.

    Raises:
        UserError: it is no readable raster.
    """
    facts: dict[str, Any] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                facts |= {"height": source.height, "width": source.width, "bands": source.count}
                facts["dtype"] = source.dtypes[0]
                if source.crs:
                    facts["crs"] = crs_name(source.crs)
                if path.parent.name.startswith(_LABEL_PREFIXES):
                    facts["values"] = [int(value) for value in np.unique(source.read(1))]
    except RasterioError as error:
        raise UserError(f"raster '{path}' is damaged, cut off, or not a raster") from error
    return facts


def file_sha256(path: Path) -> str:
    """Return the hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crs_name(crs: Any) -> str:
    """Return ``EPSG:<code>`` where there is one, else the WKT."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None else str(crs.to_wkt())


def _rasters(root: Path) -> list[Path]:
    paths = (path for path in root.rglob("*") if path.suffix.lower() in RASTER_SUFFIXES and path.is_file())
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(root).parts)]
