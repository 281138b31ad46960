"""Experts and adapters under fully sharded training with recomputed blocks: the gradients of one process."""

import socket

import pytest
import torch
from torch.multiprocessing import spawn

from tests.projects.crossearth.sharded_worker import work


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded_experts")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, (port, str(folder)), nprocs=2)
    return torch.load(folder / "gradients.pth", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["", "earth", "lora"])
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(found, adapter):
    replica, sharded = found[adapter]["replica"], found[adapter]["sharded"]
    assert set(sharded) == set(replica)
    part = "encoder.adapter." if adapter else "encoder.model.blocks.2.mlp."
    assert any(name.startswith(part) for name in replica)
    for name, gradient in replica.items():
        torch.testing.assert_close(sharded[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
    assert 0.5 <= float(found[adapter]["share"]) < 0.51, "three experts must be cut along another axis"
