"""Labels of whole images: which classes a label raster shows, and which few images are learned from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from mmovseg.data.sample import IGNORE_LABEL, DatasetDict, Reader
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.arrays import load_array

logger = logging.getLogger(__name__)

Protocol = Literal["release", "balanced"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

LabelReader = Callable[[Mapping[str, Any]], Sequence[int]]

_SEED = 729  # of the release: its draws are RandomState(729 + seed)


class MultiHot:
    """Say which classes an image shows: those that cover at least `min_share` of its pixels.

    Source: the release of CoDe-MAE, which makes the multi-label sets of its linear probe so from label rasters. Pixels
    without a label count as pixels of the image, as they do there.

    Args:
        vocabulary: of the rasters; label id = position.
        min_share: 0..1.
        ignored: names of classes that are no answer, such as background; the others keep their order.

    Raises:
        UserError: a share outside 0..1, an unknown name, or no class is left.
    """

    def __init__(self, *, vocabulary: Vocabulary, min_share: float = 0.1, ignored: Sequence[str] = ()) -> None:
        if not 0 <= min_share <= 1:
            raise UserError(f"the smallest share of a class must lie in 0..1, got {min_share}")
        self.classes = multi_hot_classes(vocabulary=vocabulary, ignored=ignored)
        self.min_share = min_share
        # labels of classes that a segmentation model must not learn are as good as the others here
        everything_seen = tuple(replace(entry, seen=True) for entry in vocabulary.classes)
        self.vocabulary = replace(vocabulary, classes=everything_seen)
        self._kept = [index for index, name in enumerate(vocabulary.names) if name in self.classes]

    def __call__(self, sem_seg: np.ndarray) -> np.ndarray:
        """Return one 0 or 1 a class.

        Args:
            sem_seg: (H, W) integers of the vocabulary, 255 = no label.

        Returns:
            (K,) float32.
        """
        flat = np.asarray(sem_seg, dtype=np.int64).ravel()
        counts = np.bincount(flat[flat != IGNORE_LABEL], minlength=len(self.vocabulary))
        return (counts[self._kept] >= np.maximum(self.min_share * flat.size, 1)).astype(np.float32)


def multi_hot_classes(*, vocabulary: Vocabulary, ignored: Sequence[str] = ()) -> list[str]:
    """Return the names that `MultiHot` answers with.

    Raises:
        UserError: an unknown name is to be ignored, or none is left.
    """
    for name in ignored:
        if name not in vocabulary.names:
            raise UserError(
                f"vocabulary '{vocabulary.name}' has no class '{name}' to ignore; it has: {', '.join(vocabulary.names)}"
            )
    kept = [name for name in vocabulary.names if name not in ignored]
    if not kept:
        raise UserError(f"vocabulary '{vocabulary.name}' has no class left when {', '.join(ignored)} are ignored")
    return kept


class RasterLabels:
    """Read the label raster of an image and say which classes it shows.

    Args:
        rule: turns the raster into one 0 or 1 a class.
        reader: reads it; optical and SAR are left out where the reader can do without.
    """

    def __init__(self, *, rule: MultiHot, reader: Reader) -> None:
        self.rule, self.reader = rule, reader

    def __call__(self, dataset_dict: Mapping[str, Any]) -> Sequence[int]:
        """Return one 0 or 1 a class.

        Raises:
            UserError: the image has no label raster.
        """
        wanted: Any = dict(dataset_dict)
        if "world" not in wanted:  # a generated scene is made as a whole
            wanted = {key: value for key, value in wanted.items() if key not in ("file_name", "sar_file_name")}
        label = self.reader(wanted).sem_seg
        if label is None:
            raise UserError(
                f"image '{dataset_dict.get('image_id', '?')}' has no label raster, so its classes are not known"
            )
        return [int(value) for value in self.rule(label)]


def few_shot(
    *,
    dataset: Sequence[DatasetDict],
    classes: Sequence[str],
    shots: int = 10,
    protocol: Protocol = "release",
    seed: int = 0,
    labels: LabelReader | None = None,
) -> list[dict[str, Any]]:
    """Choose the few images that are learned from.

    ``release``: the first ``shots * len(classes)`` images of a permutation, whatever they show; so a class may have
    more or fewer than `shots` images, or none. ``balanced``: every class has `shots` images. Where an image can be of
    several classes, images are taken in the order of the permutation while they show a class that has fewer than
    `shots` images yet; frequent classes then have more, and the total is at most ``shots * len(classes)``.

    The permutation is that of ``numpy.random.RandomState(729 + seed)``, as in the release; config files give it
    `train.seed`, so that other seeds mean other images.

    Args:
        dataset: dataset dicts of the training part.
        classes: names; position = label.
        shots: images a class.
        protocol: see above.
        seed: which draw.
        labels: reads one 0 or 1 a class, for dicts without `label` and `label_file_name` (`balanced` only).

    Returns:
        Dataset dicts in the order of the permutation.

    Raises:
        UserError: unknown protocol, `shots` below 1, more images asked for than there are, or labels are not known or
            of other classes.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown few-shot protocol '{protocol}'; known: {', '.join(PROTOCOLS)}")
    if shots < 1:
        raise UserError(f"few-shot learning needs at least 1 image a class, got {shots}")
    order = np.random.RandomState(_SEED + seed).permutation(len(dataset))
    if protocol == "balanced":
        return _balanced(dataset, classes, shots, order, labels)
    wanted = shots * len(classes)
    if wanted > len(dataset):
        raise UserError(
            f"{shots} shots of {len(classes)} classes are {wanted} images, but the training part has {len(dataset)}"
        )
    return [dict(dataset[index]) for index in order[:wanted]]


def _balanced(
    dataset: Sequence[DatasetDict],
    classes: Sequence[str],
    shots: int,
    order: np.ndarray,
    labels: LabelReader | None,
) -> list[dict[str, Any]]:
    counts = np.zeros(len(classes), dtype=np.int64)
    chosen, single = [], True
    for index in order:
        if counts.min() >= shots:
            break
        shown, of_one = _one_hot(dataset[index], len(classes), labels)
        single &= of_one
        if (shown & (counts < shots)).any():
            counts += shown
            chosen.append(dict(dataset[index]))
    short = [f"{name} {count}" for name, count in zip(classes, counts, strict=True) if count < shots]
    if short and single:
        raise UserError(f"the training part has fewer than {shots} images of: {', '.join(short)}")
    if short:
        logger.warning("the training part has fewer than %d images of: %s", shots, ", ".join(short))
    return chosen


def _one_hot(dataset_dict: Mapping[str, Any], count: int, labels: LabelReader | None) -> tuple[np.ndarray, bool]:
    """Return (K,) bool, and whether the image is of one class by definition."""
    shown = np.zeros(count, dtype=bool)
    label = dataset_dict.get("label")
    if isinstance(label, int):
        shown[label] = True
        return shown, True
    if label is None and "label_file_name" in dataset_dict:
        label = load_array(dataset_dict["label_file_name"], ndim=1)
    if label is None:
        if labels is None:
            raise UserError(
                f"image '{dataset_dict.get('image_id', '?')}' has no label in its dataset dict; give `labels`, which "
                "reads it, or take the protocol 'release'"
            )
        label = labels(dataset_dict)
    if len(label) != count:
        raise UserError(
            f"the label of image '{dataset_dict.get('image_id', '?')}' has {len(label)} values for {count} classes"
        )
    shown[:] = np.asarray(label, dtype=bool)
    return shown, False
