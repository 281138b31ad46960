"""Facts of OMBRIA places that no file of the set tells: share of flood, clouds, missing data, and who neighbours whom.

Measured once, when the set is prepared, and kept in ``places.csv``, so that splits and results rest on one table.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from mmovseg.data.io import read_label, read_optical, read_sar
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError

PLACES_FILE = "places.csv"
LAYERS = ("optical", "optical_before", "sar", "sar_before", "label")
"""Folders of a prepared split; those without a suffix show the date after the flood."""

CLOUD_MIN_NIR, CLOUD_MIN_GREEN = 80, 90
"""A pixel brighter than this in the second (near infrared) and third (green) channel is called cloud."""

SATURATED_MIN_RED, SATURATED_MIN_EXCESS = 150, 80
"""The brightest clouds have overflown the 8 bits of the published images and show as pure red: first channel above the
first number, and above both others by the second."""

CLOUDY_FROM = 0.10
"""A place is called cloudy when at least this share of its pixels is cloud on the date after the flood."""

NEIGHBOUR_FROM = 0.65
"""Two places are called neighbours when the edges of their images correlate at least this much (see `edge_score`)."""

_EDGE_PX = 3
_MAX_MISSING_AT_EDGE = 0.05


@dataclass(frozen=True)
class PlaceFacts:
    """A row of ``places.csv``. Fractions are of all pixels; `group`: the least id among the place's neighbours' kin."""

    split: str
    place: str
    flood_fraction: float
    cloud_before: float
    cloud_after: float
    nodata_fraction: float
    group: str

    @property
    def is_cloudy(self) -> bool:
        return self.cloud_after >= CLOUDY_FROM


def cloud_mask(optical: np.ndarray) -> np.ndarray:
    """Find clouds in the false colours of OMBRIA (short-wave infrared, near infrared, green).

    Cloud is bright in green and in near infrared; vegetation is dark in green, water in near infrared, and the muddy
    floods of the set stay below the two thresholds. Missed: thin grey haze and the shadows of clouds. Wrongly found:
    white roofs and bright desert.

    Args:
        optical: (H, W, 3) uint8.

    Returns:
        (H, W) bool.
    """
    red, nir, green = (optical[..., band].astype(np.int16) for band in range(3))
    bright = (nir > CLOUD_MIN_NIR) & (green > CLOUD_MIN_GREEN)
    overflown = (red > SATURATED_MIN_RED) & (red - np.maximum(nir, green) > SATURATED_MIN_EXCESS)
    return bright | overflown


def missing_mask(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return where a place lies outside the scene: (H, W) bool, True where both optical dates are black.

    Deep water may be black on one date. The radar images are white there, but on a strip 8 to 16 pixels narrower.
    """
    return np.logical_not(before.any(axis=2) | after.any(axis=2))


def measure_place(folder: str | Path, split: str, place: str) -> PlaceFacts:
    """Measure a prepared place; `group` is still the place itself.

    Args:
        folder: of the split, with the folders `LAYERS`.
        split: written into the row.
        place: stem of its files.

    Raises:
        UserError: a file is missing or damaged.
    """
    base = Path(folder)
    before, _ = read_optical(base / "optical_before" / f"{place}.png")
    after, _ = read_optical(base / "optical" / f"{place}.png")
    label = read_label(base / "label" / f"{place}.png")
    return PlaceFacts(
        split=split,
        place=place,
        flood_fraction=round(float((label == 1).mean()), 4),
        cloud_before=round(float(cloud_mask(before).mean()), 4),
        cloud_after=round(float(cloud_mask(after).mean()), 4),
        nodata_fraction=round(float((label == IGNORE_LABEL).mean()), 4),
        group=place,
    )


def group_neighbours(folder: str | Path, places: Sequence[str]) -> dict[str, str]:
    """Find places that lie side by side in one scene, so that a split can keep them together.

    The set is cut without gaps from the scenes of some twenty floods and does not say which place came from where. Two
    places that touch show the same ground along their common edge, which nothing else does.

    Args:
        folder: of a prepared split.
        places: stems.

    Returns:
        place -> least id of all places that it is connected to over any number of neighbours.
    """
    strips = {side: np.stack([_edges(folder, place, side) for place in places]) for side in ("L", "R", "T", "B")}
    group = list(range(len(places)))
    for first, second in (("R", "L"), ("B", "T")):
        scores = edge_score(strips[first], strips[second])
        for a, b in np.argwhere(scores >= NEIGHBOUR_FROM):
            low, high = sorted((group[a], group[b]))
            group = [low if member == high else member for member in group]
    return {place: places[group[index]] for index, place in enumerate(places)}


def edge_score(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlate edges with edges.

    Args:
        first, second: (N, L, C) and (M, L, C): L pixels along an edge, C channels, each of mean 0 and variance 1.

    Returns:
        (N, M) mean over the channels of the correlation along the edge, -1..1. Channels without contrast are 0.
    """
    shape = first.shape[1] * first.shape[2]
    return first.reshape(len(first), shape) @ second.reshape(len(second), shape).T / shape


def _edges(folder: str | Path, place: str, side: str) -> np.ndarray:
    """Return (L, 5): the outer `_EDGE_PX` rows or columns of both dates, averaged and standardised along the edge."""
    base = Path(folder)
    optical, _ = read_optical(base / "optical_before" / f"{place}.png")
    dates = [read_sar(base / name / f"{place}.png")[0] for name in ("sar_before", "sar")]
    image = np.concatenate([optical.astype(np.float32), *dates], axis=2)
    turned = image if side in "TB" else image.transpose(1, 0, 2)
    rows = turned[:_EDGE_PX] if side in "TL" else turned[-_EDGE_PX:]
    if (rows[..., :3].max(axis=2) == 0).mean() > _MAX_MISSING_AT_EDGE:
        return np.zeros(rows.shape[1:], dtype=np.float32)  # the border of the scene looks alike everywhere
    line = rows.mean(axis=0)
    return (line - line.mean(axis=0)) / np.maximum(line.std(axis=0), 1.0)


def write_places(root: str | Path, rows: Sequence[PlaceFacts]) -> Path:
    """Write ``<root>/places.csv``, sorted by split and place."""
    path = Path(root) / PLACES_FILE
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(PlaceFacts)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: (row.split, row.place)))
    return path


def read_places(root: str | Path) -> dict[tuple[str, str], PlaceFacts]:
    """Read ``<root>/places.csv``.

    Returns:
        (split, place) -> facts.

    Raises:
        UserError: the table is missing or not such a table.
    """
    path = Path(root) / PLACES_FILE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_row(item) for item in csv.DictReader(file)]
    except OSError as error:
        raise UserError(f"table '{path}' cannot be read: {error.strerror}; run datasets/prepare_ombria.py") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"table '{path}' is not one that datasets/prepare_ombria.py wrote: {error}") from error
    return {(row.split, row.place): row for row in rows}


def _row(item: Mapping[str, str]) -> PlaceFacts:
    return PlaceFacts(
        split=item["split"],
        place=item["place"],
        flood_fraction=float(item["flood_fraction"]),
        cloud_before=float(item["cloud_before"]),
        cloud_after=float(item["cloud_after"]),
        nodata_fraction=float(item["nodata_fraction"]),
        group=item["group"],
    )
