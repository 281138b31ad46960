"""Retrieval of captions by images and images by captions, in the product's evaluation framework."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from mmovseg.data.sample import ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.evaluation.report import format_percent, text_table
from mmovseg.projects.sartext.evaluation.retrieval import TOP, caption_recalls, nearest_texts
from mmovseg.projects.sartext.evaluation.task_evaluator import TaskEvaluator
from mmovseg.projects.sartext.modeling.losses import text_keys


class RetrievalEvaluator(TaskEvaluator):
    """Find captions by images and images by captions among all of a test set.

    Kept are the embeddings: 4 bytes a number. ``per_image.json`` holds for each image its captions and the text of the
    whole set that lies nearest.

    Args:
        dataset_name, modality, loader, output_dir, provenance: see `TaskEvaluator`.
    """

    kind: ClassVar[str] = "retrieval"
    definition: ClassVar[Mapping[str, str]] = {
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

    def row(self, name: str, item: ModelInput, output: Prediction) -> dict[str, Any]:
        """Keep embeddings and captions.

        Raises:
            UserError: the image has no caption, or the model gives no embeddings.
            ValueError: an embedding is not finite.
        """
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
        return {"captions": captions, "image": image, "texts": texts}

    def manifest_line(self, row: Mapping[str, Any]) -> str:
        """Return image and captions."""
        return json.dumps([row["image_id"], row["captions"]])

    def score(self, rows: list[dict[str, Any]]) -> tuple[dict[str, float], dict[str, Any]]:
        """Count recalls, and take the embeddings out of the rows."""
        images = torch.stack([row.pop("image") for row in rows])
        texts = torch.cat([row.pop("texts") for row in rows])
        owners = torch.tensor([index for index, row in enumerate(rows) for _ in row["captions"]])
        captions = [text for row in rows for text in row["captions"]]
        words = text_keys(captions)
        for row, nearest in zip(rows, nearest_texts(images, texts).tolist(), strict=True):
            row["nearest"] = captions[nearest]
        _, counts = torch.unique(words, return_counts=True)
        gallery = {
            "images": len(rows),
            "captions": len(captions),
            "distinct captions": len(counts),
            "captions that repeat": int(counts[counts > 1].sum()),
        }
        return caption_recalls(images, texts, owners, words, top=TOP), {"gallery": gallery}

    def describe(self, report: Mapping[str, Any]) -> str:
        """Return a report as text: both directions, strictly and with equal texts known, beside chance."""
        metrics, gallery = report["metrics"], report["gallery"]
        heads = [*(f"{way} R@{k}" for way in ("I2T", "T2I") for k in TOP), "mean recall", "chance mean recall"]
        rows = [
            [label, *(format_percent(metrics[prefix + head]) for head in heads)]
            for label, prefix in (("strict", ""), ("text-aware", "text-aware "))
        ]
        facts = (
            f"{gallery['images']} images, {gallery['captions']} captions, {gallery['distinct captions']} of them "
            f"distinct, {gallery['captions that repeat']} with a text that another one has, too"
        )
        return "\n".join([text_table(rows, ["", *heads], text_columns=1), facts])
