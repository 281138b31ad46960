import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmovseg.data.vocabulary import ClassEntry, Vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.evaluation import OVSegEvaluator
from mmovseg.evaluation.report import format_table, result_folder, result_name, safe_name
from mmovseg.evaluation.sem_seg import cloud_bin, result_path
from mmovseg.testing.checks import random_inputs, scores_for, tiny_vocabulary

LABELS = tiny_vocabulary(seen=3, unseen=2)  # meadow, forest, desert, city, lake


def noisy_predictions(inputs, num_classes=5, seed=0):
    """Right on about 60% of the pixels, random elsewhere."""
    rng = torch.Generator().manual_seed(seed)
    outputs = []
    for item in inputs:
        guess = torch.randint(num_classes, item["sem_seg"].shape, generator=rng)
        keep = (torch.rand(item["sem_seg"].shape, generator=rng) < 0.6) & (item["sem_seg"] < num_classes)
        outputs.append(scores_for(torch.where(keep, item["sem_seg"], guess), num_classes))
    return outputs


def evaluate(inputs, outputs, **settings):
    evaluator = OVSegEvaluator(dataset_name="tiny_test", vocabulary=LABELS, **settings)
    evaluator.process(inputs, outputs)
    return evaluator, evaluator.evaluate()


def test_perfect_scores_give_100_percent_everywhere():
    inputs = random_inputs(LABELS, ((20, 30), (8, 8), (31, 17)))
    outputs = [scores_for(item["sem_seg"] % 255 % 5, 5) for item in inputs]
    for item, output in zip(inputs, outputs, strict=True):
        item["sem_seg"] = torch.where(item["sem_seg"] == 255, 255, output["sem_seg"].argmax(0))
    evaluator, result = evaluate(inputs, outputs)
    keys = ("mIoU", "mIoU-seen", "mIoU-unseen", "hIoU", "fwIoU", "pACC", "mACC")
    assert {result["sem_seg"][key] for key in keys} == {100.0}
    assert evaluator.report["provenance"]["images"] == 3
    assert evaluator.report["provenance"]["pixels"] == sum(int((item["sem_seg"] != 255).sum()) for item in inputs)


def test_the_result_does_not_depend_on_how_images_are_batched_or_ordered():
    inputs = random_inputs(LABELS, ((20, 30), (8, 8), (31, 17)))
    outputs = noisy_predictions(inputs)
    together, _ = evaluate(inputs, outputs)
    apart = OVSegEvaluator(dataset_name="tiny_test", vocabulary=LABELS)
    for i in (2, 0, 1):
        apart.process([inputs[i]], [outputs[i]])
    apart.evaluate()
    assert together.report["confusion"] == apart.report["confusion"]
    assert together.report["provenance"]["data_manifest_sha256"] == apart.report["provenance"]["data_manifest_sha256"]


def test_labels_hash_changes_with_a_label_and_with_an_id():
    hashes = set()
    for change in ("none", "label", "id"):
        inputs = random_inputs(LABELS, ((8, 8),))
        if change == "label":
            inputs[0]["sem_seg"][0, 0] = (inputs[0]["sem_seg"][0, 0] + 1) % 5
        if change == "id":
            inputs[0]["image_id"] = "other"
        hashes.add(evaluate(inputs, noisy_predictions(inputs))[0].report["provenance"]["data_manifest_sha256"])
    assert len(hashes) == 3


def test_reset_forgets():
    inputs = random_inputs(LABELS)
    evaluator, first = evaluate(inputs, noisy_predictions(inputs))
    evaluator.reset()
    evaluator.process(inputs, noisy_predictions(inputs))
    assert evaluator.evaluate() == first


