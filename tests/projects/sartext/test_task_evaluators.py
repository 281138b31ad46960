"""The evaluators of captions and of answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmovseg.errors import UserError
from mmovseg.projects.sartext.evaluation import captioning, meteor
from mmovseg.projects.sartext.evaluation.captioning import CaptioningEvaluator, most_frequent_caption
from mmovseg.projects.sartext.evaluation.vqa import VQAEvaluator, answer_prior

CAPTIONS = {
    "one": (["A ship near the harbor.", "one ship"], "a ship near the harbor"),
    "two": (["Many trees around a lake.", "a lake"], "many trees around a lake"),
    "three": (["A road through a farm.", "a road"], "a ship"),
    "four": (["A dense forest.", "forest"], "a dense forest"),
}


def run_captions(evaluator: CaptioningEvaluator, names: list[str]) -> dict[str, float]:
    for name in names:
        references, written = CAPTIONS[name]
        evaluator.process([{"image_id": name, "captions": references}], [{"generated_caption": written}])
    found = evaluator.evaluate()
    assert found is not None
    return found["captioning"]


def test_captions_stand_beside_the_baseline_and_the_dealt_out_ones(tmp_path: Path) -> None:
    evaluator = CaptioningEvaluator(
        dataset_name="made up", baseline="a ship", with_meteor=False, loader="captions", output_dir=str(tmp_path)
    )
    metrics = run_captions(evaluator, list(CAPTIONS))
    # three captions of four are those of a reference; of "a ship" one word of two is in "a road ..."
    assert metrics["BLEU-1"] == pytest.approx(100 * 14 / 15)
    assert metrics["ROUGE-L"] > 75.0
    assert metrics["distinct"] == 100.0
    assert metrics["empty"] == 0.0
    assert 0 < metrics["majority CIDEr-D"] < metrics["CIDEr-D"]
    assert metrics["dealt out CIDEr-D"] == pytest.approx(0.0)
    assert metrics["METEOR"] != metrics["METEOR"]
    path = tmp_path / "eval/made_up/captioning-captions/result.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["metrics"]["METEOR"] is None and report["metrics"]["SPICE"] is None
    assert set(report["not_computed"]) == {"METEOR", "SPICE"}
    assert report["references_an_image"] == 2.0
    assert report["provenance"]["images"] == 4
    rows = {row["image_id"]: row for row in json.loads(path.with_name("per_image.json").read_text(encoding="utf-8"))}
    assert rows["one"]["caption"] == "a ship near the harbor"
    assert rows["one"]["ROUGE-L"] == pytest.approx(100.0)
    assert rows["three"]["ROUGE-L"] < 60.0
    text = evaluator.describe(report)
    assert "majority baseline" in text and "SPICE not computed" in text


def test_scores_and_manifest_do_not_depend_on_the_order() -> None:
    evaluators = [CaptioningEvaluator(dataset_name="x", with_meteor=False) for _ in range(2)]
    orders = [list(CAPTIONS), list(CAPTIONS)[::-1]]
    first, second = (run_captions(one, order) for one, order in zip(evaluators, orders, strict=True))
    assert all(first[key] == second[key] for key in first if first[key] == first[key])
    hashes = {e.report["provenance"]["data_manifest_sha256"] for e in evaluators if e.report}
    assert len(hashes) == 1
    assert "majority BLEU-1" not in first


def test_one_caption_for_all_is_visible() -> None:
    evaluator = CaptioningEvaluator(dataset_name="x", with_meteor=False)
    for name, (references, _) in CAPTIONS.items():
        evaluator.process([{"image_id": name, "captions": references}], [{"generated_caption": "."}])
    found = evaluator.evaluate()
    assert found is not None
    assert found["captioning"]["distinct"] == 25.0
    assert found["captioning"]["empty"] == 100.0
    assert found["captioning"]["BLEU-1"] == pytest.approx(0.0)
    assert evaluator.report is not None
    assert evaluator.report["frequent_captions"] == [{"caption": ".", "images": 4}]


def test_meteor_is_taken_where_it_runs_and_explained_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning, "meteor_reason", lambda: None)
    monkeypatch.setattr(captioning, "meteor", lambda words, _: meteor.Scores(0.25, (0.25,) * len(words)))
    assert run_captions(CaptioningEvaluator(dataset_name="x"), list(CAPTIONS))["METEOR"] == 25.0
    monkeypatch.setattr(meteor.importlib, "import_module", _raise_import_error)
    assert "pycocoevalcap is not installed" in str(meteor.meteor_reason())
    monkeypatch.setattr(meteor.importlib, "import_module", lambda _: None)
    monkeypatch.setattr(meteor.shutil, "which", lambda _: None)
    assert "no 'java' on the path" in str(meteor.meteor_reason())


def _raise_import_error(name: str) -> None:
    raise ImportError(name)


@pytest.mark.slow
def test_meteor_of_the_same_caption_is_whole() -> None:
    if meteor.meteor_reason() is not None:
        pytest.skip(str(meteor.meteor_reason()))
    same = "a ship near the harbor".split()
    scores = meteor.meteor([same, ["forest"]], [[same], [["lake"]]])
    assert scores.images == pytest.approx((1.0, 0.0), abs=0.01)


@pytest.mark.parametrize(
    ("item", "output", "sentence"),
    [
        ({"image_id": "a"}, {"generated_caption": "x"}, "'a' has no caption to score against"),
        ({"image_id": "a", "captions": ["b"]}, {"image_embedding": 0}, "answers with: image_embedding"),
    ],
)
def test_captions_that_are_missing_are_told(item: Any, output: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        CaptioningEvaluator(dataset_name="x").process([item], [output])


def test_wrong_settings_and_no_image_are_told() -> None:
    with pytest.raises(UserError, match="splitting is 'letters'"):
        CaptioningEvaluator(dataset_name="x", splitting="letters")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="baseline caption of 'x' is empty"):
        CaptioningEvaluator(dataset_name="x", baseline=" ")
    with pytest.raises(UserError, match="'x' gave no sample"):
        CaptioningEvaluator(dataset_name="x").evaluate()


def test_the_most_frequent_caption_is_found_with_and_without_a_reader() -> None:
    dicts: list[Any] = [{"captions": ["b", "a"]}, {"captions": ["c", "b"]}, {"captions": ["a"]}]
    assert most_frequent_caption(dataset=dicts) == "a"
    read = most_frequent_caption(dataset=[{"image_id": "1"}], reader=lambda item: captioning.RawSample(captions=["z"]))
    assert read == "z"
    with pytest.raises(UserError, match="no training caption"):
        most_frequent_caption(dataset=[])


QUESTIONS = [
    ("is there a road?", "yes", "presence"),
    ("is there a road?", "yes", "presence"),
    ("is there a lake?", "no", "presence"),
    ("how many ships?", "2", "count"),
    ("what covers most?", "forest", "dominant"),
]


def dicts(rows: list[tuple[str, str, str]]) -> list[Any]:
    return [
        {"image_id": f"i{n // 2}", "question": q, "answer": a, "question_type": t} for n, (q, a, t) in enumerate(rows)
    ]


def test_answers_by_type_beside_the_priors(tmp_path: Path) -> None:
    prior = answer_prior(dataset=dicts([*QUESTIONS, ("how many ships?", "0", "count"), ("where?", "0", "count")]))
    assert prior.of_type("presence") == "yes" and prior.of_question("is there a lake?", "presence") == "no"
    assert prior.of_question("is there a farm?", "presence") == "yes" and prior.of_type("colour") == prior.overall
    evaluator = VQAEvaluator(dataset_name="made up", prior=prior, output_dir=str(tmp_path))
    answers = ["yes", "no", "no", "two", "dense forest"]
    for item, answer in zip(dicts(QUESTIONS), answers, strict=True):
        evaluator.process([item], [{"generated_answer": answer}])
    found = evaluator.evaluate()
    assert found is not None
    metrics = found["vqa"]
    assert metrics["accuracy"] == pytest.approx(80.0)
    assert metrics["accuracy presence"] == pytest.approx(200 / 3)
    assert metrics["accuracy count"] == metrics["accuracy dominant"] == 100.0
    assert metrics["mean of types"] == pytest.approx((200 / 3 + 200) / 3)
    assert metrics["exact"] == pytest.approx(60.0)
    assert metrics["accuracy open"] == 100.0 and metrics["accuracy closed"] == 75.0
    # by type: yes, yes, yes, 0, forest; by question: yes, yes, no, 0 (of 0 and 2), forest
    assert metrics["majority accuracy"] == pytest.approx(60.0)
    assert metrics["question prior accuracy"] == pytest.approx(80.0)
    path = tmp_path / "eval/made_up/vqa/result.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["questions_of_type"] == {"count": 1, "dominant": 1, "presence": 3}
    assert report["majority"] == {"count": "0", "dominant": "forest", "presence": "yes"}
    assert report["provenance"]["images"] == 3
    rows = json.loads(path.with_name("per_image.json").read_text(encoding="utf-8"))
    wrong = [row for row in rows if not row["correct"]]
    assert [(row["question"], row["truth"], row["answer"]) for row in wrong] == [("is there a road?", "yes", "no")]
    assert "majority of the question" in evaluator.describe(report)


def test_priors_count_answers_that_are_scored_alike_as_one(tmp_path: Path) -> None:
    rows = [("how many?", answer, "count") for answer in ("0", "0", "2", "two", "Two.")]
    prior = answer_prior(dataset=dicts(rows))
    assert prior.overall == prior.of_type("count") == prior.of_question("how many?", "count") == "2"
    again = answer_prior(dataset=dicts([*rows, ("how many?", "two", "count")]))
    assert again.overall == "two"  # as it is most often written
    (tmp_path / "words.json").write_text('{"none": "0"}', encoding="utf-8")
    rows += [("how many?", "none", "count"), ("how many?", "none", "count")]
    assert answer_prior(dataset=dicts(rows), synonyms=str(tmp_path / "words.json")).overall == "0"


def test_closed_types_want_the_very_answer() -> None:
    evaluator = VQAEvaluator(dataset_name="x", closed_types=["dominant"])
    evaluator.process(dicts(QUESTIONS[4:]), [{"generated_answer": "dense forest"}])
    found = evaluator.evaluate()
    assert found is not None
    assert found["vqa"]["accuracy"] == 0.0
    assert found["vqa"]["accuracy open"] != found["vqa"]["accuracy open"]
    assert "majority accuracy" not in found["vqa"]


@pytest.mark.parametrize(
    ("item", "output", "sentence"),
    [
        ({"image_id": "a", "answer": "yes"}, {"generated_answer": "x"}, "'a' has no question"),
        ({"image_id": "a", "question": "q?", "answer": " "}, {"generated_answer": "x"}, "'a' has no answer"),
        ({"image_id": "a", "question": "q?", "answer": "b"}, {"generated_caption": "x"}, "with: generated_caption"),
    ],
)
def test_questions_that_lack_something_are_told(item: Any, output: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        VQAEvaluator(dataset_name="x").process([item], [output])
    with pytest.raises(UserError, match="no training question"):
        answer_prior(dataset=[])
