"""Values that a config or its parts cannot take end a run with one sentence; mistakes of the program keep theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from mmovseg import atomic
from mmovseg.checkpoint import save
from mmovseg.engine import run as engine_run
from mmovseg.engine.cli import train_main
from mmovseg.engine.state import save_training_state
from mmovseg.errors import UserError
from tests.engine import toy_parts

TOY = str(Path(__file__).with_name("toy_config.py"))


def run(folder, *arguments):
    return train_main(["--config-file", TOY, f"train.output_dir={folder}", "train.max_iter=2", *arguments])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.seed=-1"], "command line: train.seed is -1 but must be at least 0"),
        (["lr_multiplier=null"], "defines no 'lr_multiplier', which training needs"),
        (["model=null"], "defines no 'model'"),
        (["train=null"], "defines no 'train'"),
        (["train.output_dir=${nope}"], "override 'train.output_dir=${nope}': Interpolation key 'nope' not found"),
        (["optimizer.base_lr=-1"], "override 'optimizer.base_lr=-1': build_optimizer refuses: Invalid learning rate"),
        (
            ["optimizer.betas=[0.9]", "optimizer.eps=1e-6"],
            "overrides 'optimizer.betas=[0.9] optimizer.eps=1e-6': build_optimizer refuses: not enough values",
        ),
    ],
)
def test_what_a_run_cannot_take_is_one_sentence(tmp_path, overrides, message):
    with pytest.raises(UserError) as caught:
        run(tmp_path, *overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_of_the_program_is_not_put_on_the_command_line(tmp_path, monkeypatch):
    def broken(self, **_):
        raise ValueError("a slip of the program")

    monkeypatch.setattr(toy_parts.ToyLoader, "__init__", broken)
    with pytest.raises(ValueError, match="a slip of the program") as caught:
        run(tmp_path, "optimizer.base_lr=0.1")
    assert not isinstance(caught.value, UserError)


def test_a_full_disk_is_told_by_weights(tmp_path, monkeypatch):
    def save_file(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(save, "save_file", save_file)
    with pytest.raises(UserError, match=r"a\.safetensors' cannot be written: No space left on device; make room"):
        save.save_weights(torch.nn.Linear(2, 2), tmp_path / "a.safetensors")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device without room")
def test_a_full_disk_is_told_by_the_state(tmp_path, monkeypatch):
    def mkstemp(**_):
        (tmp_path / "temporary").symlink_to("/dev/full")
        return os.open(os.devnull, os.O_RDONLY), str(tmp_path / "temporary")

    monkeypatch.setattr(atomic.tempfile, "mkstemp", mkstemp)
    model = torch.nn.Linear(100, 100)
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", enabled=False)
    with pytest.raises(UserError, match=r"s\.pth' cannot be written: No space left on device; make room"):
        save_training_state(
            tmp_path / "s.pth", iteration=1, model=model, optimizer=optimizer, scaler=scaler, ema=None, config={}
        )
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_under_the_log_is_told_with_the_folder(tmp_path, monkeypatch):
    class Writer(engine_run.ProgressPrinter):
        def write(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine_run, "ProgressPrinter", Writer)
    with pytest.raises(UserError) as caught:
        run(tmp_path)
    assert str(caught.value) == f"'{tmp_path}': No space left on device; make room and give the command again"
