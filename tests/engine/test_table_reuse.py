"""Rows that are there stand for a measurement only if it would be made in the same way, and that they do is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import robustness
import run_folds
import run_table

from mmovseg.engine import folds, table_reuse, tables
from mmovseg.engine import robustness as sweeps
from mmovseg.errors import UserError

ROOT = Path(__file__).parents[2]
COMMANDS = {"miniearth": run_table, "ombria": run_folds, "robustness_miniearth": robustness}


@pytest.fixture(params=COMMANDS)
def command(request, tmp_path, monkeypatch):
    """A command on a copy of the results that the repository ships, which were measured before rows had hashes."""
    for module in (tables, folds, sweeps):
        monkeypatch.setattr(module, "train_main", lambda argv: pytest.fail("something was measured"))
    for file in (ROOT / "results").glob(f"{request.param}*.csv"):
        shutil.copy(file, tmp_path)
    arguments = [f"configs/tables/{request.param}.json", "--output", str(tmp_path / "out")]
    arguments += ["--results", str(tmp_path / f"{request.param}.csv")]
    arguments += ["--runs", "fused"] if request.param == "robustness_miniearth" else []  # others lack seeds

    def run(*overrides):
        return COMMANDS[request.param].main.__wrapped__([arguments[0], *overrides, *arguments[1:]])

    return run


def test_shipped_rows_stand_for_the_table_and_that_is_said(command, capsys):
    assert command()
    printed = capsys.readouterr().out.splitlines()[0]
    count, *words = printed.split(" ")
    assert int(count) >= 18 and " ".join(words[:3]) == "rows taken from" and "csv', measured at commit " in printed


def test_overrides_are_checked_before_anything(command):
    with pytest.raises(UserError, match=r"unknown key 'model\.nonsense'"):
        command("train.max_iter=7", "model.nonsense=1")


def test_overrides_are_not_answered_with_rows_that_do_not_tell_how_they_were_made(command):
    with pytest.raises(UserError, match=r"does not tell how its rows were made .* name another file with --results"):
        command("train.max_iter=7")


def test_a_row_without_its_hash_stands_for_nothing_but_the_table_as_it_is(tmp_path, capsys):
    file = tmp_path / "rows.csv"
    file.write_text("run,commit,setup_sha256\na,123,\nb,,456\n")
    unknown, known = tables.read_rows(file)
    kept = table_reuse.KeptRows(file, changed=False)
    kept.tell()
    assert capsys.readouterr().out == ""
    kept.take(unknown, lambda: "456", "run 'a'")
    kept.take(known, lambda: "456", "run 'b'")
    kept.tell()
    assert capsys.readouterr().out == f"2 rows taken from '{file}', measured at commit 123\n"
    kept = table_reuse.KeptRows(file, changed=True)
    kept.take(known, lambda: "456", "run 'b'")
    kept.tell()
    assert capsys.readouterr().out == f"1 row taken from '{file}'\n"
    with pytest.raises(UserError, match=r"rows\.csv' holds run 'a', without the hash of how it was made"):
        kept.take(unknown, lambda: "456", "run 'a'")
    with pytest.raises(UserError, match=r"rows\.csv' holds run 'b', measured with another config"):
        kept.take(known, lambda: "789", "run 'b'")
