"""Labels made from optical twins: rules and figures against slow loops, and the command from pairs to folder."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pseudo_label
import pytest
import rasterio
import torch

from mmovseg.checkpoint import save_weights
from mmovseg.config import apply_overrides, instantiate, load_config, save_config
from mmovseg.data.datasets import load_pair_jsonl
from mmovseg.data.io import FileReader
from mmovseg.data.vocabulary import get_vocabulary, vocabulary_from_file, vocabulary_from_names
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.errors import UserError
from mmovseg.projects.crossearth.data import pseudo_labels
from mmovseg.projects.crossearth.data.agreement import BINS, image_figures, summarize
from mmovseg.projects.crossearth.data.labellers import ClassMap, read_class_map
from mmovseg.projects.crossearth.data.pseudo_labels import LabelRule, label_image
from mmovseg.testing.fakes import write_pairs, write_raster
from mmovseg.testing.models import write_random_xs

CONFIGS = Path(__file__).parents[3] / "projects" / "CrossEarthSAR" / "configs"
CLASSES = vocabulary_from_names("building, water, other")


def random_answers(count, size=(6, 7), classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(classes, *size, generator=rng).mul(2).softmax(dim=0) for _ in range(count)]


# ---------------------------------------------------------------- class maps


def test_a_class_is_the_sum_of_what_stands_for_it(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"building": ["city", "village"], "other": []}))
    found = read_class_map(path, CLASSES)
    assert found.prompts.names == ["city", "village", "water"]
    scores = 0.9 * torch.rand(3, 4, 5)  # each class by itself, as some models rate them
    merged = found.merge(scores, 3)
    shares = scores / scores.sum(dim=0)
    torch.testing.assert_close(merged, torch.stack([shares[0] + shares[1], shares[2], torch.zeros(4, 5)]))
    assert found.by_class(CLASSES.names) == {"building": ["city", "village"], "water": ["water"], "other": []}
    assert torch.equal(ClassMap(CLASSES, (2, 0, 1)).merge(torch.eye(3)[..., None], 3)[..., 0], torch.eye(3)[[1, 2, 0]])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "must be an object of lists of names"),
        ('{"building": "city"}', "must be an object of lists of names"),
        ('{"house": ["city"]}', "has the class 'house'; wanted are: building, water, other"),
        ('{"building": ["water"]}', "names the class 'water' more than once"),
        ('{"building": [], "water": [], "other": []}', "asks the model for nothing"),
    ],
)
def test_a_wrong_class_map_is_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(UserError, match="map.json") as error:
        read_class_map(path, CLASSES)
    assert sentence in str(error.value)


# ---------------------------------------------------------------- rules and figures


@pytest.mark.parametrize("label_by", ["first", "mean"])
def test_labels_follow_the_rule_pixel_by_pixel(label_by):
    answers, valid = random_answers(3), torch.rand(6, 7).numpy() > 0.2
    rule = LabelRule(label_by, min_confidence=0.5, min_agreement=2)
    made = label_image(answers, valid, None, rule=rule)
    dropped = 0
    for i, j in np.ndindex(6, 7):
        chosen = answers[0] if label_by == "first" else (answers[0] + answers[1] + answers[2]) / 3
        column = [float(v) for v in chosen[:, i, j]]
        best = column.index(max(column))
        votes = sum(int(answer[:, i, j].argmax()) == best for answer in answers)
        if not valid[i, j]:
            assert (made.label[i, j], made.confidence[i, j], made.agreement[i, j]) == (255, 255, 0)
            continue
        keeps = max(column) >= 0.5 and votes >= 2
        dropped += not keeps
        assert made.label[i, j] == (best if keeps else 255)
        assert made.confidence[i, j] * 0.004 == pytest.approx(max(column), abs=0.0021) and made.agreement[i, j] == votes
    assert 0 < dropped < valid.sum() and made.figures["labelled"] == valid.sum() - dropped


def test_the_paper_labels_every_valid_pixel_by_the_first_model():
    answers = random_answers(2)
    made = label_image(answers, np.ones((6, 7), dtype=bool), None, rule=LabelRule())
    assert np.array_equal(made.label, answers[0].argmax(dim=0).numpy())
    alone = label_image(answers[:1], np.ones((6, 7), dtype=bool), None, rule=LabelRule())
    assert alone.agreement is None and "agreed" not in alone.figures


def test_mean_agreement_is_the_mean_over_images_of_pixels_where_all_agree():
    records, shares, pairs = [], [], []
    for seed in range(4):
        answers, valid = random_answers(3, (5, 4 + seed), seed=seed), torch.rand(5, 4 + seed).numpy() > 0.3
        records.append(label_image(answers, valid, None, rule=LabelRule()).figures)
        maps = [answer.argmax(dim=0).numpy() for answer in answers]
        places = [place for place in np.ndindex(*valid.shape) if valid[place]]
        shares.append(100 * sum(len({int(one[p]) for one in maps}) == 1 for p in places) / len(places))
        pairs.append([100 * sum(a[p] == b[p] for p in places) / len(places) for a, b in combinations(maps, 2)])
    single = label_image(random_answers(1), np.ones((6, 7), dtype=bool), None, rule=LabelRule()).figures
    found = summarize([*records, single], classes=CLASSES, models=["a", "b", "c"])["figures"]
    assert found["images"] == 5 and found["agreement"]["images"] == 4
    assert found["agreement"]["mean agreement"] == pytest.approx(np.mean(shares))
    assert found["agreement"]["deviation over images"] == pytest.approx(np.std(shares))
    expected = dict(zip(["a & b", "a & c", "b & c"], np.mean(pairs, axis=0), strict=True))
    assert found["agreement"]["pairwise agreement"] == pytest.approx(expected)
    assert sum(found["class share"].values()) == pytest.approx(100) and "quality" not in found


def test_quality_counts_known_pixels_alone():
    given, truth = np.array([[0, 0, 1, 2, 1]]), np.array([[0, 1, 1, 255, 2]])
    written, valid = np.array([[0, 255, 1, 2, 255]]), np.array([[True, True, True, True, False]])
    confidence, other = np.array([[0.95, 0.31, 1.0, 0.5, 0.6]]), np.array([[0, 1, 1, 2, 1]])
    record = image_figures([given, other], given, written, confidence, valid, truth, num_classes=3)
    found = summarize([record], classes=CLASSES, models=["a", "b"])["figures"]["quality"]
    # known and valid: pixels 0, 1, 2; right 0 and 2; both models agree on 0 and 2 of them
    assert found["before anything was left out"]["pACC"] == pytest.approx(200 / 3)
    assert found["before anything was left out"]["IoU"] == pytest.approx({"building": 50, "water": 50, "other": None})
    assert found["labels as written"]["pACC"] == 100 and found["labels as written"]["mIoU"] == 100
    assert (found["right where all agree"], found["right elsewhere"]) == (100, 0)
    bins = {round(line["confidence"]): (line["right"], line["pixels"]) for line in found["right by confidence"]}
    assert bins == {31: (0, 1), 98: (100, 2)} and BINS == 10
    assert found["calibration error"] == pytest.approx((31 + 2 * 2.5) / 3)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (LabelRule(label_by="vote"), "--label-by must be one of first, mean, got 'vote'"),
        (LabelRule(min_confidence=1.5), "--min-confidence must lie in 0 .. 1, got 1.5"),
        (LabelRule(min_agreement=3), "--min-agreement is 3, but there are 2 models"),
        (LabelRule(agreement_images=0), "--agreement-images must be at least 1"),
        (LabelRule(agreement_images=2, min_agreement=2), "labels cannot depend on them"),
        (LabelRule(agreement_images=2, label_by="mean"), "labels cannot depend on them"),
    ],
)
def test_rules_that_cannot_be_are_refused(rule, sentence):
    with pytest.raises(UserError, match=sentence):
        rule.check(2)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two random models that are asked by name, and one with a class list of its own."""
    folder = tmp_path_factory.mktemp("models")
    config, weights = write_random_xs(folder, "optical")
    other = folder / "other.safetensors"
    torch.manual_seed(7)
    save_weights(instantiate(load_config(str(config)).model), other)
    closed = load_config("projects/CoDeMAE/configs/upernet_miniearth_xs.py")
    forget_foundation_weights(closed.model)
    save_config(closed, folder / "closed.yaml")
    save_weights(instantiate(closed.model), folder / "closed.safetensors")
    return {
        "xs": (config, weights),
        "other": (config, other),
        "closed": (f"{folder}/closed.yaml", f"{folder}/closed.safetensors"),
    }


