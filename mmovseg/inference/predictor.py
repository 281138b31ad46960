"""A trained model as a function: (optical, SAR, prompts) -> scores, along the same path as in evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmovseg.config import instantiate, load_config
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.sample import Modality, ModelInput, RawSample
from mmovseg.data.sar import SarUnit
from mmovseg.data.transforms import Resize
from mmovseg.data.vocabulary import Vocabulary, vocabulary_from_names
from mmovseg.engine.evaluation import test_nodes
from mmovseg.engine.run import build_model, prepare
from mmovseg.errors import UserError
from mmovseg.weights import resolve

logger = logging.getLogger(__name__)


class Predictor:
    """Build the model of a config once, then ask it for any classes in any image pair.

    Args:
        config: config file, a name below ``configs/``, or a loaded config.
        weights: checkpoint, or ``shipped://<name>``; None takes `train.init_checkpoint` of the config.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        modality: ``optical`` or ``sar`` ignores the other one.
        max_size_px: rasters whose longer side exceeds this are resized for the model, since attention grows with the
            square of the area; scores always come back at the original size. None never resizes.

    Raises:
        UserError: config, weights or device are not usable, no weights are given anywhere, or a size below 1.
    """

    def __init__(
        self,
        config: str | Path | DictConfig,
        weights: str | Path | None = None,
        device: str = "auto",
        *,
        modality: Modality = "both",
        max_size_px: int | None = None,
    ) -> None:
        if max_size_px is not None and max_size_px < 1:
            raise UserError(f"max_size_px (on a command line --max-size) must be at least 1, got {max_size_px}")
        self.config = config if isinstance(config, DictConfig) else load_config(config)
        name = "the config" if isinstance(config, DictConfig) else str(config)
        self.config.train.device = device
        checkpoint = weights if weights is not None else self.config.train.init_checkpoint
        if checkpoint is None:
            raise UserError(f"'{name}' names no weights in train.init_checkpoint; give a checkpoint")
        context = prepare(self.config, name)
        self.name = name
        self.checkpoint = Path(resolve(checkpoint))
        self.model: nn.Module = build_model(context, checkpoint=str(self.checkpoint)).eval()
        self.modality = modality
        self.max_size_px = max_size_px
        mapper = next((loader.get("mapper") for loader, _ in test_nodes(self.config).values()), None) or {}
        self._vocabulary_node = mapper.get("vocabulary")
        self._geometry: list[Any] = list(instantiate(mapper.get("geometry")) or [])

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """Classes of the config's test set, None when it has none; read when first asked for.

        Raises:
            UserError: the file that the config names cannot be read.
        """
        vocabulary: Vocabulary | None = instantiate(self._vocabulary_node)
        return vocabulary

    @cached_property
    def _known_names(self) -> Vocabulary | None:
        """`vocabulary`, or None after a warning: names of one's own need no class list, it only gives them colours."""
        try:
            return self.vocabulary
        except UserError as error:
            logger.warning("the class list of '%s' gives the prompts no colours: %s", self.name, error)
            return None

    @property
    def contract(self) -> dict[str, Any] | None:
        """Input contract of the model as a dict (`InputContract.to_dict`), None when it has none."""
        return getattr(self.model, "input_contract", None)

    @property
    def num_polarisations(self) -> int | None:
        """How many SAR channels the model was trained on, None when it does not say."""
        contract = getattr(self.model, "input_contract", None) or {}
        return len(contract["sar"]["bands"]) if contract.get("sar") else None

    @property
    def num_optical_bands(self) -> int:
        """How many optical channels the model was trained on, 3 when it does not say."""
        contract = getattr(self.model, "input_contract", None) or {}
        return len(contract["optical"]["bands"]) if contract.get("optical") else 3

    @property
    def sar_unit(self) -> SarUnit:
        """Unit of the SAR values that the model was trained on, dB when it does not say."""
        contract = getattr(self.model, "input_contract", None) or {}
        return cast(SarUnit, contract["sar"]["unit"]) if contract.get("sar") else "db"

    def ask_for(self, prompts: str | Sequence[str] | Vocabulary) -> Vocabulary:
        """Return prompts as a vocabulary; names that the training data knows keep their colour and seen/unseen mark.

        Without the class list of the training data, which a relative path may not lead to, names get colours of their
        own, and a warning says so.

        Raises:
            UserError: no names, an empty name, or one given twice.
        """
        if isinstance(prompts, Vocabulary):
            return prompts
        return vocabulary_from_names(prompts, like=self._known_names, source="--prompts")

    def __call__(
        self, optical: np.ndarray | None, sar: np.ndarray | None, prompts: str | Sequence[str] | Vocabulary
    ) -> Tensor:
        """Segment one pair.

        Args:
            optical: (H, W, B) on the 0..255 scale, RGB unless the model says otherwise, or None. NaN is not data.
            sar: (H, W, P) in the unit of the model's input contract (dB), or None. NaN is not data.
            prompts: class names, comma-separated or listed, or a vocabulary.

        Returns:
            (K, H, W) float32 scores on the CPU, K in the order of the prompts; argmax over K is the map.

        Raises:
            UserError: both are None, they differ in size, or SAR has another number of channels than the model wants.
        """
        item = self.model_input(optical, sar, prompts)
        with torch.no_grad():
            return cast(Tensor, self.model([item])[0]["sem_seg"]).float().cpu()

    def model_input(
        self, optical: np.ndarray | None, sar: np.ndarray | None, prompts: str | Sequence[str] | Vocabulary
    ) -> ModelInput:
        """Return what the model is given for a pair; arguments and errors as in `__call__`."""
        self._check(optical, sar)
        raw = RawSample()
        if optical is not None:
            raw.optical_valid = np.isfinite(optical).all(axis=-1)
            raw.optical = np.where(raw.optical_valid[..., None], optical, 0).astype(optical.dtype)
        if sar is not None:
            raw.sar, raw.sar_valid = sar.astype(np.float32), np.isfinite(sar).all(axis=-1)
        vocabulary = self.ask_for(prompts)
        mapper = OpticalSARMapper(
            is_train=False,
            vocabulary=vocabulary,
            reader=lambda _: raw,
            geometry=[*self._shrink(optical if optical is not None else sar), *self._geometry],
            modality=self.modality,
        )
        return mapper({"file_name": "the given pair", "image_id": "0"})

    def _shrink(self, raster: np.ndarray | None) -> list[Resize]:
        assert raster is not None
        height, width = raster.shape[:2]
        if self.max_size_px is None or max(height, width) <= self.max_size_px:
            return []
        scale = self.max_size_px / max(height, width)
        return [Resize((max(1, round(height * scale)), max(1, round(width * scale))))]

    def _check(self, optical: np.ndarray | None, sar: np.ndarray | None) -> None:
        if optical is None and sar is None:
            raise UserError("there is neither an optical nor a SAR image; give at least one")
        bands = self.num_optical_bands
        if optical is not None and (optical.ndim != 3 or optical.shape[2] != bands):
            raise UserError(f"the optical image has the shape {optical.shape}, it must be (height, width, {bands})")
        if sar is not None and sar.ndim != 3:
            raise UserError(f"the SAR image has the shape {sar.shape}, it must be (height, width, channels)")
        if optical is not None and sar is not None and optical.shape[:2] != sar.shape[:2]:
            raise UserError(
                f"the optical image is {optical.shape[0]}x{optical.shape[1]} pixels, the SAR image "
                f"{sar.shape[0]}x{sar.shape[1]} (height x width); a pair must have one size"
            )
        wanted = self.num_polarisations
        if sar is not None and wanted is not None and sar.shape[2] != wanted and self.modality != "optical":
            raise UserError(f"the SAR image has {sar.shape[2]} channels, the model was trained on {wanted}")
