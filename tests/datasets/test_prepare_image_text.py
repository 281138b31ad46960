"""Data sets of images and text: from the trees of their publishers to prepared folders, checked and loaded."""

import importlib
import json
import shutil
from pathlib import Path

import check_data
import numpy as np
import pytest
import rasterio

from mmovseg.config import instantiate, load_config
from mmovseg.data.datasets.manifest import read_manifest
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import read_captions
from mmovseg.projects.sartext.data.check import inspect_text_set
from mmovseg.projects.sartext.data.sets import (
    TEXT_SETS,
    find_text_set,
    load_text_set,
    read_shores,
    source_scene,
    text_sets_made_by,
)
from mmovseg.testing import trees_image_text as trees


@pytest.fixture
def run(tmp_path, capsys):
    def run_it(script, *arguments, source=None):
        status = 0
        try:
            main = importlib.import_module(f"prepare_{script}").main
            source = source or tmp_path / "source"
            main(["--source", str(source), "--output", str(tmp_path / "sets"), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run_it


@pytest.fixture
def load(tmp_path):
    return lambda name, split, **options: load_text_set(name, split, root=tmp_path / "sets", **options)


def faults(name, tmp_path, **options):
    return inspect_text_set(find_text_set(name), root=tmp_path / "sets", **options).faults


def pixels(path):
    with rasterio.open(path) as file:
        return file.read()


def test_hrsid_keeps_its_split_its_outlines_and_its_shores(run, load, tmp_path):
    trees.write_hrsid(tmp_path / "source")
    status, out, _ = run("hrsid")
    assert status == 0 and "train 6, test 3; 9 files copied, 0 were there" in out and "known of 9 images" in out
    items = load("hrsid", "train")
    assert [len(item["annotations"]) for item in items] == [1, 2, 3, 1, 2, 3]
    first = items[0]
    assert first["annotations"][0]["bbox"] == (2.0, 3.0, 8.0, 7.0) and "file_name" not in first
    source = tmp_path / "source/HRSID_JPG/JPEGImages/P0001_0_800_train_0.jpg"
    assert open(first["sar_file_name"], "rb").read() == source.read_bytes()
    written = json.loads((tmp_path / "sets/hrsid/train.json").read_text())
    assert written["annotations"][0]["segmentation"]
    shores = read_shores(tmp_path / "sets/hrsid/test.json")
    assert shores == {"0": "inshore", "1": "offshore", "2": "offshore"}
    report = inspect_text_set(find_text_set("hrsid"), root=tmp_path / "sets")
    assert report.faults == [] and report.pairs == {"train": 6, "test": 3}
    assert any("3 source scenes of 'hrsid' are in 'train' and in 'test'" in note for note in report.notes)
    assert run("hrsid")[1].startswith(f"{tmp_path / 'sets/hrsid'}: train 6, test 3; 0 files copied, 9 were there")
    assert "was begun with split = 'published', not 'scene'" in run("hrsid", "--split", "scene")[2]


def test_hrsid_can_be_split_by_scene(run, load, tmp_path):
    trees.write_hrsid(tmp_path / "source", train=8, test=4)
    assert run("hrsid", "--split", "scene", "--val-share", "0.5", "--seed", "3")[0] == 0
    found = {split: load("hrsid", split) for split in ("train", "val", "test")}
    scenes = {split: {source_scene("hrsid", item["sar_file_name"]) for item in items} for split, items in found.items()}
    assert {len(names) for names in scenes.values()} == {1} and len(set.union(*scenes.values())) == 3
    assert sum(len(items) for items in found.values()) == 12
    before = trees.coco_content([f"{n}" for n in range(8)])["annotations"] + trees.coco_content("abcd")["annotations"]
    assert sum(len(item["annotations"]) for items in found.values() for item in items) == len(before)
    for item in (item for items in found.values() for item in items):  # boxes went with their image
        image = pixels(item["sar_file_name"])[0]
        for annotation in item["annotations"]:
            x0, y0, x1, y1 = map(int, annotation["bbox"])
            assert image[y0:y1, x0:x1].mean() > 200
    assert faults("hrsid", tmp_path) == []


def test_a_scene_is_known_of_hrsid_alone():
    assert source_scene("hrsid", "a/P0012_1200_2000_0_800.jpg") == "P0012"
    assert source_scene("ssdd", "P0012_1200.jpg") == "P0012_1200"
    assert source_scene("hrsid", "odd.jpg") == "odd"


def test_ssdd_and_its_val(run, load, tmp_path):
    trees.write_ssdd(tmp_path / "source")
    status, out, _ = run("ssdd", "--val-share", "0.25")
    assert status == 0 and "train 6, val 2, test 2" in out
    assert [item["image_id"] for item in load("ssdd", "test")] == ["1", "2"]
    assert sorted(read_shores(tmp_path / "sets/ssdd/test.json").values()) == ["inshore", "offshore"]
    assert read_shores(tmp_path / "sets/ssdd/train.json") == {}
    assert faults("ssdd", tmp_path) == []
    assert "--val-share must be at least 0" in run("ssdd", "--val-share", "1.5")[2]


def test_sardet100k_has_six_categories(run, load, tmp_path, capsys):
    trees.write_sardet100k(tmp_path / "source")
    assert run("sardet100k", "--workers", 2)[0] == 0
    classes = {
        a["category_id"] for split in ("train", "val") for i in load("sardet100k", split) for a in i["annotations"]
    }
    assert classes == set(range(6))
    assert check_data.main(["sardet100k", "--root", str(tmp_path / "sets"), "--quiet"]) == 0
    assert "pairs: train 6, val 6, test 6; no fault" in capsys.readouterr().out


def test_the_detector_of_sardet100k_reads_what_was_prepared(run, tmp_path, monkeypatch):
    dataloader = load_config("projects/CoDeMAE/configs/faster_rcnn_sardet100k_b.py").dataloader
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    with pytest.raises(UserError, match="'sardet100k_train' is not there.*prepare_sardet100k.py"):
        instantiate(dataloader.train.dataset)
    trees.write_sardet100k(tmp_path / "source")
    assert run("sardet100k")[0] == 0
    dicts = instantiate(dataloader.train.dataset)
    assert [len(part) for part in (dicts, instantiate(dataloader.test.dataset))] == [6, 6]
    assert dicts[0]["annotations"][0]["bbox"] == (0, 3, 6, 7)  # what lay over the edge is cut
    assert {Path(item["sar_file_name"]).suffix for item in dicts} == {".jpg", ".png", ".bmp"}
    read = instantiate(dataloader.train.mapper.reader)
    assert {read(item).sar.shape for item in dicts} == {(32, 32, 3)}


def test_faults_of_boxes_are_one_sentence(run, load, tmp_path):
    trees.write_ssdd(tmp_path / "source")
    folder = tmp_path / "source/Official-SSDD-OPEN/BBox_SSDD/coco_style"
    path = folder / "annotations/train.json"
    text = path.read_text()
    path.write_text(text.replace('"name": "ship"', '"name": "Ship"'))
    image = next((folder / "images/train").iterdir())
    image.rename(tmp_path / "away.jpg")
    assert "the boxes of train name the image" in (err := run("ssdd")[2]) and "1 of 8 are missing" in err
    shutil.copy(tmp_path / "away.jpg", image)
    image.write_bytes(image.read_bytes()[:300])
    assert f"image '{image}' is damaged, cut off, or not a raster" in run("ssdd")[2]
    shutil.copy(tmp_path / "away.jpg", image)
    assert run("ssdd")[0] == 0 and len(load("ssdd", "train")) == 8  # goes on, and takes names in any case
    path.write_text(text.replace('"name": "ship"', '"name": "boat"'))
    shutil.rmtree(tmp_path / "sets")
    assert "has the category 'boat'; ssdd has: ship" in run("ssdd")[2]
    path.unlink()
    assert "the boxes of train: no BBox_SSDD/coco_style/annotations/train.json" in run("ssdd")[2]


def test_osdataset_keeps_both_images_of_a_pair(run, load, tmp_path):
    trees.write_osdataset(tmp_path / "source")
    status, out, _ = run("osdataset")
    assert status == 0 and out.count("train 3, val 3, test 3; 18 files copied") == 2
    for name, size in (("osdataset256", 256), ("osdataset512", 512)):
        item = load(name, "val")[1]
        assert item["image_id"] == "2" and item["gsd_m"] == 1.0
        np.testing.assert_array_equal(pixels(item["sar_file_name"])[0], trees.sar_image(f"{size}/val/2"))
        expected = trees.optical_image(f"{size}/val/2").transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels(item["file_name"]), expected)
        report = inspect_text_set(find_text_set(name), root=tmp_path / "sets")
        assert report.faults == [] and "32x32 pixels here" in report.notes[0]
    assert [known.name for known in text_sets_made_by("osdataset")] == ["osdataset256", "osdataset512"]
    (tmp_path / "source/OSdataset/256/val/sar2.png").unlink()
    shutil.rmtree(tmp_path / "sets")
    assert "opt2.png' has no partner sar2" in run("osdataset")[2]
    assert "neither 256/train nor 512/train" in run("osdataset", source=tmp_path / "source/OSdataset/512/test")[2]


def test_osdataset_of_one_size_and_folders_of_another_name(run, load, tmp_path):
    trees.write_osdataset(tmp_path / "source", sizes=(256,))
    base = tmp_path / "source/OSdataset"
    (base / "256").rename(base / "small")
    (base / "small/val").rename(base / "small/valid")
    status, out, _ = run("osdataset", "--folder-256", "small")
    assert status == 0 and "osdataset512: not in the source" in out and len(load("osdataset256", "val")) == 3


def test_qxs_is_drawn_by_blocks_of_numbers(run, load, tmp_path):
    trees.write_qxs_saropt(tmp_path / "source")
    status, out, _ = run("qxs_saropt", "--block", 4, "--test-share", 0.2, "--val-share", 0.2)
    assert status == 0 and "80 files copied" in out
    found = {split: {int(item["image_id"]) for item in load("qxs_saropt", split)} for split in ("train", "val", "test")}
    assert sorted(set.union(*found.values())) == list(range(1, 41)) and sum(map(len, found.values())) == 40
    blocks = {split: {number // 4 for number in numbers} for split, numbers in found.items()}
    assert not blocks["train"] & blocks["test"] and not blocks["train"] & blocks["val"]
    assert not blocks["val"] & blocks["test"] and len(blocks["test"]) == len(blocks["val"]) == 2
    assert read_manifest(tmp_path / "sets/qxs_saropt")["made_by"]["block"] == 4
    assert faults("qxs_saropt", tmp_path) == []
    again = importlib.import_module("prepare_qxs_saropt").draw_split(
        [str(n) for n in reversed(range(1, 41))], block=4, val_share=0.2, test_share=0.2, seed=0
    )
    assert {split: set(map(int, names)) for split, names in again.items()} == found  # whatever the order
    assert "leave some for train" in run("qxs_saropt", "--val-share", 0.5, "--test-share", 0.5)[2]


def test_qxs_takes_lists(run, load, tmp_path):
    trees.write_qxs_saropt(tmp_path / "source", numbers=(1, 2, 3))
    (tmp_path / "a.txt").write_text("opt_256_oc_0.2/1.png\n3.png\n")
    (tmp_path / "b.txt").write_text("2.png\n")
    assert run("qxs_saropt", "--train-list", tmp_path / "a.txt", "--test-list", tmp_path / "b.txt")[0] == 0
    assert [item["image_id"] for item in load("qxs_saropt", "train")] == ["1", "3"]
    with pytest.raises(UserError, match="'qxs_saropt_val' is not there: no folder .*prepare_qxs_saropt.py"):
        load("qxs_saropt", "val")
    assert faults("qxs_saropt", tmp_path) == []


@pytest.mark.parametrize("name", trees.CAPTION_TREES)
def test_captions_come_with_their_images(run, load, tmp_path, name, capsys):
    trees.write_captioned(name, tmp_path / "source")
    status, out, _ = run(name)
    splits = ("train", "test") if name == "rsitmd" else ("train", "val", "test")
    numbers = ", ".join(f"{split} 4" for split in splits)
    assert (
        status == 0 and f"{numbers}; {4 * len(splits)} files copied, 0 were there; {20 * len(splits)} captions" in out
    )
    for split in splits:
        items = load(name, split)
        assert [item["image_id"] for item in items] == [f"{split}_{number}" for number in range(1, 5)]
        assert items[2]["captions"][4] == f"5 planes are in the {split} airport number 3 ."
        assert "sar_file_name" not in items[0]
    record = read_captions(tmp_path / "sets" / name / "test.jsonl")[0]
    assert (record.source, record.route, record.split) == (name, "human", "test")
    assert check_data.main([name, "--root", str(tmp_path / "sets"), "--quiet"]) == 0
    assert "no fault" in capsys.readouterr().out


def test_captions_of_text_files(run, load, tmp_path):
    trees.write_captioned("rsicd", tmp_path / "source", as_text=True)
    status, out, _ = run("rsicd", "--val-share", 0.25)
    assert status == 0 and "train 6, val 2, test 4" in out
    val, test = load("rsicd", "val"), load("rsicd", "test")
    assert {len(item["captions"]) for item in val + test} == {5}
    assert all(item["image_id"].split("_")[1] in item["captions"][0] for item in val + test)


def test_faults_of_captions_are_one_sentence(run, load, tmp_path):
    assert "source" in run("ucm")[2]
    source = trees.write_captioned("ucm", tmp_path / "source")
    path = source / "UCM_captions/dataset.json"
    content = json.loads(path.read_text())
    content["images"][0]["sentences"][2]["raw"] = " "
    path.write_text(json.dumps(content))
    assert "dataset.json' image 0: caption 3 of image 'train_1.tif' is empty" in run("ucm")[2]
    (source / "UCM_captions/imgs/test_2.tif").unlink()
    assert "the captions name the image 'test_2'" in run("ucm", "--drop-empty")[2]
    status, out, _ = run("ucm", "--drop-empty", "--skip-missing")
    assert status == 0 and "1 captioned images are missing" in out and "54 captions" in out
    assert len(load("ucm", "test")) == 3 and len(load("ucm", "train")[0]["captions"]) == 4
    for split in ("middle",):
        content["images"][1]["split"] = split
        path.write_text(json.dumps(content))
        assert "name the split 'middle'; known: train, val, test" in run("ucm", "--drop-empty")[2]
    path.unlink()
    assert "neither dataset.json nor dataset_ucm.json nor test_caps.txt" in run("ucm")[2]


def test_the_check_sees_texts_that_do_not_fit(run, tmp_path, capsys):
    trees.write_captioned("sydney", tmp_path / "source")
    run("sydney")
    root = tmp_path / "sets/sydney"
    (root / "val/optical/val_1.tif").unlink()
    lines = (root / "test.jsonl").read_text().splitlines(keepends=True)
    (root / "test.jsonl").write_text("".join(lines[1:]))
    (root / "train.jsonl").write_bytes(b"\xff\n")
    report = inspect_text_set(find_text_set("sydney"), root=tmp_path / "sets")
    kinds = {(fault.kind, fault.path.rsplit("/", 1)[1]) for fault in report.faults}
    assert kinds == {("missing_optical", "val_1.*"), ("wrong_texts", "val.jsonl"), ("wrong_texts", "train.jsonl")}
    assert "split 'test' of 'sydney': 1 images are not named by its captions" in report.notes
    arguments = ["sydney", "--root", str(tmp_path / "sets"), "--quiet"]
    assert check_data.main(arguments) == 1 and check_data.main([*arguments, "--split", "test"]) == 0
    with pytest.raises(SystemExit):
        check_data.main([*arguments, "--split", "other"])


def test_a_caption_file_takes_the_place_of_the_sets_own(run, load, tmp_path):
    trees.write_ssdd(tmp_path / "source")
    run("ssdd")
    line = {"image": "test/sar/000009.jpg", "image_id": "x", "source": "ssdd", "route": "annotation", "split": "test"}
    path = tmp_path / "made.jsonl"
    path.write_text(json.dumps({**line, "captions": ["two ships"]}) + "\n")
    (item,) = load("ssdd", "test", captions=path)
    assert item["captions"] == ["two ships"] and item["annotations"] and item["image_id"] == "2"
    other = {**line, "image": "train/sar/000002.jpg", "captions": ["a ship"]}
    path.write_text(json.dumps(other) + "\n")
    with pytest.raises(UserError, match="names '.*000002.jpg', which ssdd_test has not"):
        load("ssdd", "test", captions=path)


def test_unknown_sets_and_splits_are_refused(load):
    with pytest.raises(UserError, match="unknown data set 'hrsd'; sets of images and text: hrsid, ssdd"):
        load("hrsd", "train")
    with pytest.raises(UserError, match="'sardet100k' has no split 'dev'; it has: train, val, test"):
        load("sardet100k", "dev")
    assert text_sets_made_by("pie") == [] and len({known.name for known in TEXT_SETS}) == 10