@pytest.fixture
def run(models, capsys):
    """Run tools/pseudo_label.py in this process; returns (exit status, stdout, stderr)."""

    def run_it(*arguments, names=("xs",)):
        given = ["--config-file", *(f"{name}={models[name][0]}" for name in names)]
        given += ["--weights", *(models[name][1] for name in names), "--device", "cpu", "--quiet"]
        status = 0
        try:
            pseudo_label.main([*map(str, given), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run_it


def hashes(root):
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def summary(root):
    return json.loads((root / "pseudo_labels.json").read_text())


def test_a_stopped_run_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch):
    world = ("--miniearth", "val", "--num-scenes", 5, "--size", 32, "--batch-size", 2, "--agreement-images", 3)
    status, out, err = run(*world, "--output", tmp_path / "whole", names=("xs", "other"))
    assert (status, err) == (0, "") and "5 images, 100.0% of the valid pixels labelled" in out
    found = summary(tmp_path / "whole")["figures"]
    assert found["agreement"]["images"] == 3 and found["quality"]["images"] == 5
    assert len(list((tmp_path / "whole" / "agreement").iterdir())) == 3

    write, calls = pseudo_labels.write_layer, []

    def full_disk(*arguments):
        calls.append(arguments)
        if len(calls) > 7:
            raise UserError("the disk is full")
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pseudo_labels, "write_layer", full_disk)
        assert run(*world, "--output", tmp_path / "parts", names=("xs", "other"))[0] == 2
    assert not (tmp_path / "parts" / "pairs.jsonl").exists()
    with (tmp_path / "parts" / "records.jsonl").open("a") as file:
        file.write('{"image_id": "miniearth_val_0000')  # as a killed process leaves it
    status, out, _ = run(*world, "--output", tmp_path / "parts", names=("xs", "other"))
    assert status == 0 and "holds 2 of 5 images already" in out
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")
    next((tmp_path / "parts" / "label").iterdir()).unlink()  # what is lost is made again
    assert run(*world, "--output", tmp_path / "parts", names=("xs", "other"))[0] == 0
    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")
    status, _, err = run(*world, "--output", tmp_path / "whole", "--min-confidence", 0.5, names=("xs", "other"))
    assert status == 2 and "was begun with rule =" in err


