"""Several processes: CPU over gloo, started by us or by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint import read_state
from mmovseg.engine import launch
from mmovseg.engine.cli import train_main
from mmovseg.errors import UserError

ROOT = Path(__file__).parents[2]
TOY = str(Path(__file__).with_name("toy_config.py"))


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [line["loss_fit"] for line in lines if "loss_fit" in line]


def command(folder, *launcher):
    options = [
        "--config-file",
        TOY,
        f"train.output_dir={folder}",
        "train.log_period=1",
        "dataloader.train.batch_size=8",
    ]
    return [*launcher, *options]


def assert_same_training(one, two):
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    first, second = (read_state(folder / "model_final.safetensors")[0] for folder in (one, two))
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-4, atol=1e-5)
    ends = [json.loads((folder / "metrics.json").read_text().splitlines()[-1]) for folder in (one, two)]
    assert ends[1]["fit/mse"] == pytest.approx(ends[0]["fit/mse"], rel=1e-4)
    assert ends[1]["fit/samples"] == 5


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, capfd):
    """The targets that count are not equally many on the two processes, so a mean of means would differ."""
    train_main(command(tmp_path / "one"))
    train_main(command(tmp_path / "two", "--num-gpus", "2"))
    assert_same_training(tmp_path / "one", tmp_path / "two")
    assert "starts 2 CPU processes over gloo" in capfd.readouterr().out


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken_with_two_processes(tmp_path):
    options = ("--num-gpus", "2", "model.noise=0.1", "train.ema.enabled=true", "train.checkpoint.period=3")
    train_main(command(tmp_path / "unbroken", *options))
    with pytest.raises(SystemExit):
        train_main(command(tmp_path / "killed", *options, "model.poison_after=4"))
    train_main(command(tmp_path / "killed", *options, "--resume"))
    unbroken, resumed = (tmp_path / name / "model_final.safetensors" for name in ("unbroken", "killed"))
    assert unbroken.read_bytes() == resumed.read_bytes()


@pytest.mark.slow
def test_torchrun_equals_one_process(tmp_path):
    train_main(command(tmp_path / "one"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(ROOT / "tools" / "train_net.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    call = command(tmp_path / "two", *torchrun, script)
    done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_mistake_in_spawned_processes_ends_with_status_2(tmp_path, capfd):
    with pytest.raises(SystemExit) as caught:
        train_main(command(tmp_path, "--num-gpus", "2", "model.poison_after=0"))
    assert caught.value.code == 2
    errors = capfd.readouterr().err
    assert "error: a loss is not finite at iteration 0: loss_fit = nan" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-gpus", "0"], "both must be at least 1"),
        (["--num-machines", "2"], "--num-machines needs --dist-url"),
        (["--num-machines", "2", "--dist-url", "tcp://a:1", "--machine-rank", "2"], "between 0 and 1"),
        (["train.device=gpu"], "train.device is 'gpu' but must be auto, cpu, cuda"),
    ],
)
def test_impossible_launches_are_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        train_main(command(tmp_path, *arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_without_cuda_is_refused():
    with pytest.raises(UserError, match="train.device is 'cuda' but torch .* sees no CUDA device"):
        launch.choose_device("cuda")


def test_threads_are_set(monkeypatch):
    before = torch.get_num_threads()
    try:
        launch.set_threads(3, torch.device("cpu"))
        assert torch.get_num_threads() == 3
        launch.set_threads(0, torch.device("cpu"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
