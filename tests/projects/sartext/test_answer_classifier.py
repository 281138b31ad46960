"""Answers chosen from a list by frozen embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.projects.sartext.modeling.answer_classifier import AnswerClassifier, answer_vocabulary

WIDTH = 8


class FakeEncoder(nn.Module):
    """Embeddings that follow from the sample; counts what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(WIDTH))
        self.embed_dim, self.input_contract = WIDTH, {"sar": "x"}
        self.seen: list[str] = []
        self.read: list[str] = []

    def encode_images(self, batched_inputs: Sequence[Any]) -> Tensor:
        self.seen += [item["image_id"] for item in batched_inputs]
        return torch.stack([item["sar"] for item in batched_inputs]) @ self.weight

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.read += texts
        rows = [torch.randn(WIDTH, generator=torch.Generator().manual_seed(len(text))) for text in texts]
        return torch.stack(rows) if rows else torch.zeros(0, WIDTH)


def sample(number: int, question: str = "is it?", answer: str = "yes", **more: Any) -> Any:
    image = torch.randn(WIDTH, generator=torch.Generator().manual_seed(number))
    return {"image_id": f"i{number}", "sar": image, "question": question, "answer": answer, **more}


def classifier(**options: Any) -> AnswerClassifier:
    torch.manual_seed(0)
    return AnswerClassifier(FakeEncoder(), answers=["yes", "no", "3"], hidden=32, **options)  # type: ignore[arg-type]


def test_the_head_learns_from_image_and_question_and_the_encoder_stays() -> None:
    model = classifier(dropout=0.0).train()
    # the answer follows from both: the sign of the first entry, turned round by the question
    items = []
    for number in range(40):
        for question, sign in (("is it so?", 1.0), ("is it otherwise?", -1.0)):
            item = sample(number, question, view=0)
            items.append({**item, "answer": "yes" if sign * item["sar"][0] > 0 else "no"})
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(60):
        losses = model(items)
        assert set(losses) == {"loss_answer"}
        optimizer.zero_grad()
        losses["loss_answer"].backward()
        optimizer.step()
    assert not model.encoder.training and model.encoder.weight.grad is None
    answers = [output["generated_answer"] for output in model.eval()(items)]
    assert sum(a == item["answer"] for a, item in zip(answers, items, strict=True)) >= 76


def test_the_encoder_sees_an_image_and_a_question_once() -> None:
    model = classifier().train()
    for _ in range(2):
        model([sample(1, view=0), sample(1, "and this?", view=0), sample(2, view=0)])
    assert model.encoder.seen == ["i1", "i2"] and model.encoder.read == ["is it?", "and this?"]
    model.eval()([sample(1), sample(1)])
    assert model.encoder.seen == ["i1", "i2", "i1"]
    model.load_state_dict(model.state_dict())
    model([sample(1)])
    assert model.encoder.seen[3:] == ["i1"]


def test_what_was_kept_in_one_precision_is_not_used_in_another() -> None:
    model, wanted = classifier().eval(), classifier().eval().scores([sample(1)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.scores([sample(1)])
    assert torch.equal(model.scores([sample(1)]), wanted) and not torch.equal(rough, wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.scores([sample(1)]), rough)
    assert model.encoder.seen == ["i1"] * 2 and model.encoder.read == ["is it?"] * 2


def test_what_may_change_is_not_kept() -> None:
    model = classifier().train()
    scores = [model.scores([item]) for item in (sample(1), {**sample(2), "image_id": "i1"})]
    assert not torch.equal(*scores)
    assert model.encoder.seen == ["i1", "i1"]
    mixed = model.eval().scores([sample(1), sample(2)])
    alone = torch.cat([model.scores([sample(1)]), model.scores([sample(2)])])
    torch.testing.assert_close(mixed, alone)
    without = classifier(cache_features=False).eval()
    for _ in range(2):
        without([sample(1)])
    assert without.encoder.seen == ["i1", "i1"]


def test_another_image_of_the_same_id_is_another_image() -> None:
    model = classifier().eval()
    here, there = sample(1), {**sample(2), "image_id": "i1"}  # as two test loaders of two sensors have them
    wanted = [classifier().eval().scores([item]) for item in (here, there)]
    for item, scores in zip((here, there, here), (*wanted, wanted[0]), strict=True):
        torch.testing.assert_close(model.scores([item]), scores)
    assert not torch.equal(*wanted) and model.encoder.seen == ["i1", "i1"]
    model.scores([{**here, "source": "other"}])  # the norm of an encoder may go by it
    model.scores([{**here, "sar_valid": torch.zeros(WIDTH, dtype=torch.bool)}])
    assert model.encoder.seen == ["i1"] * 4


def test_answers_are_compared_in_normal_form_and_unknown_ones_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    model = classifier(dropout=0.0).train()
    same = [model([sample(1, answer=text)])["loss_answer"] for text in ("3", "Three.")]
    assert same[0] == same[1]
    both = model([sample(1, answer="3"), sample(2, answer="a lake")])["loss_answer"]
    assert both == same[0]
    assert model([sample(2, answer="a lake")])["loss_answer"] == 0.0
    assert [record.getMessage() for record in caplog.records].count(
        "the answer 'a lake' is not in the list of 3; such ones are left out"
    ) == 1


def test_weights_of_other_answers_are_refused() -> None:
    model = classifier()
    other = AnswerClassifier(FakeEncoder(), answers=["yes", "no", "4"], hidden=32)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="choose among other answers than model.answers says: yes, no, 4, ..."):
        model.load_state_dict(other.state_dict())


def test_what_is_missing_is_told() -> None:
    for answers in (["yes"], ["three", "3"]):
        with pytest.raises(UserError, match="at least two different answers"):
            AnswerClassifier(FakeEncoder(), answers=answers)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="has no question"):
        classifier()([sample(1, question=" ")])
    with pytest.raises(UserError, match="has no answer"):
        classifier().train()([sample(1, answer="")])


def test_the_vocabulary_holds_the_most_frequent_answers() -> None:
    dataset = [{"answer": text} for text in ("Yes", "yes", "three", "3", "a lake", "no", "no", "no")]
    assert answer_vocabulary(dataset=dataset) == ["3", "lake", "no", "yes"]
    assert answer_vocabulary(dataset=dataset, most=2) == ["3", "no"]
    assert answer_vocabulary(dataset=dataset, min_count=3) == ["no"]
    with pytest.raises(UserError, match="no training answer occurs 4 times or more"):
        answer_vocabulary(dataset=dataset, min_count=4)