def test_training_reads_what_was_written(run, tmp_path):
    assert run("--miniearth", "train", "--num-scenes", 3, "--size", 32, "--output", tmp_path / "a")[0] == 0
    moved = (tmp_path / "a").rename(tmp_path / "b")
    dicts = load_pair_jsonl(moved / "pairs.jsonl")
    assert [item["image_id"] for item in dicts] == [f"miniearth_train_{n:06d}" for n in range(3)]
    raw = FileReader()(dicts[0])
    assert raw.optical.shape == (32, 32, 3) and raw.sar.shape == (32, 32, 2)
    with rasterio.open(moved / "label" / "miniearth_train_000000.tif") as file:
        assert np.array_equal(file.read(1), raw.sem_seg) and file.crs.to_epsg() == 32632
        place = file.transform
    with rasterio.open(dicts[0]["sar_file_name"]) as file:
        assert file.transform == place
    assert vocabulary_from_file(moved / "vocabulary.json").classes == get_vocabulary("miniearth").classes
    manifest = json.loads((moved / "manifest.json").read_text())
    assert manifest["made_by"] == summary(moved)["made_by"] == json.loads((moved / "prepare.json").read_text())
    assert len(manifest["files"]) == 15 and len(manifest["made_by"]["models"][0]["weights_sha256"]) == 64


def test_pretraining_takes_the_classes_of_the_labels_and_no_others(run, tmp_path):
    assert run("--miniearth", "train", "--num-scenes", 2, "--size", 32, "--output", tmp_path / "labels")[0] == 0
    labels = f"dataloader.labels={tmp_path / 'labels'}"
    with pytest.raises(UserError, match=r"labels/vocabulary.json' numbers the classes .*, but the config has .*road"):
        instantiate(apply_overrides(load_config(CONFIGS / "cpt_l.py"), [labels]).dataloader.train.dataset)
    classes = f"dataloader.classes={tmp_path / 'labels' / 'vocabulary.json'}"
    config = apply_overrides(load_config(CONFIGS / "cpt_l.py"), [labels, classes])
    assert len(instantiate(config.dataloader.train.dataset)) == 2
    vocabularies = [instantiate(part.vocabulary) for part in (config.model, config.dataloader.train.mapper)]
    assert [each.names for each in vocabularies] == 2 * [get_vocabulary("miniearth").names]
    assert not vocabularies[0].unseen_ids  # a class list that trains as a whole


def test_folders_stay_where_they_are_and_holes_get_no_label(run, tmp_path):
    pairs = write_pairs(tmp_path / "in", count=2, height=24, width=32)
    arguments = ("--optical", pairs.optical_dir, "--sar", pairs.sar_dir, "--truth", pairs.label_dir)
    status, out, _ = run(*arguments, "--vocabulary", "miniearth", "--output", tmp_path / "out")
    assert status == 0 and "against true labels: mIoU" in out
    dicts = load_pair_jsonl(tmp_path / "out" / "pairs.jsonl")
    assert [item["sar_file_name"] for item in dicts] == [item["sar_file_name"] for item in pairs.dicts]
    label = FileReader()(dicts[0]).sem_seg
    hole = np.isnan(pairs.truth[0]["sar_db"]).any(axis=2)
    assert hole.any() and np.array_equal(label == 255, hole)
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["confidence", "label"]
    made, true = label[~hole], pairs.truth[0]["sem_seg"][~hole]
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text().splitlines()[0])
    assert np.trace(record["truth"]["confusion"]) == (made == true).sum() and record["valid"] == (~hole).sum()


