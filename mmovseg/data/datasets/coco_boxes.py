"""Objects in boxes from files in COCO format as dataset dicts."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.datasets.layouts import Layout, find_layout, missing_message
from mmovseg.data.sample import BoxAnnotation, DatasetDict
from mmovseg.errors import UserError

logger = logging.getLogger(__name__)

BadBoxes = Literal["refuse", "drop"]
EDGE_TOLERANCE_PX = 1.0
"""How far a box may reach over the edge of its image before it is bad: annotation tools round, and count from 1."""


def load_coco_boxes(
    json_file: str | Path,
    *,
    categories: Sequence[str],
    optical_dir: str | Path | None = None,
    sar_dir: str | Path | None = None,
    keep_empty: bool = True,
    bad_boxes: BadBoxes = "refuse",
) -> list[DatasetDict]:
    """Return the images of a COCO file as dataset dicts with `annotations`.

    Args:
        json_file: with the lists `images` (`id`, `file_name`, `height`, `width`), `annotations` (`image_id`,
            `category_id`, `bbox` as x, y, width, height; perhaps `area`, `iscrowd`) and `categories` (`id`, `name`).
            An annotation without `bbox` gets the box and the area of its mask, `segmentation`.
        categories: names, in the order in which the model numbers them. The file may number them in any way, and may
            lack some.
        optical_dir: folder that the `file_name` of an optical image starts from.
        sar_dir: the same for SAR. With both, the two images of a pair have one name.
        keep_empty: keep images without an object; training usually leaves them out.
        bad_boxes: a box without area, or one that reaches over the edge of its image by more than
            `EDGE_TOLERANCE_PX`, is an error ("refuse"), or is cut to the image and left out if nothing remains
            ("drop"). Boxes are cut at the edge in any case.

    Returns:
        In the order of the file; `image_id` is the file's, as text.

    Raises:
        UserError: the file is missing, no JSON, cut off, or without one of the lists or any annotation; an image is
            missing or listed twice; an annotation names an unknown image or category, or its box is bad.
    """
    if bad_boxes not in get_args(BadBoxes):
        raise UserError(f"bad_boxes is '{bad_boxes}' but must be one of: {', '.join(get_args(BadBoxes))}")
    path = Path(json_file)
    content = read_coco(path)
    class_of = _class_ids(path, content["categories"], categories)
    images = _images(path, content["images"], optical_dir, sar_dir)
    dropped = 0
    for number, annotation in enumerate(content["annotations"]):
        where = f"annotation {_field(annotation, 'id', number)} of '{path}'"
        image = images.get(_field(annotation, "image_id"))
        if image is None:
            raise UserError(f"{where} is of image {_field(annotation, 'image_id')!r}, which the file does not list")
        category = _field(annotation, "category_id")
        if category not in class_of:
            known = ", ".join(str(key) for key in class_of)
            raise UserError(f"{where} has the category {category!r}, which the file does not list; it lists: {known}")
        if annotation.get("bbox") is None and annotation.get("segmentation"):
            annotation = {**annotation, **_of_mask(annotation["segmentation"], image, where)}
        box = _box(annotation, image, where, bad_boxes)
        if box is None:
            dropped += 1
            continue
        image["annotations"].append(_annotation(annotation, box, class_of[category]))
    if dropped:
        logger.warning("'%s': left out %d boxes without area in their image", path, dropped)
    found = [image for image in images.values() if keep_empty or image["annotations"]]
    logger.info(
        "'%s': %d images, %d of them with objects", path, len(images), len([i for i in found if i["annotations"]])
    )
    return found


def load_box_set(
    name: str,
    split: str,
    *,
    categories: Sequence[str],
    root: str | Path | None = None,
    keep_empty: bool = True,
    bad_boxes: BadBoxes = "drop",
) -> list[DatasetDict]:
    """Return a split of boxes in SAR images as the prepare scripts write it: ``<split>.json`` and ``<split>/sar``.

    Args:
        name: folder of the data set, the name of its script.
        split: train, val or test.
        root: what that folder lies under; None = the registered one.
        categories, keep_empty, bad_boxes: see `load_coco_boxes`. Published sets have boxes over the edge where images
            were cut, so they are cut here too.

    Raises:
        UserError: see `load_coco_boxes`, or the set is not there.
    """
    base = datasets_root() if root is None else Path(root)
    layout = Layout("own", {split: {"sar": f"{name}/{split}/sar"}})
    if find_layout([layout], split, base) is None:
        raise UserError(missing_message(name, [layout], split, base, f"datasets/prepare_{name}.py"))
    path, images = base / name / f"{split}.json", base / name / split / "sar"
    return load_coco_boxes(path, categories=categories, sar_dir=images, keep_empty=keep_empty, bad_boxes=bad_boxes)


def read_coco(path: str | Path) -> dict[str, list[Any]]:
    """Return the content of a COCO file; its three lists are there and not empty, what they hold is not looked at.

    Raises:
        UserError: the file is missing, no JSON, cut off, or lacks `images`, `annotations` or `categories`.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"COCO file '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"COCO file '{path}' is cut off or no JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"'{path}' is no COCO file of boxes: it has no list '{key}'")
        if not content[key]:
            raise UserError(f"COCO file '{path}' has an empty list '{key}'")
    return content


