"""What captions are made from: COCO files, data sets with label maps, and MiniEarth."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tqdm import tqdm

from mmovseg.data.io import read_label
from mmovseg.data.miniearth import MiniEarthReader, load_miniearth
from mmovseg.data.miniearth.regions import CLASS_NAMES, WATER
from mmovseg.data.sample import DatasetDict
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.cover import Labels
from mmovseg.projects.sartext.captioning.cover_captions import MappedImage
from mmovseg.projects.sartext.captioning.exchange import image_id_of
from mmovseg.projects.sartext.captioning.objects import AnnotatedObject, ObjectImage, Scene, scene_of_land
from mmovseg.projects.sartext.captioning.schema import read_lines

if TYPE_CHECKING:
    from mmovseg.data.datasets.coco_boxes import BadBoxes

READER = MiniEarthReader(cache=False)
"""Renders scenes; each is needed once."""

SIZING_SCENES = 500
"""Training scenes of 64 x 64 pixels, or as much ground in larger ones, whose targets say what is small and large."""

J = TypeVar("J")
R = TypeVar("R")
SCENES: tuple[Scene, ...] = ("inshore", "offshore", "inland")


def run_in_order(
    work: Callable[[J], R], jobs: Sequence[J], *, workers: int = 1, show_progress: bool = False, unit: str = "image"
) -> Iterator[R]:
    """Yield what `work` returns for each job, in their order, whoever is done first.

    Args:
        work: function of a module or a `functools.partial` of one; called in other processes.
        jobs: its arguments.
        workers: processes; 1 works in this one.
        show_progress: draw a progress bar on stderr.
        unit: of the bar.

    Raises:
        UserError: fewer than 1 worker, or from `work`.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    with tqdm(total=len(jobs), unit=unit, disable=not show_progress) as bar:
        if workers == 1 or len(jobs) < 2:
            for job in jobs:
                yield work(job)
                bar.update()
            return
        # spawn: GDAL holds threads and locks that a forked child would inherit half-way
        with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
            for result in pool.imap(work, jobs, chunksize=8):
                yield result
                bar.update()


def read_scene_list(path: str | Path) -> set[str]:
    """Return the file names (without folder and suffix) of a list: one a line, or the images of a COCO file.

    Raises:
        UserError: the file cannot be read or lists nothing.
    """
    if Path(path).suffix.lower() == ".json":
        from mmovseg.data.datasets.coco_boxes import read_coco  # see `read_coco_images`

        names = [entry.get("file_name") for entry in read_coco(path)["images"] if isinstance(entry, dict)]
    else:
        names = [text.strip() for _, text in read_lines(path)]
    found = {Path(name).stem for name in names if isinstance(name, str)}
    if not found:
        raise UserError(f"scene list '{path}' names no image")
    return found


@dataclass(frozen=True)
class SceneLists:
    """Lists of images by scene word: (word, file, names of its images without folder and suffix)."""

    files: tuple[tuple[Scene, str, frozenset[str]], ...] = ()

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]]) -> SceneLists:
        """Read lists given as (scene word, file); several of one word are put together.

        Raises:
            UserError: a word is none of `SCENES`, or see `read_scene_list`.
        """
        files: list[tuple[Scene, str, frozenset[str]]] = []
        for word, path in pairs:
            scene = next((known for known in SCENES if known == word), None)
            if scene is None:
                raise UserError(f"--scene got the word '{word}'; the scenes are: {', '.join(SCENES)}")
            files.append((scene, path, frozenset(read_scene_list(path))))
        return cls(tuple(files))

    def names(self) -> dict[Scene, set[str]]:
        """Return scene word -> names of its images."""
        found: dict[Scene, set[str]] = {}
        for scene, _, names in self.files:
            found.setdefault(scene, set()).update(names)
        return found

    def check_used(self, images: Iterable[ObjectImage]) -> None:
        """Refuse a list without any of these images: it belongs to another data set, or names them otherwise.

        Raises:
            UserError: there is one.
        """
        there = {Path(image.image).stem for image in images}
        for scene, path, names in self.files:
            if not names & there:
                raise UserError(
                    f"the list '{path}' of --scene {scene} names no image of these files, but for example "
                    f"'{min(names)}' where they have '{min(there, default='')}'"
                )