def test_a_model_with_a_class_list_is_asked_through_a_map(run, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(
        json.dumps(
            {
                "background": [],
                "building": ["city"],
                "barren": ["bareland"],
                "agriculture": ["farmland", "rangeland"],
            }
        )
    )
    world = ("--miniearth", "val", "--num-scenes", 2, "--vocabulary", "loveda/clean", "--output", tmp_path / "out")
    status, _, err = run(*world, names=("closed",))
    assert status == 2 and "the model has no class 'background'" in err
    status, out, _ = run(*world, "--class-map", f"closed={path}", names=("closed",))
    assert status == 2  # begun without the map
    status, out, _ = run(*world[:-1], tmp_path / "other", "--class-map", f"closed={path}", names=("closed",))
    assert status == 0 and "background" not in out
    found = summary(tmp_path / "other")
    assert found["made_by"]["models"][0]["class_map"]["agriculture"] == ["farmland", "rangeland"]
    assert found["figures"]["quality"]["labels as written"]["IoU"]["background"] is None
    record = json.loads((tmp_path / "other" / "records.jsonl").read_text().splitlines()[0])
    with rasterio.open(tmp_path / "other" / "truth" / "miniearth_val_000000.tif") as file:
        farmed = np.isin(file.read(1), (1, 2)).sum()  # rangeland and farmland of the true labels
    assert sum(record["truth"]["confusion"][6]) == farmed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--output", "o"), "say which classes are wanted"),
        (("--classes", "water", "--output", "o"), "there is nothing to label"),
        (("--classes", "water", "--vocabulary", "pie", "--output", "o"), "exclude each other; give one"),
        (("--miniearth", "val", "--pairs", "x.csv", "--output", "o"), "--pairs and --miniearth exclude each other"),
        (("--optical", "x", "--classes", "water", "--output", "o"), "--optical and --sar go together"),
        (("--pairs", "x.txt", "--classes", "water", "--output", "o"), "must end in .csv or .jsonl"),
        (("--miniearth", "val", "--truth", "x", "--output", "o"), "--truth goes with --optical and --sar"),
        (("--miniearth", "val", "--batch-size", "0", "--num-scenes", "1", "--output", "o"), "--batch-size must be"),
        (("--miniearth", "val", "--min-agreement", "2", "--output", "o"), "--min-agreement is 2, but there are 1"),
        (("--miniearth", "val", "--class-map", "b=x", "--output", "o"), "--class-map names the model 'b'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(arguments, sentence, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(*arguments)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and sentence in err
    assert not list(tmp_path.iterdir())


def test_models_and_pairs_that_do_not_fit_are_refused(run, models, tmp_path):
    world = ("--miniearth", "val", "--num-scenes", 1, "--output", tmp_path / "out")
    status, _, err = run(*world, "--config-file", models["xs"][0], models["xs"][0])
    assert status == 2 and "two models are called 'demo_optical'" in err
    status, _, err = run(*world, "--weights", models["xs"][1], models["xs"][1])
    assert status == 2 and "--weights names 2 files for 1 configs" in err
    write_raster(tmp_path / "rgb" / "a.png", np.zeros((8, 8, 3), dtype=np.uint8))
    write_raster(tmp_path / "sar" / "a.tif", np.zeros((8, 9, 1), dtype=np.float32))
    folders = ("--optical", tmp_path / "rgb", "--sar", tmp_path / "sar", "--classes", "water, road")
    status, _, err = run(*folders, "--output", tmp_path / "out")
    assert status == 2 and "the rasters of a pair must have one size" in err


@pytest.mark.realdata
def test_real_pairs_without_labels_go_through(run, realdata, tmp_path):
    table = tmp_path / "pairs.csv"
    names = sorted(path.name for path in (realdata / "qxs_saropt/opt").iterdir())[:2]
    rows = [f"{name},{realdata}/qxs_saropt/opt/{name},{realdata}/qxs_saropt/sar/{name}" for name in names]
    table.write_text("\n".join(["image_id,file_name,sar_file_name", *rows]) + "\n")
    status, out, err = run("--pairs", table, "--classes", "water, city, forest", "--output", tmp_path / "out")
    assert (status, err) == (0, "") and "2 images, 100.0%" in out
    assert "quality" not in summary(tmp_path / "out")["figures"]
    label = FileReader()(load_pair_jsonl(tmp_path / "out" / "pairs.jsonl")[0]).sem_seg
    assert label.shape == (256, 256) and set(np.unique(label)) <= {0, 1, 2}
