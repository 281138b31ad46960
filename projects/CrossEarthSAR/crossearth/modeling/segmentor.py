"""Land cover from SAR: an encoder, a semantic head, and what the encoder itself wants trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, Backbone
from torch import Tensor, nn

import mmovseg.projects.crossearth.modeling.yacs  # noqa: F401  (registers the heads)
from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import Modality, ModelInput, Prediction
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.meta_arch.auxiliary import auxiliary_losses
from mmovseg.modeling.meta_arch.batching import RASTER_KEYS, answer_alike, batch_labels, batch_view
from mmovseg.modeling.meta_arch.closed_set import ClosedSetModel, build_part, on_padded
from mmovseg.projects.crossearth.modeling.feature_cache import FeatureCache


class SARSegmentor(ClosedSetModel):
    """SAR raster -> normalised image -> encoder -> head.

    A raster of one band is repeated to as many channels as `sar_norm` has constants (paper: three). Encoders that say
    so (`reads_raw`) also get the raster as it is, and where it holds data: descriptors are computed from exactly what
    the encoder sees, crop by crop. Whether the encoder trains is its own option `freeze`.

    Args:
        encoder: any backbone; one with `auxiliary_losses` adds them to the training, for example the balance of its
            experts.
        vocabulary: the classes, all of them trained (`closed_vocabulary`).
        sar_norm: constants of the raster's values.
        head: ``name`` of a semantic head in Detectron2's registry (``Mask2FormerHead``, ``LinearHead``, or
            Detectron2's own ``SemSegFPNHead``) and its arguments beyond shapes and classes.
        feature_cache_mb: keep what the frozen encoder says of training images in this much memory, see `FeatureCache`;
            None = compute it every time.
        window, window_stride, windows_at_once, input_contract: see `ClosedSetModel`.

    Raises:
        UserError: an unknown head or argument of it, features to be cached of an encoder that trains, or see
            `ClosedSetModel`.
    """

    def __init__(
        self,
        *,
        encoder: Backbone,
        vocabulary: Vocabulary,
        sar_norm: PixelNorm | SourceNorm,
        head: Mapping[str, Any],
        feature_cache_mb: int | None = None,
        window: int | None = None,
        window_stride: int | None = None,
        windows_at_once: int = 4,
        input_contract: InputContract | None = None,
    ) -> None:
        super().__init__(
            encoder,
            vocabulary=vocabulary,
            window=window,
            window_stride=window_stride,
            windows_at_once=windows_at_once,
            input_contract=input_contract,
        )
        self.modality: Modality = "sar"
        self.sar_norm = sar_norm
        self.head = _build_head(head, encoder, len(vocabulary))
        self.feature_cache = None if feature_cache_mb is None else FeatureCache(feature_cache_mb)
        if self.feature_cache is not None:
            self._check_frozen()
            encoder.register_load_state_dict_post_hook(lambda *_: self._forget())
        self._counts: list[dict[str, Tensor]] = []

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.sar_norm.device

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Train or predict.

        Args:
            batched_inputs: with `sar`, see `mmovseg.data.sample.ModelInput`; any batch size, sizes may differ.

        Returns:
            Training: the losses of the head and those of the encoder itself, weighted. Otherwise one dict an image:
            ``sem_seg`` (K, height, width) float32 scores in the order of the classes asked for, such that a softmax
            over all of the model's classes gives their shares; and of an encoder with experts ``expert_counts``.

        Raises:
            UserError: an input has no SAR, or another number of channels, or see `ClosedSetModel`.
        """
        if not self.training:
            predict = partial(self._predict, asked=self._asked(batched_inputs))
            return answer_alike(batched_inputs, predict, keys=RASTER_KEYS[self.modality], multiple=self.multiple)
        views = self._views(batched_inputs)
        self._check_training(batched_inputs)
        target = on_padded(batch_labels(batched_inputs, self.device), views[0])
        _, losses = self.head(self._features(views, batched_inputs), target)
        return {**losses, **auxiliary_losses(self.encoder)}

    def _predict(self, inputs: Sequence[ModelInput], *, asked: list[int]) -> list[Prediction]:
        finish = getattr(self.head, "as_logits", None)
        predictions: list[Prediction] = []
        self._counts = []
        for number, scores in enumerate(self._score_each(self._views(inputs), inputs)):
            scores = finish(scores) if finish is not None else scores
            prediction: Prediction = {"sem_seg": scores[asked]}
            counts = self._take_counts(number)
            if counts:
                prediction["expert_counts"] = counts
            predictions.append(prediction)
        return predictions

    def _views(self, inputs: Sequence[ModelInput]) -> list[Tensor]:
        """Return the padded image (N, C, H, W), then raster (N, C, H, W) and data (N, 1, H, W) if the encoder reads it.

        The three are cut into windows together. Data is float32, 1 where there is some: what pads it says 0.
        """
        repeated = [self._with_bands(item) for item in inputs]
        view = batch_view(repeated, "sar", "sar_valid", self.sar_norm, self.multiple)
        if view is None:
            raise UserError(f"the model reads 'sar', which input '{inputs[0].get('file_name', '?')}' lacks")
        if not getattr(self.encoder, "reads_raw", False):
            return [view.x]
        channels = view.x.shape[1]
        bare = PixelNorm(mean=[0.0] * channels, std=[1.0] * channels).to(self.device)
        raw = batch_view(repeated, "sar", "sar_valid", bare, self.multiple)
        assert raw is not None
        valid = raw.valid if raw.valid is not None else torch.ones_like(view.x[:, :1], dtype=torch.bool)
        return [view.x, raw.x, valid.float()]

    def _with_bands(self, item: ModelInput) -> ModelInput:
        """Repeat a single band; `batch_view` says what is wrong with other numbers."""
        if "sar" not in item:
            return item
        channels = len(self.sar_norm.for_item(item).mean)
        if len(item["sar"]) != 1 or channels == 1:
            return item
        repeated = item.copy()
        repeated["sar"] = item["sar"].expand(channels, -1, -1)
        return repeated

    def _features(self, views: Sequence[Tensor], inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        if self.feature_cache is None:
            return self._encode(views)
        self._check_frozen()
        size = (views[0].shape[2], views[0].shape[3])
        with torch.no_grad():
            return self.feature_cache.get(
                inputs, size, self.device, lambda rows: self._encode([view[rows] for view in views])
            )

    def _encode(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        if len(views) == 1:
            maps: dict[str, Tensor] = self.encoder(views[0])
        else:
            image, raw, valid = views
            maps = self.encoder(image, raw=raw, valid=valid[:, 0] > 0)
        return maps

    def _score(self, images: Sequence[Tensor]) -> Tensor:
        scores: Tensor = self.head(self._encode(images))[0]
        statistics = getattr(self.encoder, "expert_statistics", dict)()
        self._counts.append({name: found.per_image() for name, found in statistics.items()})
        return scores

    def _take_counts(self, number: int) -> dict[str, Tensor]:
        """Return the choices of every expert for image `number`, by block: of its windows together, if there are."""
        if self.window is None:
            return {name: counts[number] for name, counts in self._counts[0].items()}
        own, self._counts = self._counts, []
        return {name: torch.cat([counts[name] for counts in own]).sum(dim=0) for name in own[0]}

    def _check_frozen(self) -> None:
        trained = [name for name, parameter in self.encoder.named_parameters() if parameter.requires_grad]
        if trained or self.encoder.training:
            why = f"'{trained[0]}' trains" if trained else "it is in training mode"
            raise UserError(f"feature_cache_mb needs a frozen encoder (model.encoder.freeze=True), but {why}")

    def _forget(self) -> None:
        if self.feature_cache is not None:
            self.feature_cache.clear()


def _build_head(options: Mapping[str, Any], encoder: Backbone, num_classes: int) -> nn.Module:
    arguments = {str(key): value for key, value in options.items()}
    name = arguments.pop("name", None)
    if name not in SEM_SEG_HEADS_REGISTRY:
        known = ", ".join(sorted(key for key, _ in SEM_SEG_HEADS_REGISTRY))
        raise UserError(f"model.head.name is '{name}' but must be one of {known}")
    head: nn.Module = build_part(
        SEM_SEG_HEADS_REGISTRY.get(name), arguments, encoder.output_shape(), num_classes=num_classes
    )
    return head
