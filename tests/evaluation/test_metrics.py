import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from mmovseg.evaluation.confusion import ConfusionMatrix
from mmovseg.evaluation.metrics import (
    constant_baseline,
    harmonic_mean,
    per_class_metrics,
    permuted_metrics,
    summary_metrics,
)
from mmovseg.testing.checks import tiny_vocabulary

VOCABULARY = tiny_vocabulary(seen=3, unseen=2)


def random_case(seed, *, absent=(), never_predicted=()):
    """Labels and predictions that agree on about half of the pixels; `absent` classes have no ground truth."""
    rng = torch.Generator().manual_seed(seed)
    truth_ids = torch.tensor([c for c in range(5) if c not in absent])
    predicted_ids = torch.tensor([c for c in range(5) if c not in never_predicted])
    truth = truth_ids[torch.randint(len(truth_ids), (40, 30), generator=rng)]
    predicted = predicted_ids[torch.randint(len(predicted_ids), (40, 30), generator=rng)]
    agree = (torch.rand(40, 30, generator=rng) < 0.5) & torch.isin(truth, predicted_ids)
    predicted = torch.where(agree, truth, predicted)
    truth = torch.where(torch.rand(40, 30, generator=rng) < 0.15, 255, truth)
    matrix = ConfusionMatrix(5)
    matrix.update(truth, predicted)
    return truth, predicted, matrix.counts


def iou_by_sets(truth, predicted, label):
    """The definition, word for word, on sets of pixel positions."""
    counted = {i for i, value in enumerate(truth.flatten().tolist()) if value != 255}
    is_true = {i for i in counted if truth.flatten()[i] == label}
    is_predicted = {i for i in counted if predicted.flatten()[i] == label}
    return 100 * len(is_true & is_predicted) / len(is_true | is_predicted) if is_true else None


CASES = [
    {},
    {"absent": (4,)},
    {"absent": (1, 4)},
    {"never_predicted": (3,)},
    {"absent": (2,), "never_predicted": (2,)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_iou_equals_counting_sets_and_torchmetrics(case):
    truth, predicted, counts = random_case(7, **case)
    ious, accuracies = per_class_metrics(counts)
    theirs = MulticlassJaccardIndex(num_classes=5, average="none", ignore_index=255)(predicted, truth)
    recalls = MulticlassAccuracy(num_classes=5, average="none", ignore_index=255)(predicted, truth)
    for label in range(5):
        expected = iou_by_sets(truth, predicted, label)
        assert ious[label] == pytest.approx(expected)
        if expected is None:
            assert accuracies[label] is None
        else:
            assert ious[label] == pytest.approx(100 * float(theirs[label]), abs=1e-4)
            assert accuracies[label] == pytest.approx(100 * float(recalls[label]), abs=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_summary_equals_its_definition(case):
    truth, predicted, counts = random_case(3, **case)
    metrics = summary_metrics(counts, VOCABULARY)
    ious = [iou_by_sets(truth, predicted, label) for label in range(5)]
    known = [iou for iou in ious if iou is not None]
    seen = [iou for iou in ious[:3] if iou is not None]
    unseen = [iou for iou in ious[3:] if iou is not None]
    assert metrics["mIoU"] == pytest.approx(np.mean(known))
    assert metrics["mIoU-seen"] == pytest.approx(np.mean(seen))
    assert metrics["mIoU-unseen"] == pytest.approx(np.mean(unseen))
    assert metrics["hIoU"] == pytest.approx(2 / (1 / np.mean(seen) + 1 / np.mean(unseen)) if np.mean(unseen) else 0)
    counted = truth != 255
    right = (truth == predicted)[counted].float().mean()
    assert metrics["pACC"] == pytest.approx(100 * float(right), rel=1e-5)
    shares = [float((truth[counted] == label).float().mean()) for label in range(5)]
    assert metrics["fwIoU"] == pytest.approx(sum(s * (i or 0) for s, i in zip(shares, ious, strict=True)), rel=1e-5)
    union = set(truth[counted].tolist()) | set(predicted[counted].tolist())
    assert metrics["mIoU-union"] == pytest.approx(sum(known) / len(union))


def test_names_outside_the_labels_lower_the_union_and_the_iou_of_what_they_took():
    counts = np.array([[6, 0, 2], [0, 4, 0]])
    metrics = summary_metrics(counts, tiny_vocabulary(seen=1, unseen=1))
    assert metrics["mIoU"] == pytest.approx((75 + 100) / 2)
    assert metrics["mIoU-union"] == pytest.approx((75 + 100 + 0) / 3)
    assert metrics["pACC"] == pytest.approx(100 * 10 / 12)


def test_no_labels_at_all_gives_none_everywhere():
    counts = np.zeros((5, 5), dtype=np.int64)
    assert set(summary_metrics(counts, VOCABULARY).values()) == {None}
    assert constant_baseline(counts, VOCABULARY) == {"mIoU": None, "mIoU-unseen": None}


def test_a_split_without_ground_truth_has_no_hiou():
    counts = np.diag([5, 5, 5, 0, 0])
    metrics = summary_metrics(counts, VOCABULARY)
    assert (metrics["mIoU"], metrics["mIoU-seen"], metrics["mIoU-unseen"], metrics["hIoU"]) == (100, 100, None, None)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(60.0, 30.0, 40.0), (0.0, 0.0, 0.0), (50.0, 0.0, 0.0), (None, 3.0, None)]
)
def test_harmonic_mean(a, b, expected):
    assert harmonic_mean(a, b) == expected


def test_wrong_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="4 rows but the vocabulary has 5"):
        summary_metrics(np.ones((4, 4), dtype=np.int64), VOCABULARY)


