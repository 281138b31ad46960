"""Objects in boxes, found by Detectron2's own R-CNN over one sensor (CoDe-MAE, Sec. IV: DIOR, SARDet-100K)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from detectron2.modeling import Backbone
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.structures import ImageList
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.meta_arch.batching import answer_alike, batch_view
from mmovseg.projects.codemae.modeling.encoder import Sensor

_KEYS: dict[str, tuple[str, str]] = {"optical": ("image", "valid"), "sar": ("sar", "sar_valid")}


class Detector(GeneralizedRCNN):
    """Detectron2's `GeneralizedRCNN` on the model inputs of this package: any channels, masks, normalisation here.

    Proposals, heads and losses are Detectron2's objects, set in the config. There is no neck: the encoder's own pyramid
    has the levels. Parts of the encoder that belong to another sensor are frozen, for they would never get a gradient.

    Args:
        backbone: encoder; its maps are what `proposal_generator` and `roi_heads` name.
        proposal_generator: Detectron2's `RPN`.
        roi_heads: Detectron2's `StandardROIHeads`, or others.
        norms: sensor -> normalisation of its pixels; that of `sensor` is used.
        sensor: which raster is read: ``optical`` or ``sar``.
        categories: names of the classes, in the order of the class ids.
        size_multiple: images are padded at the right and the bottom to a multiple of this; None = of the encoder's
            unit.
        input_contract: what is stored with the weights, without the sensor that is not read.

    Raises:
        UserError: an unknown sensor or one without `norms`, or another number of categories than the heads have.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        norms: Mapping[Sensor, PixelNorm | SourceNorm],
        sensor: Sensor,
        categories: Sequence[str],
        size_multiple: int | None = None,
        input_contract: InputContract | None = None,
    ) -> None:
        if sensor not in _KEYS or sensor not in norms:
            raise UserError(f"model.sensor is '{sensor}' but must be one of those in model.norms: {', '.join(norms)}")
        if len(categories) != roi_heads.num_classes:
            raise UserError(
                f"model.categories has {len(categories)} names, but model.roi_heads.num_classes is "
                f"{roi_heads.num_classes}"
            )
        # the base normalises images of one shape by constants of its own; `preprocess_image` here does otherwise
        super().__init__(
            backbone=backbone,
            proposal_generator=proposal_generator,
            roi_heads=roi_heads,
            pixel_mean=(0.0,),
            pixel_std=(1.0,),
        )
        self.norm, self.sensor, self.categories = norms[sensor], sensor, tuple(categories)
        self.size_multiple = size_multiple or backbone.size_divisibility
        self.input_contract = None if input_contract is None else {**input_contract.to_dict(), _other(sensor): None}
        for name, embedding in getattr(backbone, "embed", nn.ModuleDict()).items():
            if name != sensor:
                embedding.requires_grad_(False)

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[dict[str, object]]:
        """Find objects or, in training, return the losses.

        Args:
            batched_inputs: with the raster of `sensor`; in training also `instances`.

        Returns:
            Training: ``loss_rpn_cls``, ``loss_rpn_loc``, ``loss_cls``, ``loss_box_reg``, weighted. Otherwise one dict
            an image with ``instances`` (`pred_boxes`, `scores`, `pred_classes`) at ``height`` x ``width``.

        Raises:
            UserError: the raster or, in training, the objects are missing, or a class is none of the categories.
        """
        if not self.training:
            key, _ = _KEYS[self.sensor]
            return answer_alike(batched_inputs, self._detect, keys=(key,), multiple=self.size_multiple)
        for item in batched_inputs:
            self._check_objects(item)
        losses: dict[str, Tensor] = super().forward(list(batched_inputs))
        return losses

    def _detect(self, inputs: Sequence[ModelInput]) -> list[dict[str, object]]:
        found: list[dict[str, object]] = super().forward(list(inputs))
        return found

    def preprocess_image(self, batched_inputs: Sequence[ModelInput]) -> ImageList:
        """Normalise and stack the rasters; padding and pixels without data become 0, the mean."""
        key, mask = _KEYS[self.sensor]
        view = batch_view(batched_inputs, key, mask, self.norm, self.size_multiple)
        if view is None:
            raise UserError(
                f"the detector reads '{key}', which '{batched_inputs[0].get('file_name', '?')}' does not have; "
                "model.sensor and the mapper's modality must agree"
            )
        sizes = [tuple(item[key].shape[-2:]) for item in batched_inputs]  # type: ignore[literal-required]
        return ImageList(view.x, sizes)

    def _check_objects(self, item: ModelInput) -> None:
        name = item.get("file_name", "?")
        if "instances" not in item:
            raise UserError(f"'{name}' has no objects to train on; its dataset dict needs 'annotations'")
        classes: Tensor = item["instances"].gt_classes
        if len(classes) and int(classes.max()) >= len(self.categories):
            # the next number would mean background to the heads, in silence
            raise UserError(
                f"'{name}' has an object of class {int(classes.max())}, but the model knows {len(self.categories)}: "
                f"{', '.join(self.categories)}"
            )

    @property
    def device(self) -> torch.device:
        """Where the constants lie, and with them the model."""
        return self.norm.device


def _other(sensor: Sensor) -> Sensor:
    return "sar" if sensor == "optical" else "optical"
