"""Captions as two text files, ``<split>_caps.txt`` and ``<split>_filename.txt``, line by line.

Public retrieval code ships RSICD, RSITMD, UCM and Sydney so. The file of names has a line a caption, or a line an
image; both occur, even in one folder.
"""

from __future__ import annotations

import logging
from pathlib import Path

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, read_lines

_LOGGER = logging.getLogger(__name__)

CAPTIONS_AN_IMAGE = 5
"""Of all four data sets."""


def import_precomp(
    folder: str | Path,
    split: str,
    *,
    source: str,
    image_folder: str = "",
    captions_an_image: int = CAPTIONS_AN_IMAGE,
    drop_empty: bool = False,
) -> list[CaptionRecord]:
    """Read the captions of a split; equal captions of an image are kept, as the metrics count them.

    An empty line holds the place of a caption that nobody wrote (training images of RSITMD have some).

    Args:
        folder: of the two files.
        split: part of their names, ``train`` or ``test``; there, ``train`` may hold the images of ``val`` too.
        source: name of the data set.
        image_folder: put before each file name, with forward slashes.
        captions_an_image: needed where the file of names has a line an image.

        drop_empty: leave empty captions out, and images without any other, with a warning that says which, instead of
            stopping at the first.

    Returns:
        One record an image, in the order of the file; `image_id` is the stem of its name.

    Raises:
        UserError: a file is missing or empty or not UTF-8; the numbers of lines do not fit; an image comes twice with
            captions of others between; or a caption is empty.
    """
    path, listed = Path(folder) / f"{split}_caps.txt", Path(folder) / f"{split}_filename.txt"
    names = _trim(_lines(listed))
    captions = _lines(path)
    if "" in names:
        raise UserError(f"'{listed}' line {names.index('') + 1} is empty")
    if len(_trim(captions, len(names))) != len(names):
        names = [name for name in names for _ in range(captions_an_image)]
    captions = _trim(captions, len(names))
    if len(captions) != len(names):
        raise UserError(
            f"'{path}' has {len(captions)} captions, but '{listed.name}' has {len(names) // captions_an_image} lines, "
            f"neither one a caption nor one an image with {captions_an_image} captions"
        )
    grouped = _group(names, captions, path, listed, drop_empty)
    prefix = f"{image_folder.strip('/')}/" if image_folder else ""
    return [
        CaptionRecord(f"{prefix}{name}", Path(name).stem, source, "human", split, tuple(texts))
        for name, texts in grouped.items()
    ]


def has_precomp(folder: str | Path, split: str) -> bool:
    """Return whether a folder holds the two files of a split."""
    return all((Path(folder) / f"{split}_{part}.txt").is_file() for part in ("caps", "filename"))


def _group(names: list[str], captions: list[str], path: Path, listed: Path, drop_empty: bool) -> dict[str, list[str]]:
    """Return image -> its captions without the empty ones, each of which is told of."""
    grouped: dict[str, list[str]] = {}
    last = ""
    for number, (name, caption) in enumerate(zip(names, captions, strict=True), start=1):
        if name in grouped and name != last:
            raise UserError(f"'{listed}' goes back to the image '{name}' at caption {number}")
        if not caption and not drop_empty:
            raise UserError(f"'{path}' line {number} is an empty caption (image '{name}')")
        grouped.setdefault(name, []).append(caption)
        last = name
    kept: dict[str, list[str]] = {}
    for name, texts in grouped.items():
        written = [text for text in texts if text]
        if written:
            kept[name] = written
        if len(written) < len(texts):
            what = "is left out" if not written else f"keeps {len(written)}"
            empty = len(texts) - len(written)
            _LOGGER.warning("'%s': %d of %d captions of '%s' are empty; it %s", path, empty, len(texts), name, what)
    return kept


def _lines(path: Path) -> list[str]:
    """Return all lines of a file, the empty ones too, as their number says whose caption a line is."""
    found = dict(read_lines(path))
    if not found:
        raise UserError(f"'{path}' is empty")
    with open(path, "rb") as file:
        count = sum(1 for _ in file)
    return [found.get(number, "").strip() for number in range(1, count + 1)]


def _trim(lines: list[str], count: int = 0) -> list[str]:
    """Return the lines without empty ones at the end, but at least `count`."""
    end = len(lines)
    while end > count and not lines[end - 1]:
        end -= 1
    return lines[:end]
