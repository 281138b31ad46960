"""The caption record and its file: what goes in comes out, and bad files are refused by line."""

from __future__ import annotations

import json

import pytest

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import (
    CaptionRecord,
    load_caption_jsonl,
    parse_record,
    read_captions,
    write_captions,
)


def record(number=0, **changes):
    facts = {"seed": 0, "version": "1", "rules": [["a"], ["b", "c"]], "facts": {"objects": {}}}
    values = {
        "image": f"test/sar/{number}.png",
        "image_id": str(number),
        "source": "made",
        "route": "annotation",
        "split": "test",
        "captions": ("a ship, “quoted”", "ein Schiff für sich"),
        "provenance": facts,
    }
    return CaptionRecord(**(values | changes))


def line(**changes):
    return json.dumps(record().to_dict() | changes).encode()


def test_records_come_back_as_they_were(tmp_path):
    records = [record(0), record(1, split="train", optical_image="test/optical/1.png"), record(2, provenance={})]
    assert write_captions(tmp_path / "a.jsonl", iter(records)) == 3
    assert read_captions(tmp_path / "a.jsonl") == records
    write_captions(tmp_path / "b.jsonl", read_captions(tmp_path / "a.jsonl"))
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert "für" in (tmp_path / "a.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no caption record"),
        (line() + b"\n\n" + line(image="other.png"), "line 3: the image_id '0' is also in line 1"),
        (line() + b"\n" + line(image_id="x"), "line 2: the image 'test/sar/0.png' is also in line 1"),
        (line(captions=["fine", "  "]), "line 1: caption 2 of image 'test/sar/0.png' is empty"),
        (line(captions=[]), "line 1: image 'test/sar/0.png' has no caption"),
        (line(captions="one"), "line 1: captions must be a list"),
        (line(captions=[3]), "caption 1 of image 'test/sar/0.png' must be a text, got 3"),
        (line(captions=["only one"]), "provenance has not one list of rules for each caption"),
        (b'{"image": "a.png"}', "line 1: the key 'image_id' is missing"),
        (line(colour="red"), "line 1: the key 'colour' is unknown"),
        (line(route="guessing"), "line 1: route is 'guessing'"),
        (line(image="/data/a.png"), "line 1: image is the absolute path '/data/a.png'"),
        (line(source=""), "line 1: source is empty"),
        (line(provenance=[1]), "line 1: provenance must be an object"),
        (b"[1]", "line 1: it is not a JSON object"),
        (line()[:-2], "line 1 is not valid JSON"),
        (line() + b"\n" + "gr\u00fcn".encode("latin-1"), "line 2 is not UTF-8 text: byte 3 is 0xfc"),
        (line(captions=["a\ud800", "b"]), "caption 1 of image 'test/sar/0.png' holds half a character"),
    ],
)
def test_bad_files_are_refused_by_line(tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_captions(tmp_path / "bad.jsonl")
    assert message in str(caught.value) and "bad.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.jsonl' cannot be read"):
        read_captions(tmp_path / "none.jsonl")


def test_nothing_is_left_of_a_failed_write(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(UserError, match="record 2: the image 'test/sar/0.png' is also in line 1"):
        write_captions(path, [record(0), record(0, image_id="9")])
    with pytest.raises(UserError, match="there is no caption record"):
        write_captions(path, [])
    assert list(tmp_path.iterdir()) == []


def test_dropping_captions_drops_their_rules():
    kept = record().with_captions([1])
    assert kept.captions == ("ein Schiff für sich",)
    assert kept.provenance["rules"] == [["b", "c"]]
    assert record().provenance["rules"] == [["a"], ["b", "c"]]


def test_parse_record_needs_no_provenance():
    content = record().to_dict()
    del content["provenance"]
    assert parse_record(content).provenance == {}


def test_dataset_dicts(tmp_path):
    records = [record(0), record(1, split="train", optical_image="test/optical/1.png")]
    write_captions(tmp_path / "a.jsonl", records)
    both = load_caption_jsonl(tmp_path / "a.jsonl", check_images=False)
    assert both[0]["sar_file_name"] == str(tmp_path / "test/sar/0.png") and "file_name" not in both[0]
    assert both[1]["file_name"] == str(tmp_path / "test/optical/1.png")
    assert both[0]["captions"] == list(records[0].captions) and both[0]["source"] == "made"
    optical = load_caption_jsonl(tmp_path / "a.jsonl", role="optical", split="train", root="x", check_images=False)
    assert optical == [
        {"image_id": "1", "captions": list(records[1].captions), "source": "made", "file_name": "x/test/sar/1.png"}
    ]
    with pytest.raises(UserError, match=r"names '.*0\.png', which does not exist \(3 of 3 images\)"):
        load_caption_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(UserError, match="has no split 'val'; there is: test, train"):
        load_caption_jsonl(tmp_path / "a.jsonl", split="val")
    with pytest.raises(UserError, match="role is 'radar'"):
        load_caption_jsonl(tmp_path / "a.jsonl", role="radar")
