"""Segmentation evaluated, with the shares of the experts beside it: has one of them taken over?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.utils import comm

from mmovseg.data.sample import EvaluationModality, ModelInput, Prediction
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.evaluation.sem_seg import OVSegEvaluator

COUNTS_KEY = "expert_counts"
"""Key of a prediction: ``{block: (E,) counts}``, choices of every expert among the tokens of the image."""


class ExpertEvaluator(OVSegEvaluator):
    """`OVSegEvaluator` that also sums the choices of the experts, which models answer with under `COUNTS_KEY`.

    The report then holds ``experts``: for every block the ``shares`` of its experts in percent, and among ``metrics``
    ``share <block>``, the largest of them (100 / E = all alike, 100 = one expert takes everything), and ``largest
    share``, the largest over the blocks. Models without experts give None.

    Args:
        dataset_name, vocabulary, prompts, modality, output_dir, provenance: see `OVSegEvaluator`.
        blocks: names of blocks whose share is reported even if they have no experts, so that tables can set dense
            models beside mixtures.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        vocabulary: Vocabulary,
        blocks: Sequence[str] = (),
        prompts: Vocabulary | None = None,
        modality: EvaluationModality = "sar",
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        super().__init__(
            dataset_name=dataset_name,
            vocabulary=vocabulary,
            prompts=prompts,
            modality=modality,
            output_dir=output_dir,
            provenance=provenance,
        )

    def reset(self) -> None:
        """Forget everything counted so far."""
        super().reset()
        self._experts: dict[str, np.ndarray] = {}

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Count a batch; see `OVSegEvaluator.process`."""
        super().process(inputs, outputs)
        for output in outputs:
            answers: Mapping[str, Any] = output
            for block, counts in answers.get(COUNTS_KEY, {}).items():
                found = counts.detach().cpu().numpy().astype(np.int64)
                self._experts[block] = self._experts.get(block, 0) + found

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Sum over processes, write the result files, return the metrics; see `OVSegEvaluator.evaluate`."""
        gathered: list[dict[str, np.ndarray]] = comm.all_gather(self._experts)
        names = list(dict.fromkeys(block for share in gathered for block in share))
        self._experts = {name: sum(share[name] for share in gathered if name in share) for name in names}  # type: ignore[misc]
        results = super().evaluate()
        if results is not None and self.report is not None:
            shares = {key: value for key, value in self.report["metrics"].items() if value is not None}
            results["sem_seg"].update(shares)
        return results

    def _build_report(self, images: int, images_by_cloud: np.ndarray, digests: list[str]) -> dict[str, Any]:
        shares = {block: 100.0 * counts / counts.sum() for block, counts in self._experts.items() if counts.sum()}
        largest: dict[str, float | None] = {f"share {block}": None for block in self.blocks}
        largest |= {f"share {block}": float(share.max()) for block, share in shares.items()}
        known = [value for value in largest.values() if value is not None]
        return {
            **super()._build_report(images, images_by_cloud, digests),
            "metrics": {**largest, "largest share": max(known, default=None)},
            "experts": {block: {"shares": share.tolist()} for block, share in shares.items()},
        }
