"""The mixture of experts as the SAR encoder of MM-OVSeg and as the student of CMU, by config."""

from __future__ import annotations

import pytest
import torch

from mmovseg.config import get_config, instantiate
from mmovseg.modeling.meta_arch.auxiliary import auxiliary_losses
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder


def batch_of(name: str):
    """The model of a config, in training, and two of its training samples."""
    config = get_config(f"projects/CrossEarthSAR/configs/{name}.py")
    torch.manual_seed(0)
    model = instantiate(config.model).train()
    config.dataloader.train.batch_size = 2
    return model, next(iter(instantiate(config.dataloader.train)))


@pytest.mark.parametrize(
    ("name", "part", "task"),
    [("mmovseg_moe_xs", "sar_encoder", "loss_sem_seg"), ("cmu_moe_xs", "student", "loss_infonce")],
)
def test_one_step(name, part, task):
    from detectron2.utils.events import EventStorage

    model, batch = batch_of(name)
    with EventStorage():
        losses = model(batch)
    encoder = getattr(model, part)
    assert isinstance(encoder, MoEEncoder)
    torch.testing.assert_close(losses["loss_moe_balance"], 0.005 * encoder.balance_loss())
    routers = [mixture.router.weight for mixture in encoder.mixtures.values()]
    assert len(routers) == 4
    # of the task alone: the straight-through gate carries it to the routers
    found = torch.autograd.grad(losses[task], routers, retain_graph=True)
    assert all(float(gradient.abs().max()) > 0 for gradient in found)
    sum(losses.values()).backward()
    missing = [key for key, value in encoder.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []
    descriptors = encoder.mixtures["block1"].descriptors
    assert descriptors is not None and descriptors.shape[1] == 3
    assert float(descriptors.abs().max()) < 3.0  # of the limit: the constants fit rasters in dB
    model.eval()
    assert auxiliary_losses(encoder) == {}


def test_losses_of_one_name_are_added_up():
    class Asking(torch.nn.Module):
        def auxiliary_losses(self) -> dict[str, torch.Tensor]:
            return {"loss_own": torch.tensor(2.0)}

    found = auxiliary_losses(Asking(), None, torch.nn.Linear(1, 1), Asking())
    assert list(found) == ["loss_own"] and float(found["loss_own"]) == 4.0
    assert auxiliary_losses(None) == {}
