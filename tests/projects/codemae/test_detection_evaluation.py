"""COCO's AP by category and by size; perfect, shifted, missing and no detections; what a result file says."""

import json

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from mmovseg.errors import UserError
from mmovseg.projects.codemae.evaluation.detection import BoxEvaluator, box_result_path, size_names

SIZE = (60, 80)


def truth(boxes, classes, crowd=None):
    found = Instances(SIZE)
    found.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.gt_classes = torch.tensor(classes, dtype=torch.int64)
    found.gt_areas = found.gt_boxes.area().double()
    found.gt_crowd = torch.tensor(crowd or [False] * len(classes), dtype=torch.bool)
    return found


def detections(boxes, classes, scores=None):
    found = Instances(SIZE)
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    found.scores = torch.tensor(scores or [0.9] * len(classes))
    return found


BOXES = [[0, 0, 4, 4], [10, 10, 18, 18], [30, 20, 50, 40]]
CLASSES = [0, 1, 0]


def evaluate(images, **options):
    """images: pairs of (truth, detections)."""
    evaluator = BoxEvaluator(
        **{"dataset_name": "some set", "categories": ("ship", "plane"), "size_edges_px": (6, 12), **options}
    )
    for number, (given, found) in enumerate(images):
        item = {"image_id": f"image {number}", "file_name": f"{number}.png", "instances": given}
        evaluator.process([item], [{"instances": found}])
    return evaluator, evaluator.evaluate()["bbox"]


def test_perfect_detections_have_ap_100_in_every_group():
    before = set(MetadataCatalog.list())
    evaluator, metrics = evaluate(
        [(truth(BOXES, CLASSES), detections(BOXES, CLASSES)), (truth([], []), detections([], []))]
    )
    assert {key: metrics[key] for key in ("AP", "AP50", "AP75", "APs", "AP-ship", "AP-plane")} == pytest.approx(
        dict.fromkeys(("AP", "AP50", "AP75", "APs", "AP-ship", "AP-plane"), 100.0)
    )
    report = evaluator.report
    assert [(row["size_px"], row["objects"], row["AP"]) for row in report["by_size"]] == [
        ("0-6", 1, pytest.approx(100)),
        ("6-12", 1, pytest.approx(100)),
        ("12+", 1, pytest.approx(100)),
    ]
    ship, plane = report["categories"]
    assert (ship["objects"], plane["objects"]) == (2, 1)
    assert ship["AP by size"] == {"0-6": pytest.approx(100), "6-12": None, "12+": pytest.approx(100)}
    assert report["metrics"]["APl"] is None and metrics["APl"] != metrics["APl"]
    assert set(MetadataCatalog.list()) == before


def test_a_shifted_box_counts_up_to_its_iou():
    # 20 x 20 moved by 4: IoU 320 / 480 = 0.667, which is above 0.50, 0.55, 0.60 and 0.65
    found = [[34, 20, 54, 40]]
    _, metrics = evaluate([(truth(BOXES[2:], [0]), detections(found, [0]))])
    assert metrics["AP50"] == pytest.approx(100) and metrics["AP75"] == pytest.approx(0)
    assert metrics["AP"] == pytest.approx(40) and metrics["AP-plane"] != metrics["AP-plane"]


def test_one_of_two_missed_and_one_false_one():
    # the true one ranks first: precision 1 up to recall 0.5, which is 51 of COCO's 101 points
    found = detections([BOXES[0], [60, 50, 70, 58]], [0, 0], [0.9, 0.8])
    _, metrics = evaluate([(truth([BOXES[0], BOXES[2]], [0, 0]), found)])
    assert metrics["AP"] == pytest.approx(100 * 51 / 101)
    first_wrong = detections([BOXES[0], [60, 50, 70, 58]], [0, 0], [0.8, 0.9])
    _, metrics = evaluate([(truth([BOXES[0], BOXES[2]], [0, 0]), first_wrong)])
    assert metrics["AP"] == pytest.approx(50 * 51 / 101)


def test_the_wrong_class_is_a_miss_and_a_crowd_is_neither():
    evaluator, metrics = evaluate([(truth(BOXES[:1], [0]), detections(BOXES[:1], [1]))])
    assert metrics["AP"] == 0
    given = truth([BOXES[0], BOXES[2]], [0, 0], [False, True])
    evaluator, metrics = evaluate([(given, detections([BOXES[0], [32, 22, 40, 30]], [0, 0]))])
    assert metrics["AP"] == pytest.approx(100) and evaluator.report["categories"][0]["objects"] == 1


def test_no_detection_at_all_is_ap_0_and_no_object_at_all_is_an_error():
    evaluator, metrics = evaluate([(truth(BOXES, CLASSES), detections([], []))])
    assert {metrics[key] for key in ("AP", "AP50", "APs", "AR100", "AP-ship", "AP-plane")} == {0.0}
    assert evaluator.report["metrics"]["APm"] is None
    assert [row["AP"] for row in evaluator.report["by_size"]] == [0, 0, 0]
    with pytest.raises(UserError, match="the 1 test images of 'some set' hold no object"):
        evaluate([(truth([], []), detections([], []))])


def test_the_result_file_says_what_and_from_where(tmp_path):
    facts = {"seed": 3, "checkpoint_sha256": "abc"}
    images = [(truth(BOXES, CLASSES), detections(BOXES, CLASSES))]
    evaluator, _ = evaluate(images, output_dir=str(tmp_path), modality="sar", provenance=facts)
    path = tmp_path / "eval" / "some_set" / "detection" / "result.json"
    assert path == box_result_path(tmp_path, "some set")
    report = json.loads(path.read_text())
    assert report == json.loads(json.dumps(evaluator.report))
    said = report["provenance"]
    assert (said["seed"], said["checkpoint_sha256"], said["images"], said["objects"]) == (3, "abc", 1, 3)
    assert {"git_commit", "versions", "data_manifest_sha256", "processes", "seconds"} <= set(said)
    assert "pycocotools" in said["versions"] and "AP" in report["definition"]
    evaluate(images, output_dir=str(tmp_path), modality="shuffled-sar")  # a control, which leaves the result alone
    assert json.loads(path.read_text()) == report
    assert json.loads(box_result_path(tmp_path, "some set", "shuffled-sar").read_text())["modality"] == "shuffled-sar"
    evaluate(images, output_dir=str(tmp_path), loader="far")  # one of several test loaders
    folders = {folder.name for folder in path.parents[1].iterdir()}
    assert folders == {"detection", "detection-shuffled-sar", "detection-far"}
    assert json.loads(box_result_path(tmp_path, "some set", loader="far").read_text())["loader"] == "far"
    moved = [[1, 0, 5, 4], *BOXES[1:]]
    other, _ = evaluate([(truth(moved, CLASSES), detections(BOXES, CLASSES))])
    assert other.report["provenance"]["data_manifest_sha256"] != said["data_manifest_sha256"]


def test_what_cannot_be_compared_is_refused():
    evaluator = BoxEvaluator(dataset_name="x", categories=("ship",))
    item = {"image_id": "1", "file_name": "1.png", "instances": truth(BOXES[:1], [0])}
    found = {"instances": detections(BOXES[:1], [0])}
    with pytest.raises(UserError, match="'1.png' has no objects to evaluate against"):
        evaluator.process([{"image_id": "1", "file_name": "1.png"}], [found])
    with pytest.raises(UserError, match="'1.png' has an object of class 1; the evaluator knows 1: ship"):
        evaluator.process([{**item, "instances": truth(BOXES[:1], [1])}], [found])
    other = detections(BOXES[:1], [0])
    other._image_size = (10, 10)
    with pytest.raises(ValueError, match=r"detections are for \(10, 10\) pixels, not \(60, 80\)"):
        evaluator.process([item], [{"instances": other}])
    with pytest.raises(ValueError, match="'1.png': a detection is not finite"):
        evaluator.process([item], [{"instances": detections([[0, 0, float("nan"), 1]], [0])}])
    evaluator.process([item], [found])
    with pytest.raises(UserError, match="image '1' of 'x' came twice"):
        evaluator.process([item], [found])
    with pytest.raises(UserError, match="size_edges_px of the evaluator must rise"):
        BoxEvaluator(dataset_name="x", categories=("ship",), size_edges_px=(8, 4))
    assert size_names(()) == ["0+"]
