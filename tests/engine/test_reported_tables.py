"""Tables that set measured figures beside reported ones: shared weights, given checkpoints, what is not run."""

from __future__ import annotations

import csv
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint.save import save_weights
from mmovseg.config import load_config
from mmovseg.data.datasets import known_datasets
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine import table_trainings, tables
from mmovseg.engine.cli import argument_parser, read_config
from mmovseg.errors import UserError
from tests.engine.fake_runs import FakeRuns, described

ROOT = Path(__file__).parents[2]
PAPER = {  # Tables 2 and A3, ViT-B/16: mIoU, seen, unseen; Table A4, ViT-L/14: mIoU
    "pie_cloud": (57.7, 76.7, 19.6, 64.5),
    "ddhr_sk": (73.1, 86.5, 53.0, 75.5),
    "oem_thick": (36.6, 37.4, 35.2, 39.4),
    "oem_thin": (40.2, 40.4, 40.0, 41.2),
    "pie_clean": (59.7, 77.7, 23.5, 66.0),
    "ddhr_sk_to_ch": (42.6, 56.1, 22.7, 43.5),
}
RUNS = [
    {"name": "a", "label": "A", "config": "a.py", "evaluate": ["both"], "reported": {"mIoU": 50.0, "mIoU-seen": 60.0}},
    {"name": "b", "label": "B", "config": "b.py", "evaluate": ["both"], "weights_of": "a", "reported": {"mIoU": 30.0}},
]
MEAN = {"label": "mean", "runs": ["a", "b"], "reported": {"mIoU": 40.0}}
TABLE = {"name": "t", "title": "T", "seeds": [0], "runs": RUNS, "means": [MEAN], "reported": "a paper"}
WRITTEN = {key: value for key, value in TABLE.items() if key != "name"}


@pytest.fixture
def runs(monkeypatch):
    fake = FakeRuns()
    fake.scores["b.py"] = 20.0
    monkeypatch.setattr(tables, "train_main", fake)
    monkeypatch.setattr(table_trainings, "describe_config", described)
    return fake


def test_a_run_tests_the_weights_of_another_without_training_again(runs, tmp_path):
    rows = tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs")
    weights = str(tmp_path / "runs" / "a-seed0" / "model_final.safetensors")
    assert runs.calls == [("train", "a.py"), ("evaluate", "a.py", weights), ("evaluate", "b.py", weights)]
    assert [(row["run"], row["iterations"], row["train_seconds"]) for row in rows] == [("a", "5", "1"), ("b", "5", "")]


def test_a_run_alone_trains_the_weights_that_it_shares(runs, tmp_path):
    tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs", only=["b"])
    assert [call[:2] for call in runs.calls] == [("train", "a.py"), ("evaluate", "b.py")]


def test_measured_stands_beside_reported(runs, tmp_path):
    rows = tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs")
    lines = tables.to_markdown(TABLE, rows).splitlines()
    assert (
        lines[0]
        == "| setting | tested with | mIoU | *reported* | mIoU-seen | *reported* | mIoU-unseen | hIoU | seeds |"
    )
    assert lines[2] == "| A | both | 40.0 | *50.0* | 40.0 | *60.0* | 40.0 | 40.0 | 1 |"
    assert lines[3] == "| B | both | 20.0 | *30.0* | 20.0 |  | 20.0 | 20.0 | 1 |"
    assert lines[4] == "| mean | both | 30.0 | *40.0* | 30.0 |  | 30.0 | 30.0 |  |"
    assert lines[-1] == "*Reported*: a paper."
    assert len({line.count("|") for line in lines[:5]}) == 1
    half = tables.to_markdown(TABLE, rows[:1]).splitlines()
    assert "| B | both | not run | *30.0* | not run |  | not run | not run | 0 |" in half
    assert "| mean | both | not run | *40.0* | not run |  | not run | not run |  |" in half


def test_given_checkpoints_are_evaluated_and_missing_ones_told(runs, tmp_path):
    given = [RUNS[0] | {"checkpoint": "B16/first.safetensors"}, {**RUNS[1], "checkpoint": "B16/second.safetensors"}]
    table = TABLE | {"runs": given}
    with pytest.raises(UserError, match=r"folder '.*nothing' has no checkpoint.*B16/first\.safetensors"):
        tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs", checkpoints=tmp_path / "nothing")
    with pytest.raises(UserError, match="evaluates a given checkpoint; name the folder"):
        tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    save_weights({"x": torch.ones(1)}, tmp_path / "given" / "B16" / "first.safetensors")
    told = []
    rows = tables.fill_table(
        table,
        tmp_path / "t.csv",
        tmp_path / "runs",
        checkpoints=tmp_path / "given",
        skip=lambda *facts: told.append(facts),
    )
    assert [call[0] for call in runs.calls] == ["evaluate"] and [row["run"] for row in rows] == ["a"]
    assert rows[0]["train_seconds"] == "" and told[0][0] == "b" and "second.safetensors' does not exist" in told[0][1]


