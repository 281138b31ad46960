"""Boxes of annotated objects, from dataset dicts to detectron2 `Instances`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from mmovseg.errors import UserError

MIN_SIDE_PX = 1.0
"""A training box whose visible part is narrower than this has been cut away by the geometry."""


def annotated_boxes(dataset_dict: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray | None:
    """Return the boxes of a dataset dict as (M, 4) float64, x0, y0, x1, y1; None if it has no `annotations`.

    Args:
        dataset_dict: of one image.
        size: height and width of its raster, pixels.

    Raises:
        UserError: the raster has another size than the annotations were made for.
    """
    if "annotations" not in dataset_dict:
        return None
    said = dataset_dict.get("height", size[0]), dataset_dict.get("width", size[1])
    if said != size:
        name = dataset_dict.get("file_name", dataset_dict.get("sar_file_name", "?"))
        raise UserError(
            f"'{name}' is {size[0]}x{size[1]} pixels (height x width), but its boxes are for an image of "
            f"{said[0]}x{said[1]}"
        )
    boxes = [annotation["bbox"] for annotation in dataset_dict["annotations"]]
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def training_instances(dataset_dict: Mapping[str, Any], moved: np.ndarray, size: tuple[int, int]) -> Instances:
    """Return what is left of the objects after the geometry; crowds are left out.

    Args:
        dataset_dict: with `annotations`.
        moved: (M, 4), their boxes where the geometry put them.
        size: height and width of the view, pixels.

    Returns:
        `Instances` with `gt_boxes`, cut at the edges of the view, and `gt_classes`.
    """
    height, width = size
    boxes = np.clip(moved, 0.0, [width, height, width, height])
    single = np.array([not annotation.get("iscrowd", 0) for annotation in dataset_dict["annotations"]], dtype=bool)
    kept = single & ((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE_PX)
    return _instances(dataset_dict, boxes, size, kept)


def all_instances(dataset_dict: Mapping[str, Any], boxes: np.ndarray, size: tuple[int, int]) -> Instances:
    """Return all objects as annotated, for evaluation.

    Args:
        dataset_dict: with `annotations`.
        boxes: (M, 4), theirs.
        size: height and width of the original raster, pixels.

    Returns:
        `Instances` with `gt_boxes`, `gt_classes`, `gt_areas` (M,) float64 and `gt_crowd` (M,) bool.
    """
    found = _instances(dataset_dict, boxes, size, np.ones(len(boxes), dtype=bool))
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [a.get("area", side.prod()) for a, side in zip(dataset_dict["annotations"], sides, strict=True)]
    found.gt_areas = torch.tensor([float(area) for area in areas], dtype=torch.float64)
    found.gt_crowd = torch.tensor([bool(a.get("iscrowd", 0)) for a in dataset_dict["annotations"]], dtype=torch.bool)
    return found


def _instances(
    dataset_dict: Mapping[str, Any], boxes: np.ndarray, size: tuple[int, int], kept: np.ndarray
) -> Instances:
    classes = np.array([annotation["category_id"] for annotation in dataset_dict["annotations"]], dtype=np.int64)
    found = Instances(size)
    found.gt_boxes = Boxes(torch.from_numpy(boxes[kept].astype(np.float32)))
    found.gt_classes = torch.from_numpy(classes[kept])
    return found
