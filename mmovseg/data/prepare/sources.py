"""Downloads as they come: folders, or zip and tar archives, with the interesting folders at some depth."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.errors import UserError

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OTHER_ARCHIVES = (".rar", ".7z")
_TAR_END_BYTES = 1024  # a tar ends in two blocks of zeros
_DEEPEST = 4


def open_sources(sources: Sequence[str | Path], unpack_to: str | Path) -> list[Path]:
    """Return a folder for each source; archives are unpacked once, below `unpack_to`.

    Args:
        sources: folders or archives (``.zip .tar .tar.gz .tgz .tar.bz2 .tar.xz``).
        unpack_to: folder that gets one subfolder an archive; an archive that was unpacked completely is not again.

    Raises:
        UserError: a source is missing, damaged, of another kind, or holds paths that lead outside.
    """
    return [_open(Path(source), Path(unpack_to)) for source in sources]


def find_folder(roots: Sequence[Path], *candidates: str, what: str) -> Path:
    """Find a folder in a download, whatever folders it is wrapped in.

    Args:
        roots: folders of `open_sources`.
        candidates: paths to look for, the preferred first, for example ``"train/rgb"``; case is ignored.
        what: words for the message, for example ``"the optical images of train"``.

    Returns:
        The folder for the first candidate that exists at the least depth.

    Raises:
        UserError: none exists, or one exists in several places of equal depth.
    """
    found = find_optional(roots, *candidates, what=what)
    if found is None:
        where = ", ".join(f"'{root}'" for root in roots)
        raise UserError(f"{what}: no folder {' or '.join(repr(name) for name in candidates)} in {where}")
    return found


def find_optional(roots: Sequence[Path], *candidates: str, what: str, file: bool = False) -> Path | None:
    """Like `find_folder`, but None if there is no such folder; `file` looks for a file instead."""
    folders = [path for root in roots for path in _folders(root)]
    places = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()] if file else folders
    for candidate in candidates:
        wanted = f"/{candidate.lower().strip('/')}"
        hits = [path for path in places if f"/{path.as_posix().lower()}".endswith(wanted)]
        least = min((len(path.parts) for path in hits), default=0)
        nearest = [path for path in hits if len(path.parts) == least]
        if len(nearest) > 1:
            raise UserError(f"{what}: both '{nearest[0]}' and '{nearest[1]}' could be it; name one of them as --source")
        if nearest:
            return nearest[0]
    return None


def index_by_stem(
    folder: str | Path, *, strip: Sequence[str] = (), suffixes: Sequence[str] = RASTER_SUFFIXES
) -> dict[str, Path]:
    """Return the rasters of a folder (not of its subfolders) by stem, sorted.

    Args:
        folder: must exist.
        strip: endings or beginnings to take off a stem, the first that fits, for example ``("_sar", "SAR_")``.
        suffixes: extensions to look at, lower case.

    Raises:
        UserError: the folder is missing or holds no raster, or two files have the same stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"folder '{folder}' does not exist")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        stem = path.stem
        for part in strip:
            if stem != (shorter := stem.removesuffix(part).removeprefix(part)):
                stem = shorter
                break
        if stem in files:
            raise UserError(f"folder '{folder}' has two rasters for '{stem}': {files[stem].name}, {path.name}")
        files[stem] = path
    if not files:
        raise UserError(f"folder '{folder}' has no raster ({' '.join(suffixes)})")
    return files


def _folders(root: Path) -> list[Path]:
    """Return `root` and the folders below it, not deeper than `_DEEPEST`."""
    level, found = [root], [root]
    for _ in range(_DEEPEST):
        level = [child for folder in level for child in sorted(folder.iterdir()) if _is_folder(child)]
        found += level
    return found


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__MACOSX"))


def _open(source: Path, unpack_to: Path) -> Path:
    name = source.name.lower()
    if source.is_dir():
        return source
    if not source.exists():
        raise UserError(f"source '{source}' does not exist")
    if not name.endswith((".zip", *_TAR_SUFFIXES)):
        hint = "; unpack it and name the folder" if name.endswith(_OTHER_ARCHIVES) else ""
        raise UserError(f"source '{source}' is neither a folder nor a zip or tar archive{hint}")
    target = unpack_to / source.name
    if target.is_dir():
        return target
    partial = unpack_to / f".{source.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        if name.endswith(".zip"):
            with zipfile.ZipFile(source) as archive:
                _check_members([member.filename for member in archive.infolist()], source)
                archive.extractall(partial)
        else:
            _check_tar_end(source)
            with tarfile.open(source) as archive:
                _check_members([member.name for member in archive.getmembers()], source)
                archive.extractall(partial, filter="data")
        os.replace(partial, target)
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, EOFError, OSError) as error:
        raise UserError(
            f"archive '{source}' cannot be unpacked ({error}); if another program can, unpack it and name the folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _check_tar_end(source: Path) -> None:
    """Refuse a tar cut off between two members: it reads as a shorter one. Compressed ones fail by themselves."""
    if source.suffix.lower() != ".tar":
        return
    with open(source, "rb") as file:
        file.seek(max(0, source.stat().st_size - _TAR_END_BYTES))
        if any(file.read()):
            raise tarfile.ReadError("it lacks the end of a tar file")


def _check_members(names: Sequence[str], source: Path) -> None:
    for name in names:
        if name.startswith(("/", "\\")) or ".." in Path(name.replace("\\", "/")).parts:
            raise UserError(f"archive '{source}' holds the path '{name}', which leads outside")
