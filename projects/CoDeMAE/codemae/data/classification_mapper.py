"""Dataset dict -> model input for classification: read, move, augment, and one label an image."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2.data.transforms import Augmentation
from detectron2.utils import comm
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor

from mmovseg.data.build import Mapper, TrainLoader, build_train_loader
from mmovseg.data.mapper import DRAW_KEY, OpticalSARMapper
from mmovseg.data.sample import Modality, ModelInput, Reader
from mmovseg.data.transforms import OpticalJitter, Resize, SarJitter
from mmovseg.data.transforms.centre_crop import CentreCrop, CubicResize, CubicResizeShortestEdge
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.arrays import load_array
from mmovseg.projects.codemae.data.labels import MultiHot

_FIXED = (CentreCrop, CubicResize, CubicResizeShortestEdge, Resize)
"""Geometry that shows an image in one way only."""


class ClassificationMapper:
    """Turn dataset dicts into model inputs with `label` (keys and units: `mmovseg.data.sample.ModelInput`).

    The label is that of the dataset dict, or what its file of labels says, or what `labels` finds in the label raster.

    An image that is shown in one way only carries ``view`` 0: models may then keep what a frozen encoder says of it,
    and the input itself is kept here, so that it is read and resized once.

    Args:
        is_train: whether photometry is applied; everything random follows from (`seed`, number of the draw).
        reader: reads a dict.
        labels: rule for label rasters; None = they are not read.
        modality: keep both rasters, or drop one.
        geometry: augmentations in order, moving all rasters together; also in evaluation.
        optical_photometric: of optical images, for example `RandAugment`; training only.
        sar_photometric: of SAR, training only.
        seed: see `is_train`.
        cache_mb: most that is kept of inputs that do not change, by this process.
    """

    def __init__(
        self,
        *,
        is_train: bool,
        reader: Reader,
        labels: MultiHot | None = None,
        modality: Modality = "both",
        geometry: Sequence[Augmentation] = (),
        optical_photometric: OpticalJitter | RandAugment | None = None,
        sar_photometric: SarJitter | None = None,
        seed: int = 0,
        cache_mb: int = 256,
    ) -> None:
        self.reader, self.labels = reader, labels
        jitters = (optical_photometric, sar_photometric) if is_train else (None, None)
        self.fixed = jitters == (None, None) and all(isinstance(step, _FIXED) for step in geometry)
        if not is_train and not self.fixed:
            raise UserError("evaluation shows every image in one way; its geometry must not draw anything at random")
        # In training mode also for evaluation: labels then move with the images that they are counted in.
        self._mapper = OpticalSARMapper(
            is_train=True,
            vocabulary=None if labels is None else labels.vocabulary,
            reader=reader,
            geometry=geometry,
            optical_photometric=jitters[0],  # type: ignore[arg-type]
            sar_photometric=jitters[1],
            modality=modality,
            seed=seed,
        )
        self._room = cache_mb * 1_000_000
        self._kept: dict[str, ModelInput] = {}

    def __call__(self, dataset_dict: dict[str, Any]) -> ModelInput:
        """Map one image.

        Raises:
            UserError: a file is unusable, the modality asked for is absent, or there is no label.
        """
        if not self.fixed:
            return self._map(dataset_dict)
        name = str([dataset_dict.get(key) for key in ("image_id", "file_name", "sar_file_name")])
        item = self._kept.get(name)
        if item is None:
            item = self._map({**dataset_dict, DRAW_KEY: 0})  # nothing is drawn; a number keeps torch's generator still
            item["view"] = 0
            size = sum(value.nbytes for value in item.values() if isinstance(value, Tensor))
            if size <= self._room:
                self._room -= size
                self._kept[name] = item
        return item.copy()

    def _map(self, dataset_dict: dict[str, Any]) -> ModelInput:
        item = self._mapper(dataset_dict)
        sem_seg = item.pop("sem_seg", None)
        item.pop("vocabulary", None)
        label = dataset_dict.get("label")
        if label is None and "label_file_name" in dataset_dict:
            label = load_array(dataset_dict["label_file_name"], ndim=1)
        if label is None and self.labels is not None and sem_seg is not None:
            label = self.labels(sem_seg.numpy())
        if label is None:
            raise UserError(
                f"image '{item['file_name']}' has no label: neither `label` nor `label_file_name` nor a label raster "
                "with a rule how it is read"
            )
        several = not isinstance(label, int)
        item["label"] = torch.as_tensor(np.asarray(label), dtype=torch.float32 if several else torch.int64)
        return item


class RandAugment:
    """timm's RandAugment on 8-bit RGB images, drawing from the generator of the sample.

    Args:
        policy: as timm spells it; the default is that of the release for optical scenes.
        mean: RGB 0..255 that fills what a rotation or shear brings in; of the data.
        size: side of the images, pixels; shifts are at most 45 % of it.

    Raises:
        UserError: timm does not know the policy.
    """

    def __init__(
        self, *, size: int, mean: Sequence[float] = (128, 128, 128), policy: str = "rand-m9-mstd0.5-inc1"
    ) -> None:
        fill = tuple(min(255, round(float(value))) for value in mean)
        try:
            self._transform = rand_augment_transform(policy, {"translate_const": int(size * 0.45), "img_mean": fill})
        except (AssertionError, ValueError, IndexError) as error:
            raise UserError(f"timm knows no RandAugment policy '{policy}'") from error

    def __call__(self, optical: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change one image.

        Args:
            optical: (H, W, 3) uint8.
            rng: source of every draw.

        Raises:
            UserError: the image is not 8 bit.
        """
        if optical.dtype != np.uint8:
            raise UserError(f"RandAugment is for 8-bit images, but this one is {optical.dtype}")
        with _global_draws_from(rng):
            return np.array(self._transform(Image.fromarray(optical)))


@contextmanager
def _global_draws_from(rng: np.random.Generator) -> Iterator[None]:
    """Let what draws from Python's and NumPy's global generators follow `rng`, and leave no trace in them."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(int(rng.integers(2**32)))
    np.random.seed(int(rng.integers(2**32)))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def build_classification_loader(
    *,
    dataset: Sequence[dict[str, Any]],
    mapper: Mapper,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    start_iter: int = 0,
) -> TrainLoader:
    """Build the train loader of `mmovseg.data.build`, with at most as many images a batch as there are.

    The few images of a few-shot run are then one batch an epoch, each image once, as in the release; with several
    processes, as many of them as can be shared equally.

    Args: see `mmovseg.data.build.build_train_loader`.
    """
    if len(dataset) < batch_size:
        processes = comm.get_world_size()
        batch_size = max(processes, len(dataset) - len(dataset) % processes)
    return build_train_loader(
        dataset=dataset,
        mapper=mapper,
        batch_size=batch_size,
        num_workers=num_workers,
        seed=seed,
        start_iter=start_iter,
    )