def test_permuted_equals_asking_a_model_with_shifted_names():
    rng = torch.Generator().manual_seed(11)
    features, names = torch.randn(8, 20, 20, generator=rng), torch.randn(5, 8, generator=rng)
    truth = torch.randint(5, (20, 20), generator=rng)

    def ask(order):
        matrix = ConfusionMatrix(5)
        matrix.update(truth, torch.einsum("kc,chw->khw", names[order], features).argmax(0))
        return matrix.counts

    expected = [summary_metrics(ask([(i + s) % 5 for i in range(5)]), VOCABULARY) for s in range(1, 5)]
    permuted = permuted_metrics(ask(list(range(5))), VOCABULARY)
    for key, value in permuted.items():
        assert value == pytest.approx(np.mean([metrics[key] for metrics in expected])), key


def test_permuted_shifts_only_the_names_asked_for():
    counts = np.zeros((5, 5), dtype=np.int64)
    counts[1, 1], counts[3, 3] = 10, 30
    permuted = permuted_metrics(counts, VOCABULARY, asked=[1, 3])
    assert permuted["mIoU"] == 0  # the only shift swaps the two
    assert permuted_metrics(counts, VOCABULARY)["mIoU"] == 0


def test_permuted_of_a_constant_map_is_between_nothing_and_the_best_constant():
    counts = np.zeros((5, 5), dtype=np.int64)
    counts[:, 2] = [10, 20, 30, 40, 100]
    permuted, best = permuted_metrics(counts, VOCABULARY), constant_baseline(counts, VOCABULARY)
    assert permuted["mIoU"] == pytest.approx(np.mean([10, 20, 40, 100]) / 2 / 5)
    assert best["mIoU"] == {"value": 10.0, "class": "lake"}


@pytest.mark.parametrize("shape", [(1, 1), (3, 4)])
def test_permuted_is_undefined_for_one_name_or_foreign_names(shape):
    counts = np.ones(shape, dtype=np.int64)
    assert set(permuted_metrics(counts, tiny_vocabulary(shape[0], 0)).values()) == {None}


def test_constant_baseline_equals_trying_every_class():
    truth, _, counts = random_case(5, absent=(4,))
    best = constant_baseline(counts, VOCABULARY)
    for key in ("mIoU", "mIoU-unseen"):
        tried = []
        for label in range(5):
            matrix = ConfusionMatrix(5)
            matrix.update(truth, torch.full_like(truth, label))
            tried.append(summary_metrics(matrix.counts, VOCABULARY)[key])
        assert best[key]["value"] == pytest.approx(max(tried))
        assert VOCABULARY.names[int(np.argmax(tried))] == best[key]["class"]


def test_values_are_plain_floats():
    _, _, counts = random_case(1)
    values = [*summary_metrics(counts, VOCABULARY).values(), *permuted_metrics(counts, VOCABULARY).values()]
    assert {type(value) for value in values} == {float}
    assert all(math.isfinite(value) for value in values)
