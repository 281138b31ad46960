"""Pretraining by several processes, killed and resumed, past the ends of uneven epochs, and evaluated."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmovseg.checkpoint import read_state
from mmovseg.config import load_config, save_config
from mmovseg.engine.cli import train_main
from mmovseg.projects.codemae.losses import contrast
from mmovseg.projects.codemae.modeling import pretrainer
from tests.projects.codemae.tiny_pretrainer import losses_and_gradients, make_pairs, make_pretrainer, pin_masks, work

ROOT = Path(__file__).resolve().parents[3]


def run_two(folder, options, kinds):
    """What each of two processes answers for its half of four pairs: (losses, gradients) of two steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(folder), options, kinds), nprocs=2)
    return [[torch.load(folder / f"{rank}-{step}.pth", weights_only=True) for rank in range(2)] for step in range(2)]


@pytest.fixture
def pinned(monkeypatch):
    monkeypatch.setattr(pretrainer, "draw_visible", pretrainer.draw_visible)  # so that it is put back
    pin_masks(0, 4)
    return monkeypatch


def as_one(model, pairs=None):
    model.zero_grad()
    return losses_and_gradients(model, pairs or make_pairs(holes=True))


@pytest.mark.slow
@pytest.mark.parametrize("gather", ["differentiable", "official"])
def test_two_processes_give_the_losses_and_gradients_of_one_with_the_whole_batch(tmp_path, pinned, gather):
    options = {"contrast": {"gather": gather}, "cross": {"directions": "both"}}
    steps = run_two(tmp_path, options, (True, True))
    model = make_pretrainer(**options).train()
    if gather == "official":  # no gradient into what is compared with
        pinned.setattr(contrast, "gather_rows", lambda rows: (rows.detach(), 0))
    for theirs in steps:
        losses, gradients = as_one(model)
        for name, loss in losses.items():
            torch.testing.assert_close((theirs[0][0][name] + theirs[1][0][name]) / 2, loss)
        assert len(gradients) > 50 and all(gradient.any() for gradient in gradients.values())
        for name, gradient in gradients.items():
            for rank in range(2):
                torch.testing.assert_close(theirs[rank][1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("gather", ["differentiable", "official"])
def test_processes_with_and_without_pairs_share_a_step(tmp_path, pinned, gather):
    options = {"contrast": {"gather": gather, "mode": "linear"}}
    first, second = run_two(tmp_path, options, (True, False))[0]
    assert second[0]["loss_ccl"] == 0 and second[0]["loss_cdr"] == 0
    assert (first[0]["paired_share"], second[0]["paired_share"]) == (1, 0)

    model, seen = make_pretrainer(**options).train(), []
    pinned.setattr(model.contrast, "forward", lambda *args, **kwargs: seen.append((args, kwargs)) or torch.zeros(()))
    losses, gradients = as_one(model)
    (optical, sar), kwargs = seen[0][0], seen[0][1]
    g = [F.normalize(part.detach(), dim=1) for part in model.contrast._embed(optical, sar, kwargs["shares"])]
    own = torch.arange(2)
    expected = sum(F.cross_entropy(g[i][:2] @ g[1 - i].T / 0.07, own) for i in (0, 1)) / 2
    torch.testing.assert_close(first[0]["loss_ccl"], expected)  # images that are no pairs are negatives all the same
    torch.testing.assert_close((first[0]["loss_mae"] + second[0]["loss_mae"]) / 2, losses["loss_mae"])
    whole = gradients["cross.pred.bias"]
    for answer in (first, second):
        gradient = answer[1]["cross.pred.bias"]
        assert gradient.any() and not torch.allclose(gradient, whole)
        assert torch.equal(gradient, first[1]["cross.pred.bias"])


def write_run(folder, name="codemae_xs", **settings):
    """Write a shipped config shrunk to seconds, with parts of uneven size: 7 scenes and 5 chips for batches of 4."""
    config = load_config(f"projects/CoDeMAE/configs/{name}.py")
    train = config.dataloader.train
    train.batch_size, train.dataset.num_pairs, train.dataset.num_chips = 4, 7, 5
    for loader in config.dataloader.test.values():
        loader.batch_size = 4
        loader.dataset.fit.num_scenes = 6
        loader.dataset.test.num_scenes = 4
    for evaluator in config.dataloader.evaluator.values():
        evaluator.fit_dataset.num_scenes = 6
    config.train.max_iter = 8
    config.train.log_period = 1
    config.train.device = "cpu"
    config.train.tensorboard = False
    config.train.eval_period = -1
    config.train.output_dir = str(folder / "run")
    for key, value in settings.items():
        config.train[key] = value
    save_config(config, folder / "config.yaml")
    return folder / "config.yaml"


def start(config, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "tools/train_net.py", "--config-file", str(config), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process):
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed[-3000:]
    return printed


@pytest.mark.slow
def test_two_processes_killed_and_resumed_past_uneven_epochs_give_the_weights_of_unbroken_ones(tmp_path):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole, broken = (write_run(tmp_path / name) for name in ("whole", "broken"))
    options = ("--num-gpus", "2", "train.checkpoint.period=2")
    finish(start(whole, *options))  # 8 iterations; an epoch holds 2 of them
    process, state = start(broken, *options), tmp_path / "broken" / "run" / "training_state.pth"
    while not state.is_file():
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    final = [tmp_path / name / "run" / "model_final.safetensors" for name in ("whole", "broken")]
    assert not final[1].exists(), "it was done before it was killed"
    assert "resuming" in finish(start(broken, *options, "--resume"))
    states = [read_state(file)[0] for file in final]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    lines = (tmp_path / "whole" / "run" / "metrics.json").read_text().splitlines()
    shares = [json.loads(line)["paired_share"] for line in lines]
    assert len(shares) == 8 and 0 < sum(shares) < 8 and set(shares) <= {0.0, 0.5, 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["codemae_xs", "mae_xs", "codemae_vit_xs"])
def test_shipped_configs_train_evaluate_and_hand_on_their_encoder(tmp_path, name):
    config = write_run(tmp_path, name, max_iter=2, eval_period=0)
    result = train_main(["--config-file", str(config)])
    assert set(result["results"]) == {"sar", "optical"}
    for metrics in result["results"].values():
        assert 0 < metrics["encoder"]["probe mIoU"] < 100
    state = read_state(tmp_path / "run" / "model_final.safetensors")[0]
    assert any(key.startswith("encoder.") for key in state) and not any("teacher" in key for key in state)
    # evaluated again from the file, without a training and hence without a teacher
    again = train_main(
        ["--config-file", str(config), "--eval-only", f"train.init_checkpoint={tmp_path}/run/model_final.safetensors"]
    )
    assert again["results"]["sar"]["encoder"] == pytest.approx(result["results"]["sar"]["encoder"], nan_ok=True)