def read_coco_images(
    json_file: str | Path,
    *,
    root: str | Path,
    folder: str,
    source: str,
    split: str,
    scenes: Mapping[Scene, set[str]] | None = None,
    gsd_m: float | None = None,
    bad_boxes: BadBoxes = "drop",
) -> tuple[list[ObjectImage], list[str]]:
    """Return the images of a COCO file with all their objects, and the names of its categories.

    An entry of `images` may also hold ``gsd_m``, and ``scene`` or ``land_ratio``.

    Args:
        json_file: as `mmovseg.data.datasets.coco_boxes.load_coco_boxes` reads it.
        root: of the data; image paths in the records start there.
        folder: of the images, below `root`.
        source: data set.
        split: of it.
        scenes: scene word -> names of images, from `SceneLists.names`; goes before what the file says.
        gsd_m: metres per pixel of all images that do not say it themselves.
        bad_boxes: see `load_coco_boxes`.

    Raises:
        UserError: the file is bad, an image is missing, or an image is in two scene lists or has an unknown scene.
    """
    from mmovseg.data.datasets.coco_boxes import load_coco_boxes, read_coco  # its package imports detectron2: seconds
    from mmovseg.projects.sartext.data.sets import known_scene

    content = read_coco(json_file)
    names = [str(entry.get("name")) if isinstance(entry, Mapping) else "" for entry in content["categories"]]
    dicts = load_coco_boxes(json_file, categories=names, sar_dir=Path(root) / folder, bad_boxes=bad_boxes)
    listed = {str(entry.get("id")): entry for entry in content["images"]}
    images = []
    for item in dicts:
        entry = listed[item["image_id"]]
        path = (Path(folder) / entry["file_name"]).as_posix()
        resolution = entry.get("gsd_m", gsd_m)
        if resolution is not None and not (isinstance(resolution, int | float) and resolution > 0):
            raise UserError(f"image '{path}' of '{json_file}' has gsd_m {resolution!r}, which is no positive number")
        objects = tuple(
            AnnotatedObject(names[a["category_id"]], a["bbox"], float(a["area"]), bool(a.get("iscrowd", 0)))
            for a in item["annotations"]
        )
        scene = _scene(entry, path, scenes or {})
        images.append(
            ObjectImage(
                image=path,
                image_id=image_id_of(path),
                source=source,
                split=split,
                height=item["height"],
                width=item["width"],
                objects=objects,
                gsd_m=resolution,
                scene=scene,
                source_scene=known_scene(source, path),
            )
        )
    return images, names


def _scene(entry: Mapping[str, Any], path: str, scenes: Mapping[Scene, set[str]]) -> Scene | None:
    found = [scene for scene, names in scenes.items() if Path(path).stem in names]
    if len(found) > 1:
        raise UserError(f"image '{path}' is in the lists of two scenes: {found[0]} and {found[1]}")
    said = found[0] if found else entry.get("scene")
    if said is None and entry.get("land_ratio") is not None:
        return scene_of_land(float(entry["land_ratio"]))
    if said is not None and said not in SCENES:
        raise UserError(f"image '{path}' has the scene '{said}'; the scenes are: {', '.join(SCENES)}")
    return said


@dataclass(frozen=True)
class LabelJob:
    """A label map to be read: of which image, which file, and stored value -> class id where the file's own differ."""

    image: MappedImage
    label_file: str
    label_map: Mapping[int, int] | None = None

    def read(self) -> Labels:
        """Return the class ids (H, W)."""
        return read_label(self.label_file, label_map=self.label_map)


