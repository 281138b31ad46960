"""Figures of classification against slow definitions, and last and best told apart."""

import json

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multilabel_average_precision

from mmovseg.errors import UserError
from mmovseg.projects.codemae.evaluation.classification import (
    ClassificationEvaluator,
    best_of,
    classification_result_path,
)
from mmovseg.projects.codemae.evaluation.classification_metrics import (
    accuracy_metrics,
    average_precision,
    precision_metrics,
)

CLASSES = ["boat", "car", "plane"]


def test_accuracies_of_a_small_table():
    counts = np.array([[8, 2, 0], [1, 1, 0], [0, 0, 0]])  # the third class has no image
    metrics = accuracy_metrics(counts)
    assert metrics["OA"] == pytest.approx(100 * 9 / 12)
    assert metrics["AA"] == pytest.approx((80 + 50) / 2)
    assert metrics["F1"] == pytest.approx((200 * 8 / (10 + 9) + 200 * 1 / (2 + 3)) / 2)
    assert set(accuracy_metrics(np.zeros((2, 2), dtype=int)).values()) == {None}


@pytest.mark.parametrize("digits", [1, 6])  # with ties and without
def test_average_precision_is_that_of_torchmetrics(digits):
    rng = np.random.default_rng(0)
    scores, truth = rng.random((60, 4)).round(digits), rng.random((60, 4)) < (0.5, 0.2, 0.05, 0.4)
    for average in ("micro", "macro"):
        expected = multilabel_average_precision(
            torch.from_numpy(scores), torch.from_numpy(truth).long(), num_labels=4, average=average
        )
        assert precision_metrics(scores, truth)[0][f"{average} AP"] == pytest.approx(100 * float(expected), abs=1e-3)
    assert average_precision(scores[:, 0], np.zeros(60, dtype=bool)) is None
    assert average_precision(np.zeros(8), np.arange(8) < 2) == pytest.approx(25.0)  # no order: the share of positives


def feed(evaluator, right, *, iteration=None, weights=None):
    """Evaluate 10 images of which `right` are right."""
    evaluator.provenance.update(iteration=iteration, checkpoint_sha256=weights, config_sha256="c")
    evaluator.reset()
    for index in range(10):
        label = index % 3
        scores = torch.zeros(3)
        scores[label if index < right else (label + 1) % 3] = 1.0
        item = {"image_id": str(index), "label": torch.tensor(label)}
        evaluator.process([item], [{"class_scores": scores}])
    return evaluator.evaluate()["classification"]


def make(folder):
    return ClassificationEvaluator(dataset_name="chips", classes=CLASSES, output_dir=str(folder))


def test_best_and_last_are_told_apart_and_survive_a_resume_and_a_later_evaluation(tmp_path):
    evaluator = make(tmp_path)
    feed(evaluator, 5, iteration=10)
    feed(evaluator, 9, iteration=20)
    resumed = make(tmp_path)  # killed after 20, and 20 is done again
    feed(resumed, 8, iteration=20)
    metrics = feed(resumed, 7, iteration=30, weights="final")
    assert (metrics["OA"], metrics["OA best"]) == (70.0, 80.0)
    assert (metrics["best iteration"], metrics["last iteration"]) == (20.0, 30.0)
    report = json.loads(classification_result_path(tmp_path, "chips").read_text())
    assert [entry["iteration"] for entry in report["history"]] == [10, 20, 30]
    assert "chosen on the test images" in report["definition"]["best"]
    later = feed(make(tmp_path), 7, weights="final")  # --eval-only of the same weights
    assert (later["OA"], later["OA best"], later["best iteration"]) == (70.0, 80.0, 20.0)
    other = feed(make(tmp_path), 7, weights="others")
    assert other["OA"] == 70.0 and np.isnan(other["OA best"])


def test_each_of_several_loaders_has_its_own_result_and_history(tmp_path):
    for right, loader in ((9, "near"), (5, "far")):
        evaluator = ClassificationEvaluator(
            dataset_name="chips", classes=CLASSES, loader=loader, output_dir=str(tmp_path)
        )
        feed(evaluator, right, iteration=10)
        feed(evaluator, right - 1, iteration=20)
    for right, loader in ((9, "near"), (5, "far")):
        report = json.loads(classification_result_path(tmp_path, "chips", loader=loader).read_text())
        assert (report["loader"], report["metrics"]["OA best"]) == (loader, 10.0 * right)
        assert [entry["OA"] for entry in report["history"]] == [10.0 * right, 10.0 * (right - 1)]


def test_history_of_another_config_is_not_taken_over(tmp_path):
    feed(make(tmp_path), 9, iteration=10)
    file = classification_result_path(tmp_path, "chips").with_name("history.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "config_sha256": "of another"}))
    assert feed(make(tmp_path), 5, iteration=20)["OA best"] == 50.0
    assert best_of([], "OA") == {"OA best": None, "best iteration": None, "last iteration": None}


def test_result_files_hold_classes_confusion_and_provenance(tmp_path):
    feed(make(tmp_path), 8, iteration=10, weights="w")
    folder = classification_result_path(tmp_path, "chips").parent
    assert {file.name for file in folder.iterdir()} == {"result.json", "history.json", "per_class.csv", "confusion.png"}
    report = json.loads((folder / "result.json").read_text())
    assert np.sum(report["confusion"]["counts"]) == 10 and report["provenance"]["classes"] == CLASSES
    assert [row["images"] for row in report["per_class"]] == [4, 3, 3]
    assert (folder / "per_class.csv").read_text().splitlines()[0] == "class,accuracy,images"


def test_labels_and_scores_that_do_not_fit_get_a_sentence():
    evaluator = ClassificationEvaluator(dataset_name="chips", classes=CLASSES, multi_label=True)
    good = {"image_id": "0", "file_name": "a.png", "label": torch.tensor([1.0, 0.0, 1.0])}
    scores = {"class_scores": torch.tensor([0.2, 0.1, 0.7])}
    evaluator.process([good], [scores])
    metrics = evaluator.evaluate()["classification"]
    assert metrics["micro AP"] == 100.0 and "micro AP best" in metrics
    for item, output, sentence in (
        ({**good, "label": torch.tensor(1)}, scores, "does not fit 3 classes"),
        (good, {"class_scores": torch.zeros(4)}, "4 scores for 3 classes"),
        (good, {"sem_seg": torch.zeros(1)}, "needs 'class_scores'"),
        ({"image_id": "0"}, scores, "has no label"),
    ):
        with pytest.raises(UserError, match=sentence):
            evaluator.process([item], [output])
    evaluator.reset()
    with pytest.raises(UserError, match="gave no image"):
        evaluator.evaluate()
