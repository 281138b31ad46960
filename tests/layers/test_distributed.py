import socket

import pytest
import torch

from mmovseg.layers.distributed import all_gather_with_grad, global_mean_weight, world_size
from tests.layers.gather_worker import contrastive_loss, pairs, work


def test_one_process_is_the_identity():
    local = torch.randn(2, 3)
    assert world_size() == 1
    assert all_gather_with_grad(local) is local
    assert global_mean_weight(torch.tensor(7)).item() == 7.0


def test_nothing_valid_gives_a_loss_of_zero():
    values = torch.ones(3, requires_grad=True)
    loss = (values * 0).sum() / global_mean_weight(torch.tensor(0))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(values.grad, torch.zeros(3))


@pytest.mark.slow
def test_two_processes_give_the_loss_and_gradient_of_one_with_all_pairs(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=2)
    weight = torch.eye(3, requires_grad=True)
    loss = contrastive_loss(weight, *pairs())
    loss.backward()
    for rank in range(2):
        their_loss, their_gradient, shared = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(their_loss, loss.detach())
        torch.testing.assert_close(their_gradient, weight.grad)
        assert shared.item() == 2.0
