"""The sample that is judged, and its sheet: a CSV file with a line a caption and columns to fill in."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mmovseg.data.text import column_separator
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import CaptionRecord

Rating = Literal["usable", "minor", "wrong"]
RATINGS: tuple[Rating, ...] = get_args(Rating)
"""From best to worst. The first two are usable: a minor error leaves the caption true in the main."""
ERROR_CODES: dict[str, str] = {
    "missing": "an important object is not mentioned",
    "hallucinated": "an object or fact is not in the image",
    "count": "a number is wrong",
    "location": "a place or relation is wrong",
    "optical": "it says what only an optical image shows",
    "grammar": "it does not read as English",
    "other": "something else, see the comment",
}
COLUMNS = ("item", "image", "image_id", "source", "route", "split", "caption", "rating", "codes", "comment")


@dataclass(frozen=True)
class AuditItem:
    """One caption to be judged.

    Attributes:
        item: number of the line, from 1, in the shuffled order of the sample.
        image: path relative to the root of the data.
        image_id, source, route, split: of the record.
        caption: to be judged.
        optical_image: the twin, shown beside it.
    """

    item: int
    image: str
    image_id: str
    source: str
    route: str
    split: str
    caption: str
    optical_image: str | None = None


def draw_sample(records: Sequence[CaptionRecord], *, per_cell: int, seed: int) -> list[AuditItem]:
    """Draw captions evenly over source and route, one an image, in a mixed order.

    Which image and which of its captions are drawn follows from seed and image id alone, so more of a cell keeps those
    drawn before, and the order of the file does not matter.

    Args:
        records: to draw from.
        per_cell: captions of each pair of source and route; a smaller cell gives all its images.
        seed: of the draw.

    Raises:
        UserError: `per_cell` is below 1.
    """
    if per_cell < 1:
        raise UserError(f"--per-cell must be at least 1, got {per_cell}")
    cells: dict[tuple[str, str], list[CaptionRecord]] = defaultdict(list)
    for record in records:
        cells[record.source, record.route].append(record)
    chosen: list[CaptionRecord] = []
    for _, members in sorted(cells.items()):
        members.sort(key=lambda record: _draw(seed, "image", record))
        chosen += members[:per_cell]
    chosen.sort(key=lambda record: _draw(seed, "order", record))
    items = []
    for number, record in enumerate(chosen, start=1):
        caption = record.captions[int.from_bytes(_draw(seed, "caption", record)[:8], "big") % len(record.captions)]
        facts = (record.image, record.image_id, record.source, record.route, record.split)
        items.append(AuditItem(number, *facts, caption, record.optical_image))
    return items


def _draw(seed: int, purpose: str, record: CaptionRecord) -> bytes:
    text = "\x1f".join((str(seed), purpose, record.source, record.route, record.image_id))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def sheet_text(items: Sequence[AuditItem]) -> str:
    """Return the sheet as CSV, columns `rating`, `codes` and `comment` empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in items:
        writer.writerow((one.item, one.image, one.image_id, one.source, one.route, one.split, one.caption, "", "", ""))
    return text.getvalue()


@dataclass(frozen=True)
class RatedItem:
    """One line of a sheet that was filled in; `rating` None where the rater left it open."""

    item: AuditItem
    rating: Rating | None
    codes: tuple[str, ...]
    comment: str


def read_sheet(path: str | Path) -> list[RatedItem]:
    """Read a sheet that was filled in; a spreadsheet may have written it with semicolons and a byte-order mark.

    Raises:
        UserError: the file cannot be read or is no sheet, an item comes twice, a rating or code is unknown, or nothing
            is rated; the sentence names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: byte {error.start + 1}") from error
    reader = csv.DictReader(io.StringIO(text), delimiter=column_separator(text.partition("\n")[0]))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"'{path}' is no audit sheet: the column '{missing[0]}' is missing")
    rated: list[RatedItem] = []
    seen: dict[int, int] = {}
    for row in reader:
        one = _read_row(row, f"'{path}' line {reader.line_num}")
        if one.item.item in seen:
            raise UserError(
                f"'{path}' line {reader.line_num}: item {one.item.item} is also in line {seen[one.item.item]}"
            )
        seen[one.item.item] = reader.line_num
        rated.append(one)
    if not any(one.rating for one in rated):
        raise UserError(f"'{path}' has no rating: the column 'rating' takes {', '.join(RATINGS)}")
    return rated


def _read_row(row: dict[str, str | None], where: str) -> RatedItem:
    values = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if not values["item"].isdigit():
        raise UserError(f"{where}: item is '{values['item']}', it must be a whole number")
    rating = values["rating"].lower()
    if rating and rating not in RATINGS:
        raise UserError(f"{where}: the rating '{values['rating']}' is none of {', '.join(RATINGS)}")
    codes = tuple(code for code in values["codes"].lower().replace(",", " ").split() if code)
    unknown = [code for code in codes if code not in ERROR_CODES]
    if unknown:
        raise UserError(f"{where}: the code '{unknown[0]}' is none of {', '.join(ERROR_CODES)}")
    facts = (values[name] for name in ("image", "image_id", "source", "route", "split", "caption"))
    return RatedItem(AuditItem(int(values["item"]), *facts), rating or None, codes, values["comment"])  # type: ignore[arg-type]