def test_files_hold_the_result(tmp_path):
    inputs = random_inputs(LABELS)
    settings = {"output_dir": str(tmp_path), "modality": "sar", "provenance": {"seed": 3, "config": "a.py"}}
    evaluator, result = evaluate(inputs, noisy_predictions(inputs), **settings)
    folder = tmp_path / "eval" / "tiny_test" / "sar-clean"
    assert sorted(path.name for path in folder.iterdir()) == ["confusion.png", "per_class.csv", "result.json"]
    text = (folder / "result.json").read_text()
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert result_path(tmp_path, "tiny_test", "sar", "clean") == folder / "result.json"
    for key in ("mIoU", "mIoU-seen", "mIoU-unseen", "hIoU", "fwIoU", "pACC"):
        assert stored[key] == pytest.approx(result["sem_seg"][key])
    assert set(stored["permuted"]) == {"mIoU", "mIoU-seen", "mIoU-unseen", "hIoU"}
    assert {"constant_baseline", "confusion", "definition", "per_class", "not_asked", "by_cloud_cover"} <= set(stored)
    assert (stored["modality"], stored["vocabulary"], stored["dataset"]) == ("sar", "clean", "tiny_test")
    facts = stored["provenance"]
    assert (facts["seed"], facts["config"], facts["vocabulary_sha256"]) == (3, "a.py", LABELS.sha256)
    assert {"git_commit", "versions", "seconds", "data_manifest_sha256", "processes"} <= set(facts)
    assert "torch" in facts["versions"]
    with (folder / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == LABELS.names
    assert [row["seen"] for row in rows] == ["1", "1", "1", "0", "0"]
    assert float(rows[4]["IoU"]) == pytest.approx(result["sem_seg"]["IoU-lake"], abs=1e-4)
    assert min(Image.open(folder / "confusion.png").size) > 300


def test_absent_classes_are_null_in_json_and_left_out_of_the_returned_metrics(tmp_path):
    inputs = random_inputs(LABELS, labels=3)
    evaluator, result = evaluate(inputs, noisy_predictions(inputs), output_dir=str(tmp_path))
    stored = json.loads(result_path(tmp_path, "tiny_test", "both", "clean").read_text())
    assert [row["IoU"] is None for row in stored["per_class"]] == [False, False, False, True, True]
    assert stored["mIoU-unseen"] is None and stored["hIoU"] is None
    assert np.isnan(result["sem_seg"]["hIoU"]) and "IoU-lake" not in result["sem_seg"]
    assert result["sem_seg"]["mIoU"] > result["sem_seg"]["mIoU-union"] > 0


def test_names_not_in_the_labels_count_as_wrong_and_classes_not_asked_are_left_out():
    truth = torch.tensor([[0, 0, 0, 0, 4, 4, 2, 255]])
    answers = torch.tensor([[0, 0, 2, 1, 1, 1, 0, 2]])  # 0 meadow, 1 lake, 2 airport
    inputs = [{"sem_seg": truth, "image_id": "a", "height": 1, "width": 8}]
    prompts = vocabulary_from_names("meadow, lake, airport", like=LABELS)
    evaluator, result = evaluate(inputs, [scores_for(answers, 3)], prompts=prompts)
    report = evaluator.report
    assert result["sem_seg"]["IoU-meadow"] == pytest.approx(100 * 2 / 4)
    assert result["sem_seg"]["IoU-lake"] == pytest.approx(100 * 2 / 3)
    assert report["provenance"]["pixels"] == 6  # desert and 255 are left out
    assert report["not_asked"] == ["forest", "desert", "city"]
    assert report["not_in_labels"] == ["airport"]
    assert report["confusion"]["columns_predicted"][-1] == "airport"
    assert report["confusion"]["counts"][0] == [2, 0, 0, 0, 1, 1]
    assert "left out" in report["definition"]["vocabulary"]
    assert "airport" in format_table(report) and "desert" in format_table(report)


def test_another_flavour_is_matched_by_position_and_says_so(tmp_path):
    inputs = random_inputs(LABELS)
    outputs = noisy_predictions(inputs)
    released = Vocabulary("released", tuple(ClassEntry(f"typo{i}") for i in range(5)))
    plain, _ = evaluate(inputs, outputs)
    evaluator, _ = evaluate(inputs, outputs, prompts=released, output_dir=str(tmp_path))
    assert evaluator.report["mIoU"] == plain.report["mIoU"]
    assert "by position" in evaluator.report["definition"]["vocabulary"]
    assert evaluator.report["provenance"]["vocabulary_sha256"] == released.sha256
    assert result_path(tmp_path, "tiny_test", "both", "released").is_file()


def test_cloud_cover_bins_hold_the_images_of_that_cover():
    inputs = random_inputs(LABELS, ((8, 8),) * 4)
    for item, cover in zip(inputs, (0.0, 0.2, 0.5, 1.0), strict=True):
        item["cloud_alpha"] = (torch.arange(64).reshape(8, 8) < 64 * cover).float()
    outputs = noisy_predictions(inputs)
    evaluator, _ = evaluate(inputs, outputs)
    bins = evaluator.report["by_cloud_cover"]
    assert [row["images"] for row in bins] == [2, 0, 1, 1]
    assert bins[1]["mIoU"] is None
    alone, _ = evaluate(inputs[2:3], outputs[2:3])
    assert bins[2]["mIoU"] == pytest.approx(alone.report["mIoU"])


def test_without_clouds_there_are_no_bins():
    inputs = random_inputs(LABELS, cloudy=False)
    assert evaluate(inputs, noisy_predictions(inputs))[0].report["by_cloud_cover"] == []


@pytest.mark.parametrize(("cover", "index"), [(0.0, 0), (0.2499, 0), (0.25, 1), (0.74, 2), (0.75, 3), (1.0, 3)])
def test_cloud_bin_edges(cover, index):
    assert cloud_bin(cover) == index


def test_a_label_outside_the_class_list_names_file_and_value():
    inputs = random_inputs(LABELS, ((4, 4),))
    inputs[0]["sem_seg"][1, 1] = 9
    with pytest.raises(UserError, match=r"label of 'random/000' has the value 9, outside the class list 0..4"):
        evaluate(inputs, [scores_for(torch.zeros(4, 4), 5)])


def test_a_sample_without_labels_is_refused():
    with pytest.raises(UserError, match="'a.tif' has no labels"):
        evaluate([{"file_name": "a.tif"}], [scores_for(torch.zeros(4, 4), 5)])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.zeros(5, 3, 4), "scores are"),
        (torch.zeros(4, 4, 4), "4 score maps for 5 names"),
        (torch.full((5, 4, 4), torch.nan), "NaN"),
    ],
)
def test_scores_that_cannot_be_right_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        evaluate(random_inputs(LABELS, ((4, 4),)), [{"sem_seg": scores}])


