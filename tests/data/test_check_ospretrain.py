"""The check of a tree laid out as OSPretrain-1M: a clean one, every kind of fault, and the command."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from mmovseg.data.datasets.check import FAULT_KINDS
from mmovseg.data.datasets.check_ospretrain import inspect_ospretrain
from mmovseg.testing.trees_ospretrain import write_png, write_tree

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "OSPretrain-1M", inner=True)


def test_a_clean_tree_has_no_fault(tree):
    report = inspect_ospretrain(tree, workers=2)
    assert report.faults == []
    assert report.pairs == {
        "PIE-RGB-SAR": 1,
        "QXSLAB_SARPORT": 4,
        "SpaceNet6": 3,
        "WHU-OPT-SAR": 3,
        "Unpaired/RGB": 3,
        "Unpaired/RGB/FAIR1M": 2,
        "Unpaired/SAR": 3,
        "Unpaired/SAR/SARDet": 2,
    }
    assert "source 'FAIR1M' has no figures in 'ospretrain': tools/compute_statistics.py" in report.notes
    assert "source 'WHU-OPT-SAR': pretraining leaves its list test out by default" in report.notes
    assert "source 'PIE-RGB-SAR': pretraining leaves it out by default" in report.notes


def break_partner(tree):
    (tree / "SpaceNet6" / "SAR" / "s2.png").unlink()


def break_list(tree):
    (tree / "WHU-OPT-SAR" / "train.txt").write_text("w1\nw9\n")


def break_empty_list(tree):
    (tree / "WHU-OPT-SAR" / "val.txt").write_text("")


def break_size(tree):
    write_png(tree / "SpaceNet6" / "SAR" / "s2.png", np.zeros((9, 9)))


def break_file(tree):
    path = tree / "QXSLAB_SARPORT" / "RGB" / "a2.png"
    path.write_bytes(path.read_bytes()[:200])


def break_unpaired_file(tree):
    (tree / "Unpaired" / "SAR" / "u0.png").write_bytes(b"no image")


def break_count(tree):
    (tree / "Unpaired" / "SAR" / "u0.png").unlink()


def break_source(tree):
    for role in ("RGB", "SAR"):
        shutil.rmtree(tree / "SpaceNet6" / role)
        (tree / "SpaceNet6" / role).mkdir()


@pytest.mark.parametrize(
    ("break_it", "kinds"),
    [
        (break_partner, ["missing_sar"]),
        (break_list, ["missing_optical", "missing_sar"]),
        (break_empty_list, ["empty_split"]),
        (break_size, ["wrong_size"]),
        (break_file, ["truncated"]),
        (break_unpaired_file, ["truncated"]),
        (break_count, ["wrong_count"]),
        (break_source, ["empty_split"]),
    ],
)
def test_every_fault_is_found_and_none_besides(tree, break_it, kinds):
    break_it(tree)
    found = inspect_ospretrain(tree).faults
    assert [fault.kind for fault in found] == kinds and set(kinds) <= set(FAULT_KINDS)
    assert all(str(tree) in fault.path for fault in found)


def test_names_in_no_list_are_a_note(tree):
    (tree / "WHU-OPT-SAR" / "train.txt").write_text("w1\n")
    assert "source 'WHU-OPT-SAR': 1 names are in no list and are not used" in inspect_ospretrain(tree, fast=True).notes


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["check_data.py", "ospretrain", "--quiet", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / "check_data.py"), run_name="__main__")
    return ended.value.code


def test_the_command_prints_and_says_how_it_went(tree, monkeypatch, capsys):
    assert run(monkeypatch, "--root", tree.parent) == 0
    assert "ospretrain: pairs: PIE-RGB-SAR 1, " in capsys.readouterr().out
    break_size(tree)
    assert run(monkeypatch, "--root", tree.parent) == 1
    assert "wrong_size: " in capsys.readouterr().out
    assert run(monkeypatch, "--root", tree.parent / "gone") == 2
    assert "OSPretrain-1M' do not exist; datasets/README.md" in capsys.readouterr().err
    assert run(monkeypatch, "--root", tree.parent, "--split", "train") == 2
