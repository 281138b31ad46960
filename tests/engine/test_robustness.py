"""Sweeps over clouds and shifts: what is evaluated, that it goes on where it stopped, and what is drawn."""

import json
import shutil

import pytest
import robustness as command
from PIL import Image

from mmovseg.config import load_config, save_config
from mmovseg.data.miniearth import dataset as miniearth
from mmovseg.engine import robustness
from mmovseg.engine.cli import train_main
from mmovseg.engine.robustness import fill_sweep, points_of, read_sweep
from mmovseg.engine.robustness_report import draw_sweep, series_label, to_markdown
from mmovseg.engine.tables import METRICS, append_row, read_rows
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs
from mmovseg.testing.models import write_pairs_run, write_random_xs, write_tiny_run

RENDER = miniearth.render
FUSED = {"name": "fused", "label": "optical + SAR", "cover": ["both", "optical", "sar", "shuffled-sar"]}
FUSED |= {"shift": ["both", "shuffled-sar"], "margin": ["both"]}


def write_sweep(folder, *runs, **changes):
    content = {"title": "T", "seeds": [0], "scenes": 3, "cover": {"kind": "thick", "percent": [0, 100]}}
    content |= {"shift_px": [0, 5], "runs": list(runs)} | changes
    path = folder / "sweep.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fused run: tiny config, random weights."""
    folder = tmp_path_factory.mktemp("sweep")
    config = write_tiny_run(folder)
    return FUSED | {"config": str(config), "checkpoint": str(write_random_xs(folder)[1])}


@pytest.fixture(scope="module")
def measured(run, tmp_path_factory):
    """The CSV of a whole sweep, how many scenes were rendered for it, and the sweep."""
    folder = tmp_path_factory.mktemp("measured")
    twin = run | {"name": "twin", "label": "twin", "cover": ["sar"], "shift": [], "margin": []}
    sweep = read_sweep(write_sweep(folder, run, twin))
    rendered = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miniearth.MiniEarthReader, "_kept", {})  # what other tests rendered counts for nothing here
        patch.setattr(miniearth, "render", lambda *a, **k: rendered.append(a) or RENDER(*a, **k))
        fill_sweep(sweep, folder / "rows.csv", folder)
    return folder / "rows.csv", len(rendered), sweep


def score(rows, part, value, modality, run="fused"):
    found = [
        row
        for row in rows
        if (row["sweep"], row["value"], row["modality"], row["run"]) == (part, str(value), modality, run)
    ]
    assert len(found) == 1, f"{part} {value} {modality}: {len(found)} rows"
    return tuple(found[0][name] for name in METRICS)


def test_every_point_is_evaluated_once(measured):
    file, rendered, sweep = measured
    rows = read_rows(file)
    assert [(row["run"], row["sweep"], row["value"], row["modality"]) for row in rows] == [
        ("fused", "cover", "0", "both"), ("fused", "cover", "100", "both"),
        ("fused", "cover", "0", "optical"), ("fused", "cover", "100", "optical"),
        ("fused", "cover", "any", "sar"),
        ("fused", "cover", "0", "shuffled-sar"), ("fused", "cover", "100", "shuffled-sar"),
        ("fused", "shift", "0", "both"), ("fused", "shift", "5", "both"), ("fused", "shift", "any", "shuffled-sar"),
        ("fused", "margin", "5", "both"),
        ("twin", "cover", "any", "sar"),
    ]  # fmt: skip
    assert rendered == 3, "scenes are rendered once for all points and runs"
    assert {(row["images"], row["data"], row["kind"]) for row in rows} == {
        ("3", "miniearth_test", "thick"), ("3", "miniearth_test", "")
    }  # fmt: skip
    assert all(float(row["mIoU low"]) < float(row["mIoU high"]) for row in rows)
    assert all(len(row["weights_sha256"]) == len(row["config_sha256"]) == 12 for row in rows)
    assert score(rows, "cover", "any", "sar") == score(rows, "cover", "any", "sar", run="twin")
    distinct = [score(rows, "cover", 0, name) for name in ("both", "optical", "shuffled-sar")]
    distinct += [score(rows, "cover", 100, "both"), score(rows, "shift", 5, "both"), score(rows, "margin", 5, "both")]
    assert len(set(distinct)) == len(distinct), "two points saw the same input"


