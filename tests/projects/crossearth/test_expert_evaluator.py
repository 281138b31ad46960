"""Shares of experts beside the metrics of segmentation."""

from __future__ import annotations

import json

import pytest
import torch

from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.evaluation.sem_seg import OVSegEvaluator
from mmovseg.projects.crossearth.evaluation.experts import COUNTS_KEY, ExpertEvaluator

WATER = vocabulary_from_names("land, water")


def counted(evaluator, counts):
    """Evaluate two images; `counts` are those of each, or None."""
    inputs, outputs = [], []
    for number, own in enumerate(counts):
        inputs.append({"image_id": str(number), "sem_seg": torch.tensor([[0, 1]])})
        outputs.append({"sem_seg": torch.tensor([[[2.0, 2.0]], [[1.0, 1.0]]])})  # says land everywhere
        if own is not None:
            outputs[-1][COUNTS_KEY] = {block: torch.tensor(values) for block, values in own.items()}
    for item, output in zip(inputs, outputs, strict=True):
        evaluator.process([item], [output])
    return evaluator.evaluate()["sem_seg"]


def test_shares_are_of_all_images_together(tmp_path):
    evaluator = ExpertEvaluator(dataset_name="pool", vocabulary=WATER, output_dir=str(tmp_path))
    results = counted(evaluator, [{"block1": [1, 3], "block2": [2, 2]}, {"block1": [0, 4], "block2": [1, 3]}])
    assert results["share block1"] == pytest.approx(100 * 7 / 8)
    assert results["share block2"] == pytest.approx(100 * 5 / 8)
    assert results["largest share"] == pytest.approx(100 * 7 / 8)
    report = json.loads(next(tmp_path.glob("eval/pool/sar-*/result.json")).read_text())
    assert report["experts"]["block1"]["shares"] == [12.5, 87.5]
    assert report["metrics"] == {"share block1": 87.5, "share block2": 62.5, "largest share": 87.5}


def test_metrics_are_those_of_the_plain_evaluator():
    plain = counted(OVSegEvaluator(dataset_name="pool", vocabulary=WATER), [None, None])
    with_experts = counted(ExpertEvaluator(dataset_name="pool", vocabulary=WATER), [{"block1": [1, 3]}] * 2)
    rest = {key: value for key, value in with_experts.items() if "share" not in key}
    assert rest == pytest.approx(plain, nan_ok=True) and len(with_experts) == len(plain) + 2
    assert plain["IoU-land"] == 50.0


def test_a_model_without_experts_has_empty_shares_of_the_named_blocks():
    evaluator = ExpertEvaluator(dataset_name="pool", vocabulary=WATER, blocks=["block1", "block2"])
    results = counted(evaluator, [None, None])
    assert not any("share" in key for key in results)  # loggers want numbers
    assert evaluator.report["metrics"] == {"share block1": None, "share block2": None, "largest share": None}
    assert evaluator.report["experts"] == {}


def test_counting_starts_anew():
    evaluator = ExpertEvaluator(dataset_name="pool", vocabulary=WATER)
    counted(evaluator, [{"block1": [4, 0]}])
    evaluator.reset()
    assert counted(evaluator, [{"block1": [1, 1]}])["share block1"] == 50.0
