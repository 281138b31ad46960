"""Caption records in the layouts of others: tables of image and caption, and the JSON of RSICD. And back.

A table has one row a caption; it keeps images, captions and their order. The JSON of RSICD also keeps split and data
set. Neither keeps provenance: the JSONL of `schema` and the archives of `shards` do.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmovseg.atomic import atomic_write
from mmovseg.data.text import read_text
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, Route


@dataclass(frozen=True)
class TableLayout:
    """A table of captions: what separates its columns, and the header of the two that count."""

    separator: str
    image_key: str
    caption_key: str


TABLE_LAYOUTS: Mapping[str, TableLayout] = {
    "open_clip": TableLayout("\t", "filepath", "title"),
    "filepath_caption": TableLayout(",", "filepath", "caption"),
    "imgpath_caption": TableLayout(",", "imgpath", "caption"),
    "filename_caption": TableLayout("\t", "filename", "caption"),
}
"""`open_clip` is what open_clip's training reads without further options, `filepath_caption` what HQRS-IT and SAR-TEXT
publish, `imgpath_caption` that of SARVLM, `filename_caption` that of SARCLIP."""


def export_csv(
    path: str | Path, records: Iterable[CaptionRecord], *, layout: TableLayout = TABLE_LAYOUTS["open_clip"]
) -> int:
    """Write a table with one row a caption; return the number of rows.

    Raises:
        UserError: there is no record, a caption has a line break, or the file cannot be written.
    """
    rows = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=layout.separator, lineterminator="\n")
        writer.writerow((layout.image_key, layout.caption_key))
        for record in records:
            if any("\n" in caption or "\r" in caption for caption in record.captions):
                raise UserError(f"a caption of image '{record.image}' has a line break, which a table cannot hold")
            writer.writerows((record.image, caption) for caption in record.captions)
            rows += len(record.captions)
        if not rows:
            raise UserError(f"there is no caption to write to '{path}'")
    return rows


def import_csv(
    path: str | Path,
    *,
    layout: TableLayout | None = None,
    source: str,
    split: str,
    route: Route = "human",
    drop_empty: bool = False,
) -> list[CaptionRecord]:
    """Read a table of captions; rows of one image become one record, wherever they stand.

    Args:
        path: table with a header.
        layout: None = the one of `TABLE_LAYOUTS` that fits the header.
        source: data set, which the table does not say.
        split: of the data set.
        route: how the captions were made.
        drop_empty: leave empty captions out, instead of stopping at the first.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or has no such columns, or a row lacks a cell or a caption, has
            more cells than the header, a line break in a cell, or an unpaired quotation mark.
    """
    text = read_text(path)
    chosen = _find_layout(path, text.partition("\n")[0]) if layout is None else layout
    rows = _rows(path, text, chosen.separator)
    _, header = next(rows, (0, []))
    for key in (chosen.image_key, chosen.caption_key):
        if key not in header:
            raise UserError(f"table '{path}' has no column '{key}'; its columns are: {', '.join(header)}")
    image_column, caption_column = header.index(chosen.image_key), header.index(chosen.caption_key)
    found: dict[str, list[str]] = {}
    for number, row in rows:
        where = f"table '{path}' line {number}"
        if len(row) > len(header):
            raise UserError(
                f"{where} has {len(row)} cells, the header {len(header)}: texts with a separator need quotes"
            )
        image = row[image_column] if image_column < len(row) else ""
        if not image or caption_column >= len(row):
            raise UserError(f"{where} has too few cells (image '{image}')")
        caption = row[caption_column].strip()
        if caption:
            found.setdefault(image, []).append(caption)
        elif not drop_empty:
            raise UserError(f"{where} has an empty caption (image '{image}')")
    if not found:
        raise UserError(f"table '{path}' holds no caption")
    return [
        CaptionRecord(image, image_id_of(image), source, route, split, tuple(captions))
        for image, captions in found.items()
    ]


def _rows(path: str | Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of the lines that hold something.

    Every line is read by itself: a quotation mark that is opened and not closed would make one caption of all lines up
    to the next one.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            row = next(csv.reader([line.removesuffix("\r")], delimiter=separator, strict=True), [])
        except csv.Error as error:
            raise UserError(
                f"table '{path}' line {number}: a cell has a line break, or quotation marks that do not pair up (one "
                f"in a text is written twice, the text between two more): {error}"
            ) from error
        if row:
            yield number, row


def _find_layout(path: str | Path, header: str) -> TableLayout:
    for layout in TABLE_LAYOUTS.values():
        columns = [name.strip().strip('"') for name in header.split(layout.separator)]
        if layout.image_key in columns and layout.caption_key in columns:
            return layout
    known = " or ".join(f"'{layout.image_key}' and '{layout.caption_key}'" for layout in TABLE_LAYOUTS.values())
    raise UserError(f"table '{path}' has the header '{header.strip()[:80]}', but needs the columns {known}")


def image_id_of(image: str) -> str:
    """Return the path of an image without its suffix, the id of records that came without one."""
    return str(PurePosixPath(image).with_suffix(""))


def export_rsicd(path: str | Path, records: Sequence[CaptionRecord]) -> int:
    """Write the JSON of RSICD; return the number of sentences.

    `filename` is the image path of the record, `tokens` are the words that white space separates, `dataset` is the
    source, or all of them joined by plus signs.

    Raises:
        UserError: there is no record, or the file cannot be written.
    """
    if not records:
        raise UserError(f"there is no caption record to write to '{path}'")
    images, sentence = [], 0
    for number, record in enumerate(records):
        sentences = []
        for caption in record.captions:
            sentences.append({"tokens": caption.split(), "raw": caption, "imgid": number, "sentid": sentence})
            sentence += 1
        ids = [entry["sentid"] for entry in sentences]
        images.append(
            {"filename": record.image, "imgid": number, "split": record.split, "sentids": ids, "sentences": sentences}
        )
    content = {"images": images, "dataset": "+".join(dict.fromkeys(record.source for record in records))}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
    return sentence


def import_rsicd(
    path: str | Path,
    *,
    source: str | None = None,
    route: Route = "human",
    folder: str = "",
    drop_empty: bool = False,
) -> list[CaptionRecord]:
    """Read the JSON of RSICD (also of RSITMD, UCM and Sydney): `images` with `filename`, `split`, `sentences`.

    Args:
        path: JSON file.
        source: data set; None = what the file says under `dataset`.
        route: how the captions were made.
        folder: put before every `filename`, for files that give bare names.
        drop_empty: leave out empty sentences, and images without any other, instead of stopping at the first.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or no such JSON, or an image has no sentence, an empty one, or
            a name that comes twice.
    """
    try:
        content = json.loads(read_text(path))
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"'{path}' is no caption file in the layout of RSICD: it has no list 'images'")
    name = source or str(content.get("dataset") or "")
    if not name:
        raise UserError(f"'{path}' does not name its data set; say it")
    records: dict[str, CaptionRecord] = {}
    for number, entry in enumerate(content["images"]):
        record = _rsicd_record(entry, f"'{path}' image {number}", name, route, folder, drop_empty)
        if record is None:
            continue
        if record.image in records:
            raise UserError(f"'{path}' image {number} has the filename '{record.image}', which came before")
        records[record.image] = record
    if not records:
        raise UserError(f"'{path}' holds no caption")
    return list(records.values())


def _rsicd_record(
    entry: Any, where: str, source: str, route: Route, folder: str, drop_empty: bool
) -> CaptionRecord | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
        raise UserError(f"{where} has no text 'filename'")
    sentences = entry.get("sentences")
    raw = [part.get("raw") if isinstance(part, dict) else None for part in sentences or ()]
    if not isinstance(sentences, list) or not all(isinstance(text, str) for text in raw):
        raise UserError(f"{where} ('{entry['filename']}') needs a list 'sentences' of objects with a text 'raw'")
    captions = tuple(text.strip() for text in raw if text.strip() or not drop_empty)
    if not captions and drop_empty:
        return None
    image = f"{folder.rstrip('/')}/{entry['filename']}" if folder else entry["filename"]
    try:
        return CaptionRecord(image, image_id_of(image), source, route, str(entry.get("split", "")), captions)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
