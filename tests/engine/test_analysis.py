"""What commands that draw pictures of models share, without a model."""

from __future__ import annotations

import json

import pytest
from omegaconf import OmegaConf

from mmovseg.config import LazyCall as L
from mmovseg.engine.analysis import Findings, choose_items, picture_parser, run_analysis, split_label
from mmovseg.errors import UserError


@pytest.mark.parametrize(
    ("text", "label", "file"),
    [
        ("full=a/b.safetensors", "full", "a/b.safetensors"),
        ("output/xs/model_final.safetensors", "xs", "output/xs/model_final.safetensors"),
        ("model_final.safetensors", "model_final", "model_final.safetensors"),
        ("a/b.safetensors", "b", "a/b.safetensors"),
        ("random", "as built", None),
        ("none=random", "none", None),
    ],
)
def test_labels_of_checkpoints(text, label, file):
    assert split_label(text) == (label, file)


def numbers(first, last):
    """Dataset dicts with numbers for names."""
    return [{"image_id": str(number)} for number in range(first, last)]


class Named:
    """A mapper that gives the dict back."""

    def __call__(self, item):
        return dict(item)


def call_nothing():
    """Stand for a loader or an evaluator that nobody builds."""


@pytest.fixture
def config():
    def loader(first, last):
        return L(call_nothing)(dataset=L(numbers)(first=first, last=last), mapper=L(Named)())

    evaluators = {"one": L(call_nothing)(), "two": L(call_nothing)(fit_dataset=L(numbers)(first=10, last=13))}
    return OmegaConf.create(
        {"dataloader": {"test": {"one": loader(0, 5), "two": loader(10, 20)}, "evaluator": evaluators}},
        flags={"allow_objects": True},
    )


def ids(config, **options):
    given = {"loader": None, "images": 99, "seed": 0} | options
    return [int(item["image_id"]) for item in choose_items(config, **given)]


def test_samples_are_drawn_by_the_seed_in_the_order_of_the_data(config):
    assert ids(config) == [0, 1, 2, 3, 4]
    drawn = [ids(config, loader="two", images=4, seed=seed) for seed in range(6)]
    assert all(found == sorted(set(found)) and len(found) == 4 for found in drawn)
    assert drawn[0] == ids(config, loader="two", images=4, seed=0) and len(set(map(tuple, drawn))) > 1


def test_what_an_evaluator_fits_to_is_left_out(config):
    assert ids(config, loader="two") == list(range(13, 20))
    assert ids(config, prefer="two") == list(range(13, 20)) and ids(config, prefer="none") == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="no test loader 'three'; it has: one, two"):
        ids(config, loader="three")
    with pytest.raises(UserError, match=r"no dataloader\.test"):
        ids(OmegaConf.create({"dataloader": {}}))


def test_figures_lie_beside_the_picture(tmp_path, capsys):
    parser = picture_parser("Draws.", output="output/x.png")
    parser.add_argument("--size", type=int, default=3)
    target = str(tmp_path / "a.png")
    run_analysis(
        "draw", parser, lambda args: Findings({"area": args.size**2}, ["area 9"]), ["--output", target, "--size", "3"]
    )
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["command"], content["area"], content["options"]) == ("draw", 9, {"size": 3})
    assert capsys.readouterr().out.splitlines() == ["area 9", f"wrote {target} and {tmp_path / 'a.json'}"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--output", "a.pdf"], "--output 'a.pdf' must end in .png"), (["--images", "0"], "--images must be at least 1")],
)
def test_what_cannot_be_drawn_is_told_before_any_work(words, sentence):
    parser = picture_parser("Draws.", output="x.png")
    parser.add_argument("--images", type=int, default=1)
    with pytest.raises(UserError, match=sentence):
        run_analysis("draw", parser, lambda args: pytest.fail("it began"), words)
