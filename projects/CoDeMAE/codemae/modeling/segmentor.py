"""Land-cover segmentation with UPerNet over a pretrained encoder, from optical images, SAR or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import MODALITIES, Modality, ModelInput, Prediction
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.losses import pixel_cross_entropy
from mmovseg.modeling.meta_arch.batching import RASTER_KEYS, answer_alike, batch_labels, batch_view
from mmovseg.modeling.meta_arch.closed_set import ClosedSetModel, build_part, on_padded
from mmovseg.projects.codemae.modeling.encoder import MaskedEncoder
from mmovseg.projects.codemae.modeling.upernet import ConvHead, UPerNetHead


class EncoderSegmentor(ClosedSetModel):
    """UPerNet over one encoder: each modality through its own embedding, the rest shared.

    With both modalities the maps of the two lie side by side in channels before the head. A modality that the model
    uses and an input lacks is refused: a closed head has learnt nothing for it.

    Args:
        encoder: gives at least two levels.
        vocabulary: the classes, all of them trained (`closed_vocabulary`).
        modality: what is read.
        optical_norm, sar_norm: constants of what is read.
        head: arguments of `UPerNetHead` beyond shapes and classes.
        auxiliary: the same of `ConvHead`; None = no auxiliary head.
        auxiliary_weight: of its loss.
        window, window_stride, windows_at_once, input_contract: see `ClosedSetModel`.

    Raises:
        UserError: unknown modality or argument of a head, a modality without constants, or see the heads.
    """

    encoder: MaskedEncoder

    def __init__(
        self,
        *,
        encoder: MaskedEncoder,
        vocabulary: Vocabulary,
        modality: Modality = "optical",
        optical_norm: PixelNorm | SourceNorm | None = None,
        sar_norm: PixelNorm | SourceNorm | None = None,
        head: Mapping[str, Any] | None = None,
        auxiliary: Mapping[str, Any] | None = None,
        auxiliary_weight: float = 0.4,
        window: int | None = None,
        window_stride: int | None = None,
        windows_at_once: int = 8,
        input_contract: InputContract | None = None,
    ) -> None:
        if modality not in MODALITIES:
            raise UserError(f"modality must be one of {', '.join(MODALITIES)}, got '{modality}'")
        super().__init__(
            encoder,
            vocabulary=vocabulary,
            window=window,
            window_stride=window_stride,
            windows_at_once=windows_at_once,
            input_contract=input_contract,
        )
        encoder.read_only(("optical", "sar") if modality == "both" else (modality,))
        self.modality: Modality = modality
        self.norms = nn.ModuleDict()
        for name, norm in (("optical", optical_norm), ("sar", sar_norm)):
            if modality in (name, "both"):
                if norm is None:
                    raise UserError(f"modality '{modality}' needs {name}_norm")
                self.norms[name] = norm
        shapes = {
            name: ShapeSpec(channels=shape.channels * len(self.norms), stride=shape.stride)
            for name, shape in encoder.output_shape().items()
        }
        classes = len(vocabulary)
        self.head: UPerNetHead = build_part(UPerNetHead, head or {}, shapes, num_classes=classes)
        self.auxiliary: ConvHead | None = None
        if auxiliary is not None:
            self.auxiliary = build_part(ConvHead, auxiliary, shapes, num_classes=classes)
        self.auxiliary_weight = auxiliary_weight

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return next(iter(self.norms.values())).device  # type: ignore[return-value]

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Train or predict.

        Args:
            batched_inputs: see `mmovseg.data.sample.ModelInput`; any batch size, sizes may differ.

        Returns:
            Training: ``loss_sem_seg`` and, with the auxiliary head, ``loss_auxiliary`` (already weighted). Otherwise
            one dict an image: ``sem_seg`` (K, height, width) logits in the order of the classes asked for.

        Raises:
            UserError: an input lacks a modality, or see `ClosedSetModel`.
        """
        if not self.training:
            predict = partial(self._predict, asked=self._asked(batched_inputs))
            return answer_alike(batched_inputs, predict, keys=RASTER_KEYS[self.modality], multiple=self.multiple)
        views = self._views(batched_inputs)
        self._check_training(batched_inputs)
        target = on_padded(batch_labels(batched_inputs, self.device), views[0])
        features = self._encode(views)
        losses = {"loss_sem_seg": pixel_cross_entropy(self.head(features), target)}
        if self.auxiliary is not None:
            loss = pixel_cross_entropy(self.auxiliary(features), target)
            losses["loss_auxiliary"] = self.auxiliary_weight * loss
        return losses

    def _predict(self, inputs: Sequence[ModelInput], *, asked: list[int]) -> list[Prediction]:
        return [{"sem_seg": scores[asked]} for scores in self._score_each(self._views(inputs), inputs)]

    def _views(self, inputs: Sequence[ModelInput]) -> list[Tensor]:
        """Return the normalised, padded images of every modality that is read, (N, C, H, W) each."""
        views = []
        for name, norm in self.norms.items():
            key, valid_key = ("image", "valid") if name == "optical" else ("sar", "sar_valid")
            view = batch_view(inputs, key, valid_key, norm, self.multiple)
            if view is None:
                source = inputs[0].get("file_name", "?")
                raise UserError(f"modality '{self.modality}' of the model needs '{key}', which input '{source}' lacks")
            views.append(view.x)
        if len({tuple(view.shape[-2:]) for view in views}) > 1:
            raise UserError(f"optical and SAR differ in size in '{inputs[0].get('file_name', '?')}'")
        return views

    def _encode(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the levels, those of the modalities side by side in channels."""
        maps = self.encoder(dict(zip(self.norms, images, strict=True)))
        count = len(images)
        return {name: torch.cat(level.chunk(count), dim=1) if count > 1 else level for name, level in maps.items()}

    def _score(self, images: Sequence[Tensor]) -> Tensor:
        return self.head(self._encode(images))
