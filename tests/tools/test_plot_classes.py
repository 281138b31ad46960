"""The command that draws the IoU of classes: which runs, in which order, and what it refuses."""

from __future__ import annotations

import json

import plot_classes
import pytest

from mmovseg.engine.table_classes import class_panels
from mmovseg.engine.table_rows import append_classes
from mmovseg.engine.tables import read_classes

RUNS = [
    {"name": "b", "label": "B, both", "config": "b.py", "evaluate": ["both", "sar"]},
    {"name": "a", "label": "A, both", "config": "a.py", "evaluate": ["both"]},
]


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "t_classes.csv"
    for run, modality, iou in (("a", "both", 40.0), ("b", "both", 50.0), ("b", "sar", 20.0)):
        for seed in (0, 1):
            classes = [
                {"name": "water", "seen": False, "IoU": iou / 2 + 10 * seed},
                {"name": "forest", "seen": True, "IoU": iou + 10 * seed},
                {"name": "city", "seen": True, "IoU": None},
            ]
            row = {"table": "t", "run": run, "seed": seed, "modality": modality}
            append_classes(path, row, {"dataset": "d", "per_class": classes})
    (tmp_path / "t.json").write_text(json.dumps({"title": "T", "seeds": [0, 1], "runs": RUNS}))
    return path


def test_the_table_gives_order_labels_and_modality(results, tmp_path):
    text = plot_classes.main([str(results), "--table", str(tmp_path / "t.json"), "--output", str(tmp_path / "out.png")])
    assert text.splitlines()[2:] == [
        "| B, both | forest | seen | 55.0 ± 7.1 | 2 |",
        "| B, both | city | seen |  | 0 |",
        "| B, both | water | unseen | 30.0 ± 7.1 | 2 |",
        "| A, both | forest | seen | 45.0 ± 7.1 | 2 |",
        "| A, both | city | seen |  | 0 |",
        "| A, both | water | unseen | 25.0 ± 7.1 | 2 |",
    ]
    assert (tmp_path / "out.png").stat().st_size > 10_000


def test_without_a_table_every_modality_is_shown(results):
    rows = read_classes(results)
    assert [panel.title for panel in class_panels(rows)] == ["a, both", "b, both", "b, sar"]
    assert [panel.title for panel in class_panels(rows, only=["a"])] == ["a"]
    assert [panel.title for panel in class_panels(rows, modality="sar")] == ["b"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--runs", "c"], "there is no run 'c'; there are: a, b"),
        (["--modality", "optical"], "no class was measured yet for these runs with modality optical"),
    ],
)
def test_what_is_not_there_is_told(results, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        plot_classes.main([str(results), "--output", str(tmp_path / "x.png"), *options])
    assert message in capsys.readouterr().err


def test_another_file_is_refused(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("table,run,seed\nt,a,0\n")
    for file, message in (("t.csv", "does not hold the IoU of classes"), ("none.csv", "does not exist")):
        with pytest.raises(SystemExit):
            plot_classes.main([str(tmp_path / file), "--output", str(tmp_path / "x.png")])
        assert message in capsys.readouterr().err
