"""The data contract: every key that travels between reader, mapper, model and evaluator, spelled once.

Three stages carry dicts. A *dataset dict* holds paths and facts. A reader turns it into a `RawSample` (numpy, HWC).
The mapper turns that into a *model input* (torch, CHW). The model answers with a *prediction*.
Absent modality = absent key; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import numpy as np

if TYPE_CHECKING:
    from detectron2.structures import Instances
    from torch import Tensor

    from mmovseg.data.vocabulary import Vocabulary

IGNORE_LABEL = 255


class BoxAnnotation(TypedDict, total=False):
    """One annotated object of an image, a part of `DatasetDict`.

    `bbox`: x0, y0, x1, y1 in pixels of the raster, ends exclusive. `category_id`: position in the list of categories.
    `area`: pixels, as annotated; absent = that of the box. `iscrowd`: 1 where a box stands for a group, which is not
    trained on and not counted in evaluation.
    """

    bbox: tuple[float, float, float, float]
    category_id: int
    area: float
    iscrowd: int


Modality = Literal["both", "optical", "sar"]
MODALITIES: tuple[Modality, ...] = ("both", "optical", "sar")
SarGeometry = Literal["paired", "official"]
SAR_GEOMETRIES: tuple[SarGeometry, ...] = ("paired", "official")
EvaluationModality = Literal["both", "optical", "sar", "shuffled-sar"]
"""What a model can be tested with: a `Modality`, or both with the SAR raster of another sample (a control)."""
EVALUATION_MODALITIES: tuple[EvaluationModality, ...] = get_args(EvaluationModality)


class DatasetDict(TypedDict, total=False):
    """One pair of a data set. Paths are explicit: none is ever derived from another by replacing text.

    `file_name`, `sar_file_name`, `sem_seg_file_name`: paths (or descriptive ids for generated data).
    `height`, `width`: pixels of the optical raster. `image_id`: unique in the data set.
    `gsd_m`: metres per pixel. `cloud_fraction`: 0..1. `world`: what a generating reader needs, json-able.
    `label_map`: stored label value -> class id (or 255) of this file, for data sets whose files number the classes
    apart; goes before the reader's own.
    `before_file_name`, `sar_before_file_name`: the same ground on an earlier date, the two above being later.
    `window`: row, column, height, width of the part of the rasters that is the sample.
    `sar_from`: dict of the sample whose SAR raster is to be taken instead (`mmovseg.data.perturb`).
    `source`: which part of a mix the pair is of (`mmovseg.data.datasets.mix`); reader and normalisation may go by it.
    `annotations`: objects in boxes, for detection; an empty list says that there is none.
    `label`: class of the whole image, counted from 0, or one 0 or 1 a class where an image can be of several.
    `label_file_name`: NumPy file that holds the latter.
    `question`, `answer`, `question_type`: of an image that is asked about; its `image_id` is then not unique.
    """

    file_name: str
    sar_file_name: str
    sem_seg_file_name: str
    height: int
    width: int
    image_id: str
    gsd_m: float
    cloud_fraction: float
    caption: str
    captions: list[str]
    label_map: dict[int, int]
    world: dict[str, Any]
    before_file_name: str
    sar_before_file_name: str
    window: tuple[int, int, int, int]
    sar_from: DatasetDict
    source: str
    label: int | list[int]
    label_file_name: str
    annotations: list[BoxAnnotation]
    question: str
    answer: str
    question_type: str


@dataclass
class RawSample:
    """What a reader returns: arrays as stored, before any scaling.

    optical: (H, W, B) uint8, uint16 or float32, or None when the modality is absent.
    optical_valid: (H, W) bool, False where the raster says nodata or NaN.
    sar: (H, W, P) float32 in the unit that the data set documents (dB for MiniEarth), NaN allowed, or None.
    sar_valid: (H, W) bool.
    sem_seg: (H, W) integer labels, 255 = ignore, or None.
    captions: sentences that describe the pair, possibly empty.
    facts: anything else worth keeping (boxes, masks, sensor facts).
    """

    optical: np.ndarray | None = None
    optical_valid: np.ndarray | None = None
    sar: np.ndarray | None = None
    sar_valid: np.ndarray | None = None
    sem_seg: np.ndarray | None = None
    captions: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


Reader = Callable[[DatasetDict], RawSample]


class ModelInput(TypedDict, total=False):
    """What the mapper yields, one dict a sample.

    image: (3, H, W) uint8 or float32, RGB on the 0..255 scale, clouded if clouds were asked for.
    image_clear: the same without the synthetic cloud (alignment training only).
    sar: (P, H, W) float32, unit and channel order as in the model's input contract.
    sem_seg: (H, W) int64 indices into `vocabulary` (training) or the data set's label space (test), 255 = ignore.
    valid, sar_valid: (H, W) bool, True where the modality holds data. Absent = all True.
    cloud_alpha: (H, W) float32 opacity of the synthetic cloud, 0 clear .. 1 opaque.
    cloud_shadow: (H, W) float32 fraction of light that the synthetic cloud's shadow takes away, 0 .. 1.
    height, width: size of the original optical raster; predictions are returned at this size.
    vocabulary: the classes asked for; all items of a batch share it. Absent where no labels are read.
    source: which part of a mix of data sets the pair is of; absent if it is no mix.
    paired: whether `image` and `sar` show the same ground (pretraining only). Absent = they do.
    sar_source: source of `sar` where it is another one than that of `image` (unpaired images).
    caption: one sentence (image-text training only).
    captions: all sentences of the image (evaluation of image-text models only).
    question: to be answered from the image (visual question answering only).
    answer, question_type: the true answer, and the kind of question that it is reported under.
    task: what an image-text model is asked for: ``embedding``, ``caption`` or ``answer``. Absent = an answer where
        there is a `question`, else embeddings.
    view: which of the views that the mapper limits an image to (training with `views` only).
    teacher_features: what a frozen teacher says of the clear view, from `mmovseg.data.features`: a map (C, h, w) a
        level (``block4``, ...) and, where the teacher has them, ``global`` with one (C,) a level; float16 or float32.
    teacher_sha256: of the teacher that made them.
    instances: objects in boxes as detectron2 `Instances`: `gt_boxes` and `gt_classes`; in training those that the
        geometry left in the view, without crowds; at test all, at the size of the original raster, with `gt_areas` and
        `gt_crowd`. Absent where the dataset dict has no `annotations`.
    label: class of the whole image: int64 of shape (), or float32 (K,) of 0 and 1 where an image can be of several.
    """

    image: Tensor
    image_clear: Tensor
    sar: Tensor
    sem_seg: Tensor
    valid: Tensor
    sar_valid: Tensor
    cloud_alpha: Tensor
    cloud_shadow: Tensor
    height: int
    width: int
    image_id: str
    file_name: str
    vocabulary: Vocabulary
    caption: str
    captions: list[str]
    question: str
    answer: str
    question_type: str
    task: str
    view: int
    source: str
    paired: bool
    sar_source: str
    teacher_features: dict[str, Any]
    teacher_sha256: str
    instances: Instances
    label: Tensor


class Prediction(TypedDict, total=False):
    """What the model answers at inference.

    sem_seg: (K, height, width) float scores in the order of the vocabulary.
    building: (height, width) bool, what a change model takes for a building by the earlier date.
    class_scores: (K,) float scores of the whole image, before softmax or sigmoid (classification).
    instances: objects as detectron2 `Instances` at `height` x `width`: `pred_boxes`, `scores`, `pred_classes`.
    expert_counts: block -> (E,) int64, how often the tokens of the image chose each expert (mixtures of experts).
    image_embedding: (D,) unit vector of the image in the space of texts; text_embeddings: (T, D) of its `captions`.
    generated_caption, generated_answer: texts that the model wrote, the latter to the `question`.
    """

    sem_seg: Tensor
    building: Tensor
    class_scores: Tensor
    instances: Instances
    expert_counts: dict[str, Tensor]
    image_embedding: Tensor
    text_embeddings: Tensor
    generated_caption: str
    generated_answer: str
