"""Tables of runs with several test loaders, and of reports that are neither of segmentation nor of encoders."""

from __future__ import annotations

import json

import pytest

from mmovseg.engine import table_trainings, tables
from mmovseg.errors import UserError
from tests.engine.fake_runs import FakeRuns, described

METRICS = ["sar R@1", "optical R@1", "sar CKA", "optical none"]
TABLE = {
    **{"title": "T", "seeds": [0, 1], "report": "encoder", "loaders": ["sar", "optical"], "metrics": METRICS},
    **{"decimals": {"sar CKA": 3}, "unit": "percent", "reported": "a paper", "results": "both"},
    "runs": [
        {"name": "plain", "label": "Plain", "config": "a.py", "reported": {"optical R@1": 88.0}},
        {"name": "full", "label": "Full", "config": "b.py", "overrides": ["x=1", "train.eval_period=5"]},
    ],
}


@pytest.fixture
def runs(monkeypatch):
    fake = FakeRuns()
    fake.loaders = ("sar", "optical")
    monkeypatch.setattr(tables, "train_main", fake)
    monkeypatch.setattr(table_trainings, "describe_config", described)
    return fake


def read(folder, content, name="t"):
    (folder / f"{name}.json").write_text(json.dumps(content))
    return tables.read_table(folder / f"{name}.json")


def test_one_row_holds_the_figures_of_both_loaders(runs, tmp_path):
    table = read(tmp_path, TABLE)
    rows = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    assert [(row["run"], row["seed"], row["modality"]) for row in rows] == [
        (run, seed, "sar+optical") for seed in "01" for run in ("plain", "full")
    ]
    assert [rows[0][name] for name in METRICS] == ["40.0000", "41.0000", "0.1235", ""]
    assert (rows[0]["data"], rows[0]["images"]) == ("d", "7")
    assert tables.to_markdown(table, rows).splitlines() == [
        "| setting | sar R@1 | optical R@1 | *reported* | sar CKA | optical none | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| Plain | 45.0 ± 7.1 | 46.0 ± 7.1 | *88.0* | 0.123 ± 0.000 | not run | 2 |",
        "| Full | 45.0 ± 7.1 | 46.0 ± 7.1 |  | 0.123 ± 0.000 | not run | 2 |",
        "",
        "*Reported*: a paper.",
    ]
    assert len([call for call in runs.calls if call[0] == "evaluate"]) == 4
    assert not any("--modality" in argv for argv in runs.argvs)


def test_a_report_that_lacks_a_loader_or_a_metric_is_told(runs, tmp_path):
    runs.loaders = ("sar",)
    with pytest.raises(UserError, match=r"run 'plain' wrote no report '.*eval/\*/encoder-optical/result.json'"):
        tables.fill_table(read(tmp_path, TABLE), tmp_path / "t.csv", tmp_path / "runs")
    runs.loaders = ("sar", "optical")
    table = read(tmp_path, {**TABLE, "metrics": ["optical probe"], "decimals": {}, "runs": TABLE["runs"][1:]})
    with pytest.raises(UserError, match=r"encoder-optical/result.json' has no metric 'probe'; it has: R@1, CKA, none"):
        tables.fill_table(table, tmp_path / "u.csv", tmp_path / "runs")


def test_tables_that_share_results_measure_a_run_once(runs, tmp_path):
    first = read(tmp_path, {**TABLE, "seeds": [0]}, "one")
    second = read(tmp_path, {**TABLE, "seeds": [0], "runs": [TABLE["runs"][1]], "title": "U"}, "two")
    rows = tables.fill_table(first, tmp_path / "both.csv", tmp_path / "runs")
    done = len(runs.argvs)
    assert tables.fill_table(second, tmp_path / "both.csv", tmp_path / "runs") == rows
    assert len(runs.argvs) == done and "| Full | 40.0 |" in tables.to_markdown(second, rows)


def test_a_run_may_ask_for_evaluations_on_the_way(runs, tmp_path):
    tables.fill_table(read(tmp_path, TABLE), tmp_path / "t.csv", tmp_path / "runs", seeds=[0])
    periods = [[item for item in argv if item.startswith("train.eval_period=")][-1] for argv in runs.argvs]
    assert periods == ["train.eval_period=-1"] * 2 + ["train.eval_period=5"] * 2


@pytest.mark.parametrize("kind", ["classification", "detection"])
def test_reports_of_other_kinds_have_their_own_folder(kind, runs, tmp_path):
    runs.kind, runs.loaders = kind, ()
    content = {"title": "C", "seeds": [0], "report": kind, "metrics": ["R@1"], "runs": TABLE["runs"][1:]}
    table = read(tmp_path, content)
    (row,) = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    assert (row["R@1"], row["modality"]) == ("40.0000", "both")
    assert tables.to_markdown(table, [row]).startswith("| setting | R@1 | seeds |")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"report": "segmentation", "metrics": ["mIoU"], "decimals": {}},
            "names loaders, which reports of",
        ),
        ({"loaders": ["sar", "sar"]}, "loader 'sar' must be one word, named once"),
        ({"loaders": ["the sar"]}, "loader 'the sar' must be one word"),
        (
            {"metrics": ["probe mIoU"], "decimals": {}},
            "must begin with the name of a loader: sar, optical",
        ),
        ({"report": "detection", "metrics": []}, "reports of kind 'detection' and has to name its 'metrics'"),
        ({"report": "captions"}, "report 'captions' must be one of segmentation, encoder, classification, detection"),
    ],
)
def test_what_a_table_says_wrongly_of_its_loaders(changes, fault, tmp_path):
    runs = [{"name": "plain", "label": "Plain", "config": "a.py", "evaluate": ["both"]}]
    with pytest.raises(UserError, match=fault):
        read(tmp_path, {**TABLE, "runs": runs, **changes})