def test_points_are_what_the_command_line_evaluates(measured, run, tmp_path):
    argv = ["--config-file", run["config"], "--eval-only", f"train.init_checkpoint={run['checkpoint']}"]
    argv += [f"train.output_dir={tmp_path}", "dataloader.test.dataset.num_scenes=3", "--modality", "shuffled-sar"]
    train_main(argv)
    report = json.loads((tmp_path / "eval/miniearth_test/shuffled-sar-clean/result.json").read_text())
    assert report["modality"] == "shuffled-sar"
    shown = tuple("" if report[name] is None else f"{report[name]:.2f}" for name in METRICS)
    assert score(read_rows(measured[0]), "shift", "any", "shuffled-sar") == shown


def test_a_stopped_sweep_goes_on_where_it_was(measured, tmp_path, monkeypatch):
    file, _, sweep = measured
    lines = file.read_text().splitlines(keepends=True)
    (tmp_path / "rows.csv").write_text("".join(lines[:9]))
    calls, real = [], robustness.evaluate
    monkeypatch.setattr(robustness, "evaluate", lambda *a, **k: calls.append(a) or real(*a, **k))
    rows = fill_sweep(sweep, tmp_path / "rows.csv", tmp_path, only=["fused"])
    assert len(calls) == 3
    fixed = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    assert fixed == [
        {key: value for key, value in row.items() if key != "seconds"}
        for row in read_rows(file)
        if row["run"] == "fused"
    ]


def test_rows_that_were_measured_otherwise_are_refused(measured, tmp_path):
    file, _, sweep = measured
    shutil.copy(file, tmp_path / "rows.csv")
    assert fill_sweep(sweep, tmp_path / "rows.csv", tmp_path, overrides=["train.log_period=7"]) == read_rows(file)
    message = "holds run 'fused', seed 0, cover 0, both, measured with another config"
    with pytest.raises(UserError, match=message):
        fill_sweep(sweep, tmp_path / "rows.csv", tmp_path, overrides=["dataloader.test.dataset.num_scenes=2"])
    with pytest.raises(UserError, match=message):
        fill_sweep({**sweep, "scenes": 2}, tmp_path / "rows.csv", tmp_path)
    lost = {**sweep, "runs": [{**sweep["runs"][0], "checkpoint": "none-{seed}.safetensors"}]}
    with pytest.raises(UserError, match=r"checkpoint 'none-0\.safetensors' does not exist"):
        fill_sweep(lost, tmp_path / "rows.csv", tmp_path)


