"""Objects in boxes as data: any set in COCO format, and the targets of MiniEarth on the fly."""

from __future__ import annotations

import json
import logging
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mmovseg.data.miniearth import Domain, MiniEarthReader, get_domain
from mmovseg.data.miniearth.dataset import MIN_SIZE, SPLITS, window_position, windows_per_side
from mmovseg.data.miniearth.regions import TARGET_CATEGORIES
from mmovseg.data.miniearth.sites import likely_sites
from mmovseg.data.sample import BoxAnnotation, DatasetDict
from mmovseg.errors import UserError

logger = logging.getLogger(__name__)

BadBoxes = Literal["refuse", "drop"]
EDGE_TOLERANCE_PX = 1.0
"""How far a box may reach over the edge of its image before it is bad: annotation tools round, and count from 1."""
_BLOCK_PX = 1024  # what is looked at coarsely at once
_PER_BLOCK = 6  # scenes of a category out of one block, so that they come from many places
_IDLE_BLOCKS = 60  # blocks in a row without a category until it counts as absent


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
    content = _read(path)
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


def _read(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
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


def _is_number(value: Any) -> bool:
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


def load_miniearth_boxes(
    split: str,
    *,
    num_scenes: int = 500,
    size: int = 128,
    categories: Sequence[str] = TARGET_CATEGORIES,
    domain: str | Domain | dict[str, Any] = "default",
    seed: int = 0,
) -> list[DatasetDict]:
    """Return scenes of MiniEarth that hold targets, with `annotations`; `MiniEarthReader` gives their rasters.

    Every scene is taken for one category and holds at least one of it; the categories take turns, for in scenes as they
    come there are 30 vehicles to an aircraft. All objects of all wanted categories are annotated. The first n scenes
    are the same whatever `num_scenes`. Scenes are cells of a grid and never overlap; splits lie far apart. Finding
    objects means rendering, and the reader keeps what was rendered here.

    Args:
        split: ``train``, ``val`` or ``test``.
        num_scenes: how many.
        size: pixels a side, 32 .. 512.
        categories: wanted ones of aircraft, ship and vehicle, in the order of the model's classes. The others stay in
            the picture, unmarked.
        domain: name, `Domain` or its dict.
        seed: which world.

    Raises:
        UserError: an unknown split, category or domain, a size out of range, no scene wanted, or targets so rare that
            the split has too few scenes.
    """
    names = tuple(categories)
    unknown = [name for name in names if name not in TARGET_CATEGORIES]
    if unknown or not names:
        raise UserError(f"MiniEarth has no category '{(unknown or [''])[0]}'; it has: {', '.join(TARGET_CATEGORIES)}")
    if split not in SPLITS:
        raise UserError(f"MiniEarth has no split '{split}'; it has: {', '.join(SPLITS)}")
    if not MIN_SIZE <= size <= _BLOCK_PX // 2 or num_scenes < 1:
        raise UserError(
            f"MiniEarth gives 1 or more scenes with targets of {MIN_SIZE} .. {_BLOCK_PX // 2} pixels, got "
            f"num_scenes {num_scenes} of size {size}"
        )
    scenes = _TargetScenes(split, names, size, get_domain(domain), seed)
    return [scenes.take(names[number % len(names)], number) for number in range(num_scenes)]


class _TargetScenes:
    """Scenes by category, found block by block."""

    def __init__(self, split: str, categories: tuple[str, ...], size: int, domain: Domain, seed: int) -> None:
        self.split, self.categories, self.size, self.domain, self.seed = split, categories, size, domain, seed
        self.content = domain.to_dict()
        self.reader = MiniEarthReader()
        self.blocks = 0
        self.waiting: dict[str, list[tuple[int, int]]] = {name: [] for name in categories}
        self.taken: set[tuple[int, int]] = set()

    def take(self, category: str, number: int) -> DatasetDict:
        """Return the next scene with an object of this category."""
        idle = 0
        while idle < _IDLE_BLOCKS:
            while self.waiting[category]:
                place = self.waiting[category].pop(0)
                if place in self.taken:
                    continue
                scene = self._scene(place, number)
                targets = self.reader(scene).facts["targets"]
                if any(target["category"] == category for target in targets):
                    self.taken.add(place)
                    wanted = [target for target in targets if target["category"] in self.categories]
                    return {**scene, "annotations": [_target(target, self.categories) for target in wanted]}
            self._look_at_block()
            idle += 1
        raise UserError(
            f"MiniEarth {self.split} has no further scene of {self.size} pixels with '{category}' after {number} "
            f"scenes ({self.domain.region} region at {self.domain.gsd_m} m); ask for fewer"
        )

    def _look_at_block(self) -> None:
        """Queue the cells of the next block that probably hold targets, for each category in a random order."""
        if self.blocks >= windows_per_side(_BLOCK_PX, self.domain.gsd_m) ** 2:
            return
        row, col = window_position(self.split, self.blocks, _BLOCK_PX, self.domain.gsd_m)
        sites = likely_sites(self.domain, row, col, _BLOCK_PX, seed=self.seed)
        rng = np.random.default_rng([self.seed, self.blocks, zlib.crc32(self.split.encode())])
        self.blocks += 1
        side = _BLOCK_PX // self.size
        for category in self.categories:
            cells = np.unique(sites[category] // self.size, axis=0)
            cells = rng.permutation(cells[(cells < side).all(axis=1)])[:_PER_BLOCK]
            self.waiting[category] += [(row + int(y) * self.size, col + int(x) * self.size) for y, x in cells]

    def _scene(self, place: tuple[int, int], number: int) -> DatasetDict:
        stem = f"miniearth_boxes/{self.split}/{number:06d}"
        return {
            "file_name": f"{stem}_optical",
            "sar_file_name": f"{stem}_sar",
            "height": self.size,
            "width": self.size,
            "image_id": f"miniearth_boxes_{self.split}_{number:06d}",
            "gsd_m": self.domain.gsd_m,
            "world": {"seed": self.seed, "row": place[0], "col": place[1], "domain": self.content},
        }


def _target(target: Mapping[str, Any], categories: Sequence[str]) -> BoxAnnotation:
    x0, y0, x1, y1 = (float(value) for value in target["box"])
    return {
        "bbox": (x0, y0, x1, y1),
        "category_id": list(categories).index(target["category"]),
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }
