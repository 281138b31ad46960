import json
import math

import pytest
import torch
import torch.multiprocessing as mp
from detectron2.utils import comm

from mmovseg.errors import UserError
from mmovseg.evaluation import EncoderEvaluator, probe_pairs
from mmovseg.evaluation.encoder import encoder_result_path
from mmovseg.evaluation.encoder_report import format_encoder_table
from mmovseg.testing.checks import tiny_vocabulary

LABELS = tiny_vocabulary(seen=2, unseen=1)  # meadow, forest, desert
PATCH = 4


def scene(index, *, height=16, width=24, stripes=True, seed=0):
    """A model input whose label changes from patch to patch along the columns, or at every pixel."""
    rng = torch.Generator().manual_seed(1000 * seed + index)
    if stripes:
        row = torch.randint(3, (math.ceil(width / PATCH),), generator=rng).repeat_interleave(PATCH)[:width]
        label = row.expand(height, width).clone()
    else:
        label = torch.randint(3, (height, width), generator=rng)
    return {
        "image_id": f"{index:03d}",
        "file_name": f"made/{index:03d}",
        "sar": torch.zeros(2, height, width),
        "sar_valid": torch.ones(height, width, dtype=torch.bool),
        "sem_seg": label,
    }


def dataset(number):
    return [{"image_id": f"{index:03d}"} for index in range(number)]


def grid_of(item):
    return tuple(math.ceil(side / PATCH) for side in item["sar"].shape[-2:])


def label_features(item):
    """The class of each patch's first pixel, one hot: an encoder whose features are the labels."""
    coarse = item["sem_seg"][::PATCH, ::PATCH].clamp(max=2)
    return torch.nn.functional.one_hot(coarse, 3).permute(2, 0, 1).float()


def random_features(item, salt):
    rng = torch.Generator().manual_seed(int(item["image_id"]) + salt)
    return torch.randn(3, *grid_of(item), generator=rng)


def answer(item, student, teacher=None):
    output = {
        "student": {"block1": torch.zeros_like(student) + 0.5, "block2": student},
        "patch_valid": torch.ones(student.shape[-2:], dtype=torch.bool),
        "patch_size": PATCH,
    }
    if teacher is not None:
        output["teacher"] = {"block1": torch.zeros_like(teacher) - 0.5, "block2": teacher}
    return output


def evaluate(items, outputs, *, fit=6, **settings):
    evaluator = EncoderEvaluator(
        dataset_name="made_test", vocabulary=LABELS, fit_dataset=dataset(fit) if fit else None, **settings
    )
    for item, output in zip(items, outputs, strict=True):
        evaluator.process([item], [output])
    return evaluator, evaluator.evaluate()["encoder"]


def test_features_that_are_labels_reach_everything():
    items = [scene(i) for i in range(14)]
    features = [label_features(item) + 0.1 * random_features(item, 7) for item in items]
    evaluator, metrics = evaluate(items, [answer(i, f, 2 * f) for i, f in zip(items, features, strict=True)])
    assert metrics["probe mIoU"] == metrics["probe accuracy"] == 100.0
    assert metrics["R@1 sar->optical"] == metrics["R@1 optical->sar"] == metrics["patch accuracy"] == 100.0
    assert metrics["CKA"] == pytest.approx(1.0)
    assert metrics["chance R@1"] == pytest.approx(100 / 8) and metrics["chance patch accuracy"] == pytest.approx(
        100 / 24
    )
    assert evaluator.report["gallery"] == evaluator.report["test_images"] == 8


def test_random_features_reach_chance():
    items = [scene(i) for i in range(120)]
    outputs = [answer(item, random_features(item, 1), random_features(item, 10_000)) for item in items]
    _, metrics = evaluate(items, outputs, fit=60)
    assert metrics["probe accuracy"] < 45  # a third are right by chance
    assert metrics["R@1 sar->optical"] < 10 and metrics["R@1 optical->sar"] < 10
    assert metrics["patch accuracy"] == pytest.approx(100 / 24, abs=2.0)
    assert abs(metrics["CKA"]) < 0.02


def test_constant_features_reach_exactly_chance_and_have_no_cka():
    items = [scene(i) for i in range(16)]
    outputs = [answer(item, torch.ones(3, 4, 6), torch.ones(3, 4, 6)) for item in items]
    evaluator, metrics = evaluate(items, outputs)
    assert metrics["R@5 sar->optical"] == pytest.approx(metrics["chance R@5"])
    assert metrics["patch accuracy"] == pytest.approx(metrics["chance patch accuracy"])
    assert math.isnan(metrics["CKA"]) and evaluator.report["metrics"]["CKA"] is None
    assert metrics["probe mIoU"] <= metrics["probe chance mIoU"] + 1e-9


def test_the_probe_equals_one_fit_on_the_pixels_themselves():
    """With patches of one pixel and no upsampling the probe is logistic regression of pixels."""
    items = [scene(i, height=8, width=8, stripes=False) for i in range(6)]
    outputs = []
    for item in items:
        features = torch.randn(4, 8, 8)
        features[0] += item["sem_seg"]
        outputs.append({"student": {"block2": features}, "patch_valid": torch.ones(8, 8, dtype=bool), "patch_size": 1})
    _, metrics = evaluate(items, outputs, fit=3, l2=1e-3)
    x = torch.cat([output["student"]["block2"].flatten(1).T for output in outputs]).double()
    y = torch.cat([item["sem_seg"].flatten() for item in items])
    half = 3 * 64
    scaled = (x - x[:half].mean(dim=0)) / x[:half].std(dim=0, correction=0)
    layer = torch.nn.Linear(4, 3).double()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    for _ in range(800):
        loss = torch.nn.functional.cross_entropy(layer(scaled[:half]), y[:half])
        loss = loss + 0.5e-3 * layer.weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predicted = layer(scaled[half:]).argmax(dim=1)
    assert metrics["probe accuracy"] == pytest.approx(100 * float((predicted == y[half:]).double().mean()), abs=1.1)


def test_pixels_without_data_or_label_change_nothing():
    items = [scene(i) for i in range(10)]
    outputs = [answer(item, label_features(item), label_features(item)) for item in items]
    _, clean = evaluate(items, outputs)
    for item, output in zip(items, outputs, strict=True):
        item["sem_seg"][:PATCH] = 255
        item["sar_valid"][-PATCH:] = False
        item["sem_seg"][-PATCH:] = (item["sem_seg"][-PATCH:] + 1) % 3  # wrong labels where SAR saw nothing
        output["patch_valid"][-1] = False
        output["student"]["block2"] = output["student"]["block2"].clone()
        output["student"]["block2"][:, -1] = 99.0
    _, holes = evaluate(items, outputs)
    assert clean["probe mIoU"] == holes["probe mIoU"] == 100.0
    assert holes["CKA"] == pytest.approx(1.0)
    assert holes["chance patch accuracy"] == pytest.approx(100 / 18)


def test_padding_and_labels_of_another_size_are_placed_right():
    """Images of 14 x 22 pixels have a grid of 4 x 6 patches; their labels are twice as fine."""
    items = [scene(i, height=14, width=22) for i in range(10)]
    outputs = [answer(item, label_features(item), label_features(item)) for item in items]
    for item in items:
        item["sem_seg"] = item["sem_seg"].repeat_interleave(2, 0).repeat_interleave(2, 1)
    _, metrics = evaluate(items, outputs)
    assert metrics["probe mIoU"] == 100.0


def test_an_image_without_a_valid_patch_is_left_out_and_counted():
    items = [scene(i) for i in range(10)]
    outputs = [answer(item, label_features(item), label_features(item)) for item in items]
    items[8]["sar_valid"][:] = False
    outputs[8]["patch_valid"][:] = False
    evaluator, metrics = evaluate(items, outputs)
    assert evaluator.report["gallery"] == 3 and evaluator.report["provenance"]["images_without_data"] == 1
    assert metrics["probe mIoU"] == 100.0


def test_without_a_teacher_there_is_a_probe_and_nothing_else(tmp_path):
    items = [scene(i) for i in range(10)]
    evaluator, metrics = evaluate(
        items, [answer(item, label_features(item)) for item in items], modality="sar", output_dir=str(tmp_path)
    )
    assert metrics["probe mIoU"] == 100.0 and math.isnan(metrics["R@1 sar->optical"])
    stored = json.loads(encoder_result_path(tmp_path, "made_test", "sar").read_text())
    assert stored["metrics"]["R@1 sar->optical"] is None and stored["metrics"]["probe mIoU"] == 100.0
    # three classes, one hot: centred they have two directions
    assert 1.5 < metrics["effective rank"] <= 2 and stored["metrics"]["teacher effective rank"] is None
    table = format_encoder_table(evaluator.report)
    assert "no image has" in table and f"block2 {metrics['effective rank']:.1f}" in table


@pytest.mark.parametrize(
    ("loader", "modality", "folder"),
    [
        ("sar", "both", "encoder-sar"),
        ("sar", "sar", "encoder-sar"),
        ("far away", "optical", "encoder-far_away-optical"),
    ],
)
def test_each_of_several_loaders_has_a_report_of_its_own(loader, modality, folder, tmp_path):
    items = [scene(i) for i in range(7)]
    outputs = [answer(item, label_features(item)) for item in items]
    evaluate(items, outputs, loader=loader, modality=modality, output_dir=str(tmp_path))
    path = tmp_path / "eval" / "made_test" / folder / "result.json"
    assert encoder_result_path(tmp_path, "made_test", modality, loader=loader) == path
    assert json.loads(path.read_text())["loader"] == loader


def test_without_images_to_fit_there_is_no_probe_and_no_label_is_needed():
    items = [scene(i) for i in range(5)]
    outputs = [answer(item, label_features(item), label_features(item)) for item in items]
    for item in items:
        del item["sem_seg"]
    evaluator, metrics = evaluate(items, outputs, fit=0)
    assert math.isnan(metrics["probe mIoU"]) and metrics["CKA"] == pytest.approx(1.0)
    assert evaluator.report["probe"] is None and "linear probe" not in format_encoder_table(evaluator.report)


def test_an_optical_encoder_is_named_so_and_uses_its_own_mask():
    items = [scene(i) for i in range(10)]
    for item in items:
        item["image"], item["valid"] = item.pop("sar"), item.pop("sar_valid")
        item["sar_valid"] = torch.zeros(16, 24, dtype=torch.bool)
    features = [torch.nn.functional.one_hot(i["sem_seg"][::PATCH, ::PATCH], 3).permute(2, 0, 1).float() for i in items]
    outputs = [answer(item, f, f) for item, f in zip(items, features, strict=True)]
    _, metrics = evaluate(items, outputs, student="optical", teacher="sar")
    assert metrics["probe mIoU"] == 100.0 and "R@1 optical->sar" in metrics


def test_levels_are_reported_and_can_be_chosen():
    items = [scene(i) for i in range(12)]
    outputs = [answer(item, label_features(item), label_features(item)) for item in items]
    for item, output in zip(items, outputs, strict=True):
        output["student"]["block1"], output["teacher"]["block1"] = random_features(item, 1), random_features(item, 99)
    evaluator, last = evaluate(items, outputs)
    first_evaluator, first = evaluate(items, outputs, level="block1", probe_level="block1")
    assert list(evaluator.report["levels"]) == ["block1", "block2"]
    assert evaluator.report["levels"]["block1"]["CKA"] == first_evaluator.report["metrics"]["CKA"] == first["CKA"]
    assert last["CKA"] == pytest.approx(1.0) and last["probe mIoU"] > first["probe mIoU"]
    both, metrics = evaluate(items, outputs, probe_level="all")
    assert metrics["probe mIoU"] > 95 and both.report["probe"]["channels"] == 6


def test_the_result_file_and_table_hold_the_figures(tmp_path):
    items = [scene(i) for i in range(12)]
    outputs = [answer(item, label_features(item), random_features(item, 5)) for item in items]
    facts = {"seed": 3, "config_file": "a.py"}
    evaluator, metrics = evaluate(items, outputs, output_dir=str(tmp_path), provenance=facts, gallery=4)
    path = tmp_path / "eval" / "made_test" / "encoder" / "result.json"
    assert encoder_result_path(tmp_path, "made_test") == path
    stored = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert stored["metrics"] == pytest.approx(metrics)
    assert set(stored["levels"]["block2"]) < set(stored["metrics"])
    assert stored["gallery"] == 4 and stored["metrics"]["chance R@1"] == 25.0
    assert [row["name"] for row in stored["probe"]["per_class"]] == LABELS.names
    assert sum(map(sum, stored["probe"]["confusion"]["counts"])) == 6 * 16 * 24
    assert (stored["provenance"]["seed"], stored["provenance"]["images"]) == (3, 6)
    assert {"git_commit", "versions", "data_manifest_sha256", "fit_manifest_sha256"} <= set(stored["provenance"])
    assert "unbiased" in stored["definition"]["CKA"]
    table = format_encoder_table(stored)
    for text in ("sar->optical", "optical->sar", "chance", "block1", "CKA", "meadow", "fit on 6 images"):
        assert text in table


def test_reset_forgets():
    items = [scene(i) for i in range(10)]
    outputs = [answer(item, label_features(item), random_features(item, 5)) for item in items]
    evaluator, first = evaluate(items, outputs)
    evaluator.reset()
    evaluator.process(items, outputs)
    assert evaluator.evaluate()["encoder"] == first


def _evaluate_in_process(rank, folder):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    if hasattr(comm, "create_local_process_group"):  # as detectron2's launch does
        comm.create_local_process_group(2)
    items, outputs = shared_case()
    share = slice(0, 9) if rank == 0 else slice(9, 18)  # all images to fit, and the gallery, start on the first
    evaluator = EncoderEvaluator(
        dataset_name="made_test", vocabulary=LABELS, fit_dataset=dataset(6), gallery=5, output_dir=folder
    )
    evaluator.process(items[share], outputs[share])
    result = evaluator.evaluate()
    assert (result is None) == (rank == 1)
    dist.destroy_process_group()


def shared_case():
    items = [scene(i, stripes=False) for i in range(18)]
    outputs = []
    for item in items:
        student = label_features(item) + 0.7 * random_features(item, 3)
        outputs.append(answer(item, student, student + random_features(item, 50)))
    return items, outputs


def test_two_processes_give_the_figures_of_one(tmp_path):
    items, outputs = shared_case()
    whole, _ = evaluate(items, outputs, gallery=5)
    mp.start_processes(_evaluate_in_process, args=(str(tmp_path),), nprocs=2, start_method="fork")
    stored = json.loads(encoder_result_path(tmp_path, "made_test").read_text())
    assert stored["metrics"] == pytest.approx(whole.report["metrics"], rel=1e-9)
    assert stored["probe"]["confusion"] == whole.report["probe"]["confusion"]
    assert stored["provenance"]["processes"] == 2
    for key in ("data_manifest_sha256", "fit_manifest_sha256"):
        assert stored["provenance"][key] == whole.report["provenance"][key]


def test_half_precision_features_are_taken():
    items, outputs = shared_case()
    exact, _ = evaluate(items, outputs)
    halves = [
        {**output, **{side: {k: v.bfloat16() for k, v in output[side].items()} for side in ("student", "teacher")}}
        for output in outputs
    ]
    rounded, _ = evaluate(items, halves)
    assert rounded.report["metrics"]["CKA"] == pytest.approx(exact.report["metrics"]["CKA"], abs=0.01)
    assert rounded.report["metrics"]["probe mIoU"] == pytest.approx(exact.report["metrics"]["probe mIoU"], abs=2.0)


@pytest.mark.gpu
def test_features_on_a_gpu_give_the_figures_of_the_cpu():
    items, outputs = shared_case()
    expected, _ = evaluate(items, outputs)
    moved = [
        {k: {n: m.cuda() for n, m in v.items()} if isinstance(v, dict) else v for k, v in output.items()}
        | {"patch_valid": output["patch_valid"].cuda()}
        for output in outputs
    ]
    found, _ = evaluate(items, moved, probe_device="cuda")
    assert found.report["metrics"] == pytest.approx(expected.report["metrics"], rel=1e-3)


def test_models_and_data_that_do_not_fit_are_refused():
    items = [scene(i) for i in range(3)]
    outputs = [answer(item, label_features(item)) for item in items]
    with pytest.raises(UserError, match="answers with 'student'; this one answers with: sem_seg"):
        evaluate(items[:1], [{"sem_seg": torch.zeros(3, 4, 4)}], fit=1)
    with pytest.raises(UserError, match="no level 'block9'; known here: last, block1, block2"):
        evaluate(items, outputs, fit=1, level="block9")
    with pytest.raises(UserError, match="no level 'block9'; known here: last, all, block1, block2"):
        evaluate(items, outputs, fit=1, probe_level="block9")
    with pytest.raises(UserError, match="gave 3 of the 5 images"):
        evaluate(items, outputs, fit=5)
    with pytest.raises(UserError, match="no image to test"):
        evaluate(items, outputs, fit=3)
    with pytest.raises(UserError, match="knows no student 'radar'"):
        evaluate(items, outputs, student="radar")
    with pytest.raises(UserError, match="gallery .* at least 1 scene, got 0"):
        evaluate(items, outputs, gallery=0)
    items[1]["sem_seg"][0, 0] = 9
    with pytest.raises(UserError, match=r"label of 'made/001' has the value 9, outside the class list 0..2"):
        evaluate(items, outputs, fit=1)
    del items[1]["sem_seg"]
    with pytest.raises(UserError, match="'made/001' has no labels"):
        evaluate(items, outputs, fit=1)
    outputs[0]["student"]["block2"][0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="'made/000': the encoder's features hold a value that is not finite"):
        evaluate(items, outputs, fit=1)


def test_probe_pairs_joins_and_refuses_shared_images():
    joined = probe_pairs(fit=dataset(2), test=[{"image_id": "x", "height": 3}])
    assert [item["image_id"] for item in joined] == ["000", "001", "x"]
    with pytest.raises(UserError, match="1 images are in both parts of the probe, '001' for one"):
        probe_pairs(fit=dataset(2), test=[{"image_id": "001"}])
    with pytest.raises(UserError, match="image 'x' is 2 times in the test part"):
        probe_pairs(fit=dataset(2), test=[{"image_id": "x"}, {"image_id": "x"}])
