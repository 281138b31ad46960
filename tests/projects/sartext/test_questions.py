"""Questions from files and from MiniEarth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.errors import UserError
from mmovseg.projects.sartext.data.question_mapper import QuestionMapper
from mmovseg.projects.sartext.data.questions import load_conversations, load_sarlang_csv, load_stage_questions


def talk(*values: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if number % 2 else "human", "value": value} for number, value in enumerate(values)]


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_conversations_give_a_dict_a_question(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    entries = [
        {"id": "1", "image": "a.png", "conversations": talk("<image>\nHow many  ships?", "Three", "Is it day?", "No")},
        {"id": "2", "image": "a.png", "question_type": "place", "conversations": talk("Where?\n<image>", "top left")},
    ]
    found = load_conversations(write_json(tmp_path / "vqa.json", entries))
    shown = [(item["question"], item["answer"], item["question_type"]) for item in found]
    assert shown == [
        ("How many ships?", "Three", "number"),
        ("Is it day?", "No", "yes/no"),
        ("Where?", "top left", "place"),
    ]
    assert found[0]["sar_file_name"] == str(tmp_path / "a.png") and found[0]["image_id"] == "a.png"
    optical = load_conversations(tmp_path / "vqa.json", role="optical", root="/data", check_images=False)
    assert optical[0]["file_name"] == "/data/a.png" and "sar_file_name" not in optical[0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"a": 1}, "must hold a JSON list of conversations, got dict"),
        ([], "holds no question"),
        ([{"conversations": talk("a", "b")}], "entry 1 has no image path"),
        ([{"image": "a.png", "conversations": talk("a")}], "entry 1 needs under 'conversations'"),
        ([{"image": "a.png", "conversations": talk("a", "b")[::-1]}], "entry 1: part 1 .* must be a text from 'human'"),
        ([{"image": "a.png", "conversations": talk("<image>", "b")}], "entry 1 has an empty question"),
        ([{"image": "a.png", "conversations": talk("a", " ")}], "entry 1 has an empty answer"),
        ([{"image": "b.png", "conversations": talk("a", "b")}], r"b.png', which does not exist \(1 of 1 images\)"),
    ],
)
def test_bad_conversations_are_told(tmp_path: Path, content: Any, sentence: str) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(UserError, match=sentence) as caught:
        load_conversations(write_json(tmp_path / "vqa.json", content))
    assert "vqa.json" in str(caught.value)


def test_files_that_are_no_text_are_told(tmp_path: Path) -> None:
    path = tmp_path / "vqa.json"
    path.write_bytes(b'[{"image": "\xff.png"}]')
    with pytest.raises(UserError, match="vqa.json' line 1 is not UTF-8 text: byte 13 is 0xff"):
        load_conversations(path)
    path.write_text("[{", encoding="utf-8")
    with pytest.raises(UserError, match="vqa.json' is not valid JSON"):
        load_conversations(path)
    with pytest.raises(UserError, match="none.json' cannot be read"):
        load_conversations(tmp_path / "none.json")


def test_sarlang_rows(tmp_path: Path) -> None:
    path = tmp_path / "vqa.csv"
    rows = 'image,prediction,question,answer,type\na.png,,"How many ships, here?",2,counting\na.png,,Is it?,yes,\n'
    path.write_text(rows, encoding="utf-8")
    (tmp_path / "a.png").touch()
    found = load_sarlang_csv(path, prefix="Classes: ship, car. ")
    assert [item["question"] for item in found] == [
        "Classes: ship, car. How many ships, here?",
        "Classes: ship, car. Is it?",
    ]
    assert [item["question_type"] for item in found] == ["counting", "yes/no"]
    path.write_text("image,question\na.png,b\n", encoding="utf-8")
    with pytest.raises(UserError, match="vqa.csv' has no column 'answer'; it has: image, question"):
        load_sarlang_csv(path)
    path.write_text("image,question,answer\na.png,,b\n", encoding="utf-8")
    with pytest.raises(UserError, match="row 1 has an empty question"):
        load_sarlang_csv(path, prefix="Classes")
    path.write_text("image,question,answer\n,a,b\n", encoding="utf-8")
    with pytest.raises(UserError, match="row 1 names no image"):
        load_sarlang_csv(path)
    path.write_text("image,question,answer\na.png,b\n", encoding="utf-8")
    with pytest.raises(UserError, match="row 1 has an empty answer"):
        load_sarlang_csv(path)


def test_questions_of_miniearth_follow_from_the_labels() -> None:
    reader = MiniEarthReader()
    found = load_stage_questions("sar", split="val", num_scenes=4, size=32, reader=reader)
    facts = {str(item["image_id"]): reader(item).facts for item in found}
    assert len(facts) == 4
    presence = [item for item in found if item["question_type"] == "presence"]
    assert presence
    for item in presence:
        shares = facts[item["image_id"]]["shares"]
        name = next(name for name in shares if f"is there {name} in" in item["question"])
        assert (item["answer"] == "yes") == (shares[name] > 0)
    counts = load_stage_questions("sar", split="val", num_scenes=4, size=32, reader=reader, types=["count"])
    assert {item["question_type"] for item in counts} == {"count"} and len(counts) == 12
    with pytest.raises(UserError, match="question type is 'colour'; MiniEarth asks for: presence"):
        load_stage_questions("sar", types=["colour"])


def test_questions_travel_to_the_model_input() -> None:
    item = load_stage_questions("sar", split="val", num_scenes=1, size=32)[0]
    for is_train in (True, False):
        image = OpticalSARMapper(is_train=is_train, vocabulary=None, reader=MiniEarthReader(), modality="sar", seed=0)
        mapped = QuestionMapper(mapper=image, is_train=is_train)(dict(item))
        assert (mapped["question"], mapped["answer"]) == (item["question"], item["answer"])
        assert mapped["question_type"] == item["question_type"] and mapped["sar"].shape[-2:] == (32, 32)
        assert mapped.get("caption") == (f"{item['question']} {item['answer']}" if is_train else None)
    with pytest.raises(UserError, match="has no answer"):
        QuestionMapper(mapper=lambda _: {}, is_train=True)({**item, "answer": ""})


def test_an_image_is_mapped_once_for_all_its_questions() -> None:
    seen: list[str] = []

    def image(item: dict[str, Any]) -> Any:
        seen.append(item["image_id"])
        return {"image_id": item["image_id"], "sar": torch.zeros(1, 1000, 250)}  # a megabyte

    asked: list[Any] = [
        {"image_id": name, "question": f"{number}?", "answer": "yes", "question_type": "presence"}
        for number, name in enumerate(["a", "a", "b", "b"])
    ]
    mapper = QuestionMapper(mapper=image, is_train=False, keep_images=True, cache_mb=1)
    batch = [mapper(item) for item in asked]
    assert [item["question"] for item in batch] == ["0?", "1?", "2?", "3?"]  # those of an image stay apart
    assert seen == ["a", "b", "b"]  # there is room for one
    assert "caption" not in mapper(asked[0])
    seen.clear()
    again = QuestionMapper(mapper=image, is_train=True)
    assert [again(item)["caption"] for item in asked[:2]] == ["0? yes", "1? yes"]
    assert seen == ["a", "a"]
