"""Dataset dict -> model input: read, move jointly, cloud, jitter, make tensors."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from detectron2.data.transforms import Augmentation

from mmovseg.data.boxes import all_instances, annotated_boxes, training_instances
from mmovseg.data.clouds import Clouds
from mmovseg.data.sample import (
    IGNORE_LABEL,
    MODALITIES,
    SAR_GEOMETRIES,
    DatasetDict,
    Modality,
    ModelInput,
    RawSample,
    Reader,
    SarGeometry,
)
from mmovseg.data.transforms import GREY, JointSample, OpticalJitter, SarJitter, lay_on_canvas
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError

DRAW_KEY = "_draw"
"""Key of a dataset dict that the training loader sets: the number of the draw, which seeds everything random."""

VIEW_KEY = "_view"
"""Key of a dataset dict that asks a mapper with `views` for one of them, instead of the one that the draw chooses."""

_GEOMETRY, _CLOUDS, _OPTICAL, _SAR, _CAPTION, _VIEW = range(6)


class OpticalSARMapper:
    """Turn dataset dicts into model inputs (keys, shapes and units: `mmovseg.data.sample.ModelInput`).

    Everything random follows from (`seed`, draw number), with one stream each for geometry, clouds, optical, SAR and
    caption, so that a resumed run repeats it and switching one off does not change the others. Evaluation has no draw
    number: there the stream follows from (`seed`, image id), so that an image always wears the same cloud.

    Args:
        is_train: training re-indexes labels to the seen classes, moves labels along with the geometry and draws anew
            for every draw; evaluation keeps the whole label space and the label at its original size.
        vocabulary: the label space of the data set: label id = position. None reads no labels and asks for no classes:
            for alignment, and for mixed data sets, which number their classes apart.
        reader: dataset dict -> `RawSample`, optical on the 0..255 scale.
        prompts: evaluation only: ask the model for these classes instead of `vocabulary`.
        geometry: detectron2 augmentations, applied jointly to all rasters.
        optical_photometric: applied to optical after the clouds.
        sar_photometric: applied to SAR.
        sar_geometry: "paired" moves SAR with the optical image, pixel by pixel. "official" does what the released
            checkpoints were trained and tested with: `geometry` moves optical and label only, SAR stays as it is, and
            each is cut, or filled with grey 128 (label 255), to the top left square of `canvas_px`. Optical and SAR
            must be 8-bit then. No masks come out: the released models take the grey for data. Geometry that resizes
            like theirs is `PilResizeShortestEdge`, decoding like theirs `FileReader(decoder="pil")`.
        canvas_px: side of the square of the official geometry, pixels.
        clouds: laid over optical after the geometry; opacity and shadow come out as `cloud_alpha` and `cloud_shadow`.
        modality: keep both, or drop one (its keys are then absent, and it is not read).
        with_clear: also give `image_clear`, the same view without the cloud.
        keep_caption: also give one `caption`; training draws one, evaluation takes the first and gives all as
            `captions`, too.
        seed: of everything random here.
        views: training only: an image is shown in no more than this many ways, so that features of the clear view can
            be computed once (`mmovseg.data.features`). A draw takes one of them at random; which, comes out as `view`.
            Geometry and optical jitter then follow from (`seed`, image id, view), so a view is the same in every run;
            clouds, SAR jitter and caption still follow from the draw. None: every draw is a view of its own.

    Raises:
        UserError: unknown modality or geometry, prompts or views given for the wrong stage, fewer than one view, or
            more than 255 classes (255 means ignore).
    """

    def __init__(
        self,
        *,
        is_train: bool,
        vocabulary: Vocabulary | None,
        reader: Reader,
        prompts: Vocabulary | None = None,
        geometry: Sequence[Augmentation] = (),
        optical_photometric: OpticalJitter | None = None,
        sar_photometric: SarJitter | None = None,
        clouds: Clouds | None = None,
        sar_geometry: SarGeometry = "paired",
        canvas_px: int = 384,
        modality: Modality = "both",
        with_clear: bool = False,
        keep_caption: bool = False,
        seed: int = 0,
        views: int | None = None,
    ) -> None:
        if modality not in MODALITIES:
            raise UserError(f"unknown modality '{modality}'; known: {', '.join(MODALITIES)}")
        if sar_geometry not in SAR_GEOMETRIES:
            raise UserError(f"unknown sar_geometry '{sar_geometry}'; known: {', '.join(SAR_GEOMETRIES)}")
        if is_train and prompts is not None:
            raise UserError(f"prompts ('{prompts.name}') are for evaluation; training asks for the seen classes")
        if views is not None and (not is_train or views < 1):
            raise UserError(
                f"views must be at least 1, and is for training only; got views {views}, is_train {is_train}"
            )
        if vocabulary is not None and len(vocabulary) > IGNORE_LABEL:
            raise UserError(f"vocabulary '{vocabulary.name}' has {len(vocabulary)} classes; labels hold at most 255")
        self.is_train = is_train
        self.vocabulary = vocabulary
        self.reader = reader
        self.asked = vocabulary.seen_subset() if is_train and vocabulary is not None else (prompts or vocabulary)
        self.geometry = list(geometry)
        self.optical_photometric = optical_photometric
        self.sar_photometric = sar_photometric
        self.clouds = clouds
        self.canvas_px = canvas_px if sar_geometry == "official" else None
        self.modality = modality
        self.with_clear = with_clear
        self.keep_caption = keep_caption
        self.seed = seed
        self.views = views
        self._train_ids = np.full(256, IGNORE_LABEL, dtype=np.uint8)
        if vocabulary is not None:
            self._train_ids[vocabulary.seen_ids] = np.arange(len(vocabulary.seen_ids))

    def __call__(self, dataset_dict: dict[str, Any]) -> ModelInput:
        """Map one sample.

        Raises:
            UserError: the file is unreadable, a label value is outside the class list, the modality asked for is
                absent, or rasters are not 8-bit in the official geometry; the message names the file.
        """
        raw = self._read(dataset_dict)
        seeds = self._stream_seed(dataset_dict)
        view = self._view(dataset_dict, seeds)
        view_seeds = seeds if view is None else [self.seed, _image_seed(dataset_dict), view]
        label = self._label(raw, dataset_dict)
        height, width = next(a.shape[:2] for a in (raw.optical, raw.sar, label) if a is not None)
        if self.is_train and label is not None:
            label = self._train_ids[label]
        boxes = annotated_boxes(dataset_dict, (int(height), int(width)))
        joint = JointSample(
            rng=np.random.default_rng([*view_seeds, _GEOMETRY]),
            optical=raw.optical,
            optical_clear=raw.facts.get("optical_clear") if self.with_clear else None,
            optical_valid=raw.optical_valid if self.canvas_px is None else None,
            sar=raw.sar,
            sar_valid=raw.sar_valid,
            sem_seg=label if self.is_train else None,
            cloud_alpha=raw.facts.get("cloud_alpha") if raw.optical is not None else None,
            boxes=boxes if self.is_train else None,
        )
        self._move(joint, raw, dataset_dict)
        item: ModelInput = {
            "image_id": str(dataset_dict.get("image_id", dataset_dict.get("file_name", ""))),
            "file_name": str(dataset_dict.get("file_name", dataset_dict.get("sar_file_name", ""))),
            "height": int(height),
            "width": int(width),
        }
        if self.asked is not None:
            item["vocabulary"] = self.asked
        if "source" in dataset_dict:
            item["source"] = str(dataset_dict["source"])
        if view is not None:
            item["view"] = view
        self._add_optical(item, joint, seeds, view_seeds)
        self._add_sar(item, joint, seeds)
        if self.is_train and joint.sem_seg is not None:
            label = self._on_canvas(joint.sem_seg, IGNORE_LABEL)
        if label is not None:
            item["sem_seg"] = torch.from_numpy(label.astype(np.int64))
        if self.keep_caption:
            self._add_caption(item, raw, seeds)
        if joint.boxes is not None:
            item["instances"] = training_instances(dataset_dict, joint.boxes, (joint.height, joint.width))
        elif boxes is not None:
            item["instances"] = all_instances(dataset_dict, boxes, (int(height), int(width)))
        return item

    def _read(self, dataset_dict: dict[str, Any]) -> RawSample:
        dropped = {"optical": "sar_file_name", "sar": "file_name"}.get(self.modality)
        unread = {DRAW_KEY, VIEW_KEY, dropped} | ({"sem_seg_file_name"} if self.vocabulary is None else set())
        wanted = {key: value for key, value in dataset_dict.items() if key not in unread}
        raw = self.reader(cast(DatasetDict, wanted))
        if self.modality == "optical":
            raw = RawSample(raw.optical, raw.optical_valid, None, None, raw.sem_seg, raw.captions, raw.facts)
        elif self.modality == "sar":
            raw = RawSample(None, None, raw.sar, raw.sar_valid, raw.sem_seg, raw.captions, raw.facts)
        if raw.optical is None and raw.sar is None:
            name = dataset_dict.get("file_name", dataset_dict.get("sar_file_name", "?"))
            raise UserError(f"sample '{name}' has no raster for modality '{self.modality}'")
        return raw

    def _move(self, joint: JointSample, raw: RawSample, dataset_dict: dict[str, Any]) -> None:
        """Apply the geometry: to everything, or in the official one to all but SAR."""
        if self.canvas_px is None:
            joint.apply_augmentations(self.geometry)
            return
        _check_8_bit(raw, dataset_dict)
        joint.sar = joint.sar_valid = None
        if joint.optical is not None or joint.sem_seg is not None:
            joint.apply_augmentations(self.geometry)
        joint.sar, joint.sar_valid = raw.sar, raw.sar_valid

    def _on_canvas(self, array: np.ndarray, fill: float) -> np.ndarray:
        return array if self.canvas_px is None else lay_on_canvas(array, self.canvas_px, fill)

    def _stream_seed(self, dataset_dict: dict[str, Any]) -> list[int]:
        if not self.is_train:
            return [self.seed, _image_seed(dataset_dict)]
        if DRAW_KEY in dataset_dict:
            return [self.seed, int(dataset_dict[DRAW_KEY])]
        # A loader of somebody else numbers no draws; torch's generator is the one that its workers seed apart.
        return [self.seed, int(torch.randint(2**31, ()))]

    def _view(self, dataset_dict: dict[str, Any], seeds: list[int]) -> int | None:
        if self.views is None:
            return None
        asked = dataset_dict.get(VIEW_KEY)
        view = np.random.default_rng([*seeds, _VIEW]).integers(self.views) if asked is None else asked
        return int(view)

    def _label(self, raw: RawSample, dataset_dict: dict[str, Any]) -> np.ndarray | None:
        """Return the label as uint8, all values within the class list or 255; None if there is none to read."""
        label = raw.sem_seg
        if label is None or self.vocabulary is None:
            return None
        wrong = ((label < 0) | (label >= len(self.vocabulary))) & (label != IGNORE_LABEL)
        if wrong.any():
            source, value, count = _label_source(dataset_dict), label[wrong][0], len(self.vocabulary)
            raise UserError(
                f"label '{source}' has the value {value}, outside the {count} classes 0..{count - 1} of vocabulary "
                f"'{self.vocabulary.name}' (255 = ignore)"
            )
        return label.astype(np.uint8)

    def _add_optical(self, item: ModelInput, joint: JointSample, seeds: list[int], view_seeds: list[int]) -> None:
        if joint.optical is None or joint.optical_valid is None:
            return
        image, clear = joint.optical, joint.optical if joint.optical_clear is None else joint.optical_clear
        alpha, shadow = joint.cloud_alpha, None
        if self.clouds is not None:
            image, alpha, shadow = self.clouds(image, np.random.default_rng([*seeds, _CLOUDS]))
        item["image"] = self._finish_optical(image, joint.optical_valid, view_seeds)
        if self.with_clear:
            item["image_clear"] = self._finish_optical(clear, joint.optical_valid, view_seeds)
        if self.canvas_px is None:
            item["valid"] = torch.from_numpy(joint.optical_valid)
        if alpha is not None:
            item["cloud_alpha"] = self._cloud_layer(alpha)
        if shadow is not None:
            item["cloud_shadow"] = self._cloud_layer(shadow)

    def _cloud_layer(self, layer: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._on_canvas(layer, 0.0), dtype=np.float32))

    def _finish_optical(self, image: np.ndarray, valid: np.ndarray, seeds: list[int]) -> torch.Tensor:
        if self.optical_photometric is not None:
            # A fresh generator: the clouded and the clear view must be jittered alike.
            image = self.optical_photometric(image, np.random.default_rng([*seeds, _OPTICAL]))
        image = np.where(valid[:, :, None], image, np.zeros((), dtype=image.dtype))
        image = self._on_canvas(image, GREY)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def _add_sar(self, item: ModelInput, joint: JointSample, seeds: list[int]) -> None:
        if joint.sar is None or joint.sar_valid is None:
            return
        sar = joint.sar
        if self.sar_photometric is not None:
            sar = self.sar_photometric(sar, np.random.default_rng([*seeds, _SAR]))
        sar = np.where(joint.sar_valid[:, :, None], sar, np.float32(0)).astype(np.float32)
        sar = self._on_canvas(sar, GREY)
        item["sar"] = torch.from_numpy(np.ascontiguousarray(sar.transpose(2, 0, 1)))
        if self.canvas_px is None:
            item["sar_valid"] = torch.from_numpy(joint.sar_valid)

    def _add_caption(self, item: ModelInput, raw: RawSample, seeds: list[int]) -> None:
        if not raw.captions:
            raise UserError(f"sample '{item['file_name']}' has no caption, but the mapper was asked for one")
        pick = int(np.random.default_rng([*seeds, _CAPTION]).integers(len(raw.captions))) if self.is_train else 0
        item["caption"] = raw.captions[pick]
        if not self.is_train:
            item["captions"] = list(raw.captions)


def _check_8_bit(raw: RawSample, dataset_dict: dict[str, Any]) -> None:
    """Refuse what the official geometry cannot show to a released model: it would be cut to 8 bits in silence."""
    if raw.optical is not None and raw.optical.dtype != np.uint8:
        raise UserError(
            f"optical raster '{dataset_dict.get('file_name', '?')}' is {raw.optical.dtype} after reading, but the "
            "official SAR geometry is for 8-bit images; use sar_geometry='paired'"
        )
    if raw.sar is None:
        return
    values = raw.sar if raw.sar_valid is None else raw.sar[raw.sar_valid]
    wrong = (values != np.rint(values)) | (values < 0) | (values > 255)
    if wrong.any():
        raise UserError(
            f"SAR raster '{dataset_dict.get('sar_file_name', '?')}' has the value {values[wrong][0]:g}, but the "
            "official SAR geometry is for 8-bit SAR, 0..255; use sar_geometry='paired'"
        )


def _image_seed(dataset_dict: dict[str, Any]) -> int:
    image_id = str(dataset_dict.get("image_id", dataset_dict.get("file_name", "")))
    return zlib.crc32(image_id.encode())


def _label_source(dataset_dict: dict[str, Any]) -> str:
    return str(dataset_dict.get("sem_seg_file_name", dataset_dict.get("file_name", "?")))
