"""Captions that a trained CoCa writes of images that nobody has described, as records of the one schema.

Of a set of pairs a CoCa for optical remote sensing describes the optical image, and the rules of `rewriting` make the
sentence one about its SAR twin; a CoCa for SAR describes SAR images directly. Such captions state what a model
believes: there is no annotation that could confirm them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tqdm import tqdm

from mmovseg.data.datasets.catalog import datasets_root
from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError, one_line
from mmovseg.projects.sartext.captioning.schema import CaptionRecord
from mmovseg.projects.sartext.data.sets import find_text_set, known_scene, load_text_set
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel
from mmovseg.projects.sartext.search.files import list_images
from mmovseg.projects.sartext.search.reading import ImageReading, read_batches


@dataclass(frozen=True)
class Undescribed:
    """An image to describe.

    Attributes:
        file: what the model reads.
        image: path of the record, relative to the root of the data.
        source, split: of the record.
        optical_image: path of the optical twin, where `image` is SAR and there is one.
        scene: what the image was cut from, where that is known.
    """

    file: str
    image: str
    source: str
    split: str
    optical_image: str | None = None
    scene: str | None = None


def images_of_folder(folder: str | Path, *, pattern: str = "*", source: str, split: str) -> list[Undescribed]:
    """Return the rasters of a folder and of those below it; paths of records start from the folder.

    Raises:
        UserError: see `list_images`.
    """
    return [
        Undescribed(str(Path(folder) / found.path), found.path, source, split)
        for found in list_images(folder, pattern=pattern)
    ]


def images_of_set(
    name: str, splits: Sequence[str], modality: Literal["optical", "sar"], *, root: str | Path | None = None
) -> list[Undescribed]:
    """Return the images of a prepared set; paths of records start from the folder of all sets.

    Args:
        name: of `mmovseg.projects.sartext.data.sets.TEXT_SETS`.
        splits: of the set.
        modality: what the model reads.
        root: folder of all data sets; None = the registered one.

    Raises:
        UserError: see `load_text_set`; or the set has no images of that modality.
    """
    base = datasets_root() if root is None else Path(root)
    roles = find_text_set(name).roles
    if modality not in roles:
        raise UserError(f"data set '{name}' has no {modality} images, which the model reads")
    keys = {"optical": "file_name", "sar": "sar_file_name"}
    found = []
    for split in splits:
        for item in load_text_set(name, split, root=base):
            paths = {role: _below(str(item[keys[role]]), base) for role in roles}  # type: ignore[literal-required]
            image = paths.get("sar", paths[modality])
            twin = paths["optical"] if len(paths) == 2 else None
            file = str(item[keys[modality]])  # type: ignore[literal-required]
            found.append(Undescribed(file, image, name, split, twin, known_scene(name, image)))
    return found


def _below(path: str, base: Path) -> str:
    return PurePosixPath(os.path.relpath(path, base)).as_posix()


def describe_images(
    images: Sequence[Undescribed],
    model: ImageTextModel,
    reading: ImageReading,
    *,
    provenance: dict[str, Any],
    batch_size: int = 32,
    workers: int = 0,
    show_progress: bool = True,
    tell: Callable[[str], None] = tqdm.write,
) -> Iterator[CaptionRecord]:
    """Yield a record with one caption for each image.

    Args:
        images: to describe.
        model: a CoCa; its beams and lengths are used.
        reading: how files become samples.
        provenance: what the records say of model and weights.
        batch_size: images a step.
        workers: processes that read; 0 reads in this one.
        show_progress: draw a progress bar on stderr.
        tell: called with one sentence for each image that is left out: it cannot be read, or the model wrote no word.

    Raises:
        UserError: the model is a CLIP, which writes nothing.
    """
    batches = read_batches([image.file for image in images], reading, batch_size=batch_size, workers=workers)
    start = 0
    with tqdm(total=len(images), unit="image", disable=not show_progress) as bar:
        for batch in batches:
            chosen = images[start : start + len(batch)]
            start += len(batch)
            for image, text in zip(chosen, _write(model, batch), strict=True):
                if text.error is not None:
                    tell(f"left out: {text.error}")
                elif not text.caption.strip():
                    tell(f"left out: the model wrote nothing of '{image.file}'")
                else:
                    yield _record(image, text.caption, provenance)
                bar.update()


@dataclass(frozen=True)
class _Written:
    caption: str = ""
    error: str | None = None


def _write(model: ImageTextModel, batch: Sequence[ModelInput | str]) -> list[_Written]:
    """Describe what could be read; a sample that the model refuses is refused by itself."""
    items = [item for item in batch if not isinstance(item, str)]
    try:
        texts = iter([_Written(text) for text in model.generate(items)] if items else [])
    except UserError:
        texts = iter([_write_one(model, item) for item in items])
    return [_Written(error=item) if isinstance(item, str) else next(texts) for item in batch]


def _write_one(model: ImageTextModel, item: ModelInput) -> _Written:
    try:
        return _Written(model.generate([item])[0])
    except UserError as error:
        return _Written(error=one_line(error))


def _record(image: Undescribed, caption: str, provenance: dict[str, Any]) -> CaptionRecord:
    scene = {"scene": image.scene} if image.scene is not None else {}
    return CaptionRecord(
        image=image.image,
        image_id=str(PurePosixPath(image.image).with_suffix("")),
        source=image.source,
        route="model",
        split=image.split,
        captions=(caption,),
        provenance={**provenance, **scene},
        optical_image=image.optical_image,
    )
