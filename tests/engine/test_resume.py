"""A killed training goes on to the same weights, bit for bit, as one that nobody killed."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mmovseg.checkpoint import read_metadata, read_state
from mmovseg.engine.cli import train_main
from mmovseg.engine.seeding import capture_rng, preserved_rng, restore_rng
from mmovseg.engine.train_loop import NonFiniteLossError
from mmovseg.errors import UserError
from tests.engine.toy_parts import ToyEvaluator

TOY = str(Path(__file__).with_name("toy_config.py"))
OPTIONS = ["model.noise=0.1", "train.ema.enabled=true", "train.clip_grad.enabled=true", "train.checkpoint.period=3"]


def run(folder, *arguments):
    return train_main(["--config-file", TOY, f"train.output_dir={folder}", *OPTIONS, *arguments])


def test_same_command_gives_the_same_file_and_another_seed_another_one(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        torch.rand(5), np.random.rand(2), random.random()
        run(tmp_path / name, f"train.seed={seed}")
    files = {name: (tmp_path / name / "model_final.safetensors") for name in "abc"}
    assert files["a"].read_bytes() == files["b"].read_bytes()
    first, third = read_state(files["a"])[0], read_state(files["c"])[0]
    assert not torch.equal(first["head.weight"], third["head.weight"])


def test_evaluation_in_between_changes_nothing(tmp_path):
    run(tmp_path / "never", "train.eval_period=-1")
    run(tmp_path / "often", "train.eval_period=1")
    never, often = (read_state(tmp_path / name / "model_final.safetensors")[0] for name in ("never", "often"))
    assert all(torch.equal(never[name], often[name]) for name in never)


def test_killed_and_resumed_equals_unbroken(tmp_path):
    run(tmp_path / "unbroken")
    with pytest.raises(NonFiniteLossError, match="iteration 4"):  # dies after the checkpoint at 3 and one more step
        run(tmp_path / "killed", "model.poison_after=4")
    assert not (tmp_path / "killed" / "model_final.safetensors").exists()
    torch.rand(7), np.random.rand(7), random.random()
    result = run(tmp_path / "killed", "--resume")
    assert result["iteration"] == 6
    unbroken, resumed = (tmp_path / name / "model_final.safetensors" for name in ("unbroken", "killed"))
    assert unbroken.read_bytes() == resumed.read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "killed" / "metrics.json").read_text().splitlines()]
    iterations = [line["iteration"] for line in lines]
    assert iterations == sorted(set(iterations)), "an iteration was logged twice"


def test_state_holds_plain_values_and_the_raw_weights(tmp_path):
    run(tmp_path)
    state = torch.load(tmp_path / "training_state.pth", weights_only=True)
    assert state["iteration"] == 6
    assert set(state["optimizer"]) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    final = read_state(tmp_path / "model_final.safetensors")[0]
    assert torch.equal(final["head.weight"], state["ema"]["averages"]["head.weight"])
    assert not torch.equal(final["head.weight"], state["model"]["head.weight"])
    assert torch.equal(final["frozen.weight"], state["model"]["frozen.weight"])


def test_resume_says_what_changed_and_takes_the_new_value(tmp_path, capsys):
    run(tmp_path)
    run(tmp_path, "--resume", "train.max_iter=8", "optimizer.base_lr=0.01", "optimizer.lr_multipliers.head=1.0")
    printed = capsys.readouterr().out
    assert "optimizer.base_lr: 0.05 -> 0.01" in printed
    assert "resuming" in printed
    last = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()][-2]
    assert last["iteration"] == 7
    assert 0 < last["lr"] < 0.01


def test_resume_of_nothing_starts_anew_and_of_too_much_is_refused(tmp_path, capsys):
    run(tmp_path, "--resume")
    assert "the training starts at iteration 0" in capsys.readouterr().out
    with pytest.raises(UserError, match="is at iteration 6, past train.max_iter 4"):
        run(tmp_path, "--resume", "train.max_iter=4")


def test_resume_of_another_architecture_or_of_a_broken_state_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match="is of another architecture: 5 tensors differ"):
        run(tmp_path, "--resume", "model.width=5", "train.max_iter=8")
    state = tmp_path / "training_state.pth"
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(UserError, match="training_state.pth' is corrupt"):
        run(tmp_path, "--resume")


def test_old_checkpoints_go_and_the_best_stays_apart(tmp_path):
    options = ("train.checkpoint.period=1", "train.eval_period=1", "train.select_best.metric=fit/mse")
    run(tmp_path, *options, "train.select_best.mode=max")
    names = sorted(file.name for file in tmp_path.glob("*.safetensors"))
    assert names == [
        "model_0000004.safetensors",
        "model_0000005.safetensors",
        "model_best.safetensors",
        "model_final.safetensors",
    ]
    assert (tmp_path / "last_checkpoint").read_text().strip() == "model_final.safetensors"
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    values = [line["fit/mse"] for line in lines if "fit/mse" in line]
    assert json.loads(read_metadata(tmp_path / "model_best.safetensors")["best_value"]) >= max(values)


def periodic(folder):
    return sorted(file.stem.removeprefix("model_") for file in folder.glob("model_0*.safetensors"))


def test_a_used_folder_is_told_and_keeps_the_checkpoints_of_the_new_run(tmp_path, capsys):
    run(tmp_path, "train.max_iter=40", "train.checkpoint.period=10")
    assert periodic(tmp_path) == ["0000020", "0000030"]
    assert "former training" not in capsys.readouterr().out
    with pytest.raises(NonFiniteLossError):  # killed at 5, so that a checkpoint in between is the newest
        run(tmp_path, "train.checkpoint.period=2", "train.eval_period=2", "model.poison_after=5")
    assert capsys.readouterr().out.count("holds the checkpoints of a former training") == 1
    assert (tmp_path / "last_checkpoint").read_text().strip() == "model_0000004.safetensors"
    assert int(read_metadata(tmp_path / "model_0000004.safetensors")["iteration"]) == 4
    assert periodic(tmp_path) == ["0000002", "0000004", "0000020", "0000030"]
    run(tmp_path, "train.checkpoint.period=1", "--resume")  # counts the two files of its own first half
    assert periodic(tmp_path) == ["0000004", "0000005", "0000020", "0000030"]
    assert "former training" not in capsys.readouterr().out


def test_best_value_survives_a_resume(tmp_path):
    options = ("train.eval_period=2", "train.select_best.metric=fit/mse")
    run(tmp_path, *options, "train.select_best.mode=max")
    best = (tmp_path / "model_best.safetensors").read_bytes()
    run(tmp_path, *options, "train.select_best.mode=max", "--resume", "train.max_iter=12", "optimizer.base_lr=0.0")
    kept = read_metadata(tmp_path / "model_best.safetensors")
    assert int(kept["iteration"]) <= 6
    assert (tmp_path / "model_best.safetensors").read_bytes() == best


def test_a_best_that_cannot_be_found_is_told_once_and_at_the_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ToyEvaluator, "evaluate", lambda self: {"fit": {"mse": 1.0, "hIoU": float("nan")}})
    (tmp_path / "model_best.safetensors").touch()
    run(tmp_path, "train.eval_period=2", "train.select_best.metric=fit/hIoU")
    printed = capsys.readouterr().out
    assert printed.count("fit/hIoU is nan, which is never the best") == 1
    assert "no model_best.safetensors was kept: fit/hIoU never was a finite number; '" in printed
    assert f"'{tmp_path / 'model_best.safetensors'}' is of a former run" in printed
    (tmp_path / "model_best.safetensors").unlink()
    run(tmp_path, "train.select_best.metric=fit/mse")
    assert "was kept" not in capsys.readouterr().out


def test_unknown_metric_is_refused(tmp_path):
    with pytest.raises(UserError, match="select_best.metric is 'fit/mIoU' but the evaluation gives fit/mse"):
        run(tmp_path, "train.select_best.metric=fit/mIoU")


def test_generators_round_trip():
    state = capture_rng()
    drawn = (random.random(), np.random.rand(), float(torch.rand(())))
    restore_rng(state)
    with preserved_rng():
        torch.rand(3), np.random.rand(3), random.random()
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == drawn
