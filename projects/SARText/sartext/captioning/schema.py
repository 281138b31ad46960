"""The caption record: one image with its sentences and where they come from, kept as JSON lines (JSONL).

One line an image, in UTF-8, keys in this order::

    {"image": "test/sar/a.png", "image_id": "a", "source": "hrsid", "route": "annotation", "split": "test",
     "captions": ["..."], "provenance": {"seed": 0, "version": "1", "rules": [["..."]], "facts": {...}}}

`image` is relative to a root that the reader is told; the optional `optical_image` names the optical twin of a SAR
image. Every route writes this file and everything else (exporters, checks, loaders) starts from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from mmovseg.atomic import atomic_write
from mmovseg.data.sample import DatasetDict
from mmovseg.errors import UserError

Route = Literal["annotation", "segmentation", "rewriting", "human", "model"]
ROUTES: tuple[Route, ...] = get_args(Route)
ImageRole = Literal["sar", "optical"]
IMAGE_ROLES: tuple[ImageRole, ...] = get_args(ImageRole)
_TEXT_KEYS = ("image", "image_id", "source", "route", "split")
_REQUIRED = (*_TEXT_KEYS, "captions")
_KNOWN = (*_REQUIRED, "optical_image", "provenance")


@dataclass(frozen=True)
class CaptionRecord:
    """One image with its captions.

    Attributes:
        image: path relative to the root of the data, with forward slashes.
        image_id: unique in its file.
        source: the data set, for example ``hrsid``.
        route: how the captions were made; ``human`` = written by people, ``model`` = by a trained captioner.
        split: of the data set, for example ``train``.
        captions: at least one sentence, none empty.
        provenance: what made them, json-able: ``seed``, ``version``, ``rules`` (one list of rule ids a caption) and
            ``facts`` (the numbers that the captions may state). Empty where nothing is known.
        optical_image: path of the optical twin, relative to the same root; None where there is none.

    Raises:
        UserError: a text is empty or no text, the route is unknown, a path is absolute, there is no caption, or
            ``rules`` has another length than `captions`.
    """

    image: str
    image_id: str
    source: str
    route: Route
    split: str
    captions: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    optical_image: str | None = None

    def __post_init__(self) -> None:
        for key in _TEXT_KEYS:
            _check_text(getattr(self, key), key)
        if self.route not in ROUTES:
            raise UserError(f"route is '{self.route}'; the routes are: {', '.join(ROUTES)}")
        for key in ("image", "optical_image"):
            path = getattr(self, key)
            if path is not None:
                _check_text(path, key)
                if PurePosixPath(path).is_absolute():
                    raise UserError(f"{key} is the absolute path '{path}'; paths are relative to the root of the data")
        if not isinstance(self.captions, list | tuple):
            raise UserError(f"captions must be a list of sentences, got {self.captions!r:.60}")
        object.__setattr__(self, "captions", tuple(self.captions))
        if not self.captions:
            raise UserError(f"image '{self.image}' has no caption")
        for number, text in enumerate(self.captions, start=1):
            _check_text(text, f"caption {number} of image '{self.image}'")
        if not isinstance(self.provenance, Mapping):
            raise UserError(f"provenance must be an object, got {self.provenance!r:.60}")
        rules = self.provenance.get("rules")
        if rules is not None and (not isinstance(rules, list | tuple) or len(rules) != len(self.captions)):
            raise UserError(f"image '{self.image}': provenance has not one list of rules for each caption")

    def with_captions(self, kept: Iterable[int]) -> CaptionRecord:
        """Return the record with the captions at the positions `kept` only, in that order, and their rules."""
        positions = list(kept)
        provenance = dict(self.provenance)
        if "rules" in provenance:
            provenance["rules"] = [provenance["rules"][position] for position in positions]
        return replace(self, captions=tuple(self.captions[i] for i in positions), provenance=provenance)

    def to_dict(self) -> dict[str, Any]:
        """Return the object of one line, keys in the order of the schema."""
        content: dict[str, Any] = {key: getattr(self, key) for key in _TEXT_KEYS}
        content["captions"] = list(self.captions)
        if self.optical_image is not None:
            content["optical_image"] = self.optical_image
        if self.provenance:
            content["provenance"] = dict(self.provenance)
        return content


def _check_text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise UserError(f"{name} must be a text, got {value!r:.60}")
    if not value.strip():
        raise UserError(f"{name} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{name} holds half a character, which UTF-8 cannot hold: {value!r:.60}") from error


def parse_record(content: object) -> CaptionRecord:
    """Return the record of one parsed line.

    Raises:
        UserError: it is no object, a key is missing or unknown, or a value is none (see `CaptionRecord`).
    """
    if not isinstance(content, dict):
        raise UserError(f"it is not a JSON object: {content!r:.60}")
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise UserError(f"the key '{missing[0]}' is missing; a record needs: {', '.join(_REQUIRED)}")
    unknown = sorted(set(content) - set(_KNOWN))
    if unknown:
        raise UserError(f"the key '{unknown[0]}' is unknown; known: {', '.join(_KNOWN)}")
    return CaptionRecord(**content)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text of the lines of a UTF-8 file that hold something.

    Raises:
        UserError: the file cannot be read, or a line is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"'{path}' line {number} is not UTF-8 text: byte {error.start + 1} is 0x{raw[error.start]:02x}"
                    ) from error
                if text.strip():
                    yield number, text
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error


def read_captions(path: str | Path) -> list[CaptionRecord]:
    """Read a caption file.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is empty, or a line is no record or repeats an image or an
            `image_id`; the sentence names file and line.
    """
    records: list[CaptionRecord] = []
    seen: dict[tuple[str, str], int] = {}
    for number, text in read_lines(path):
        try:
            record = parse_record(json.loads(text))
        except UserError as error:
            raise UserError(f"'{path}' line {number}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"'{path}' line {number} is not valid JSON: {error}") from error
        _check_new(seen, record, number, f"'{path}' line {number}")
        records.append(record)
    if not records:
        raise UserError(f"'{path}' holds no caption record")
    return records


def _check_new(seen: dict[tuple[str, str], int], record: CaptionRecord, number: int, where: str) -> None:
    for key in ("image", "image_id"):
        value = getattr(record, key)
        if (key, value) in seen:
            raise UserError(f"{where}: the {key} '{value}' is also in line {seen[key, value]}")
        seen[key, value] = number


def write_captions(path: str | Path, records: Iterable[CaptionRecord]) -> int:
    """Write a caption file; it appears under its name only when it is complete.

    The same records in the same order give the same bytes.

    Args:
        path: JSONL file; one that exists is replaced.
        records: at least one, may be a generator.

    Returns:
        How many records were written.

    Raises:
        UserError: there is none, an image or an `image_id` comes twice, or the file cannot be written.
    """
    seen: dict[tuple[str, str], int] = {}
    number = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for number, record in enumerate(records, start=1):  # noqa: B007 - the last number is the count
            _check_new(seen, record, number, f"'{path}' record {number}")
            file.write(json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")
        if not number:
            raise UserError(f"there is no caption record to write to '{path}'")
    return number


def load_caption_jsonl(
    path: str | Path | Sequence[str | Path],
    *,
    root: str | Path | None = None,
    role: ImageRole = "sar",
    split: str | None = None,
    check_images: bool = True,
) -> list[DatasetDict]:
    """List the images of caption files as dataset dicts with `captions`.

    Args:
        path: JSONL file, or several, for example one a data set.
        root: what image paths start from; None = the folder of each file. Those that ``tools/make_captions.py`` writes
            of prepared sets start from the folder of all sets, `mmovseg.data.datasets.catalog.datasets_root`.
        role: what `image` is: ``sar`` gives `sar_file_name` (and `file_name` where there is an `optical_image`),
            ``optical`` gives `file_name`.
        split: keep the records of this split, which not every file needs to have; None = all.
        check_images: stop where an image does not exist.

    Returns:
        Dicts with `image_id`, `captions`, `source` and the paths, in the order of the files. An `image_id` that several
        files use is preceded by the source.

    Raises:
        UserError: a file is bad (see `read_captions`), the split is in no record, an image does not exist, or it is in
            two files.
    """
    if role not in IMAGE_ROLES:
        raise UserError(f"role is '{role}'; it can be: {', '.join(IMAGE_ROLES)}")
    paths = [path] if isinstance(path, str | Path) else list(path)
    if not paths:
        raise UserError("there is no caption file to load")
    records = [(one, record) for one in paths for record in read_captions(one)]
    kept = [(one, record) for one, record in records if split is None or record.split == split]
    if not kept:
        known = ", ".join(sorted({record.split for _, record in records}))
        named = "' and '".join(map(str, paths))
        raise UserError(f"'{named}' {'has' if len(paths) == 1 else 'have'} no split '{split}'; there is: {known}")
    dicts = [_dataset_dict(record, Path(one).parent if root is None else Path(root), role) for one, record in kept]
    _refuse_shared_images([(one, _images_of(item)[0]) for (one, _), item in zip(kept, dicts, strict=True)])
    uses = Counter(item["image_id"] for item in dicts)
    for item in dicts:
        if uses[item["image_id"]] > 1:
            item["image_id"] = f"{item['source']}/{item['image_id']}"
    if check_images:
        files = [(one, file) for (one, _), item in zip(kept, dicts, strict=True) for file in _images_of(item)]
        absent = [(one, file) for one, file in files if not Path(file).is_file()]
        if absent:
            one, file = absent[0]
            raise UserError(f"'{one}' names '{file}', which does not exist ({len(absent)} of {len(files)} images)")
    return dicts


def _images_of(item: DatasetDict) -> list[str]:
    return [item[key] for key in ("sar_file_name", "file_name") if key in item]  # type: ignore[literal-required]


def _refuse_shared_images(images: Sequence[tuple[str | Path, str]]) -> None:
    first: dict[str, str | Path] = {}
    for path, image in images:
        if first.setdefault(image, path) != path:
            raise UserError(f"the image '{image}' is in both '{first[image]}' and '{path}'")


def _dataset_dict(record: CaptionRecord, base: Path, role: ImageRole) -> DatasetDict:
    item: DatasetDict = {"image_id": record.image_id, "captions": list(record.captions), "source": record.source}
    if role == "sar":
        item["sar_file_name"] = str(base / record.image)
        if record.optical_image is not None:
            item["file_name"] = str(base / record.optical_image)
    else:
        item["file_name"] = str(base / record.image)
    return item
