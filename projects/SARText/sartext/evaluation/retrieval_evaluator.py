"""Retrieval of captions by images and images by captions, in the product's evaluation framework."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import Tensor

from mmovseg.data.sample import EvaluationModality, ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.evaluation.report import format_percent, safe_name, text_table, write_text
from mmovseg.projects.sartext.evaluation.retrieval import TOP, caption_recalls
from mmovseg.projects.sartext.modeling.losses import text_keys

logger = logging.getLogger(__name__)

DEFINITION: dict[str, str] = {
    "I2T R@k": "percent of the images of which one of their own captions is among the k texts nearest by cosine",
    "T2I R@k": "percent of the captions whose image is among the k nearest images",
    "mean recall": "plain mean of the six R@k, k = 1, 5, 10, of both directions",
    "text-aware": (
        "the same, where a caption is right for every image that has a caption of the same words, but for case and "
        "spaces; strictly (without this word) it is right for the one image that it was written for"
    ),
    "chance mean recall": "mean recall of a random order of the same gallery",
    "ties": "cosines within 1e-6 are tied; among ties the expected value of a random order is taken",
}


class RetrievalEvaluator(DatasetEvaluator):
    """Find captions by images and images by captions among all of a test set.

    Every process evaluates its share and must call `evaluate`; `report` then holds, on the main process, what
    `result.json` says. Kept are the embeddings: 4 bytes a number.

    Args:
        dataset_name: used in the result folder and in the report.
        modality: what the model sees, written down.
        loader: name of the test loader where a config has several; the engine fills it in.
        output_dir: the run's output folder; None writes no files.
        provenance: facts to record.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        modality: EvaluationModality = "both",
        loader: str | None = None,
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.dataset_name, self.modality, self.loader, self.output_dir = dataset_name, modality, loader, output_dir
        plain: Any = OmegaConf.to_container(provenance) if OmegaConf.is_config(provenance) else provenance
        self.provenance: dict[str, Any] = dict(plain or {})
        self.report: dict[str, Any] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything kept so far."""
        self._images: list[Tensor] = []
        self._texts: list[Tensor] = []
        self._captions: list[list[str]] = []
        self._digests: list[str] = []
        self._started = time.perf_counter()

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Keep a batch.

        Args:
            inputs: with `captions`.
            outputs: with `image_embedding` (D,) and `text_embeddings` (T, D), one row a caption.

        Raises:
            UserError: an image has no caption, or the model gives no embeddings.
            ValueError: an embedding is not finite.
        """
        for item, output in zip(inputs, outputs, strict=True):
            name = str(item.get("file_name", item.get("image_id", "?")))
            captions = list(item.get("captions", ()))
            if not captions:
                raise UserError(f"'{name}' has no caption to retrieve; set keep_caption of the mapper")
            if "image_embedding" not in output or "text_embeddings" not in output:
                raise UserError(
                    f"retrieval needs image_embedding and text_embeddings of a model; this one answers with: "
                    f"{', '.join(output)}"
                )
            # clones: a row is a view that would keep its batch alive
            image = output["image_embedding"].detach().float().cpu().clone()
            texts = output["text_embeddings"].detach().float().cpu().clone()
            if not (bool(torch.isfinite(image).all()) and bool(torch.isfinite(texts).all())):
                raise ValueError(f"'{name}': an embedding holds a value that is not finite")
            self._images.append(image)
            self._texts.append(texts)
            self._captions.append(captions)
            line = json.dumps([str(item.get("image_id", name)), captions])
            self._digests.append(hashlib.sha256(line.encode()).hexdigest())

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Join the processes, write the result, return the metrics.

        Returns:
            ``{"retrieval": metrics}`` in percent on the main process, None on the others.

        Raises:
            UserError: the loader gave no image.
        """
        gathered = comm.all_gather((self._images, self._texts, self._captions, self._digests))
        images, texts, captions, digests = ([value for share in gathered for value in share[k]] for k in range(4))
        if not images:
            raise UserError(f"the test loader of '{self.dataset_name}' gave no image")
        if not comm.is_main_process():
            return None
        owners = torch.tensor([index for index, own in enumerate(captions) for _ in own])
        words = text_keys([text for own in captions for text in own])
        metrics = caption_recalls(torch.stack(images), torch.cat(texts), owners, words, top=TOP)
        self.report = self._build_report(metrics, captions, words, digests)
        logger.info("%s:\n%s", self.dataset_name, format_retrieval(self.report))
        if self.output_dir is not None:
            path = retrieval_result_path(self.output_dir, self.dataset_name, loader=self.loader)
            write_text(path, json.dumps(self.report, indent=1, allow_nan=False, default=str) + "\n")
            logger.info("wrote %s", path)
        return OrderedDict({"retrieval": dict(metrics)})

    def _build_report(
        self, metrics: Mapping[str, float], captions: Sequence[Sequence[str]], words: Tensor, digests: Sequence[str]
    ) -> dict[str, Any]:
        _, counts = torch.unique(words, return_counts=True)
        return {
            "metrics": dict(metrics),
            "dataset": self.dataset_name,
            "modality": self.modality,
            **({"loader": self.loader} if self.loader is not None else {}),
            "gallery": {
                "images": len(captions),
                "captions": len(words),
                "distinct captions": len(counts),
                "captions that repeat": int(counts[counts > 1].sum()),
            },
            "definition": DEFINITION,
            "provenance": {
                "git_commit": source_commit(),
                "versions": installed_versions(),
                **self.provenance,
                "data_manifest_sha256": hashlib.sha256("".join(sorted(digests)).encode()).hexdigest(),
                "processes": comm.get_world_size(),
                "images": len(digests),
                "seconds": round(time.perf_counter() - self._started, 3),
            },
        }


def format_retrieval(report: Mapping[str, Any]) -> str:
    """Return a report as text: both directions, strictly and with equal texts known, beside chance."""
    metrics, gallery = report["metrics"], report["gallery"]
    heads = [*(f"{way} R@{k}" for way in ("I2T", "T2I") for k in TOP), "mean recall", "chance mean recall"]
    rows = [
        [label, *(format_percent(metrics[prefix + head]) for head in heads)]
        for label, prefix in (("strict", ""), ("text-aware", "text-aware "))
    ]
    facts = (
        f"{gallery['images']} images, {gallery['captions']} captions, {gallery['distinct captions']} of them distinct, "
        f"{gallery['captions that repeat']} with a text that another one has, too"
    )
    return "\n".join([text_table(rows, ["", *heads], text_columns=1), facts])


def retrieval_result_path(output_dir: str | Path, dataset_name: str, *, loader: str | None = None) -> Path:
    """Return where the evaluator writes: ``<output_dir>/eval/<dataset>/retrieval[-<loader>]/result.json``."""
    folder = "-".join(["retrieval", *([safe_name(loader)] if loader else [])])
    return Path(output_dir) / "eval" / safe_name(dataset_name) / folder / "result.json"