def label_jobs(dicts: Iterable[DatasetDict], *, root: str | Path, source: str, split: str) -> list[LabelJob]:
    """Return the label maps of a data set; the image of a record is the SAR one where there is one.

    Args:
        dicts: with `sem_seg_file_name` and a raster.
        root: of the data; image paths in the records start there.
        source: data set.
        split: of it.

    Raises:
        UserError: an image has no label map, or does not lie below `root`.
    """
    jobs = []
    for item in dicts:
        files = [_below(item[key], root) for key in ("sar_file_name", "file_name") if key in item]
        if "sem_seg_file_name" not in item or not files:
            raise UserError(f"'{item.get('image_id', files)}' of '{source}' has no label map to make captions from")
        optical = files[1] if len(files) > 1 else None
        image = MappedImage(files[0], image_id_of(files[0]), source, split, optical)
        jobs.append(LabelJob(image, item["sem_seg_file_name"], item.get("label_map")))
    if not jobs:
        raise UserError(f"'{source}' has no image in the split '{split}'")
    return jobs


def _below(path: str, root: str | Path) -> str:
    try:
        return Path(path).resolve().relative_to(Path(root).resolve()).as_posix()
    except ValueError as error:
        raise UserError(f"image '{path}' does not lie below the root '{root}'") from error


@dataclass(frozen=True)
class MiniEarthScenes:
    """Some scenes of MiniEarth. Image paths are those of a folder that `tools/make_miniearth.py` writes.

    split, num_scenes, size, domain, seed: see `mmovseg.data.miniearth.load_miniearth`; `domain` by name.
    """

    split: str
    num_scenes: int | None = None
    size: int = 64
    domain: str = "default"
    seed: int = 0

    @property
    def source(self) -> str:
        return "miniearth" if self.domain == "default" else f"miniearth_{self.domain}"

    def jobs(self) -> list[DatasetDict]:
        """Return the scenes as dataset dicts."""
        return load_miniearth(
            self.split, num_scenes=self.num_scenes, size=self.size, domain=self.domain, seed=self.seed
        )

    def sizing(self) -> MiniEarthScenes:
        """Return the training scenes of this world that size words follow from, whatever is captioned."""
        count = max(1, SIZING_SCENES * 64 * 64 // self.size**2)
        return MiniEarthScenes("train", count, self.size, self.domain, self.seed)

    def mapped_image(self, scene: DatasetDict) -> MappedImage:
        """Return what a record says of a scene."""
        sar, optical = (f"{self.split}/{kind}/{scene['image_id']}.tif" for kind in ("sar", "optical"))
        return MappedImage(sar, scene["image_id"], self.source, self.split, optical)

    def read_labels(self, scene: DatasetDict) -> tuple[MappedImage, Labels]:
        """Render a scene and return its label map (H, W)."""
        labels = READER(scene).sem_seg
        assert labels is not None
        return self.mapped_image(scene), labels

    def read_objects(self, scene: DatasetDict) -> ObjectImage:
        """Render a scene and return its targets; the scene word follows from its share of water."""
        sample = READER(scene)
        image = self.mapped_image(scene)
        objects = []
        for target in sample.facts["targets"]:
            x0, y0, x1, y1 = (float(value) for value in target["box"])
            objects.append(AnnotatedObject(target["category"], (x0, y0, x1, y1), (x1 - x0) * (y1 - y0)))
        land = 1.0 - float(np.clip(sample.facts["shares"][CLASS_NAMES[WATER]], 0.0, 1.0))
        return ObjectImage(
            image=image.image,
            image_id=image.image_id,
            source=image.source,
            split=image.split,
            height=scene["height"],
            width=scene["width"],
            objects=tuple(objects),
            gsd_m=scene["gsd_m"],
            scene=scene_of_land(land),
            optical_image=image.optical_image,
        )
