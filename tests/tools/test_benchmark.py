"""The command `tools/benchmark.py`; what it measures is tested with the engine."""

import json

import benchmark
import pytest

from mmovseg.engine import cost_table
from mmovseg.engine.table_rows import read_rows
from tests.engine.test_cost_table import definition, measured


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command with made-up measurements; returns (exit status, stdout, stderr, jobs)."""
    jobs = []

    def made_up(job):
        jobs.append(job)
        return measured(job)

    monkeypatch.setattr(cost_table.measure_row, "__kwdefaults__", {"run": made_up})
    monkeypatch.setitem(cost_table.fill_cost_table.__kwdefaults__, "run", made_up)

    def run_it(*arguments):
        status = 0
        try:
            benchmark.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr(), jobs

    return run_it


def test_one_config_gives_a_row_and_every_step(run, tmp_path):
    results = tmp_path / "out" / "cost.csv"
    status, out, _, jobs = run(
        "cost", "--config-file", "configs/miniearth/sar_xs.py", "--part", "student", "train.max_iter=9", "--batch", 2,
        "--steps", 4, "--results", results, "model.temperature=0.1",
    )  # fmt: skip
    assert status == 0 and "train_ms" in out and str(results) in out
    assert [(job.phase, job.batch, job.steps, job.part) for job in jobs] == [
        ("train", 2, 4, "student"),
        ("infer", None, 4, "student"),
    ]
    assert jobs[0].overrides == ("train.max_iter=9", "model.temperature=0.1")
    assert [row["name"] for row in read_rows(results)] == ["sar_xs_student"]
    assert json.loads((tmp_path / "out" / "sar_xs_student.json").read_text())["train"]["seconds"] == [1, 2, 3, 10]


def test_one_phase_only(run, tmp_path):
    *_, jobs = run("cost", "--config-file", "x.py", "--phase", "infer", "--images", 3, "--results", tmp_path / "c.csv")
    assert [(job.phase, job.batch) for job in jobs] == [("infer", 3)]


def test_a_table_is_one_command_and_can_be_printed_again(run, tmp_path):
    table, results = definition(tmp_path), tmp_path / "cost.csv"
    status, out, _, jobs = run("cost", "--table", table, "--results", results, "--energy", "--country", "DEU")
    assert status == 0 and out.startswith("Cost\n\n| module |") and "A note." in out
    assert len(jobs) == 4 and all(job.energy and job.country == "DEU" for job in jobs)
    again = run("cost", "--table", table, "--results", results, "--print")
    assert again[1] == out and len(jobs) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config-file", "x.py", "--rows", "a"], "--rows needs --table"),
        (["--config-file", "x.py", "--print"], "--print needs --table"),
        (["--table", "t.json", "--part", "head"], "table 't.json' cannot be read"),
        (["--config-file", "x.py", "--step", "3", "--bathc", "2"], "unrecognized arguments: --bathc 2"),
        (["--config-file", "x.py", "sar"], "unrecognized arguments: sar"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(run, arguments, sentence):
    status, _, errors, jobs = run("cost", *arguments)
    assert status == 2 and sentence in errors and jobs == []


def test_options_of_one_config_are_refused_for_a_table(run, tmp_path):
    status, _, errors, _ = run("cost", "--table", definition(tmp_path), "--batch", 4)
    assert status == 2 and "--batch is for --config-file; a table says it itself" in errors
