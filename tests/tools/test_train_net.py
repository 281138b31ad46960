"""The command itself: what the user sees, in one process of its own where the exit status counts."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from mmovseg.config import load_config

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "tests" / "engine" / "toy_config.py")


def call(monkeypatch, tool, *arguments):
    """Run a tool as `python tools/<tool>.py` would, in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    try:
        runpy.run_path(str(ROOT / "tools" / f"{tool}.py"), run_name="__main__")
    except SystemExit as error:
        return error.code
    return 0


def test_training_prints_one_line_a_period_and_leaves_the_files(monkeypatch, capsys, tmp_path):
    assert (
        call(monkeypatch, "train_net", "--config-file", TOY, f"train.output_dir={tmp_path}", "train.tensorboard=true")
        == 0
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "] iter " in line]
    assert [line.split()[2] for line in lines] == ["2/6", "4/6", "6/6"]
    for word in ("eta", "total_loss", "loss_fit", "loss_size", "lr", "time", "data_time", "max_mem"):
        assert f" {word} " in lines[-1]
    names = {file.name for file in tmp_path.iterdir()}
    assert {"config.yaml", "last_checkpoint", "log.txt", "metrics.json", "model_final.safetensors"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.endswith(".tmp") for name in names)
    assert load_config(tmp_path / "config.yaml").train.max_iter == 6


def test_mistake_is_one_line_on_stderr_and_status_2(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "never"
    arguments = ("--config-file", TOY, f"train.output_dir={folder}", "train.max_itr=5")
    assert call(monkeypatch, "train_net", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "error: override 'train.max_itr=5': unknown key 'train.max_itr'; did you mean 'max_iter'?"
    ]
    assert not folder.exists()


def test_show_config_prints_a_config_that_loads_again(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "show_config", "--config-file", TOY, "train.max_iter=9") == 0
    file = tmp_path / "shown.yaml"
    file.write_text(capsys.readouterr().out)
    assert load_config(file).lr_multiplier.max_iter == 9


def test_show_config_counts_parameters(monkeypatch, capsys):
    assert call(monkeypatch, "show_config", "--config-file", TOY, "--parameters") == 0
    rows = {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows == {
        "frozen": ["16", "0", "16"],
        "norm": ["8", "8", "0"],
        "head": ["5", "5", "0"],
        "total": ["29", "13", "16"],
    }


def test_weights_carry_their_facts(monkeypatch, tmp_path):
    from mmovseg.checkpoint import read_metadata
    from mmovseg.config import config_hash

    call(monkeypatch, "train_net", "--config-file", TOY, f"train.output_dir={tmp_path}", "train.seed=4")
    facts = read_metadata(tmp_path / "model_final.safetensors")
    assert (facts["seed"], facts["iteration"], facts["config_file"]) == ("4", "6", "toy_config.py")
    assert facts["config_sha256"] == config_hash(load_config(tmp_path / "config.yaml"))
    assert json.loads(facts["input_contract"]) == {"bands": ["red", "green", "blue"]}
    assert "torch" in json.loads(facts["versions"])


@pytest.mark.parametrize("tool", ["train_net", "show_config"])
def test_help_is_there(monkeypatch, capsys, tool):
    assert call(monkeypatch, tool, "--help") == 0
    assert "--config-file" in capsys.readouterr().out
