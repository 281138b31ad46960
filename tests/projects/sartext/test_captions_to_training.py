"""From a prepared set over the command that makes captions to the loaders of the large configs."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import make_captions
import pytest

from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, load_caption_jsonl, read_captions, write_captions
from mmovseg.projects.sartext.data.sets import load_text_set
from mmovseg.testing import trees_image_text as trees

CONFIGS = Path(__file__).parents[3] / "projects" / "SARText" / "configs"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A small HRSID and SSDD, prepared, in the folder of all data sets; the working folder is another one."""
    for name in ("hrsid", "ssdd"):
        getattr(trees, f"write_{name}")(tmp_path / "source")
        script = importlib.import_module(f"prepare_{name}")
        script.main(["--source", str(tmp_path / "source"), "--output", str(tmp_path / "sets")])
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("hrsid", "ssdd"):
        make_captions.main(["annotations", "--dataset", name, "--output", f"output/{name}.jsonl"])
    return tmp_path


def test_the_large_configs_read_what_the_commands_write(prepared):
    config = load_config(CONFIGS / "clip_sar_l14.py")
    train, test = (config.dataloader[part] for part in ("train", "test"))
    assert len(instantiate(train.dataset)) == 6
    found = instantiate(test.dataset)
    assert [Path(item["sar_file_name"]).parent for item in found] == 3 * [prepared / "sets/hrsid/test/sar"]
    apply_overrides(config, ["dataloader.test.num_workers=0"])
    (batch,) = instantiate(config.dataloader.test)
    assert [item["captions"] for item in batch] == [item["captions"] for item in found]
    assert batch[0]["sar"].shape[1:] == (32, 32)
    both = [f"dataloader.{part}.dataset.path=[output/hrsid.jsonl,output/ssdd.jsonl]" for part in ("train", "test")]
    apply_overrides(config, both)
    assert len(instantiate(train.dataset)) == 6 + 8
    assert [item["source"] for item in instantiate(test.dataset)] == 3 * ["hrsid"] + 2 * ["ssdd"]


def test_a_set_takes_made_captions_by_either_path(prepared):
    made = load_text_set("hrsid", "test", captions="output/hrsid.jsonl")
    records = read_captions("output/hrsid.jsonl")
    assert [tuple(item["captions"]) for item in made] == [one.captions for one in records if one.split == "test"]
    inside = [replace(one, image=one.image.removeprefix("hrsid/")) for one in records]
    write_captions("inside.jsonl", inside)
    assert load_text_set("hrsid", "test", captions="inside.jsonl") == made
    write_captions("other.jsonl", [replace(records[-1], image="hrsid/test/sar/none.jpg")])
    with pytest.raises(UserError, match=r"other\.jsonl' names '.*none\.jpg', which hrsid_test has not"):
        load_text_set("hrsid", "test", captions="other.jsonl")


def test_captions_of_boxes_know_their_source_scene(prepared):
    scenes = [one.provenance["scene"] for one in read_captions("output/hrsid.jsonl")]
    assert scenes == 3 * ["P0001", "P0002", "P0003"]
    assert all("scene" not in one.provenance for one in read_captions("output/ssdd.jsonl"))


def test_several_caption_files_are_put_together(tmp_path):
    first = CaptionRecord("a/1.png", "1", "one", "human", "train", ("x",))
    second = replace(first, image="b/1.png", source="two")
    third = replace(first, image="b/2.png", image_id="2", source="two", split="val")
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    write_captions(paths[0], [first])
    write_captions(paths[1], [second, third])
    items = load_caption_jsonl(paths, root="root", check_images=False)
    assert [(item["image_id"], item["sar_file_name"]) for item in items] == [
        ("one/1", "root/a/1.png"),
        ("two/1", "root/b/1.png"),
        ("2", "root/b/2.png"),
    ]
    assert [item["source"] for item in load_caption_jsonl(paths, split="val", check_images=False)] == ["two"]
    with pytest.raises(UserError, match=r"a\.jsonl' and '.*b\.jsonl' have no split 'test'; there is: train, val"):
        load_caption_jsonl(paths, split="test", check_images=False)
    write_captions(paths[1], [first])
    with pytest.raises(UserError, match=r"image 'root/a/1\.png' is in both '.*a\.jsonl' and '.*b\.jsonl'"):
        load_caption_jsonl(paths, root="root", check_images=False)
    with pytest.raises(UserError, match="no caption file to load"):
        load_caption_jsonl([])
