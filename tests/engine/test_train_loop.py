import pytest
import torch
from detectron2.engine import HookBase
from torch import nn

from mmovseg.engine.cli import sentence_of
from mmovseg.engine.hooks import LearningRateHook
from mmovseg.engine.schedule import WarmupSchedule
from mmovseg.engine.train_loop import NonFiniteLossError, Trainer
from mmovseg.errors import UserError
from tests.engine.toy_parts import ToyLoader, ToyModel

CPU = torch.device("cpu")


class OneWeight(nn.Module):
    """loss_a = 3 w, loss_b = w; `note` is only recorded."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, batch):
        return {"loss_a": 3 * self.w, "loss_b": self.w, "note": torch.tensor(100.0)}


def make_trainer(model=None, **kwargs):
    model = model or OneWeight()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    return Trainer(model=model, loader=[[]] * 20, optimizer=optimizer, device=CPU, **kwargs)


def test_entries_named_loss_are_summed_and_the_rest_recorded():
    trainer = make_trainer()
    trainer.train(0, 1)
    assert trainer.model.w.item() == pytest.approx(2.0 - 0.1 * 4)
    latest = {name: value for name, (value, _) in trainer.storage.latest().items()}
    assert (latest["total_loss"], latest["loss_a"], latest["note"]) == (8.0, 6.0, 100.0)


def test_gradient_is_clipped_to_the_norm_and_its_norm_recorded():
    trainer = make_trainer(max_grad_norm=0.5)
    trainer.train(0, 1)
    assert trainer.model.w.item() == pytest.approx(2.0 - 0.1 * 0.5)
    assert trainer.storage.latest()["grad_norm"][0] == pytest.approx(4.0)


def test_schedule_sets_the_rate_before_the_step():
    trainer = make_trainer()
    trainer.register_hooks([LearningRateHook(trainer.optimizer, WarmupSchedule(max_iter=4, decay="poly", power=1.0))])
    trainer.train(0, 4)
    assert trainer.model.w.item() == pytest.approx(2.0 - 4 * 0.1 * (1 + 0.75 + 0.5 + 0.25))
    assert trainer.storage.latest()["lr"][0] == pytest.approx(0.025)


def test_loss_that_is_not_finite_names_iteration_and_losses_and_leaves_the_weights():
    model = ToyModel(poison_after=2)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    trainer = Trainer(model=model, loader=ToyLoader(), optimizer=optimizer, device=CPU)
    weights = []

    class Note(HookBase):
        def after_step(self):
            weights.append(model.head.weight.detach().clone())

    trainer.register_hooks([Note()])
    with pytest.raises(NonFiniteLossError, match=r"not finite at iteration 2: loss_fit = nan, loss_size = 0\.0"):
        trainer.train(0, 5)
    assert len(weights) == 2
    assert torch.equal(model.head.weight, weights[-1])


def test_bfloat16_autocast_on_cpu_computes_in_bfloat16():
    seen = []

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, batch):
            out = self.layer(torch.ones(1, 2))
            seen.append(out.dtype)
            return {"loss": out.float().sum()}

    trainer = make_trainer(Layer(), amp_dtype=torch.bfloat16)
    trainer.train(0, 1)
    assert seen == [torch.bfloat16]
    assert trainer.model.layer.weight.dtype is torch.float32


def test_float16_without_cuda_is_refused():
    with pytest.raises(UserError, match="train.amp.dtype=float16 needs CUDA, but the device is cpu"):
        make_trainer(amp_dtype=torch.float16)


def test_answer_without_a_loss_and_a_loader_that_ends_are_told():
    class NoLoss(OneWeight):
        def forward(self, batch):
            return {"note": self.w}

    with pytest.raises(TypeError, match=r"answered with \['note'\]"):
        make_trainer(NoLoss()).train(0, 1)
    with pytest.raises(RuntimeError, match="ended at iteration 20"):
        make_trainer().train(0, 21)


class BrokenFiles(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise UserError(f"label of 'tile_{index}.png' has the value 9, outside the class list 0..6")


def test_mistake_found_by_a_loading_process_stays_one_sentence():
    loader = torch.utils.data.DataLoader(BrokenFiles(), num_workers=1)
    with pytest.raises(UserError) as caught:
        next(iter(loader))
    assert "Traceback" in str(caught.value)
    assert sentence_of(caught.value) == "label of 'tile_0.png' has the value 9, outside the class list 0..6"
    assert sentence_of(UserError("plain")) == "plain"
