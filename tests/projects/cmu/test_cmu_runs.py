"""CMU through the real command: it trains, resumes exactly, splits over processes, and its encoder goes on by path."""

import json

import pytest
import torch

from mmovseg.checkpoint import read_metadata, read_state
from mmovseg.checkpoint.export import export_part
from mmovseg.config import instantiate, load_config
from mmovseg.config.loading import config_folders
from mmovseg.engine.cli import train_main
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.engine.train_loop import Trainer
from mmovseg.testing.models import write_tiny_run

EVERYTHING = (
    "model.tokens=[patch,global]", "model.queue_size=600", "model.learn_temperature=true", "model.symmetric=true",
    "model.patches_per_step=300", "model.row_chunk=100",
)  # fmt: skip


def run(config, *arguments):
    return train_main(["--config-file", str(config), *arguments])


def losses_of(config):
    lines = (config.parent / "run" / "metrics.json").read_text().splitlines()
    return [json.loads(line)["total_loss"] for line in lines]


@pytest.mark.parametrize("loss", ["infonce", "l1", "mse"])
def test_each_loss_of_table_4_trains_the_student_only(tmp_path, loss):
    config_file = write_tiny_run(tmp_path, f"projects/CMU/configs/cmu_xs_{loss}.py")
    result = run(config_file, "train.eval_period=-1")
    assert set(result["losses"]) == {"total_loss", f"loss_{loss}"}
    config = load_config(config_file)
    torch.manual_seed(0)
    before = instantiate(config.model).state_dict()
    after = read_state(tmp_path / "run" / "model_final.safetensors")[0]
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"student"}


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one_with_its_queue_and_temperature(tmp_path, monkeypatch):
    whole, broken = (write_tiny_run(tmp_path / name, "projects/CMU/configs/cmu_xs.py") for name in ("whole", "broken"))
    options = (*EVERYTHING, "train.checkpoint.period=2", "train.eval_period=-1", "train.max_iter=4")
    run(whole, *options)
    step = Trainer.run_step

    def killed(trainer):
        if trainer.iter == 3:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(broken, *options)
    run(broken, *options, "--resume")
    states = [read_state(config.parent / "run" / "model_final.safetensors")[0] for config in (whole, broken)]
    assert states[0]["queues.patch.entries"].any() and "log_temperature" in states[0]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert losses_of(whole) == losses_of(broken) and len(losses_of(whole)) == 4


@pytest.mark.slow
def test_two_processes_log_the_loss_of_one_with_the_whole_batch(tmp_path):
    one, two = (write_tiny_run(tmp_path / name, "projects/CMU/configs/cmu_xs.py") for name in ("one", "two"))
    options = ("model.patches_per_step=null", "model.tokens=[patch,global]", "train.eval_period=-1")
    run(one, *options)
    run(two, *options, "--num-gpus", "2")
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-4)


@pytest.mark.slow
def test_the_encoder_is_measured_exported_with_its_contract_and_taken_by_path(tmp_path):
    cmu = write_tiny_run(tmp_path / "cmu", "projects/CMU/configs/cmu_xs.py")
    metrics = run(cmu, "train.eval_period=0")["results"]["miniearth_test"]["encoder"]
    assert {"probe mIoU", "R@1 sar->optical", "patch accuracy", "CKA"} <= set(metrics)
    file = tmp_path / "sar.safetensors"
    export_part(tmp_path / "cmu" / "run" / "model_final.safetensors", file, part="student.model")
    assert json.loads(read_metadata(file)["input_contract"])["sar"]["unit"] == "db"
    fused = write_tiny_run(tmp_path / "fused", "projects/CMU/configs/mmovseg_xs_ablation.py")
    run(fused, f"model.sar_encoder.weights={file}", "train.eval_period=-1")
    handed, used = read_state(file)[0], read_state(tmp_path / "fused" / "run" / "model_final.safetensors")[0]
    assert all(torch.equal(tensor, used[f"sar_encoder.model.{name}"]) for name, tensor in handed.items())


def project_configs():
    root = config_folders()[0].parent
    return sorted(str(file.relative_to(root)) for file in root.glob("projects/CMU/configs/*.py"))


@pytest.mark.parametrize("name", project_configs())
def test_every_config_of_the_project_loads_and_names_a_model(name):
    config = load_config(name)
    assert {"model", "dataloader", "train", "optimizer", "lr_multiplier"} <= set(config)
    if "xs" in name:
        forget_foundation_weights(config.model)
        assert sum(p.numel() for p in instantiate(config.model).parameters()) < 2e6