def _field(entry: Any, key: str, default: Any = None) -> Any:
    value = entry.get(key, default) if isinstance(entry, Mapping) else default
    return value if isinstance(value, str | int | float) else default


def _class_ids(path: Path, listed: Sequence[Any], categories: Sequence[str]) -> dict[Any, int]:
    """Return the file's category id -> position in `categories`."""
    class_of: dict[Any, int] = {}
    for entry in listed:
        key, name = _field(entry, "id"), _field(entry, "name")
        if name not in categories:
            raise UserError(f"COCO file '{path}' has the category {name!r}; the config knows: {', '.join(categories)}")
        if key is None or key in class_of:
            raise UserError(f"COCO file '{path}' numbers the category '{name}' {key!r}, which is no id or taken")
        class_of[key] = list(categories).index(name)
    return class_of


def _images(
    path: Path, listed: Sequence[Any], optical_dir: str | Path | None, sar_dir: str | Path | None
) -> dict[Any, DatasetDict]:
    folders = {"file_name": optical_dir, "sar_file_name": sar_dir}
    if optical_dir is None and sar_dir is None:
        raise UserError(f"COCO file '{path}' needs the folder of its images: give optical_dir, sar_dir or both")
    images: dict[Any, DatasetDict] = {}
    for number, entry in enumerate(listed):
        key, name = _field(entry, "id"), _field(entry, "file_name")
        height, width = _field(entry, "height"), _field(entry, "width")
        if key is None or not isinstance(name, str) or not all(isinstance(n, int) and n > 0 for n in (height, width)):
            raise UserError(f"image {number} of '{path}' needs id, file_name, height and width, got: {entry}")
        if key in images:
            raise UserError(f"COCO file '{path}' lists the image id {key!r} twice, the second time for '{name}'")
        image: DatasetDict = {"image_id": str(key), "height": height, "width": width, "annotations": []}
        for role, folder in folders.items():
            if folder is None:
                continue
            if not (Path(folder) / name).is_file():
                raise UserError(f"image '{Path(folder) / name}', which '{path}' lists, does not exist")
            image[role] = str(Path(folder) / name)  # type: ignore[literal-required]
        images[key] = image
    return images


def _of_mask(mask: Any, image: DatasetDict, where: str) -> dict[str, Any]:
    """Return `bbox` and `area` of a mask: polygons, or run lengths, compressed or not."""
    from pycocotools import mask as run_lengths

    height, width = image["height"], image["width"]
    try:
        if isinstance(mask, list):
            joined = run_lengths.merge(run_lengths.frPyObjects(mask, height, width))
        elif isinstance(mask["counts"], list):
            joined = run_lengths.frPyObjects(mask, height, width)
        else:
            joined = mask
        if list(joined["size"]) != [height, width]:
            raise ValueError(f"its size is {joined['size']}, not {[height, width]}")
        return {"bbox": [float(value) for value in run_lengths.toBbox(joined)], "area": float(run_lengths.area(joined))}
    except Exception as error:  # pycocotools raises bare Exception for what it cannot read
        raise UserError(f"{where} has a segmentation that is no mask of its image: {error}") from error


def _box(
    annotation: Mapping[str, Any], image: DatasetDict, where: str, bad_boxes: BadBoxes
) -> tuple[float, float, float, float] | None:
    """Return the box as x0, y0, x1, y1 within the image; None if it is bad and bad ones are dropped."""
    given = annotation.get("bbox")
    if not isinstance(given, list) or len(given) != 4 or not all(_is_number(value) for value in given):
        raise UserError(f"{where} needs a bbox of four numbers (x, y, width, height), got: {given}")
    x, y, width, height = (float(value) for value in given)
    x0, y0 = max(x, 0.0), max(y, 0.0)
    x1, y1 = min(x + width, float(image["width"])), min(y + height, float(image["height"]))
    over = max(-x, -y, x + width - image["width"], y + height - image["height"])
    empty = x1 <= x0 or y1 <= y0
    if bad_boxes == "refuse" and (empty or over > EDGE_TOLERANCE_PX):
        size = f"{image['width']} x {image['height']}"
        raise UserError(
            f"{where} has the bbox {given}, which does not lie in its image of {size} pixels (bad_boxes='drop' cuts or "
            "leaves out such boxes)"
        )
    return None if empty else (x0, y0, x1, y1)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _annotation(annotation: Mapping[str, Any], box: tuple[float, float, float, float], class_id: int) -> BoxAnnotation:
    x0, y0, x1, y1 = box
    area = annotation.get("area")
    return {
        "bbox": box,
        "category_id": class_id,
        "area": float(area) if _is_number(area) else (x1 - x0) * (y1 - y0),
        "iscrowd": int(bool(annotation.get("iscrowd", 0))),
    }
