"""Tables go on where they stopped; the zoo's records come from the files themselves."""

from __future__ import annotations

import json

import pytest
import torch

from mmovseg.checkpoint.save import save_weights
from mmovseg.engine import table_trainings, tables, zoo
from mmovseg.errors import UserError
from tests.engine.fake_runs import FakeRuns, described

RUNS = [
    {"name": "fused", "label": "both", "config": "a.py", "evaluate": ["both", "optical"]},
    {"name": "sar", "label": "SAR", "config": "b.py", "evaluate": ["sar"], "overrides": ["x=1"]},
]
TABLE = {"name": "t", "title": "T", "seeds": [0, 1], "runs": RUNS}


@pytest.fixture
def training(monkeypatch):
    fake = FakeRuns()
    monkeypatch.setattr(tables, "train_main", fake)
    monkeypatch.setattr(table_trainings, "describe_config", described)
    return fake


def test_a_stopped_table_goes_on_where_it_was(training, tmp_path):
    training.stop_after = 4  # after the first run of the first seed, inside the second
    with pytest.raises(KeyboardInterrupt):
        tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs")
    assert [(row["run"], row["modality"]) for row in tables.read_rows(tmp_path / "t.csv")] == [
        ("fused", "both"), ("fused", "optical")
    ]  # fmt: skip
    training.stop_after, done = None, len(training.argvs)
    rows = tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs")
    assert len(rows) == 6 and len({(row["run"], row["seed"], row["modality"]) for row in rows}) == 6
    again = [argv for argv in training.argvs[done:] if "a.py" in argv and "train.seed=0" in argv]
    assert again == []
    assert tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs") == rows


def test_markdown_gives_mean_and_spread_and_says_what_was_not_run(training, tmp_path):
    rows = tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs")
    text = tables.to_markdown(TABLE, [row for row in rows if row["run"] != "sar"])
    assert "| both | both | 45.0 ± 7.1 |" in text
    assert "| SAR | sar | not run |" in text
    assert "class names permuted | both | 3.0 ± 0.0 | | 4.0 ± 0.0 |" in text


def test_overrides_reach_the_runs(training, tmp_path):
    tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs", overrides=["train.max_iter=2"])
    assert all("train.max_iter=2" in argv for argv in training.argvs)
    assert all(("x=1" in argv) == ("b.py" in argv) for argv in training.argvs)


def test_some_runs_can_be_chosen(training, tmp_path):
    rows = tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs", only=["sar"])
    assert {row["run"] for row in rows} == {"sar"}
    with pytest.raises(UserError, match="no run 'radar'; it has: fused, sar"):
        tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs", only=["radar"])


@pytest.mark.parametrize("content", ["{", '{"title": "x"}'])
def test_bad_tables_are_refused(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match="t.json"):
        tables.read_table(tmp_path / "t.json")


def test_zoo_records_come_from_the_files(tmp_path, monkeypatch):
    contract = {"optical": {"sensor": "S", "bands": ["r"], "unit": "uint8", "mean": [1.0], "std": [2.0]}, "sar": None}

    def fake_training(argv):
        folder = zoo.Path(next(item for item in argv if item.startswith("train.output_dir=")).split("=")[1])
        state = {"clip.model.a": torch.ones(3), "head.b": torch.zeros(2)}
        path = folder / "model_final.safetensors"
        save_weights(state, path, metadata={"seed": "4", "input_contract": json.dumps(contract)})
        return {"checkpoint": str(path), "seconds": 60.0, "iteration": 2}

    monkeypatch.setattr(zoo, "train_main", fake_training)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    zoo.make_zoo(tmp_path / "runs", steps=zoo.STEPS[:1], seed=4)
    (record,) = zoo.zoo_records(tmp_path / "weights")
    assert record["seed"] == "4" and record["train_seconds"] == "60" and record["exported_part"] == "clip.model"
    assert f"`{record['sha256'][:16]}`" in zoo.zoo_markdown([record])
    assert "bands r; unit uint8; mean (1.0,)" in zoo.contract_markdown(record).replace("[", "(")
