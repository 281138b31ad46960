"""Captioning and questions through the real command, and their tables."""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from mmovseg.checkpoint import read_state
from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.engine.cli import train_main
from mmovseg.engine.tables import read_table

CONFIGS = Path(__file__).parents[3] / "projects" / "SARText" / "configs"
COMMON = ("train.max_iter=2", "train.device=cpu", "train.tensorboard=false", "train.seed=0")
QUESTIONS = (
    *COMMON,
    "dataloader.train.dataset.num_scenes=12",
    "dataloader.test.dataset.num_scenes=6",
    "dataloader.evaluator.prior.dataset.num_scenes=12",
)


@lru_cache
def _loaded(config: str) -> DictConfig:
    return load_config(CONFIGS.parents[2] / config)


def config_of(entry: dict) -> DictConfig:
    """The config of a run or part, read once."""
    return copy.deepcopy(_loaded(entry["config"]))


def result(folder: Path, kind: str) -> dict:
    return json.loads((folder / "eval/miniearth_sar_test" / kind / "result.json").read_text(encoding="utf-8"))


def test_a_coca_is_tested_on_retrieval_and_on_what_it_writes(tmp_path: Path) -> None:
    settings = [
        *COMMON,
        "model.weights=null",
        "model.beams=2",
        "model.max_length=12",
        "dataloader.train.dataset.num_scenes=16",
        "dataloader.test.captions.dataset.num_scenes=4",
        "dataloader.test.retrieval.dataset.num_scenes=4",
        "dataloader.evaluator.captions.baseline.dataset.num_scenes=16",
        "dataloader.evaluator.captions.with_meteor=false",
        f"train.output_dir={tmp_path}",
    ]
    done = train_main(["--config-file", str(CONFIGS / "captioning_xs.py"), *settings])
    assert set(done["results"]) == {"retrieval", "captions"}
    report = result(tmp_path, "captioning-captions")
    assert report["metrics"]["BLEU-1"] == done["results"]["captions"]["captioning"]["BLEU-1"]
    assert report["metrics"]["majority BLEU-1"] > 0 and report["baseline"]
    assert report["modality"] == "sar" and report["provenance"]["iteration"] == 2
    rows = json.loads((tmp_path / "eval/miniearth_sar_test/captioning-captions/per_image.json").read_text())
    assert len(rows) == 4 and all(len(row["references"]) > 5 for row in rows)
    assert result(tmp_path, "retrieval-retrieval")["gallery"]["images"] == 4


def test_the_classifier_trains_and_repeats_itself(tmp_path: Path) -> None:
    settings = [
        *QUESTIONS,
        "model.encoder.weights=null",
        "dataloader.train.batch_size=16",
        f"train.output_dir={tmp_path}",
    ]
    argv = ["--config-file", str(CONFIGS / "vqa_classifier_xs.py"), *settings]
    trained = train_main(argv)["results"]["miniearth_sar_test"]["vqa"]
    report = result(tmp_path, "vqa")
    assert set(report["questions_of_type"]) == {"presence", "dominant", "comparison", "count"}
    assert min(report["metrics"][f"{prior} accuracy"] for prior in ("question prior", "majority")) > 20
    weights = f"train.init_checkpoint={tmp_path / 'model_final.safetensors'}"
    again = train_main([*argv, "--eval-only", weights])["results"]["miniearth_sar_test"]["vqa"]
    assert again == pytest.approx(trained, nan_ok=True)
    state, _ = read_state(tmp_path / "model_final.safetensors")
    torch.manual_seed(0)
    start = instantiate(apply_overrides(load_config(CONFIGS / "vqa_classifier_xs.py"), settings).model).state_dict()
    assert set(start) == set(state)
    changed = {key.split(".")[0] for key in state if not torch.equal(state[key], start[key])}
    assert changed == {"head"}  # the encoder is frozen


def test_the_answers_of_the_classifier_hold_those_of_its_questions() -> None:
    config = apply_overrides(load_config(CONFIGS / "vqa_classifier_xs.py"), [*QUESTIONS, "model.encoder.weights=null"])
    questions = instantiate(config.dataloader.train.dataset) + instantiate(config.dataloader.test.dataset)
    assert {item["answer"] for item in questions} <= set(config.model.answers)


@pytest.mark.slow
def test_a_coca_learns_to_answer_when_asked(tmp_path: Path) -> None:
    settings = [*QUESTIONS, "model.weights=null", "model.beams=2", f"train.output_dir={tmp_path}", "train.max_iter=60"]
    settings += ["dataloader.train.batch_size=32", "dataloader.train.dataset.types=[presence]"]
    settings += ["dataloader.test.dataset.types=[presence]", "dataloader.evaluator.prior.dataset.types=[presence]"]
    done = train_main(["--config-file", str(CONFIGS / "vqa_coca_xs.py"), *settings])
    metrics = done["results"]["miniearth_sar_test"]["vqa"]
    assert metrics["accuracy"] > 50.0  # it says yes or no, which random weights do not
    rows = json.loads((tmp_path / "eval/miniearth_sar_test/vqa/per_image.json").read_text())
    assert {row["answer"] for row in rows} <= {"yes", "no"}


@pytest.mark.parametrize(("name", "config"), [("captioning", "captioning_xs"), ("vqa", "vqa_")])
def test_tables_build_on_the_parts_of_the_transfer(name: str, config: str) -> None:
    table = read_table(CONFIGS / "tables" / f"{name}.json")
    transfer = read_table(CONFIGS / "tables" / "transfer.json")
    known = {part["name"]: part for part in transfer["parts"]}
    for part in table["parts"]:
        assert known.get(part["name"], part) == part  # a part of the same name is trained once
        assert not any(run["name"] == part["name"] for run in transfer["runs"])
    assert table["output"] == transfer["output"]
    assert all(config in run["config"] for run in table["runs"])
    for entry in (*table["parts"], *table["runs"]):
        replaced = [f"{key}=null" for key in entry.get("uses", {})]
        apply_overrides(config_of(entry), [*entry.get("overrides", ()), *replaced])


def test_budgets_of_the_captioning_runs_are_equal() -> None:
    table = read_table(CONFIGS / "tables" / "captioning.json")
    parts = {part["name"]: part for part in table["parts"]}

    def steps(entry: dict) -> int:
        config = apply_overrides(config_of(entry), entry.get("overrides", ()))
        own = config.train.max_iter if entry.get("train", True) else 0
        return own + sum(steps(parts[name]) for name in entry.get("uses", {}).values())

    runs = {run["name"]: steps(run) for run in table["runs"]}
    assert runs["coca_sar_only"] == runs["coca_direct"] == runs["coca_optical_only"] == runs["coca_progressive"]
