"""From a dataset dict with a question to a model input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError


class QuestionMapper:
    """Add `question`, `answer` and `question_type` to what another mapper makes of the image.

    In training also `caption`, question and answer in a row, which is what a CoCa learns to continue.

    Args:
        mapper: dataset dict -> model input, for example `OpticalSARMapper` without a vocabulary. For a classifier with
            kept features give it ``views=1`` in training.
        is_train: see above.
        keep_images: map an image once for all its questions. Only where the other mapper shows an image in one way: in
            evaluation, and in training without augmentation.
        cache_mb: most that is kept of images, by this process.
    """

    def __init__(
        self,
        *,
        mapper: Callable[[dict[str, Any]], ModelInput],
        is_train: bool,
        keep_images: bool = False,
        cache_mb: int = 256,
    ) -> None:
        self.mapper, self.is_train, self.keep_images = mapper, is_train, keep_images
        self._room = cache_mb * 1_000_000
        self._kept: dict[str, ModelInput] = {}

    def __call__(self, dataset_dict: dict[str, Any]) -> ModelInput:
        """Map one question.

        Raises:
            UserError: the dict has no question, answer or type, or the image is unusable.
        """
        for key in ("question", "answer", "question_type"):
            if not str(dataset_dict.get(key, "")).strip():
                raise UserError(f"sample '{dataset_dict.get('image_id', '?')}' has no {key}")
        item = self._image(dataset_dict)
        item["question"], item["answer"] = dataset_dict["question"], dataset_dict["answer"]
        item["question_type"] = dataset_dict["question_type"]
        if self.is_train:
            item["caption"] = f"{item['question']} {item['answer']}"
        return item

    def _image(self, dataset_dict: dict[str, Any]) -> ModelInput:
        if not self.keep_images:
            return self.mapper(dataset_dict)
        name = str(dataset_dict.get("image_id", ""))
        item = self._kept.get(name)
        if item is None:
            item = self.mapper(dataset_dict)
            size = sum(value.nbytes for value in item.values() if isinstance(value, Tensor))
            if name and size <= self._room:
                self._room -= size
                self._kept[name] = item
        return item.copy()
