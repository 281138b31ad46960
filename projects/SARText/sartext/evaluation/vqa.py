"""Answers to questions about images, in the product's evaluation framework: per question type, beside priors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mmovseg.data.sample import EvaluationModality, ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.evaluation.report import format_percent, text_table
from mmovseg.projects.sartext.evaluation.answers import AnswerRules, load_answer_rules, score_answer
from mmovseg.projects.sartext.evaluation.task_evaluator import TaskEvaluator


@dataclass(frozen=True)
class AnswerPrior:
    """The answers that a model would give without looking: the most frequent ones of training questions.

    Attributes:
        overall: of all questions.
        by_type: question type -> answer.
        by_question: question, word for word -> answer.
    """

    overall: str
    by_type: Mapping[str, str]
    by_question: Mapping[str, str]

    def of_type(self, question_type: str) -> str:
        """Return the majority answer of a type, that of all questions for an unknown one."""
        return self.by_type.get(question_type, self.overall)

    def of_question(self, question: str, question_type: str) -> str:
        """Return the majority answer to this very question, that of its type for a new one."""
        return self.by_question.get(question, self.of_type(question_type))


def answer_prior(*, dataset: Iterable[Mapping[str, Any]], synonyms: str | None = None) -> AnswerPrior:
    """Count the answers of training questions; of equally frequent ones the first in alphabetical order is taken.

    Answers that are scored alike ("2", "two", "Two.") are counted as one, and given as most often written.

    Args:
        dataset: dicts with `question`, `answer` and `question_type`.
        synonyms: as of the evaluator.

    Raises:
        UserError: there is no question, or the file of synonyms is bad.
    """
    rules = load_answer_rules(synonyms)
    overall: Counter[str] = Counter()
    by_type: dict[str, Counter[str]] = {}
    by_question: dict[str, Counter[str]] = {}
    for item in dataset:
        answer = str(item["answer"])
        overall[answer] += 1
        by_type.setdefault(item["question_type"], Counter())[answer] += 1
        by_question.setdefault(item["question"], Counter())[answer] += 1
    if not overall:
        raise UserError("there is no training question to take the most frequent answers of")
    return AnswerPrior(
        _most_frequent(overall, rules),
        {key: _most_frequent(counts, rules) for key, counts in by_type.items()},
        {key: _most_frequent(counts, rules) for key, counts in by_question.items()},
    )


def _most_frequent(counts: Mapping[str, int], rules: AnswerRules) -> str:
    forms: dict[str, dict[str, int]] = {}
    for answer, count in counts.items():
        forms.setdefault(rules.normal_form(answer), {})[answer] = count
    written = {min(group, key=lambda answer: (-group[answer], answer)): sum(group.values()) for group in forms.values()}
    return min(written, key=lambda answer: (-written[answer], answer))


class VQAEvaluator(TaskEvaluator):
    """Score one answer a question, overall and for every question type.

    Two priors that see no image stand beside the model: the majority answer of the question's type, and that of the
    very question. A model that has not learned to look is no better than the second.

    Args:
        dataset_name, modality, loader, output_dir, provenance: see `TaskEvaluator`.
        prior: from `answer_prior`; None leaves both priors out.
        closed_types: question types whose answers must be met exactly, whatever they are; of the others, only those
            whose truth is yes, no or a number up to 99.
        synonyms: JSON file of synonyms instead of those that ship.
    """

    kind: ClassVar[str] = "vqa"
    definition: ClassVar[Mapping[str, str]] = {
        "accuracy": (
            "percent right: closed questions (truth yes, no or 0..99, or of a closed type) exactly, open ones when the "
            "words of the truth occur in the answer, whole and in a row"
        ),
        "exact": "percent with the words of the truth and no other",
        "F1": "100 x mean F1 of words",
        "mean of types": "plain mean of the accuracies of the question types",
        "normal form": "lower case, no punctuation, no articles, number words as figures, synonyms",
        "majority": "the most frequent training answer of the question's type, without looking",
        "question prior": "the most frequent training answer to the very question, without looking",
    }

    def __init__(
        self,
        *,
        dataset_name: str,
        prior: AnswerPrior | None = None,
        closed_types: Sequence[str] = (),
        synonyms: str | None = None,
        modality: EvaluationModality = "both",
        loader: str | None = None,
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.prior, self.closed_types = prior, frozenset(closed_types)
        self.rules = load_answer_rules(synonyms)
        super().__init__(
            dataset_name=dataset_name, modality=modality, loader=loader, output_dir=output_dir, provenance=provenance
        )

    def row(self, name: str, item: ModelInput, output: Prediction) -> dict[str, Any]:
        """Keep question, truth and answer.

        Raises:
            UserError: the sample lacks question or answer, or the model answers nothing.
        """
        for key in ("question", "answer"):
            if not str(item.get(key, "")).strip():
                raise UserError(f"'{name}' has no {key}, which the scoring of answers needs")
        if "generated_answer" not in output:
            raise UserError(f"answering needs generated_answer of a model; this one answers with: {', '.join(output)}")
        kept = {"question": item["question"], "truth": item["answer"]}
        return {**kept, "type": item.get("question_type", "other"), "answer": output["generated_answer"]}

    def manifest_line(self, row: Mapping[str, Any]) -> str:
        """Return image, question and truth."""
        return json.dumps([row["image_id"], row["question"], row["truth"]])

    def score(self, rows: list[dict[str, Any]]) -> tuple[dict[str, float | None], dict[str, Any]]:
        """Score the model and the priors."""
        rows.sort(key=lambda row: (str(row["image_id"]), row["question"]))  # the same for any number of processes
        types = sorted({str(row["type"]) for row in rows})
        found: dict[str, float | None] = {}
        for label, answers in self._answers(rows).items():
            scores = [self._scored(answer, row) for answer, row in zip(answers, rows, strict=True)]
            found |= {f"{label}{key}": value for key, value in summarise(scores, types).items()}
            if not label:
                for row, score in zip(rows, scores, strict=True):
                    row.update(score)
        counts = Counter(str(row["type"]) for row in rows)
        known = None if self.prior is None else {name: self.prior.of_type(name) for name in types}
        return found, {"questions": len(rows), "questions_of_type": dict(sorted(counts.items())), "majority": known}

    def _answers(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Return the answers to be scored, by what goes before the names of their metrics."""
        answers = {"": [str(row["answer"]) for row in rows]}
        if self.prior is not None:
            answers["majority "] = [self.prior.of_type(row["type"]) for row in rows]
            answers["question prior "] = [self.prior.of_question(row["question"], row["type"]) for row in rows]
        return answers

    def _scored(self, answer: str, row: Mapping[str, Any]) -> dict[str, Any]:
        score = score_answer(
            answer, row["truth"], self.rules, closed=True if row["type"] in self.closed_types else None
        )
        return {
            "type": str(row["type"]),
            "correct": score.correct,
            "closed": score.closed,
            "exact": score.exact,
            "F1": score.f1,
        }

    def describe(self, report: Mapping[str, Any]) -> str:
        """Return accuracies by type, of the model and of both priors."""
        metrics, counts = report["metrics"], report["questions_of_type"]
        labels = {"model": "", "majority of the type": "majority ", "majority of the question": "question prior "}
        heads = ["accuracy", "mean of types", *(f"accuracy {name}" for name in counts), "F1"]
        rows = [
            [label, *(format_percent(metrics[prefix + head]) for head in heads)]
            for label, prefix in labels.items()
            if prefix + "accuracy" in metrics
        ]
        shown = [head.removeprefix("accuracy ") for head in heads]
        numbers = ", ".join(f"{count} {name}" for name, count in counts.items())
        return f"{text_table(rows, ['', *shown], text_columns=1)}\n{report['questions']} questions: {numbers}"


def summarise(scores: Sequence[Mapping[str, Any]], types: Sequence[str]) -> dict[str, float | None]:
    """Return the metrics of scored answers in percent; None where there is no question of the kind.

    Args:
        scores: dicts with `type`, `correct`, `closed`, `exact`, `F1`.
        types: question types, each with at least one answer.
    """
    by_type = {name: _mean([score["correct"] for score in scores if score["type"] == name]) for name in types}
    known = [value for value in by_type.values() if value is not None]
    return {
        "accuracy": _mean([score["correct"] for score in scores]),
        "mean of types": sum(known) / len(known) if known else None,
        "accuracy closed": _mean([score["correct"] for score in scores if score["closed"]]),
        "accuracy open": _mean([score["correct"] for score in scores if not score["closed"]]),
        "exact": _mean([score["exact"] for score in scores]),
        "F1": _mean([score["F1"] for score in scores]),
        **{f"accuracy {name}": value for name, value in by_type.items()},
    }


def _mean(values: Sequence[float]) -> float | None:
    return 100.0 * sum(values) / len(values) if values else None


__all__ = ["AnswerPrior", "AnswerRules", "VQAEvaluator", "answer_prior", "summarise"]
