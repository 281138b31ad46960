"""Generated captions against those of people or templates, in the product's evaluation framework."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from mmovseg.data.sample import DatasetDict, EvaluationModality, ModelInput, Prediction, RawSample
from mmovseg.errors import UserError
from mmovseg.evaluation.report import format_percent, text_table
from mmovseg.projects.sartext.evaluation.caption_metrics import MAX_ORDER, Scores, Words, bleu, cider_d, rouge_l
from mmovseg.projects.sartext.evaluation.meteor import SPICE_REASON, meteor, meteor_reason
from mmovseg.projects.sartext.evaluation.task_evaluator import TaskEvaluator
from mmovseg.projects.sartext.evaluation.words import SPLITTINGS, Splitting, split_words

logger = logging.getLogger(__name__)

SCORES = (*(f"BLEU-{order}" for order in range(1, MAX_ORDER + 1)), "ROUGE-L", "CIDEr-D", "METEOR", "SPICE")
_OWN = SCORES[:-2]
_SHOWN = ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr-D", "METEOR")


class CaptioningEvaluator(TaskEvaluator):
    """Score one generated caption an image against all captions of the image.

    Two controls stand beside the model: the baseline's caption for every image, and the model's own captions dealt out
    to other images. A model that writes the same for every image is no better than the second.

    Args:
        dataset_name, modality, loader, output_dir, provenance: see `TaskEvaluator`.
        baseline: caption that the majority baseline gives every image, from `most_frequent_caption`; None leaves that
            baseline out.
        splitting: how text is cut into words; ``ptb`` as published scores mostly are, ``blanks`` as a few.
        with_meteor: compute METEOR where `pycocoevalcap` and Java are installed (starting Java takes seconds).

    Raises:
        UserError: unknown splitting, or an empty baseline.
    """

    kind: ClassVar[str] = "captioning"
    definition: ClassVar[Mapping[str, str]] = {
        "BLEU-n": "100 x corpus BLEU, COCO's constants, reference nearest in length",
        "ROUGE-L": "100 x mean F of the longest common subsequence, beta 1.2, best precision and best recall",
        "CIDEr-D": "100 x mean CIDEr-D (so 0..1000), n-grams weighed by the references of this test set",
        "METEOR": "100 x METEOR 1.5 of pycocoevalcap",
        "distinct": "percent: different captions by images; near 0 = the same caption for all",
        "empty": "percent of the images whose caption has no word",
        "majority": "the most frequent training caption, for every image",
        "dealt out": "the captions of the model, image i scored with that of image i + n/2",
    }

    def __init__(
        self,
        *,
        dataset_name: str,
        baseline: str | None = None,
        splitting: Splitting = "ptb",
        with_meteor: bool = True,
        modality: EvaluationModality = "both",
        loader: str | None = None,
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if splitting not in SPLITTINGS:
            raise UserError(f"splitting is '{splitting}'; it can be: {', '.join(SPLITTINGS)}")
        if baseline is not None and not baseline.strip():
            raise UserError(f"the baseline caption of '{dataset_name}' is empty")
        self.baseline, self.splitting, self.with_meteor = baseline, splitting, with_meteor
        super().__init__(
            dataset_name=dataset_name, modality=modality, loader=loader, output_dir=output_dir, provenance=provenance
        )

    def row(self, name: str, item: ModelInput, output: Prediction) -> dict[str, Any]:
        """Keep caption and references.

        Raises:
            UserError: the image has no caption, or the model wrote none.
        """
        references = list(item.get("captions", ()))
        if not references:
            raise UserError(f"'{name}' has no caption to score against; set keep_caption of the mapper")
        if "generated_caption" not in output:
            raise UserError(
                f"captioning needs generated_caption of a model; this one answers with: {', '.join(output)}"
            )
        return {"caption": output["generated_caption"], "references": references}

    def manifest_line(self, row: Mapping[str, Any]) -> str:
        """Return image and references."""
        return json.dumps([row["image_id"], row["references"]])

    def score(self, rows: list[dict[str, Any]]) -> tuple[dict[str, float | None], dict[str, Any]]:
        """Score the model and the controls."""
        rows.sort(key=lambda row: str(row["image_id"]))  # the same for any number of processes
        references = [[split_words(text, self.splitting) for text in row["references"]] for row in rows]
        captions = [split_words(row["caption"], self.splitting) for row in rows]
        reason = meteor_reason() if self.with_meteor else "not computed: switched off by with_meteor=False"
        scored = caption_scores(captions, references, with_meteor=reason is None)
        for number, row in enumerate(rows):
            row |= {name: round(100.0 * score.images[number], 4) for name, score in scored.items()}
        found: dict[str, float | None] = {name: _percent(scored.get(name)) for name in SCORES}
        found["distinct"] = 100.0 * len({row["caption"] for row in rows}) / len(rows)
        found["empty"] = 100.0 * sum(not words for words in captions) / len(rows)
        half = len(rows) // 2
        controls = {"dealt out": captions[half:] + captions[:half]}
        if self.baseline is not None:
            controls["majority"] = [split_words(self.baseline, self.splitting)] * len(rows)
        for label, words in controls.items():
            given = caption_scores(words, references, with_meteor=reason is None)
            found |= {f"{label} {name}": _percent(given.get(name)) for name in SCORES}
        frequent = Counter(row["caption"] for row in rows).most_common(5)
        further = {
            "not_computed": {"SPICE": SPICE_REASON, **({"METEOR": reason} if reason else {})},
            "baseline": self.baseline,
            "splitting": self.splitting,
            "references_an_image": sum(map(len, references)) / len(rows),
            "frequent_captions": [{"caption": text, "images": count} for text, count in frequent],
        }
        return found, further

    def describe(self, report: Mapping[str, Any]) -> str:
        """Return the scores of the model beside those of the controls."""
        metrics = report["metrics"]
        labels = {"model": "", "majority baseline": "majority ", "captions dealt out": "dealt out "}
        rows = [
            [label, *(format_percent(metrics[prefix + name]) for name in _SHOWN)]
            for label, prefix in labels.items()
            if prefix + _SHOWN[0] in metrics
        ]
        lines = [text_table(rows, ["", *_SHOWN], text_columns=1)]
        lines.append(
            f"{format_percent(metrics['distinct'])} % of the captions differ; "
            f"{format_percent(metrics['empty'])} % are empty"
        )
        lines += [f"{name} {reason}" for name, reason in report["not_computed"].items()]
        return "\n".join(lines)


def caption_scores(
    captions: Sequence[Words], references: Sequence[Sequence[Words]], *, with_meteor: bool
) -> dict[str, Scores]:
    """Return `Scores` by name; METEOR only when asked for."""
    found = dict(zip(_OWN, [*bleu(captions, references), rouge_l(captions, references)], strict=False))
    found["CIDEr-D"] = cider_d(captions, references)
    if with_meteor:
        found["METEOR"] = meteor(captions, references)
    return found


def _percent(scores: Scores | None) -> float | None:
    return None if scores is None else 100.0 * scores.corpus


def most_frequent_caption(
    *, dataset: Sequence[DatasetDict], reader: Callable[[DatasetDict], RawSample] | None = None
) -> str:
    """Return the caption that occurs most often, of equally frequent ones the first in alphabetical order.

    Args:
        dataset: training dicts with `captions`.
        reader: gives the captions of dicts that have none (MiniEarth); None = the dicts must have them.

    Raises:
        UserError: there is no caption.
    """
    counts: Counter[str] = Counter()
    for item in dataset:
        counts.update(item["captions"] if "captions" in item or reader is None else reader(item).captions)
    if not counts:
        raise UserError("there is no training caption to take the most frequent one of")
    return min(counts, key=lambda text: (-counts[text], text))
