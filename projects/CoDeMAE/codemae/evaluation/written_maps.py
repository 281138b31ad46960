"""Segmentation whose predictions are also written as PNG, for benchmarks whose labels stay on a server."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.utils import comm
from PIL import Image

from mmovseg.checkpoint.save import atomic_write
from mmovseg.data.sample import EvaluationModality, ModelInput, Prediction
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.evaluation.report import safe_name
from mmovseg.evaluation.sem_seg import OVSegEvaluator

logger = logging.getLogger(__name__)


class WrittenMapsEvaluator(OVSegEvaluator):
    """`OVSegEvaluator` that writes each map to ``<output_dir>/maps/<dataset>/<image name>.png``, 8-bit class ids.

    Images without labels are written and not counted. LoveDA's server wants the stored label minus one, which are the
    ids here (`load_loveda`); for a server that counts otherwise, `first_value` is what class 0 becomes.

    Args:
        dataset_name, vocabulary, prompts, modality, output_dir, provenance: see `OVSegEvaluator`.
        first_value: written for class 0, 0 .. 255; the others follow.

    Raises:
        UserError: values beyond 8 bits.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        vocabulary: Vocabulary,
        prompts: Vocabulary | None = None,
        modality: EvaluationModality = "optical",
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
        first_value: int = 0,
    ) -> None:
        if not 0 <= first_value <= 256 - len(vocabulary):
            raise UserError(f"first_value is {first_value}, but {len(vocabulary)} classes from there must fit 0..255")
        self.first_value = first_value
        super().__init__(
            dataset_name=dataset_name,
            vocabulary=vocabulary,
            prompts=prompts,
            modality=modality,
            output_dir=output_dir,
            provenance=provenance,
        )

    @property
    def folder(self) -> Path | None:
        """Where the maps go."""
        return None if self.output_dir is None else Path(self.output_dir) / "maps" / safe_name(self.dataset_name)

    def reset(self) -> None:
        super().reset()
        self._names: list[str] = []

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Write a batch, and count what has labels.

        Raises:
            UserError: two images have one name, or see `OVSegEvaluator.process`.
        """
        for item, output in zip(inputs, outputs, strict=True):
            if "sem_seg" in item:
                super().process([item], [output])
            name = Path(str(item.get("file_name", item.get("image_id")))).stem
            if name in self._names:
                raise UserError(f"two images are named '{name}': their maps would overwrite each other")
            self._names.append(name)
            if self.folder is not None:
                ids = self._columns_predicted(output["sem_seg"], name) + self.first_value
                with atomic_write(self.folder / f"{name}.png") as temporary:
                    Image.fromarray(ids.to(torch.uint8).numpy()).save(temporary, format="PNG")

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Return the metrics of the images with labels, and how many maps there are."""
        written = sum(len(part) for part in comm.all_gather(self._names))
        labelled = sum(comm.all_gather(self._images))
        result = super().evaluate() if labelled else OrderedDict()
        if not comm.is_main_process():
            return None
        assert result is not None
        logger.info("wrote %d maps to %s", written, self.folder)
        result["maps"] = {"written": float(written)}
        return result
