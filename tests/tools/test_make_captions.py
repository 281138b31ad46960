"""The command that makes captions, on made-up COCO files, label folders and MiniEarth."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import make_captions
import numpy as np
import pytest
from PIL import Image

from mmovseg.data.miniearth import MiniEarthReader, load_miniearth
from mmovseg.data.miniearth.regions import CLASS_NAMES, TARGET_CATEGORIES
from mmovseg.projects.sartext.captioning import sources
from mmovseg.projects.sartext.captioning.exchange import import_rsicd
from mmovseg.projects.sartext.captioning.facts import CELLS
from mmovseg.projects.sartext.captioning.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.parsing import parse_caption
from mmovseg.projects.sartext.captioning.schema import load_caption_jsonl, read_captions, write_captions
from mmovseg.projects.sartext.captioning.shards import import_webdataset
from mmovseg.projects.sartext.captioning.sources import MiniEarthScenes
from mmovseg.testing.trees_sar import write_sar_tree


def run(*words):
    make_captions.main([str(word) for word in words])


def fails(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


@pytest.fixture
def coco(tmp_path):
    """Two splits with two images each, boxes as x, y, width, height."""
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    for split, first in (("train", 0), ("test", 2)):
        images, annotations = [], []
        for number in (first, first + 1):
            Image.fromarray(np.zeros((60, 90), dtype=np.uint8)).save(root / f"images/{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": 60, "width": 90})
        for x, y in ((5, 5), (70, 45)):
            annotations.append({"image_id": first, "category_id": 7, "bbox": [x, y, 10, 8], "id": len(annotations)})
        categories = [{"id": 7, "name": "Ship"}, {"id": 9, "name": "storage_tank"}]
        images[1]["land_ratio"] = 1.0
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def annotate(coco, output, *more):
    run(
        *("annotations", "--coco", f"train={coco}/train.json", f"test={coco}/test.json", "--root", coco),
        *("--images", "images", "--source", "made", "--output", output, *more),
    )


def test_annotations(coco, tmp_path, capsys):
    (coco / "harbour.txt").write_text("0.png\nelsewhere/2.png\n")
    annotate(coco, tmp_path / "a.jsonl", "--scene", f"inshore={coco}/harbour.txt", "--num-captions", 3)
    assert "4 images with 12 captions" in capsys.readouterr().out
    records = read_captions(tmp_path / "a.jsonl")
    assert [(record.image, record.image_id, record.split) for record in records] == [
        ("images/0.png", "images/0", "train"),
        ("images/1.png", "images/1", "train"),
        ("images/2.png", "images/2", "test"),
        ("images/3.png", "images/3", "test"),
    ]
    facts = [record.provenance["facts"] for record in records]
    assert facts[0] == {
        "objects": {"Ship": {"count": 2, "cells": {"top left": 1, "bottom right": 1}}},
        "scene": "inshore",
    }
    assert facts[1] == {"objects": {}, "scene": "inland"}
    assert records[0].provenance["classes"] == ["Ship", "storage_tank"]
    assert "two ships" in records[0].captions[0] or "two vessels" in records[0].captions[0]
    assert "storage tanks" in records[1].captions[0]
    dicts = load_caption_jsonl(tmp_path / "a.jsonl", root=coco, split="test")
    assert [item["image_id"] for item in dicts] == ["images/2", "images/3"]
    annotate(coco, tmp_path / "b.jsonl", "--empty", "skip")
    assert "2 images with 10 captions" in capsys.readouterr().out
    annotate(coco, tmp_path / "a.jsonl", "--verify", "--scene", f"inshore={coco}/harbour.txt")
    assert "4 of 4 images agree with their annotation (12 captions read back" in capsys.readouterr().out


def test_annotations_of_a_prepared_set(coco, tmp_path, capsys):
    """Its splits lie in folders, ``<set>/<split>/sar`` beside ``<set>/<split>.json``."""
    root = tmp_path / "sets"
    for split in ("train", "test"):
        (root / "ssdd" / split / "sar").mkdir(parents=True)
        content = json.loads((coco / f"{split}.json").read_text())
        for image in content["images"]:
            (coco / "images" / image["file_name"]).rename(root / "ssdd" / split / "sar" / image["file_name"])
        (root / "ssdd" / f"{split}.json").write_text(json.dumps(content))
    words = ("annotations", "--root", root, "--output", tmp_path / "a.jsonl", "--dataset")
    run(*words, "ssdd")
    records = read_captions(tmp_path / "a.jsonl")
    assert [(record.image, record.source) for record in records] == [
        (f"ssdd/{split}/sar/{number}.png", "ssdd")
        for split, number in (("train", 0), ("train", 1), ("test", 2), ("test", 3))
    ]
    run(*words, "ssdd", "--split", "test")
    assert read_captions(tmp_path / "a.jsonl") == records[2:]
    assert "is a set of captions, it has no boxes" in fails(capsys, *words, "rsicd")
    assert "has no split of hrsid; make it with datasets/prepare_hrsid.py" in fails(capsys, *words, "hrsid")
    assert "without --dataset, --coco must be given" in fails(capsys, *words[:-1])
    given = ("--coco", f"a={coco}/train.json", "--source", "made", "--split", "a")
    assert "--split needs --dataset" in fails(capsys, *words[:-1], *given)


@pytest.fixture
def ships(tmp_path):
    """A training split of small ships, a test split of large ones: enough of them that there are size words."""
    root = tmp_path / "sets"
    for split, count, side in (("train", 40, 4), ("test", 35, 30)):
        (root / "ssdd" / split / "sar").mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            name = f"{split}{number}.png"
            Image.fromarray(np.zeros((60, 90), dtype=np.uint8)).save(root / "ssdd" / split / "sar" / name)
            images.append({"id": number, "file_name": name, "height": 60, "width": 90})
            box = [40, 20, side + number / 10, side]
            annotations.append({"image_id": number, "category_id": 1, "bbox": box, "id": number})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ship"}]}
        (root / "ssdd" / f"{split}.json").write_text(json.dumps(content))
    return root


def sizes(path, split="test"):
    records = [record for record in read_captions(path) if record.split == split]
    return {record.provenance["facts"]["objects"]["ship"].get("size") for record in records}


def test_size_words_follow_from_the_training_split(ships, tmp_path, capsys):
    out = tmp_path / "a.jsonl"
    words = ("annotations", "--root", ships, "--output", out, "--dataset", "ssdd", "--split")
    run(*words, "train", "test")
    both = read_captions(out)
    assert sizes(out, "train") == {"small", "medium", "large"} and sizes(out) == {"large"}
    run(*words, "test", "train")
    assert sorted(read_captions(out), key=lambda one: one.image) == sorted(both, key=lambda one: one.image)
    run(*words, "test")
    assert read_captions(out) == both[40:]
    run(*words, "test", "--verify")
    run(*words, "test", "--sizes-from", "test")
    assert sizes(out) == {"small", "medium", "large"}
    files = [f"{split}={ships}/ssdd/{split}.json" for split in ("test", "train")]
    words = ("annotations", "--root", ships / "ssdd", "--images", "{split}/sar", "--source", "made", "--output", out)
    words += ("--coco", files[0])
    run(*words, files[1])
    assert sizes(out) == {"large"}
    run(*words, "--sizes-from", files[1])
    assert sizes(out) == {"large"} and len(read_captions(out)) == 35
    capsys.readouterr()
    run(*words)
    assert sizes(out) == {"small", "medium", "large"}
    assert "there is no training split: small and large follow from the captioned images" in capsys.readouterr().out
    error = fails(capsys, *words, "--sizes-from", "val")
    assert "--sizes-from 'val' is no split of --coco, which has: test;" in error
    (ships / "ssdd/train.json").unlink()
    assert "train.json' cannot be read" in fails(capsys, *words, "--sizes-from", files[1])


def test_size_words_of_miniearth_are_those_of_its_training_scenes(tmp_path, monkeypatch):
    few = MiniEarthScenes("test", 3, 64)
    assert few.sizing().split == "train" and few.sizing().num_scenes == 500
    assert MiniEarthScenes("val", 3, 256, "unseen_region").sizing() == MiniEarthScenes(
        "train", 31, 256, "unseen_region"
    )
    sized = []
    monkeypatch.setattr(sources, "SIZING_SCENES", 2)
    monkeypatch.setattr(make_captions, "fit_size_limits", lambda images, rules: sized.extend(images) or {})
    miniearth(tmp_path / "a.jsonl", "annotation", 1)
    assert [image.split for image in sized] == ["train", "train"]


def test_scene_lists_of_one_word_are_united(coco, tmp_path, capsys):
    for name, images in (("a", "0.png"), ("b", "3.png"), ("c", "9.png")):
        (coco / f"{name}.txt").write_text(f"{images}\n")
    out = tmp_path / "a.jsonl"
    annotate(coco, out, "--scene", f"inshore={coco}/a.txt", f"inshore={coco}/b.txt")
    scenes = [one.provenance["facts"].get("scene") for one in read_captions(out)]
    assert scenes == ["inshore", "inland", None, "inshore"]
    words = ("annotations", "--coco", f"train={coco}/train.json", "--root", coco, "--images", "images")
    error = fails(capsys, *words, "--source", "x", "--output", out, "--scene", f"offshore={coco}/c.txt")
    assert "c.txt' of --scene offshore names no image of these files, but for example '9' where they have '0'" in error


def test_verify_counts_missing_images_and_silent_captions(coco, tmp_path, capsys):
    out = tmp_path / "a.jsonl"
    annotate(coco, out)
    records = read_captions(out)
    words = ("annotations", "--coco", f"train={coco}/train.json", f"test={coco}/test.json", "--root", coco)
    words += ("--images", "images", "--source", "made", "--output", out, "--verify")
    write_captions(out, records[:1])
    with pytest.raises(SystemExit):
        run(*words)
    said = capsys.readouterr()
    assert "1 of 4 images agree with their annotation (5 captions read back" in said.out
    assert "image 'images/1' is annotated and has no caption in the file" in said.err
    write_captions(out, [replace(records[0], captions=("five hulls lie off the coast",), provenance={}), *records[1:]])
    with pytest.raises(SystemExit):
        run(*words)
    said = capsys.readouterr()
    assert "3 of 4 images agree" in said.out
    assert "image 'images/0': 'five hulls lie off the coast' names no annotated class" in said.err


def test_verify_finds_a_changed_annotation(coco, tmp_path, capsys):
    annotate(coco, tmp_path / "a.jsonl")
    content = json.loads((coco / "test.json").read_text())
    content["annotations"].append({"image_id": 2, "category_id": 7, "bbox": [40, 25, 9, 9], "id": 99})
    (coco / "test.json").write_text(json.dumps(content))
    words = ("annotations", "--coco", f"train={coco}/train.json", f"test={coco}/test.json", "--root", coco)
    error = fails(
        capsys, *words, "--images", "images", "--source", "made", "--output", tmp_path / "a.jsonl", "--verify"
    )
    assert "image 'images/2'" in error and "says 2 'Ship' (object), not 3" in error


def test_bad_annotations_are_refused(coco, tmp_path, capsys):
    words = ("annotations", "--root", coco, "--images", "images", "--source", "made", "--output", tmp_path / "a.jsonl")
    train = f"train={coco}/train.json"
    (coco / "list.txt").write_text("0.png\n")
    lists = ("--scene", f"inshore={coco}/list.txt", f"offshore={coco}/list.txt")
    assert "is not of the form NAME=FILE" in fails(capsys, *words, "--coco", "train.json")
    assert "none.json' cannot be read" in fails(capsys, *words, "--coco", f"train={coco}/none.json")
    assert "got the word 'sea'" in fails(capsys, *words, "--coco", train, "--scene", f"sea={coco}/list.txt")
    assert "'images/0.png' is in the lists of two scenes" in fails(capsys, *words, "--coco", train, *lists)
    assert "at least 1 caption, got 0" in fails(capsys, *words, "--coco", train, "--num-captions", 0)
    (coco / "images/1.png").unlink()
    assert "1.png', which" in fails(capsys, *words, "--coco", train)
    assert not (tmp_path / "a.jsonl").exists()


@pytest.fixture
def labels(tmp_path):
    root = tmp_path / "maps"
    rng = np.random.default_rng(0)
    for kind in ("sar", "label"):
        (root / kind).mkdir(parents=True)
    for number in range(3):
        label = np.zeros((40, 40), dtype=np.uint8)
        label[:20] = 4
        label[20:26, :] = 1
        Image.fromarray(label if number else np.full_like(label, 255)).save(root / f"label/{number}.png")
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(root / f"sar/{number}.png")
    return root


def test_segmentation_of_folders(labels, tmp_path, capsys):
    words = ("segmentation", "--sar", labels / "sar", "--root", labels, "--source", "made", "--split", "val")
    words += ("--output", tmp_path / "a.jsonl", "--labels", labels / "label", "--vocabulary")
    run(*words, "ddhr_sk")
    assert "2 images with 10 captions" in capsys.readouterr().out
    records = read_captions(tmp_path / "a.jsonl")
    assert [(record.image, record.split) for record in records] == [("sar/1.png", "val"), ("sar/2.png", "val")]
    cover = records[0].provenance["facts"]["cover"]
    assert {name: known["level"] for name, known in cover.items()} == {
        "farmland": "large",
        "city": "large",
        "road": "some",
    }
    assert cover["road"]["courses"] == ["left to right"]
    run(*words, "ddhr_sk", "--verify")
    assert "2 of 2 images agree" in capsys.readouterr().out
    error = fails(capsys, *words, "sarbud")
    assert "label/1.png': label 4 is none of the 2 classes" in error
    assert "needs whole numbers such as 255=1" in fails(capsys, *words, "ddhr_sk", "--label-map", "a=1")
    run(*words, "ombria", "--label-map", "0=0", "4=0", "1=1")
    assert set(read_captions(tmp_path / "a.jsonl")[0].provenance["facts"]["cover"]) == {"dry land", "flood water"}
    assert "need --labels" in fails(capsys, "segmentation", "--split", "val", "--output", tmp_path / "b.jsonl")
    assert "unknown data set 'nowhere'" in fails(
        capsys, "segmentation", "--dataset", "nowhere", "--split", "val", "--output", tmp_path / "b.jsonl"
    )


def test_segmentation_of_a_named_set(tmp_path, capsys, monkeypatch):
    write_sar_tree(tmp_path / "sets", names=["ddhr_korea"], count=2)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    words = ("segmentation", "--split", "test", "--output", tmp_path / "a.jsonl", "--dataset")
    run(*words, "ddhr_korea")
    first, second = read_captions(tmp_path / "a.jsonl")
    assert first.image.startswith("ddhr_korea/test/sar/") and first.source == "ddhr_korea" and first.split == "test"
    assert first.provenance["classes"] == ["building", "farmland", "greenery", "road", "water"]
    assert "use the subcommand miniearth" in fails(capsys, *words, "miniearth")


def test_export(coco, tmp_path, capsys):
    annotate(coco, tmp_path / "a.jsonl")
    records = read_captions(tmp_path / "a.jsonl")
    words = ("export", "--captions", tmp_path / "a.jsonl", "--output")
    run(*words, tmp_path / "a.tsv", "--layout", "open_clip", "--split", "train")
    assert len((tmp_path / "a.tsv").read_text().splitlines()) == 11
    run(*words, tmp_path / "a.json", "--layout", "rsicd")
    assert [record.captions for record in import_rsicd(tmp_path / "a.json")] == [record.captions for record in records]
    run(*words, tmp_path / "wds", "--layout", "webdataset", "--root", coco, "--shard-size", 3)
    assert import_webdataset(tmp_path / "wds") == records
    assert "4 images in 2 archives" in capsys.readouterr().out
    double = ("export", "--captions", tmp_path / "a.jsonl", tmp_path / "a.jsonl", "--output", tmp_path / "x")
    error = fails(capsys, *double, "--layout", "rsicd")
    assert "the image 'images/0.png' is in more than one of the caption files" in error
    assert "say with --root" in fails(capsys, *words, tmp_path / "x", "--layout", "webdataset")
    error = fails(capsys, *words, tmp_path / "x", "--layout", "rsicd", "--split", "val")
    assert "no caption record is of the split 'val'; the files have: test, train" in error


def miniearth(output, route, count, *more, size=64):
    words = (
        "miniearth",
        "--route",
        route,
        "--split",
        "test",
        "--num-scenes",
        count,
        "--size",
        size,
        "--output",
        output,
    )
    run(*words, *more)
    return read_captions(output)


def check_objects(record, sample, size):
    """Compare what the captions say with the targets, counted and placed here anew."""
    lexicon = load_lexicon().for_classes(TARGET_CATEGORIES)
    true = Counter(target["category"] for target in sample.facts["targets"])
    said = [parse_caption(text, lexicon) for text in record.captions]
    for parsed in said:
        for category, count in parsed.counts().items():
            assert count == (true[category] if true[category] <= 10 else "more than ten")
    seen = {category for parsed in said for category in parsed.counts()}
    assert seen == (set(true) or set(TARGET_CATEGORIES))
    for mention in (mention for parsed in said for mention in parsed.mentions if len(mention.places) == 1):
        if true[mention.category] == 1:
            (box,) = [target["box"] for target in sample.facts["targets"] if target["category"] == mention.category]
            row, column = (int(1.5 * (box[i] + box[i + 2]) / size) for i in (1, 0))
            assert mention.places[0][0] == CELLS[row][column]
    return len(said)


def check_cover(record, sample):
    lexicon = load_lexicon().for_classes(CLASS_NAMES)
    shares = {name: 100 * (sample.sem_seg == index).mean() for index, name in enumerate(CLASS_NAMES)}
    for text in record.captions:
        for mention in parse_caption(text, lexicon).mentions:
            share = shares[mention.category]
            assert share >= 5 and (mention.percent is None or abs(mention.percent - share) <= 2.51)
            assert mention.level in (None, "dominant" if share > 50 else "large" if share >= 20 else "some")


@pytest.fixture
def kept_scenes(monkeypatch):
    """Scenes are rendered once for all that a test does with them."""
    reader = MiniEarthReader()
    monkeypatch.setattr(sources, "READER", reader)
    monkeypatch.setattr(sources, "SIZING_SCENES", 50)
    monkeypatch.setattr(MiniEarthReader, "_kept", {})
    monkeypatch.setattr(MiniEarthReader, "_bytes", 0)
    return reader


def check_miniearth(reader, tmp_path, count, size, *more):
    objects = miniearth(tmp_path / "objects.jsonl", "annotation", count, *more, size=size)
    cover = miniearth(tmp_path / "cover.jsonl", "segmentation", count, *more, size=size)
    scenes = load_miniearth("test", num_scenes=count, size=size)
    ids = [scene["image_id"] for scene in scenes]
    assert [record.image_id for record in objects] == ids == [record.image_id for record in cover]
    for scene, first, second in zip(scenes, objects, cover, strict=True):
        sample = reader(scene)
        check_objects(first, sample, size)
        check_cover(second, sample)


def test_fifty_scenes_of_miniearth_read_back_to_the_annotation(tmp_path, kept_scenes):
    check_miniearth(kept_scenes, tmp_path, 50, 64)


def test_options_of_the_other_route_are_refused(tmp_path, capsys):
    words = ("miniearth", "--split", "test", "--num-scenes", 1, "--output", tmp_path / "a.jsonl", "--route")
    assert "--min-share means nothing to --route annotation" in fails(capsys, *words, "annotation", "--min-share", 0.1)
    assert "--empty means nothing to --route segmentation" in fails(capsys, *words, "segmentation", "--empty", "skip")
    assert "--num-scenes must be at least 1, got 0" in fails(capsys, *words, "annotation", "--num-scenes", 0)


@pytest.mark.realdata
def test_flood_masks_give_captions_that_agree_with_them(realdata, tmp_path):
    folder = realdata / "ombria/train"
    run(
        *("segmentation", "--sar", folder / "s1_after", "--labels", folder / "mask", "--root", folder, "--source", "x"),
        *(
            "--split",
            "train",
            "--vocabulary",
            "ombria",
            "--label-map",
            "0=0",
            "255=1",
            "--output",
            tmp_path / "a.jsonl",
        ),
    )
    lexicon = load_lexicon().for_classes(["dry land", "flood water"])
    records = read_captions(tmp_path / "a.jsonl")
    assert len(records) == len(list((folder / "mask").glob("*.png")))
    for record in records[:40]:
        flooded = 100 * np.mean(np.array(Image.open(folder / "mask" / record.image.split("/")[1])) == 255)
        for parsed in (parse_caption(text, lexicon) for text in record.captions):
            for mention in parsed.mentions:
                share = flooded if mention.category == "flood water" else 100 - flooded
                assert share >= 5 and (mention.percent is None or abs(mention.percent - share) <= 2.51)


@pytest.mark.slow
def test_a_thousand_scenes_of_miniearth_read_back_to_the_annotation(tmp_path, kept_scenes, capsys):
    check_miniearth(kept_scenes, tmp_path, 1000, 64)
    miniearth(tmp_path / "objects.jsonl", "annotation", 1000, "--verify")
    assert "1000 of 1000 images agree with their annotation (5000 captions" in capsys.readouterr().out


@pytest.mark.slow
def test_workers_and_repetition_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SIZING_SCENES", 12)
    for route in ("annotation", "segmentation"):
        paths = [tmp_path / f"{route}{number}.jsonl" for number in range(2)]
        miniearth(paths[0], route, 12)
        miniearth(paths[1], route, 12, "--workers", 2)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        longer = miniearth(tmp_path / "longer.jsonl", "segmentation", 15)
        assert route == "annotation" or longer[:12] == read_captions(paths[0])