def test_the_command_measures_folders_and_trains_what_has_no_weights(tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs", count=4, height=32, width=32)
    config = write_pairs_run(tmp_path / "run", pairs)
    own = {"name": "own", "label": "own", "config": str(config), "cover": ["both"], "shift": ["sar"]}
    sweep = write_sweep(tmp_path, own, scenes=None)
    arguments = [str(sweep), "--results", str(tmp_path / "rows.csv"), "--output", str(tmp_path / "out")]
    text = command.main([*arguments, "train.max_iter=1"])
    rows = read_rows(tmp_path / "rows.csv")
    assert [(row["value"], row["images"]) for row in rows] == [("0", "4"), ("100", "4"), ("0", "4"), ("5", "4")]
    assert (tmp_path / "out" / "own-seed0" / "model_final.safetensors").is_file()
    assert text.count("| own") == 2 and "not run" not in text
    with Image.open(tmp_path / "out" / "robustness.png") as picture:
        assert min(picture.size) > 300
    other = [str(sweep), "--results", str(tmp_path / "other.csv"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        command.main([*other, "train.max_iter=2"])
    assert "final.safetensors' was trained with another config or overrides; remove it" in capsys.readouterr().err
    (tmp_path / "out" / "own-seed0" / "table_setup.json").unlink()  # as of weights that were put there
    with pytest.raises(SystemExit):
        command.main([*other, "train.max_iter=1"])
    assert "final.safetensors' does not tell how it was trained" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "pairs")  # printing reads the CSV alone
    assert command.main([*arguments, "--print", "--picture", str(tmp_path / "again.png")]) == text
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out" / "robustness.png").read_bytes()


def rows_of(tmp_path, sweep, seeds=(0, 1)):
    """Made-up rows: the score is 80 - cover / 2 - shift + seed; seed 1 has no margin rows."""
    for seed in seeds:
        for run in sweep["runs"]:
            for point in points_of(sweep, run):
                if (seed, point.sweep) == (1, "margin"):
                    continue
                value = 0 if point.value == "any" else int(point.value)
                number = 80 - (value / 2 if point.sweep == "cover" else value) + seed
                row = {"sweep": point.sweep, "kind": point.kind, "value": point.value, "modality": point.modality}
                row |= {"run": run["name"], "seed": seed} | dict.fromkeys(METRICS, f"{number:.2f}")
                row |= {"mIoU low": number - 5, "mIoU high": number + 2}
                append_row(tmp_path / "made.csv", row, robustness.FIELDS)
    return read_rows(tmp_path / "made.csv")


def test_markdown_shows_what_was_measured(tmp_path):
    run = FUSED | {"config": "c.py"}
    sweep = read_sweep(
        write_sweep(tmp_path, run, cover={"kind": "thick", "percent": [0, 50, 100], "columns": [0, 100]})
    )
    rows = rows_of(tmp_path, sweep)
    text = to_markdown(sweep, rows)
    assert "| cloud cover, thick | 0 % | 100 % | seeds |" in text
    assert "| optical + SAR | 80.5 ± 0.7 | 30.5 ± 0.7 | 2 |" in text
    assert "| optical + SAR, optical withheld | 80.5 ± 0.7 | 80.5 ± 0.7 | 2 |" in text
    assert "| optical + SAR, SAR of another place | 80.5 ± 0.7 | 80.5 ± 0.7 | 2 |" in text.split("SAR shifted by")[1]
    assert "| optical + SAR, only the margin missing | 80.5 ± 0.7 | 75.0 (70.0-77.0) | 1 |" in text
    thin = read_sweep(write_sweep(tmp_path, run), kind="thin")
    assert "| optical + SAR | not run | not run | 0 |" in to_markdown(thin, rows)
    assert "| optical + SAR | 80.5 ± 0.7 | 75.5 ± 0.7 | 2 |" in to_markdown(thin, rows, metric="hIoU")
    with pytest.raises(UserError, match="nothing to draw"):
        draw_sweep(thin, [], tmp_path / "a.png")


def test_labels_say_which_model_was_tested_with_what():
    sar = {"name": "s", "label": "SAR only", "cover": ["sar"]}
    assert series_label(sar, "cover", "sar") == "SAR only"
    assert series_label(FUSED, "cover", "sar") == "optical + SAR, optical withheld"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cover": {"percent": [0]}}, "needs JSON with title, seeds, cover and runs"),
        ({"cover": {"kind": "fog", "percent": [0]}}, "unknown cloud kind 'fog'"),
        ({"runs": [{"name": "a", "config": "c", "cover": ["radar"]}]}, "tested with 'radar'; known: both"),
    ],
)
def test_bad_definitions_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        read_sweep(write_sweep(tmp_path, **changes))
    with pytest.raises(UserError, match=r"none\.json' cannot be read"):
        read_sweep(tmp_path / "none.json")


def test_unknown_runs_and_unfit_configs_are_refused(run, tmp_path):
    sweep = read_sweep(write_sweep(tmp_path, run))
    with pytest.raises(UserError, match="has no run 'radar'; it has: fused"):
        fill_sweep(sweep, tmp_path / "rows.csv", tmp_path, only=["radar"])
    config = load_config(run["config"])
    config.dataloader.test = config.dataloader.evaluator = None
    save_config(config, tmp_path / "config.yaml")
    sweep = read_sweep(write_sweep(tmp_path, run | {"config": str(tmp_path / "config.yaml")}))
    with pytest.raises(UserError, match="has 0 test loaders"):
        fill_sweep(sweep, tmp_path / "rows.csv", tmp_path)


def test_the_shipped_sweep_names_configs_that_exist():
    sweep = read_sweep("configs/tables/robustness_miniearth.json")
    for entry in sweep["runs"]:
        assert len(robustness.test_nodes(load_config(entry["config"]))) == 1
        assert points_of(sweep, entry)
