"""Tables printed as models against benchmarks: the runs that a grid makes, and what it prints."""

from __future__ import annotations

import copy
import json

import pytest

from mmovseg.engine import table_trainings, tables
from mmovseg.errors import UserError
from tests.engine.fake_runs import FakeRuns, described

GRID = {
    "rows": [
        {"name": "s", "label": "Small", "config": "s.py", "overrides": ["x=1"], "reported": {"C(r)2R": 61, "N2S": 50}},
        {"name": "paper", "label": "Theirs", "reported": {"N2S": 33.25}},
        {"name": "l", "label": "Large", "config": "l.py", "evaluate": ["both"]},
    ],
    "columns": {
        "N2S": {"overrides": ["bench=N2S"]},
        "R2C(r)": {"overrides": ["bench=b"], "metric": "IoU-water"},
        "C(r)2R": {"overrides": ["bench=c"], "weights_of": "R2C(r)"},
    },
    "tables": [{"title": "One", "columns": ["C(r)2R", "N2S"]}, {"title": "Two", "columns": ["R2C(r)"]}],
}  # fmt: skip
TABLE = {"title": "T", "seeds": [0, 1], "reported": "a paper", "grid": GRID}


@pytest.fixture
def runs(monkeypatch):
    fake = FakeRuns()
    fake.scores["l.py"] = 20.0
    monkeypatch.setattr(tables, "train_main", fake)
    monkeypatch.setattr(table_trainings, "describe_config", described)
    return fake


def read(folder, content):
    (folder / "t.json").write_text(json.dumps(content))
    return tables.read_table(folder / "t.json")


def test_a_grid_makes_a_run_of_every_cell(tmp_path):
    table = read(tmp_path, TABLE)
    assert [run["name"] for run in table["runs"]] == ["s_N2S", "s_R2Cr", "s_Cr2R", "l_N2S", "l_R2Cr", "l_Cr2R"]
    assert table["runs"][2] == {
        "name": "s_Cr2R", "label": "Small, C(r)2R", "config": "s.py", "evaluate": ["sar"],
        "overrides": ["x=1", "bench=c"], "weights_of": "s_R2Cr", "reported": {"mIoU": 61},
    }  # fmt: skip
    assert table["metrics"] == ["mIoU", "IoU-water"] and table["runs"][3]["evaluate"] == ["both"]


def test_any_part_of_a_grid_is_measured_and_printed_as_models_against_columns(runs, tmp_path):
    table = read(tmp_path, TABLE)
    only = ["s_Cr2R", "s_N2S", "l_N2S"]
    rows = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs", only=only)
    trained = [call for call in runs.calls if call[0] == "train"]
    assert len(trained) == 6  # s_R2Cr for s_Cr2R, s_N2S and l_N2S, with two seeds each
    assert tables.to_markdown(table, rows).splitlines() == [
        "**One**",
        "",
        "| | C(r)2R | N2S | mean |",
        "|---|---:|---:|---:|",
        "| Small | 45.0 ± 7.1 | 45.0 ± 7.1 | 45.0 |",
        "| *reported* | *61.0* | *50.0* | *55.5* |",
        "| *Theirs, reported* |  | *33.2* |  |",
        "| Large | not run | 25.0 ± 7.1 | not run |",
        "",
        "**Two**",
        "",
        "| | R2C(r) | mean |",
        "|---|---:|---:|",
        "| Small | not run | not run |",
        "| Large | not run | not run |",
        "",
        "*Reported*: a paper.",
    ]
    _, summary = tables.write_summary(table, rows, tmp_path / "runs")
    assert 's_Cr2R,"Small, C(r)2R",sar,mIoU,45.00,7.07,2,61\n' in summary.read_text()


def test_a_column_may_show_another_metric_and_the_mean_takes_each_its_own(runs, tmp_path):
    table = read(
        tmp_path, {**TABLE, "seeds": [0], "grid": {**GRID, "tables": [{"title": "T", "columns": ["N2S", "R2C(r)"]}]}}
    )
    tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs", only=["s_N2S", "s_R2Cr"])
    text = tables.to_markdown(table, tables.table_rows(tmp_path / "t.csv"))
    assert "| Small | 40.0 | 20.0 | 30.0 |" in text.splitlines()  # mIoU, IoU-water
    assert "| *reported* | *50.0* |  |  |" in text.splitlines()


def changed(change):
    content = copy.deepcopy(TABLE)
    change(content["grid"])
    return content


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda grid: grid.update(row=[]), "the grid has an unknown key 'row'; did you mean 'rows'"),
        (lambda grid: grid["rows"][0].update(configs=""), "row 's' of the grid has an unknown key 'configs'"),
        (lambda grid: grid["columns"]["N2S"].update(x=1), "column 'N2S' of the grid has an unknown key 'x'"),
        (lambda grid: grid["tables"][0]["columns"].append("N2s"), "the grid has no column 'N2s'"),
        (lambda grid: grid["rows"][1]["reported"].update(S2N=1), "the grid has no column 'S2N'"),
        (lambda grid: grid["columns"]["N2S"].update(weights_of="x"), "the grid has no column 'x'"),
        (lambda grid: grid.pop("columns"), "needs JSON with title, seeds and runs: 'columns'"),
        (lambda grid: grid.update(rows=grid["rows"] + grid["rows"][:1]), "more than one run or part 's_"),
    ],
)
def test_a_wrong_grid_is_told(change, fault, tmp_path):
    with pytest.raises(UserError, match=fault):
        read(tmp_path, changed(change))