def test_a_trained_table_takes_given_checkpoints_by_the_names_of_its_runs(runs, tmp_path):
    save_weights({"x": torch.ones(1)}, tmp_path / "given" / "b.safetensors")
    rows = tables.fill_table(TABLE, tmp_path / "t.csv", tmp_path / "runs", checkpoints=tmp_path / "given")
    assert [row["run"] for row in rows] == ["b"] and [call[0] for call in runs.calls] == ["evaluate"]


def test_a_run_that_cannot_be_done_stops_the_table_unless_it_may_go_on(runs, tmp_path):
    runs.broken = ("a.py",)
    table = TABLE | {"runs": [RUNS[0], {key: value for key, value in RUNS[1].items() if key != "weights_of"}]}
    with pytest.raises(UserError, match=r"data of a\.py is missing"):
        tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    told = []
    rows = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs", skip=lambda *facts: told.append(facts))
    assert [row["run"] for row in rows] == ["b"] and told == [("a", "data of a.py is missing")]


def test_a_table_that_names_an_unknown_run_is_refused(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({**WRITTEN, "runs": [{**RUNS[1], "weights_of": "c"}], "means": []}))
    with pytest.raises(UserError, match=r"t\.json' has no run 'c'; it has: b"):
        tables.read_table(tmp_path / "t.json")


def test_the_command_writes_markdown_and_csv(runs, tmp_path, monkeypatch, capsys):
    file = tmp_path / "t.json"
    file.write_text(json.dumps(WRITTEN))
    runs.broken = ("b.py",)
    options = ["--results", str(tmp_path / "t.csv"), "--output", str(tmp_path / "out"), "--keep-going"]
    monkeypatch.setattr(sys, "argv", ["run_table.py", str(file), *options])
    runpy.run_path(str(ROOT / "tools" / "run_table.py"), run_name="__main__")
    captured = capsys.readouterr()
    assert captured.err == "not run: b: data of b.py is missing\n"
    assert (tmp_path / "out" / "table.md").read_text().strip().splitlines()[2:] == captured.out.strip().splitlines()[2:]
    with (tmp_path / "out" / "table.csv").open(newline="") as stream:
        found = {(row["run"], row["metric"]): (row["mean"], row["reported"]) for row in csv.DictReader(stream)}
    assert found["a", "mIoU"] == ("40.00", "50.0") and found["b", "mIoU"] == ("", "30.0")
    assert found["a", "hIoU"] == ("40.00", "")


@pytest.mark.parametrize("name", ["table1", "table1_released"])
def test_the_shipped_tables_hold_the_papers_figures(name):
    table = tables.read_table(ROOT / "configs" / "tables" / f"{name}.json")
    assert [run["name"] for run in table["runs"]] == [f"{s}_{size}" for size in ("vitb16", "vitl14") for s in PAPER]
    for run in table["runs"]:
        setting, size = run["name"].rsplit("_", 1)
        whole, seen, unseen, large = PAPER[setting]
        base = {"mIoU": whole, "mIoU-seen": seen, "mIoU-unseen": unseen}
        assert run["reported"] == (base if size == "vitb16" else {"mIoU": large})
    small, large = (mean["reported"] for mean in table["means"])
    for index, metric in enumerate(("mIoU", "mIoU-seen", "mIoU-unseen")):  # the paper's means, from rounded figures
        assert small[metric] == pytest.approx(sum(figures[index] for figures in PAPER.values()) / 6, abs=0.06)
    assert large["mIoU"] == pytest.approx(sum(figures[3] for figures in PAPER.values()) / 6, abs=0.06)
    assert all([len(mean["runs"]) == 6 for mean in table["means"]])


