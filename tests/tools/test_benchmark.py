"""The command `tools/benchmark.py`; what it measures is tested with the engine."""

import json

import benchmark
import pytest

from mmovseg.engine import cost_table
from mmovseg.engine.benchmark.suite import run_suite
from mmovseg.engine.table_rows import read_rows
from tests.engine import fake_benchmark
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


# ---------------------------------------------------------------- everything in one run

SMALL = ("--config-file", "miniearth/mmovseg_xs.py", "--released-config", "miniearth/mmovseg_xs.py", "--device", "cpu")


@pytest.fixture
def suite(run, monkeypatch):
    """Run the command with made-up measurements of rows; returns (exit status, stdout, stderr)."""
    monkeypatch.setitem(run_suite.__kwdefaults__, "measure", fake_benchmark.measured)
    return lambda *arguments: run(*arguments)[:3]


def test_one_command_writes_json_and_markdown_and_the_table_is_that_of_the_results(suite, tmp_path):
    results = tmp_path / "out" / "speed.json"
    status, out, errors = suite("suite", *SMALL, "--results", results, "--batch", 2, 1, "--budget-seconds", 1e9)
    assert status == 0 and f"wrote {results} and {results.with_suffix('.md')}" in out
    assert "[3/32] inference/batch1/float32/eager: 2 s" in errors
    rows = {row["name"]: row for row in json.loads(results.read_text())["rows"]}
    assert len(rows) == 32 and rows["classes/847"]["measured"]["seconds"][0] == 422.5
    text = results.with_suffix(".md").read_text()
    assert out.startswith(text.rstrip()) and "| `mmovseg_xs` | batch |" in text
    assert suite("table", "--results", results)[1] == text


def test_rows_can_be_listed_and_chosen(suite, tmp_path):
    status, out, _ = suite("suite", "--list", "--classes", 2, 9, 5)
    assert status == 0 and "classes/9\n" in out and "classes/5-at-once\n" in out and "classes/20" not in out
    results = tmp_path / "speed.json"
    _, _, errors = suite("suite", *SMALL, "--results", results, "--rows", "evaluation/*", "machine/matmul")
    assert [line.split(": ")[0] for line in errors.splitlines()] == [
        "[1/2] machine/matmul",
        "[2/2] evaluation/confusion",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["suite", "--rows", "nothing"], "--rows 'nothing' matches no row"),
        (["suite", "--device", "gpu"], "must be auto, cpu, cuda or cuda:N"),
        (["suite", "--config-file", "none.py"], "none.py"),
        (["table", "--results", "none.json"], "there are no results in 'none.json'"),
        (["table", "model.x=1"], "table takes no override 'model.x=1'"),
    ],
)
def test_wrong_arguments_of_a_suite_are_told_in_one_sentence(suite, tmp_path, monkeypatch, arguments, sentence):
    results = [] if "--results" in arguments else ["--results", tmp_path / "speed.json"]
    status, _, errors = suite(*arguments, *results)
    assert status == 2 and sentence in errors.splitlines()[-1] and not (tmp_path / "speed.json").exists()
