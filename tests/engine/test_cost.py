"""Measured costs: what is timed, counted and left out, on models small enough for the sums to be checked."""

import json
import time

import pytest
import torch
from torch import nn

from mmovseg.config import instantiate, load_config, save_config
from mmovseg.engine import cost, own_process
from mmovseg.engine.cost import Job, measure, measure_here
from mmovseg.engine.cost_inputs import PartAlone, inference_inputs, record_calls, use_noise
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.engine.stopwatch import Clock, OtherLoad, PartTimer, reset_peak_memory
from mmovseg.engine.train_loop import Trainer
from mmovseg.errors import UserError
from mmovseg.testing.models import write_tiny_run

TOY = "tests/engine/toy_config.py"


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    return str(write_tiny_run(tmp_path_factory.mktemp("fused")))


@pytest.fixture(scope="module")
def aligner(tmp_path_factory):
    return str(write_tiny_run(tmp_path_factory.mktemp("aligner"), "miniearth/sar_xs.py"))


class Slow(nn.Module):
    """Two ways in, one of which goes through the other."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.inner = nn.Identity()

    def forward(self, x):
        time.sleep(0.02)
        return self.inner(x) * self.weight

    def encode(self, x, *, scale=1.0):
        time.sleep(0.01)
        return {"half": self(x) * scale, "steps": 2}


# ---------------------------------------------------------------- clocks


def test_a_part_is_timed_through_any_method_and_nested_calls_count_once():
    part, timer = Slow(), PartTimer(Clock(torch.device("cpu")))
    with timer.watching(part):
        part(torch.ones(2))
        part.encode(torch.ones(2))
        part.train(False)  # not ours, so not watched
        assert len(timer.spans) == 2 and 0.05 <= timer.seconds() < 0.5
        part.inner(torch.ones(2))  # past the part's own methods
        assert len(timer.spans) == 3
    part.encode(torch.ones(2))
    assert len(timer.spans) == 3 and "encode" not in vars(part) and "forward" not in vars(part)


def test_a_call_that_fails_leaves_the_timer_ready():
    part, timer = Slow(), PartTimer(Clock(torch.device("cpu")))
    with timer.watching(part):
        with pytest.raises(RuntimeError):
            part.encode(torch.ones(3))
        part(torch.ones(2))
    assert len(timer.spans) == 2


def test_the_peak_of_memory_starts_anew():
    device = torch.device("cpu")
    big = torch.ones(40_000_000)  # 153 MiB
    high = cost.peak_memory_mb(device)
    del big
    reset_peak_memory(device)
    if cost.peak_memory_mb(device) == high:
        pytest.skip("this kernel does not let a process reset its peak")
    assert cost.peak_memory_mb(device) < high - 100


def test_the_load_by_others_leaves_our_own_out():
    others, end = OtherLoad(), time.perf_counter() + 0.2
    while time.perf_counter() < end:
        pass
    cores = others.cores()
    assert cores is None or 0 <= cores


# ---------------------------------------------------------------- a step


def test_a_training_step_is_that_of_the_loop_and_its_stages_add_up():
    facts = measure_here(Job(TOY, "train", steps=4, warmup=2))
    assert len(facts["seconds"]) == len(facts["cpu_seconds"]) == 4 and min(facts["seconds"]) > 0
    shares = facts["shares"]
    assert set(shares) == {"forward", "backward", "optimizer"} and min(shares.values()) > 0
    assert 0.3 < sum(shares.values()) <= 1
    assert facts["parts"].keys() == {"frozen", "norm", "head"} and facts["frozen"] == ["frozen"]
    assert sum(facts["parts"].values()) <= shares["forward"]
    assert facts["parameters"]["total"] == (29, 13)  # 3*4+4 frozen, 4+4 of the norm, 4+1 of the head
    assert facts["batch"] == 4 and facts["max_iter"] == 6 and facts["energy"] is None


def test_reading_data_is_left_out(monkeypatch):
    from tests.engine import toy_parts

    drawn, original = [], toy_parts.toy_sample
    monkeypatch.setattr(toy_parts, "toy_sample", lambda *args: drawn.append(0) or original(*args))
    measure_here(Job(TOY, "train", steps=3, warmup=1))
    assert len(drawn) == 4  # one batch for four steps


def test_averaging_and_clipping_of_the_config_are_part_of_the_step(monkeypatch):
    norms = []
    monkeypatch.setattr(Trainer, "_clip", lambda self: norms.append(self.max_grad_norm))
    updates = []
    monkeypatch.setattr(cost.EmaWeights, "update", lambda self: updates.append(self.decay))
    overrides = ("train.ema.enabled=true", "train.clip_grad.enabled=true", "train.clip_grad.max_norm=0.5")
    measure_here(Job(TOY, "train", overrides=overrides, steps=2, warmup=1))
    assert norms == [0.5] * 3 and len(updates) == 3


def test_inference_takes_the_test_loader_and_no_gradient():
    facts = measure_here(Job(TOY, "infer", steps=3, warmup=1, batch=1))
    assert facts["batch"] == 1 and len(facts["seconds"]) == 3 and facts["shares"] == {}


@pytest.mark.parametrize("name", ["steps", "warmup", "batch"])
def test_numbers_that_measure_nothing_are_refused(name):
    with pytest.raises(UserError, match=f"--{name} is 0 but must be at least 1"):
        measure(Job(TOY, "train", **{name: 0}))


def test_a_config_without_training_is_refused(tmp_path):
    config = tmp_path / "part.py"
    config.write_text("model = dict(width=3)\n")
    with pytest.raises(UserError, match="defines no 'dataloader'"):
        measure_here(Job(str(config), "train"))


# ---------------------------------------------------------------- real models


def test_an_aligner_shows_its_frozen_teacher_and_hands_on_its_student(aligner):
    train = measure_here(Job(aligner, "train", steps=1, warmup=1))
    assert train["frozen"] == ["teacher"] and 0 < train["parts"]["teacher"] < train["shares"]["forward"]
    assert train["input"] == "image 3x64x64, image_clear 3x64x64, sar 2x64x64"
    infer = measure_here(Job(aligner, "infer", steps=1, warmup=1))
    assert infer["input"] == "sar 2x64x64" and infer["batch"] == 1
    assert infer["parts"]["teacher"] == 0 < infer["parts"]["student"]


def test_noise_stands_in_for_the_data(fused):
    facts = measure_here(Job(fused, "infer", steps=1, warmup=1, batch=2, pixels=32))
    assert facts["input"] == "image 3x32x32, sar 2x32x32" and facts["batch"] == 2


def test_without_the_data_the_way_around_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    config = load_config("miniearth/sar_xs.py")
    forget_foundation_weights(config.model)
    config.dataloader.train.dataset.name = "ddhr_sk_train"
    save_config(config, tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"ddhr_sk.*\(--pixels N measures with random rasters instead\)"):
        measure_here(Job(str(tmp_path / "config.yaml"), "train"))


def test_noise_has_the_channels_and_units_of_the_contract(fused):
    config = load_config(fused)
    contract = {
        "optical": {"bands": list("rgbn"), "unit": "uint8"},
        "sar": {"bands": ["VV"], "unit": "db", "mean": [-12.0], "std": [0.5]},
        "sources": [{"name": "north"}, {"name": "south"}],
    }
    use_noise(config.dataloader.train, contract, pixels=40, count=3)
    node = config.dataloader.train
    assert [item["source"] for item in node.dataset] == ["north"] * 3
    sample = instantiate(node.mapper.reader)(dict(node.dataset[0]))
    assert sample.optical.shape == (40, 40, 4) and sample.optical.dtype == "uint8"
    assert sample.sar.shape == (40, 40, 1) and -13 < sample.sar.mean() < -11
    assert sample.sem_seg.max() == 6  # the seven classes of MiniEarth
    node.mapper.vocabulary = None
    use_noise(node, contract, pixels=40, count=1)
    assert instantiate(node.mapper.reader)(dict(node.dataset[0])).sem_seg is None
    with pytest.raises(UserError, match="--pixels is 0"):
        use_noise(config.dataloader.train, contract, pixels=0, count=3)


def test_noise_needs_a_mapper_and_a_contract(tmp_path):
    with pytest.raises(UserError, match="--pixels needs a loader with a dataset, and a mapper with a reader"):
        measure_here(Job(TOY, "train", pixels=8))


# ---------------------------------------------------------------- one part


def test_a_part_alone_repeats_the_calls_with_their_gradients():
    part, x = Slow(), torch.ones(2, requires_grad=True)
    calls = record_calls(part, lambda: (part.encode(x * 2, scale=3.0), part(torch.ones(2))))
    assert [(name, kwargs) for name, _, kwargs in calls] == [("encode", {"scale": 3.0}), ("forward", {})]
    assert calls[0][1][0].requires_grad and calls[0][1][0].is_leaf and not calls[1][1][0].requires_grad
    alone = PartAlone(part, calls)
    # encode gives 2 * 3, its mean square is 36; forward gives 1
    assert alone(None)["loss_part"].item() == pytest.approx(37.0)
    answers = alone.eval()(None)
    assert torch.equal(answers[0]["half"], torch.full((2,), 6.0)) and answers[0]["steps"] == 2


def test_a_part_that_is_not_called_or_does_not_train_is_an_error():
    part = Slow().requires_grad_(False)
    with pytest.raises(UserError, match="does not call this part"):
        record_calls(part, lambda: None)
    with pytest.raises(UserError, match="nothing in this part trains"):
        PartAlone(part, [("forward", (torch.ones(2),), {})])(None)


def test_the_head_alone_has_its_own_parameters_and_trains(fused):
    config = load_config(fused)
    forget_foundation_weights(config.model)
    head = instantiate(config.model).head
    facts = measure_here(Job(fused, "train", part="head", steps=1, warmup=1, batch=2))
    assert facts["parameters"]["total"][0] == sum(p.numel() for p in head.parameters())
    assert facts["parts"] == {} and facts["shares"]["backward"] > 0


def test_an_unknown_part_is_told_with_those_there_are():
    with pytest.raises(UserError, match="--part 'body': the model has no such part; it has: frozen, norm, head"):
        measure_here(Job(TOY, "infer", part="body"))


def test_inference_of_other_models_keeps_all_views():
    items = [{"image": 1, "sar": 2, "valid": 3}]
    assert inference_inputs(nn.Linear(1, 1), items) == items
    model = nn.Linear(1, 1)
    model.student_view = "image"
    assert inference_inputs(model, items) == [{"image": 1, "valid": 3}]


# ---------------------------------------------------------------- the process


@pytest.mark.slow
def test_each_measurement_has_a_process_of_its_own():
    ballast = torch.ones(300_000_000)  # 1.1 GiB that must not show in the other process
    facts = measure(Job(TOY, "train", steps=2, warmup=1))
    assert facts["start_mb"] is None or facts["peak_mb"] < ballast.numel() * 4 / 2**20
    assert facts["job"]["phase"] == "train" and json.dumps(facts)


@pytest.mark.parametrize(
    ("status", "errors", "sentence"),
    [
        (2, "warning\nerror: data set 'x' is not there\n", "^data set 'x' is not there$"),
        (-9, "", "was killed by signal 9; a smaller --batch"),
        (1, "Traceback\nKeyError: 'a'\n", r"failed \(KeyError: 'a'\)"),
    ],
)
def test_what_ends_the_process_is_told_in_one_sentence(monkeypatch, status, errors, sentence):
    class Done:
        returncode, stderr = status, errors

    monkeypatch.setattr(own_process.subprocess, "run", lambda *args, **kwargs: Done)
    with pytest.raises(UserError, match=sentence):
        measure(Job(TOY, "train"))


@pytest.mark.gpu
def test_cuda_is_timed_by_events_and_its_allocator(aligner):
    facts = measure_here(Job(aligner, "train", overrides=("train.device=cuda",), steps=2, warmup=1))
    assert facts["device"] == "cuda" and min(facts["seconds"]) > 0
    assert 0 < facts["peak_mb"] < 10_000 and 0 < facts["parts"]["teacher"] < 1
