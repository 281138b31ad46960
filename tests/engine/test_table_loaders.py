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
        "| Plain | 45.0 ± 7.1 | 46.0 ± 7.1 | *88.0* | 0.123 ± 0.000 | - | 2 |",
        "| Full | 45.0 ± 7.1 | 46.0 ± 7.1 |  | 0.123 ± 0.000 | - | 2 |",
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


def test_a_column_may_be_the_mean_of_others(runs, tmp_path):
    averages = {"both R@1": ["sar R@1", "optical R@1"], "gone": ["sar R@1", "optical none"]}
    table = read(tmp_path, {**TABLE, "averages": averages, "decimals": {"both R@1": 2}})
    rows = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    assert "both R@1" not in rows[0]
    lines = tables.to_markdown(table, rows).splitlines()
    assert lines[0].endswith("| optical none | both R@1 | gone | seeds |")
    assert lines[2].endswith("| - | 45.50 ± 7.07 | - | 2 |")
    _, summary = tables.write_summary(table, rows, tmp_path / "runs")
    assert "plain,Plain,sar+optical,both R@1,45.500,7.071,2,\n" in summary.read_text()


def test_segmentation_of_several_loaders_makes_one_row_and_keeps_classes(runs, tmp_path):
    runs.loaders = ("north", "south")
    metrics = ["north mIoU", "south mIoU", "south IoU-water", "south share 1", "north share 1"]
    run = {"name": "a", "label": "A", "config": "a.py", "evaluate": ["sar"]}
    content = {"title": "S", "seeds": [0], "loaders": ["north", "south"], "metrics": metrics, "runs": [run]}
    table = read(tmp_path, content)
    (row,) = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    assert [row[name] for name in metrics] == ["40.0000", "41.0000", "20.5000", "0.6000", "0.5000"]
    assert (row["modality"], row["data"], row["images"]) == ("sar", "north+south", "7")
    classes = tables.read_classes(tables.classes_file(tmp_path / "t.csv"))
    assert [(item["dataset"], item["class"], item["IoU"]) for item in classes] == [
        ("north", "water", "20.00"), ("north", "road", ""), ("south", "water", "20.50"), ("south", "road", ""),
    ]  # fmt: skip
    assert tables.to_markdown(table, [row]).splitlines()[2].startswith("| A | sar | 40.0 | 41.0 | 20.5 |")
    assert len([call for call in runs.calls if call[0] == "evaluate"]) == 1


def test_a_segmentation_run_without_one_of_the_loaders_is_told(runs, tmp_path):
    runs.loaders = ("north",)
    run = {"name": "a", "label": "A", "config": "a.py", "evaluate": ["sar"]}
    content = {"title": "S", "seeds": [0], "loaders": ["north", "south"], "metrics": ["south mIoU"], "runs": [run]}
    with pytest.raises(UserError, match=r"run 'a' wrote no report '.*eval/south/sar-\*/result.json'"):
        tables.fill_table(read(tmp_path, content), tmp_path / "t.csv", tmp_path / "runs")


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


def test_each_loader_may_have_a_report_of_its_own_kind(runs, tmp_path):
    table = read(tmp_path, {**TABLE, "reports": {"optical": "captioning"}, "seeds": [0], "runs": TABLE["runs"][:1]})
    with pytest.raises(UserError, match=r"wrote no report '.*eval/\*/captioning-optical/result.json'"):
        tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    runs.kinds = {"optical": "captioning"}
    (row,) = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs")
    assert (row["sar R@1"], row["optical R@1"]) == ("40.0000", "41.0000")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"report": "segmentation", "metrics": ["mIoU"], "decimals": {}},
            "metric 'mIoU' must begin with the name of a loader: sar, optical",
        ),
        (
            {"averages": {"mean": ["sar R@1", "sar R@5"]}},
            "average 'mean' is of 'sar R@5', which is none of its metrics",
        ),
        ({"averages": {"mean": []}}, "average 'mean' is of nothing"),
        ({"averages": {"sar CKA": ["sar R@1"]}}, "average 'sar CKA' is of nothing, or has the name of a metric"),
        ({"loaders": ["sar", "sar"]}, "loader 'sar' must be one word, named once"),
        ({"loaders": ["the sar"]}, "loader 'the sar' must be one word"),
        (
            {"metrics": ["probe mIoU"], "decimals": {}},
            "must begin with the name of a loader: sar, optical",
        ),
        ({"report": "detection", "metrics": []}, "reports of kind 'detection' and has to name its 'metrics'"),
        ({"reports": {"east": "vqa"}}, "report 'vqa' of 'east' must be one of encoder, .*, of one of its loaders"),
        ({"reports": {"sar": "answers"}}, "report 'answers' of 'sar' must be one of encoder"),
        ({"report": "captions"}, "report 'captions' must be one of segmentation, encoder, classification, detection"),
    ],
)
def test_what_a_table_says_wrongly_of_its_loaders(changes, fault, tmp_path):
    runs = [{"name": "plain", "label": "Plain", "config": "a.py", "evaluate": ["both"]}]
    with pytest.raises(UserError, match=fault):
        read(tmp_path, {**TABLE, "runs": runs, **changes})