def test_all_ignored_gives_a_result_of_nulls(tmp_path):
    inputs = random_inputs(LABELS, ignore_share=1.0)
    evaluator, _ = evaluate(inputs, noisy_predictions(inputs), output_dir=str(tmp_path))
    stored = json.loads(result_path(tmp_path, "tiny_test", "both", "clean").read_text())
    assert stored["mIoU"] is None and stored["provenance"]["pixels"] == 0


def test_folder_names_are_safe():
    assert result_folder("out", "my data/x", "both", "../etc").as_posix() == "out/eval/my_data_x/both-_etc"


def test_names_in_other_scripts_have_folders_of_their_own():
    names = ["水域", "森林", "Wälder", "जल", "की", "का", "🌊", "🌲", "a🌊", "clean", "miniearth_test", "v1.2-b"]
    folders = [safe_name(name) for name in names]
    assert len(set(folders)) == len(names) and not any("/" in folder for folder in folders)
    assert folders[:3] == names[:3] and folders[-3:] == names[-3:]
    assert safe_name("Wa\u0308lder") == "Wälder"  # as some file systems write it


def test_free_class_lists_have_folders_of_their_own(tmp_path):
    inputs = random_inputs(LABELS)
    lists = [vocabulary_from_names(names, like=LABELS) for names in (LABELS.names, LABELS.names[::-1])]
    for asked in lists:
        evaluate(inputs, noisy_predictions(inputs), output_dir=str(tmp_path), prompts=asked)
    stored = [json.loads(result_path(tmp_path, "tiny_test", "both", result_name(asked)).read_text()) for asked in lists]
    assert [report["prompts"] for report in stored] == [LABELS.names, LABELS.names[::-1]]
    assert {report["vocabulary"] for report in stored} == {"custom"}
    folders = sorted(folder.name for folder in (tmp_path / "eval" / "tiny_test").iterdir())
    assert folders == sorted(f"both-custom-{asked.sha256[:8]}" for asked in lists)


def test_table_shows_controls_and_marks_unseen_classes():
    inputs = random_inputs(LABELS)
    table = format_table(evaluate(inputs, noisy_predictions(inputs))[0].report)
    for text in ("mIoU-unseen", "hIoU", "names permuted", "best constant", "cloud cover", "lake"):
        assert text in table
    assert next(line for line in table.splitlines() if line.startswith("lake")).split()[1] == "unseen"
