"""Fully sharded training on two CPU processes, and what it refuses."""

import json
import socket
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.multiprocessing import spawn

from mmovseg.checkpoint import read_metadata, read_state
from mmovseg.engine.cli import train_main
from mmovseg.engine.sharding import gather_on_main, gathered_weights, like, shard_model, whole
from mmovseg.errors import UserError
from tests.engine.sharding_worker import CONFIG, work

TOY = str(Path(__file__).with_name("toy_config.py"))
CPU = torch.device("cpu")


def free_ports(count):
    with_port = [socket.socket() for _ in range(count)]
    for each in with_port:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in with_port]
    for each in with_port:
        each.close()
    return ports


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    spawn(work, (folder, free_ports(5)), nprocs=2)
    return folder


def layout(value):
    """Keys, types and shapes of a training state."""
    if isinstance(value, dict):
        return {key: layout(entry) for key, entry in value.items()}
    return (type(value), value.dtype, value.shape) if isinstance(value, torch.Tensor) else type(value)


def lines(folder, key):
    entries = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [entry[key] for entry in entries if key in entry]


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken(runs):
    unbroken, resumed = (read_state(runs / name / "model_final.safetensors")[0] for name in ("unbroken", "killed"))
    assert list(unbroken) == list(resumed)
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)
    states = [torch.load(runs / name / "training_state.pth", weights_only=True) for name in ("unbroken", "killed")]
    for name, entry in states[0]["optimizer"].items():
        assert torch.equal(entry["exp_avg"], states[1]["optimizer"][name]["exp_avg"]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model_final.safetensors", "model_0000003.safetensors", "model_best.safetensors"])
def test_weights_are_those_of_replicas_in_layout_and_value(runs, name):
    (sharded, _), (replicas, _) = (read_state(runs / run / name) for run in ("unbroken", "replicas"))
    assert list(sharded) == list(replicas)
    assert layout(sharded) == layout(replicas)
    for key, tensor in replicas.items():
        torch.testing.assert_close(sharded[key], tensor, rtol=1e-4, atol=1e-5, msg=key)
    facts = [read_metadata(runs / run / name) for run in ("unbroken", "replicas")]
    assert set(facts[0]) == set(facts[1])
    assert facts[0]["iteration"] == facts[1]["iteration"]


@pytest.mark.slow
def test_training_states_are_alike_and_go_over_to_replicas(runs):
    sharded, replicas = (
        torch.load(runs / run / "training_state.pth", weights_only=True) for run in ("unbroken", "replicas")
    )
    for state in (sharded, replicas):
        del state["config"]
    assert layout(sharded) == layout(replicas)
    assert sharded["optimizer"]["head.weight"]["exp_avg"].abs().sum() > 0
    crossed, _ = read_state(runs / "killed_copy" / "model_final.safetensors")
    unbroken, _ = read_state(runs / "replicas" / "model_final.safetensors")
    for key, tensor in unbroken.items():
        torch.testing.assert_close(crossed[key], tensor, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.slow
def test_losses_gradient_norms_and_evaluations_are_those_of_replicas(runs):
    for key, count in (("loss_fit", 6), ("grad_norm", 6), ("fit/mse", 3)):
        sharded, replicas = (lines(runs / run, key) for run in ("unbroken", "replicas"))
        assert len(sharded) == count
        assert sharded == pytest.approx(replicas, rel=1e-4), key
    assert max(lines(runs / "unbroken", "grad_norm")) > 0.5, "nothing was clipped"
    log = (runs / "unbroken" / "log.txt").read_text()
    assert "training ToyVision; iterations 0 to 6 on 2 process(es)" in log


def test_one_process_trains_as_ever(tmp_path):
    for name in ("plain", "fsdp"):
        train_main(
            ["--config-file", CONFIG, f"train.output_dir={tmp_path / name}", f"train.fsdp.enabled={name != 'plain'}"]
        )
    plain, sharded = (read_state(tmp_path / name / "model_final.safetensors")[0] for name in ("plain", "fsdp"))
    assert all(torch.equal(plain[key], sharded[key]) for key in plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"train.fsdp.block_lists is \['blocks'\], but no list of modules in the model has such a name"),
        (["train.compile=true"], "train.fsdp.enabled and train.compile exclude each other"),
        (["train.amp.enabled=true", "train.amp.dtype=float16"], "needs train.amp.dtype=bfloat16, but it is float16"),
    ],
)
def test_what_cannot_be_sharded_is_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        train_main(["--config-file", TOY, f"train.output_dir={tmp_path}", "train.fsdp.enabled=true", *options])


class _Scaled(nn.Module):
    def __init__(self, *, scale):
        super().__init__()
        self.scale = scale
        self.blocks = nn.Sequential(nn.Linear(2, 2))


def test_parameters_that_cannot_be_cut_are_refused_by_name():
    with pytest.raises(UserError, match="cannot cut parameter 'scale', which is a single number"):
        shard_model(
            _Scaled(scale=nn.Parameter(torch.ones(()))), CPU, block_lists=["blocks"], reshard_after_forward=True
        )
    rows = nn.Parameter(torch.ones(2, 2))
    rows.frozen_rows = slice(0, 1)
    with pytest.raises(UserError, match="cannot keep rows of parameter 'scale' fixed"):
        shard_model(_Scaled(scale=rows), CPU, block_lists=["blocks"], reshard_after_forward=True)


def test_helpers_leave_what_is_not_sharded_alone():
    tensor, model = torch.ones(2), nn.Linear(2, 2)
    assert whole(tensor) is tensor
    assert like(tensor, torch.zeros(2)) is tensor
    assert gather_on_main({"a": tensor, "b": 3})["a"] is tensor
    with gathered_weights(model):
        assert isinstance(model.weight, nn.Parameter)
