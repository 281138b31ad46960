"""Facts about a label map that a caption can state: area shares, connected areas, neighbours, lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.facts import CELLS
from mmovseg.projects.sartext.captioning.lexicon import Lexicon

Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
_EIGHT = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class CoverRules:
    """When a statement is made about an area. Levels are those of the method's description, the rest is ours.

    Attributes:
        dominant: least share of labelled pixels of a class that is "mostly" there.
        large: of a class with a large area.
        some: of a class that is named at all; less is a trace and left out.
        min_labelled: images with a smaller share of labelled pixels get no captions.
        min_area_share: connected areas below this share of the labelled pixels are crumbs and not counted.
        counted_share: areas are counted only if those that are no crumbs make up this share of the class.
        cell_share: an area is placed in a cell that holds at least this share of it.
        half_share: a class is placed in a half of the image that holds at least this share of it.
        elongation: an area of a linear class is a line if its length is at least this times its width.
        linear_share: a class is a line if this share of its pixels lies in lines.
        along_share: a line runs along a class that at least this share of its border touches.
        through_share: a line runs through a class that at least this share of its border touches.
        beside_share: two classes are neighbours if this share of the shorter border of the two touches the other.
        surrounded_share: an area off the edges is surrounded by a class that this share of its border touches.
    """

    dominant: float = 0.5
    large: float = 0.2
    some: float = 0.05
    min_labelled: float = 0.5
    min_area_share: float = 0.01
    counted_share: float = 0.9
    cell_share: float = 0.5
    half_share: float = 0.9
    elongation: float = 4.0
    linear_share: float = 0.7
    along_share: float = 0.3
    through_share: float = 0.7
    beside_share: float = 0.3
    surrounded_share: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.some <= self.large <= self.dominant <= 1:
            raise UserError(
                f"the shares must rise within 0..1: some {self.some}, large {self.large}, dominant {self.dominant}"
            )


def cover_facts(labels: Labels, vocabulary: Vocabulary, lexicon: Lexicon, rules: CoverRules) -> dict[str, Any] | None:
    """Return the facts of one label map, json-able.

    Args:
        labels: (H, W) class ids of the vocabulary, 255 = not labelled.
        vocabulary: of the labels.
        lexicon: limited to the classes; what has no noun there ("background") is counted in the shares but not named.
        rules: when a statement is made.

    Returns:
        ``cover``: class -> ``share`` (of the labelled pixels), ``level``, and where they hold ``areas`` (number),
        ``cells`` (cell -> number of areas), ``cell`` (of a single area), ``half``, ``courses`` (of a line that
        crosses the image). ``relations``: [class, relation, class]. None if too little is labelled, or no class large
        enough is named.

    Raises:
        UserError: a label is no class of the vocabulary.
    """
    stray = np.setdiff1d(np.unique(labels), [*range(len(vocabulary)), IGNORE_LABEL])
    if stray.size:
        raise UserError(f"label {stray[0]} is none of the {len(vocabulary)} classes of '{vocabulary.name}'")
    labelled = int((labels != IGNORE_LABEL).sum())
    if labelled == 0 or labelled < rules.min_labelled * labels.size:
        return None
    pixels = np.bincount(labels[labels != IGNORE_LABEL].ravel().astype(np.int64), minlength=len(vocabulary))
    shares = pixels / labelled
    ids = [i for i, name in enumerate(vocabulary.names) if name in lexicon.nouns and shares[i] >= rules.some]
    if not ids:
        return None
    ids.sort(key=lambda i: (-shares[i], i))
    cover, lines = {}, {}
    for i in ids:
        name = vocabulary.names[i]
        areas = _areas(labels == i, rules.min_area_share * labelled)
        cover[name] = {"share": round(float(shares[i]), 4), "level": _level(shares[i], rules)}
        cover[name] |= _place_facts(labels == i, areas, rules)
        long = [area for area in areas if lexicon.is_linear(name) and elongation_of(area) >= rules.elongation]
        if sum(int(area.sum()) for area in long) >= rules.linear_share * pixels[i]:
            lines[i] = long
            shared = set.intersection(*(set(_courses(area)) for area in long))  # true of each of them
            if shared:
                cover[name]["courses"] = sorted(shared)
    return {"cover": cover, "relations": _relations(labels, ids, lines, vocabulary.names, rules)}


def _level(share: float, rules: CoverRules) -> str:
    if share > rules.dominant:
        return "dominant"
    return "large" if share >= rules.large else "some"


def _areas(mask: Mask, least_px: float) -> list[Mask]:
    """Return the connected areas (diagonals connect) of at least so many pixels, the largest first."""
    numbered, count = ndimage.label(mask, structure=_EIGHT)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    order = sorted(np.flatnonzero(sizes >= least_px), key=lambda number: (-sizes[number], number))
    return [numbered == number + 1 for number in order]


def _place_facts(mask: Mask, areas: list[Mask], rules: CoverRules) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    counted = sum(int(area.sum()) for area in areas)
    if areas and counted >= rules.counted_share * mask.sum():
        facts["areas"] = len(areas)
        cells = [_cell_of(area, rules) for area in areas]
        found = Counter(cell for cell in cells if cell is not None)
        if found and None not in cells:
            facts["cells"] = {cell: found[cell] for row in CELLS for cell in row if found[cell]}
        if len(areas) == 1 and cells[0] is not None:
            facts["cell"] = cells[0]
    if "cell" not in facts and (half := _half_of(mask, rules)) is not None:
        facts["half"] = half
    return facts


def _cell_of(area: Mask, rules: CoverRules) -> str | None:
    """Return the cell that holds most of an area, None where that is too little of it."""
    height, width = area.shape
    rows, columns = np.nonzero(area)
    # pixel centres, as for the centres of boxes
    number = np.minimum((3 * (rows + 0.5) / height).astype(int), 2) * 3
    number += np.minimum((3 * (columns + 0.5) / width).astype(int), 2)
    counts = np.bincount(number, minlength=9)
    best = int(counts.argmax())
    return CELLS[best // 3][best % 3] if counts[best] >= rules.cell_share * len(rows) else None


def _half_of(mask: Mask, rules: CoverRules) -> str | None:
    height, width = mask.shape
    total = mask.sum()
    halves = {
        "left half": mask[:, : width // 2],
        "right half": mask[:, -(-width // 2) :],
        "top half": mask[: height // 2],
        "bottom half": mask[-(-height // 2) :],
    }
    best = max(halves, key=lambda name: halves[name].sum())
    return best if halves[best].sum() >= rules.half_share * total else None


def elongation_of(area: Mask) -> float:
    """Return length over width of an area, whatever its bends: width is twice the largest distance to its border.

    The edges of the image are no border: a road that leaves the image is not cut in width by it.
    """
    if area.all():
        return 1.0
    width = 2.0 * float(ndimage.distance_transform_edt(area).max()) - 0.5  # distances are to the centres of pixels
    return float(area.sum()) / (width * width)


def _courses(area: Mask) -> list[str]:
    courses = []
    if area[:, 0].any() and area[:, -1].any():
        courses.append("left to right")
    if area[0].any() and area[-1].any():
        courses.append("top to bottom")
    return courses


def _borders(labels: Labels, count: int) -> NDArray[np.int64]:
    """Return (count + 1, count + 1): how many pairs of touching pixels the classes share; the last is not labelled."""
    plain = np.where(labels == IGNORE_LABEL, count, labels).astype(np.int64)
    found = np.zeros((count + 1, count + 1), dtype=np.int64)
    for first, second in ((plain[:, :-1], plain[:, 1:]), (plain[:-1], plain[1:])):
        pairs = np.bincount((first * (count + 1) + second).ravel(), minlength=(count + 1) ** 2)
        found += pairs.reshape(count + 1, count + 1)
    found = found + found.T
    np.fill_diagonal(found, 0)
    return found


def _relations(
    labels: Labels, ids: list[int], lines: dict[int, list[Mask]], names: list[str], rules: CoverRules
) -> list[list[str]]:
    """Return the strongest relation of each pair of named classes, larger classes first."""
    borders = _borders(labels, len(names))
    lengths = borders.sum(axis=1)
    found = []
    for position, first in enumerate(ids):
        for second in ids[position + 1 :]:
            shared = borders[first, second]
            for one, other in ((second, first), (first, second)):  # the smaller one is spoken of
                relation = _relation(labels == one, shared / max(lengths[one], 1), one in lines, other in lines, rules)
                if relation is not None:
                    found.append([names[one], relation, names[other]])
                    break
            else:
                if shared >= rules.beside_share * max(min(lengths[first], lengths[second]), 1):
                    found.append([names[second], "beside", names[first]])
    return found


def _relation(mask: Mask, share: float, is_line: bool, other_is_line: bool, rules: CoverRules) -> str | None:
    """Return what one class is to another that touches this share of its border; None for mere neighbours."""
    edges = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    if share >= rules.surrounded_share and not edges and not other_is_line:
        return "surrounded"
    if is_line and share >= rules.through_share and not other_is_line:
        return "through"
    return "along" if is_line and share >= rules.along_share else None
