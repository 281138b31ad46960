"""Facts about annotated objects that a caption can state: how many, where, how large, in which arrangement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial import cKDTree

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.facts import CELLS, cell_at

Scene = Literal["inshore", "offshore", "inland"]
Centres = NDArray[np.float64]


@dataclass(frozen=True)
class AnnotatedObject:
    """One object: box x0, y0, x1, y1 in pixels with exclusive ends, area in pixels; `is_crowd` = an uncounted group."""

    category: str
    box: tuple[float, float, float, float]
    area_px: float
    is_crowd: bool = False

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True)
class ObjectImage:
    """One image with all its annotated objects.

    Attributes:
        image: path relative to the root of the data.
        image_id: unique in the data set.
        source: data set.
        split: of it.
        height: pixels.
        width: pixels.
        objects: every object of the annotated classes.
        gsd_m: metres per pixel; sizes are compared among images of one resolution. None = not known.
        scene: what the data set says of the place, or `scene_of_land` of its land ratio.
        optical_image: path of the optical twin.
        source_scene: what the image was cut from, None where that is not known.
    """

    image: str
    image_id: str
    source: str
    split: str
    height: int
    width: int
    objects: tuple[AnnotatedObject, ...]
    gsd_m: float | None = None
    scene: Scene | None = None
    optical_image: str | None = None
    source_scene: str | None = None


@dataclass(frozen=True)
class ObjectRules:
    """When a statement is made. The authors publish none of these; all are ours.

    Attributes:
        min_side_px: objects with a shorter side are left out, for sets whose tiny boxes are noise. 0 = none is.
        drop_truncated: leave out objects whose box touches the edge of the image: what is cut cannot be sized.
        group_share: a group is placed where its area-weighted centre lies if at least this share of its objects is in
            that cell; without the condition two ships in opposite corners would be "in the centre". 0 = always.
        row_straightness: in a row no centre lies farther off the line than this times its length.
        row_gap: in a row no gap is wider than this times the middle one (of an even number, the lower of the two).
        cluster_ratio: a cluster's mean distance to the nearest neighbour, over that of random points (Clark and Evans).
        cluster_link: objects of one cluster are chained by steps of at most this times the diagonal of the image.
        scatter_ratio: as `cluster_ratio`, the least value of scattered objects.
        scatter_extent: scattered objects span at least this share of both width and height.
        small_percentile: areas of a class up to this percentile are "small".
        large_percentile: areas from this one on are "large", those between "medium".
        min_sizes: a class with fewer objects of one resolution gets no size words.
    """

    min_side_px: float = 0.0
    drop_truncated: bool = False
    group_share: float = 0.5
    row_straightness: float = 0.12
    row_gap: float = 2.5
    cluster_ratio: float = 0.6
    cluster_link: float = 0.25
    scatter_ratio: float = 1.0
    scatter_extent: float = 0.5
    small_percentile: float = 33.0
    large_percentile: float = 67.0
    min_sizes: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.small_percentile <= self.large_percentile <= 100:
            raise UserError(
                f"the size percentiles must rise within 0..100, got {self.small_percentile} and {self.large_percentile}"
            )
        if self.min_side_px < 0 or self.min_sizes < 1 or not 0 <= self.group_share <= 1:
            raise UserError(
                f"min_side_px must be >= 0, min_sizes >= 1 and group_share in 0..1, got {self.min_side_px}, "
                f"{self.min_sizes} and {self.group_share}"
            )


SizeLimits = Mapping[tuple[str, float | None], tuple[float, float]]
"""(class, metres per pixel) -> areas in pixels up to which an object is small and from which it is large."""


def scene_of_land(land_ratio: float) -> Scene:
    """Return the scene word of an image by its share of land: up to 5 % offshore, from 95 % inland.

    Raises:
        UserError: the ratio is not within 0 .. 1.
    """
    if not 0 <= land_ratio <= 1:
        raise UserError(f"a land ratio lies in 0..1, got {land_ratio}")
    if land_ratio <= 0.05:
        return "offshore"
    return "inland" if land_ratio >= 0.95 else "inshore"


def kept_objects(image: ObjectImage, rules: ObjectRules) -> list[AnnotatedObject]:
    """Return the objects that captions speak of."""
    kept = []
    for item in image.objects:
        x0, y0, x1, y1 = item.box
        is_cut = x0 <= 0 or y0 <= 0 or x1 >= image.width or y1 >= image.height
        if min(x1 - x0, y1 - y0) >= rules.min_side_px and not (rules.drop_truncated and is_cut):
            kept.append(item)
    return kept


def fit_size_limits(images: Iterable[ObjectImage], rules: ObjectRules) -> SizeLimits:
    """Return what is small and large for each class and resolution, by percentiles of all areas in `images`."""
    areas: dict[tuple[str, float | None], list[float]] = {}
    for image in images:
        for item in kept_objects(image, rules):
            if not item.is_crowd:
                areas.setdefault(_size_key(item.category, image.gsd_m), []).append(item.area_px)
    percentiles = (rules.small_percentile, rules.large_percentile)
    return {
        key: (float(low), float(high))
        for key, values in areas.items()
        if len(values) >= rules.min_sizes
        for low, high in [np.percentile(values, percentiles)]
        if low < high
    }


def _size_key(category: str, gsd_m: float | None) -> tuple[str, float | None]:
    return category, None if gsd_m is None else round(gsd_m, 3)


def object_facts(image: ObjectImage, limits: SizeLimits, rules: ObjectRules) -> dict[str, Any]:
    """Return the facts of one image, json-able.

    Args:
        image: with its objects.
        limits: from `fit_size_limits`, of the whole data set.
        rules: when a statement is made.

    Returns:
        ``objects``: class -> ``count``, ``cells`` (cell -> number), and where they hold ``cell`` (of the group),
        ``size``, ``arrangement`` and ``is_complete`` (False = a group was annotated without counting it). Also
        ``scene`` where known, and ``dropped``, the number of objects that the rules leave out, if any.
    """
    kept = kept_objects(image, rules)
    groups: dict[str, list[AnnotatedObject]] = {}
    for item in kept:
        groups.setdefault(item.category, []).append(item)
    facts: dict[str, Any] = {
        "objects": {name: _group_facts(groups[name], image, limits, rules) for name in sorted(groups)}
    }
    if image.scene is not None:
        facts["scene"] = image.scene
    if len(kept) < len(image.objects):
        facts["dropped"] = len(image.objects) - len(kept)
    return facts


def _group_facts(
    group: Sequence[AnnotatedObject], image: ObjectImage, limits: SizeLimits, rules: ObjectRules
) -> dict[str, Any]:
    if any(item.is_crowd for item in group):
        return {"count": sum(not item.is_crowd for item in group), "is_complete": False}
    size = (image.width, image.height)
    found = Counter(cell_at(*item.centre, *size) for item in group)
    facts: dict[str, Any] = {
        "count": len(group),
        "cells": {cell: found[cell] for row in CELLS for cell in row if found[cell]},
    }
    centres = np.array([item.centre for item in group], dtype=np.float64)
    weights = np.maximum([item.area_px for item in group], 1e-6)
    middle = (centres * weights[:, None]).sum(axis=0) / weights.sum()
    cell = cell_at(float(middle[0]), float(middle[1]), *size)
    if found[cell] >= rules.group_share * len(group):
        facts["cell"] = cell
    words = {_size_word(item, image, limits) for item in group}
    if len(words) == 1 and (word := words.pop()) is not None:
        facts["size"] = word
    arrangement = arrangement_of(centres, image.width, image.height, rules)
    if arrangement is not None:
        facts["arrangement"] = arrangement
    return facts


def _size_word(item: AnnotatedObject, image: ObjectImage, limits: SizeLimits) -> str | None:
    bounds = limits.get(_size_key(item.category, image.gsd_m))
    if bounds is None:
        return None
    if item.area_px <= bounds[0]:
        return "small"
    return "large" if item.area_px >= bounds[1] else "medium"


def arrangement_of(centres: Centres, width: float, height: float, rules: ObjectRules) -> str | None:
    """Return how three or more objects lie.

    Args:
        centres: (M, 2), x and y in pixels.
        width: of the image, pixels.
        height: of the image, pixels.
        rules: thresholds.

    Returns:
        ``row``, ``cluster``, ``scattered``, or None where no word is clear.
    """
    if len(centres) < 3:
        return None
    if _is_row(centres, rules):
        return "row"
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1]
    ratio = nearest.mean() / (0.5 * np.sqrt(width * height / len(centres)))
    longest_step = linkage(centres, "single")[-1, 2]  # the longest edge of the minimum spanning tree
    if ratio < rules.cluster_ratio and longest_step <= rules.cluster_link * np.hypot(width, height):
        return "cluster"
    extent = np.ptp(centres, axis=0) / (width, height)
    return "scattered" if ratio >= rules.scatter_ratio and extent.min() >= rules.scatter_extent else None


def _is_row(centres: Centres, rules: ObjectRules) -> bool:
    centred = centres - centres.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2]
    along, across = centred @ axes[0], centred @ axes[1]
    length = np.ptp(along)
    gaps = np.sort(np.diff(np.sort(along)))
    is_straight = np.abs(across).max() <= rules.row_straightness * length
    return bool(length > 0 and is_straight and gaps[-1] <= rules.row_gap * gaps[(len(gaps) - 1) // 2])
