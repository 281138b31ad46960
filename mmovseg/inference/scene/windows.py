"""Ask a model about windows of a scene, grouped so that a window without one sensor does not carry its blank along."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmovseg.data.sample import Modality, ModelInput
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.options import Precision
from mmovseg.inference.scene.rasters import WindowData
from mmovseg.modeling.fusion.released import CostAggregationHead
from mmovseg.modeling.meta_arch.batching import answer_alike


class WindowModel:
    """A model and the classes asked for, as a function from windows to scores.

    Args:
        predictor: with the model.
        vocabulary: the classes.
        precision: see `SceneOptions`.
        modality: which sensors the model is shown.

    Raises:
        UserError: the model reads one sensor and `modality` is the other one.
    """

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        *,
        precision: Precision = "auto",
        modality: Modality = "both",
    ) -> None:
        self.model, self.name = predictor.model, predictor.name
        self.vocabulary = vocabulary
        self.device: torch.device = next(self.model.parameters()).device
        own: Modality = getattr(self.model, "modality", "both")
        if "both" not in (own, modality) and own != modality:
            raise UserError(f"the model of '{predictor.name}' reads {own} only, so it cannot be shown {modality} alone")
        self.modality: Modality = own if modality == "both" else modality
        self.gives_probabilities = isinstance(getattr(self.model, "head", None), CostAggregationHead)
        self._dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)

    def kind(self, window: WindowData) -> Modality | None:
        """Return which sensors have data somewhere in the window and are wanted, None if none has."""
        optical = self.modality != "sar" and window.optical is not None and bool(window.optical_valid.any())
        sar = self.modality != "optical" and window.sar is not None and bool(window.sar_valid.any())
        return "both" if optical and sar else "optical" if optical else "sar" if sar else None

    @torch.no_grad()
    def __call__(self, windows: Sequence[WindowData], *, size: tuple[int, int] | None = None) -> list[Tensor | None]:
        """Score windows.

        Args:
            windows: of one size, as the model is to see them.
            size: (height, width) of the answer; None = that of the windows.

        Returns:
            For each window (K, height, width) float32 on the model's device, or None where there is nothing to see.

        Raises:
            UserError: scores are not finite.
        """
        kinds = {index: kind for index, window in enumerate(windows) if (kind := self.kind(window)) is not None}
        items = [self._item(windows[index], kind) for index, kind in kinds.items()]
        # whatever the model: batches hold one kind each, and which windows go together depends on the data alone
        scores = answer_alike(items, partial(self._score, size=size)) if items else []
        found = dict(zip(kinds, scores, strict=True))
        return [found.get(index) for index in range(len(windows))]

    def _score(self, items: Sequence[ModelInput], *, size: tuple[int, int] | None) -> list[Tensor]:
        with self._precision():
            predictions = self.model(items)
        scores = [cast(Tensor, prediction["sem_seg"]).float() for prediction in predictions]
        self._check_finite(scores)
        return [_fit(found, size) for found in scores]

    def _check_finite(self, scores: Sequence[Tensor]) -> None:
        """Refuse NaN, which would win everywhere as the first class does; one sum a window is quick to look at."""
        if bool(torch.isfinite(torch.stack([one.sum() for one in scores])).all()):
            return
        what = f"the model of '{self.name}' gives no numbers for a part of the scene (not finite scores)"
        if self._dtype is None:
            raise UserError(f"{what}; its weights may be damaged or belong to another model")
        raise UserError(f"{what} in {str(self._dtype).removeprefix('torch.')}; use --precision float32")

    def _item(self, window: WindowData, kind: Modality) -> ModelInput:
        item: dict[str, Any] = {"vocabulary": self.vocabulary, "file_name": "the scene", "image_id": "0"}
        for wanted, key, values, valid_key, valid in (
            ("optical", "image", window.optical, "valid", window.optical_valid),
            ("sar", "sar", window.sar, "sar_valid", window.sar_valid),
        ):
            if kind not in (wanted, "both"):
                continue
            assert values is not None
            item["height"], item["width"] = values.shape[:2]
            item[key] = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
            item[valid_key] = torch.from_numpy(np.ascontiguousarray(valid))
        return cast(ModelInput, item)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return (K, ...) probabilities of (K, ...) blended scores.

        Logits go through a softmax over the classes asked for. The head ``released`` gives each class a probability by
        itself; these stay as they are and need not add up to 1.
        """
        return scores if self.gives_probabilities else scores.softmax(dim=0)


def _fit(scores: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Bring (K, h, w) scores to the output grid: means of what falls into a pixel, or bilinear between centres."""
    if size is None or tuple(scores.shape[-2:]) == size:
        return scores
    return F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