def test_the_model_zoo_reports_the_same():
    text = (ROOT / "MODEL_ZOO.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+? -> .+?) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    figures = [tuple(map(float, row[1:])) for row in rows]
    assert figures == [figures[:3] for figures in PAPER.values()]


def resolved(run):
    """The config of a run of a table, with its overrides, as the command would see it."""
    return read_config(
        argument_parser().parse_intermixed_args(["--config-file", run["config"], *run.get("overrides", ())])
    )


@pytest.mark.parametrize("setting", list(PAPER))
@pytest.mark.parametrize("size", ["vitb16", "vitl14"])
def test_a_setting_states_its_sets_classes_and_recipe(setting, size):
    config = load_config(f"mmovseg/{setting}_{size}.py")
    train, test = ("ddhr_sk", "ddhr_ch") if setting == "ddhr_sk_to_ch" else (setting, setting)
    data = config.dataloader
    assert (data.train.dataset.name, data.test.dataset.name) == (f"{train}_train", f"{test}_val")
    assert {f"{train}_train", f"{test}_val"} <= set(known_datasets())
    assert data.evaluator.dataset_name == f"{test}_val"
    family = {"pie": "pie", "oem": "oem"}.get(setting.split("_")[0])
    asked = [node.vocabulary for node in (data.train.mapper, data.test.mapper, data.evaluator)]
    assert [node.dataset for node in asked] == [family or train, family or test, family or test]
    assert {node.flavour for node in asked} == {"clean"}
    assert (config.train.max_iter, data.train.batch_size) == (120_000, 8 if size == "vitb16" else 4)
    assert (config.optimizer.base_lr, config.optimizer.lr_multipliers.clip) == (2.5e-4, 0.008)
    assert config.model.head.get("name", "paper") == "paper" and config.model.clip.templates == "paper"
    assert config.model.sar_encoder.in_chans == 3 == len(config.model.sar_norm["mean"])
    assert config.model.input_contract.sar.unit == "amplitude8"
    assert list(config.model.input_contract.sar["mean"]) == list(config.model.sar_norm["mean"])
    for mapper in (data.train.mapper, data.test.mapper):
        assert mapper.get("clouds") is None and mapper.get("sar_geometry", "paired") == "paired"
        assert (mapper.reader.sar_unit_in, mapper.reader.sar_unit) == ("amplitude8", "amplitude8")
    assert ("ViT-B/16" if size == "vitb16" else "ViT-L/14") in (
        ROOT / f"configs/mmovseg/{setting}_{size}.py"
    ).read_text()


@pytest.mark.parametrize(
    "run", tables.read_table(ROOT / "configs/tables/table1_released.json")["runs"], ids=lambda r: r["name"]
)
def test_a_run_of_an_authors_checkpoint_asks_for_its_own_set(run):
    setting, size = run["name"].rsplit("_", 1)
    config = resolved(run)
    test = "ddhr_ch" if setting == "ddhr_sk_to_ch" else setting
    data = config.dataloader
    assert data.test.dataset.name == data.evaluator.dataset_name == f"{test}_val"
    for node in (data.test.mapper.vocabulary, data.evaluator.vocabulary):
        assert (node.dataset, node.flavour) == (test if test.startswith("ddhr") else test.split("_")[0], "released")
    assert run["checkpoint"].startswith({"vitb16": "B16/model", "vitl14": "L14/model"}[size])


@pytest.mark.parametrize("size", ["vitb16", "vitl14"])
def test_the_released_configs_follow_the_release(size):
    config = load_config(f"mmovseg/released_{size}.py")
    data = config.dataloader
    assert config.model.head.name == "released" and config.model.clip.templates == "released"
    assert (data.train.dataset.name, data.test.dataset.name) == ("pie_cloud_train", "pie_cloud_val")
    for mapper in (data.train.mapper, data.test.mapper):
        assert (mapper.sar_geometry, mapper.reader.decoder, mapper.vocabulary.flavour) == (
            "official",
            "pil",
            "released",
        )
    assert data.evaluator.vocabulary.flavour == "released" and data.test.batch_size == 1
    assert (config.train.max_iter, data.train.batch_size) == (80_000, 8 if size == "vitb16" else 4)
    assert (config.optimizer.base_lr, config.optimizer.lr_multipliers.clip) == (2.5e-4, 0.01)
    assert config.train.clip_grad.enabled and config.train.clip_grad.max_norm == 0.01
    checked = read_config(argument_parser().parse_intermixed_args(
        ["--config-file", f"mmovseg/released_{size}.py", "--eval-only", "dataloader.test.mapper.sar_geometry=paired"]
    ))  # fmt: skip
    assert checked.dataloader.test.mapper.sar_geometry == "paired"


def test_both_lists_of_ddhr_name_the_same_classes_in_another_order():
    for flavour in ("clean", "released"):
        sk, ch = get_vocabulary("ddhr_sk", flavour), get_vocabulary("ddhr_ch", flavour)
        assert sorted(sk.names) == sorted(ch.names) and sk.names != ch.names
        assert sorted(sk.seen_subset().names) == sorted(ch.seen_subset().names)
