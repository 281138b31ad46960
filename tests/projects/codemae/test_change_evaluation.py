"""Figures of change maps against counting by hand, pictures, and maps written for a server."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.errors import UserError
from mmovseg.projects.codemae.evaluation.damage import DamageEvaluator, change_metrics
from mmovseg.projects.codemae.evaluation.written_maps import WrittenMapsEvaluator
from mmovseg.testing.checks import random_inputs, scores_for

DAMAGE, CHANGE = closed_vocabulary("building_damage"), closed_vocabulary("change")


def guesses(inputs, classes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    found = []
    for item in inputs:
        other = torch.randint(classes, item["sem_seg"].shape, generator=rng)
        keep = (torch.rand(item["sem_seg"].shape, generator=rng) < 0.6) & (item["sem_seg"] != 255)
        found.append(torch.where(keep, item["sem_seg"], other))
    return found


def f1(truth, found):
    hits = int((truth & found).sum())
    return 200 * hits / (int(truth.sum()) + int(found.sum()))


def test_damage_figures_equal_counting_by_hand():
    inputs = random_inputs(DAMAGE, ((20, 30), (12, 8)))
    maps = guesses(inputs, 4)
    outputs = [{**scores_for(found, 4), "building": torch.rand(found.shape) < 0.5} for found in maps]
    evaluator = DamageEvaluator(dataset_name="tiny", vocabulary=DAMAGE)
    evaluator.process(inputs, outputs)
    result = evaluator.evaluate()["sem_seg"]
    truth, found = (torch.cat([x.flatten() for x in part]) for part in ([i["sem_seg"] for i in inputs], maps))
    building = torch.cat([output["building"].flatten() for output in outputs])
    kept = truth != 255
    truth, found, building = truth[kept], found[kept], building[kept]
    assert result["F1-building"] == pytest.approx(f1(truth > 0, building))
    there = truth > 0
    classes = [f1((truth == c)[there], (found == c)[there]) for c in (1, 2, 3)]
    for name, value in zip(DAMAGE.names[1:], classes, strict=True):
        assert result[f"F1-{name}"] == pytest.approx(value)
    assert result["F1-damage"] == pytest.approx(3 / sum(1 / value for value in classes))
    assert result["F1-overall"] == pytest.approx(0.3 * result["F1-building"] + 0.7 * result["F1-damage"])
    ious = [int(((truth == c) & (found == c)).sum()) / int(((truth == c) | (found == c)).sum()) for c in range(4)]
    assert result["mIoU"] == pytest.approx(100 * sum(ious) / 4)


def test_without_building_scores_buildings_are_the_classes_above_zero():
    inputs = random_inputs(DAMAGE)
    evaluator = DamageEvaluator(dataset_name="tiny", vocabulary=DAMAGE)
    evaluator.process(inputs, [scores_for(found, 4) for found in guesses(inputs, 4)])
    result = evaluator.evaluate()["sem_seg"]
    counts = np.array(evaluator.report["confusion"]["counts"])
    assert result["F1-building"] == pytest.approx(change_metrics(counts, DAMAGE)["F1-building"])


def test_change_figures():
    counts = np.array([[80, 5], [3, 12]])
    found = change_metrics(counts, CHANGE)
    assert found["precision-changed"] == pytest.approx(100 * 12 / 17)
    assert found["recall-changed"] == pytest.approx(100 * 12 / 15)
    assert found["F1-changed"] == pytest.approx(200 * 12 / 32)
    by_chance = 0.85 * 0.83 + 0.15 * 0.17
    assert found["kappa"] == pytest.approx(100 * (0.92 - by_chance) / (1 - by_chance))


def test_perfect_absent_and_missed_classes():
    counts = np.diag([50, 20, 0, 10])
    found = change_metrics(counts, DAMAGE)
    assert found["F1-damaged"] is None and found["F1-damage"] == found["F1-overall"] == 100.0
    counts[3] = (10, 0, 0, 0)
    assert change_metrics(counts, DAMAGE)["F1-damage"] == 0.0
    assert change_metrics(np.diag([5, 0]), CHANGE) == {
        "F1-changed": None, "precision-changed": None, "recall-changed": None, "kappa": None
    }  # fmt: skip


def test_events_are_reported_apart_and_pictures_are_drawn(tmp_path):
    inputs = random_inputs(DAMAGE, ((20, 30), (12, 8), (16, 16)))
    for item, event in zip(inputs, ("quake", "flood", "quake"), strict=True):
        item["source"] = event
    outputs = [scores_for(torch.where(item["sem_seg"] == 255, 0, item["sem_seg"]), 4) for item in inputs]
    outputs[1] = scores_for(torch.zeros_like(inputs[1]["sem_seg"]), 4)
    evaluator = DamageEvaluator(dataset_name="tiny", vocabulary=DAMAGE, output_dir=str(tmp_path), num_pictures=2)
    evaluator.process(inputs, outputs)
    evaluator.evaluate()
    (file,) = tmp_path.rglob("result.json")
    report = json.loads(file.read_text())
    assert [(row["event"], row["images"]) for row in report["by_event"]] == [("flood", 1), ("quake", 2)]
    assert report["by_event"][1]["F1-damage"] == 100.0 and report["by_event"][0]["F1-building"] == 0.0
    assert report["metrics"]["mIoU"] == report["mIoU"] and "F1-damage" in report["definition"]
    with Image.open(file.parent / "pictures.png") as picture:
        assert picture.width > 1000 and np.asarray(picture.convert("RGB")).std() > 20
    evaluator.reset()
    assert evaluator._rows == [] and evaluator._events == {}


def test_buildings_of_an_event_are_told_by_the_building_scores_as_those_of_all():
    inputs = random_inputs(DAMAGE, ((20, 30), (12, 8)))
    evaluator = DamageEvaluator(dataset_name="tiny", vocabulary=DAMAGE)
    for item, event, found in zip(inputs, ("flood", "quake"), (False, True), strict=True):
        truth = torch.where(item["sem_seg"] == 255, 0, item["sem_seg"])
        building = (truth > 0) & found
        evaluator.process([{**item, "source": event}], [{**scores_for(truth, 4), "building": building}])
    evaluator.evaluate()
    assert [row["F1-building"] for row in evaluator.report["by_event"]] == [0.0, 100.0]
    assert [row["F1-damage"] for row in evaluator.report["by_event"]] == [100.0, 100.0]


def test_pictures_of_two_dates_of_one_sensor(tmp_path):
    inputs = random_inputs(CHANGE, ((16, 24),), modality="sar", polarisations=4)
    outputs = [scores_for(guesses(inputs, 2)[0], 2)]
    evaluator = DamageEvaluator(
        dataset_name="tiny", vocabulary=CHANGE, output_dir=str(tmp_path), num_pictures=1, before="sar", after="sar",
        modality="sar", sar_limits_db=[-25, 0],
    )  # fmt: skip
    evaluator.process(inputs, outputs)
    assert evaluator.evaluate()["sem_seg"]["F1-changed"] > 0
    assert (np.diff(evaluator._rows[0].before, axis=2) == 0).all()  # grey
    row = evaluator._rows[0]
    assert row.before.shape == row.after.shape == (16, 24, 3) and (row.before != row.after).any()


def test_maps_are_written_as_class_ids_with_and_without_labels(tmp_path):
    inputs = random_inputs(DAMAGE, ((10, 14), (8, 8)), ignore_share=0.0)
    maps = guesses(inputs, 4)
    inputs[0]["file_name"], inputs[1]["file_name"] = "x/17.png", "x/18.png"
    del inputs[1]["sem_seg"]
    evaluator = WrittenMapsEvaluator(dataset_name="tiny", vocabulary=DAMAGE, output_dir=str(tmp_path), first_value=1)
    evaluator.process(inputs, [scores_for(found, 4) for found in maps])
    result = evaluator.evaluate()
    assert result["maps"] == {"written": 2.0} and result["sem_seg"]["mIoU"] > 0
    for name, found in zip(("17", "18"), maps, strict=True):
        with Image.open(tmp_path / f"maps/tiny/{name}.png") as image:
            assert image.mode == "L" and np.array_equal(np.asarray(image), found.numpy() + 1)
    evaluator.reset()
    evaluator.process(inputs[1:], [scores_for(maps[1], 4)])
    assert dict(evaluator.evaluate()) == {"maps": {"written": 1.0}}
    with pytest.raises(UserError, match="two images are named '18'"):
        evaluator.process(inputs[1:], [scores_for(maps[1], 4)])


def test_values_beyond_eight_bits_are_refused():
    with pytest.raises(UserError, match="first_value is 253"):
        WrittenMapsEvaluator(dataset_name="tiny", vocabulary=DAMAGE, first_value=253)
