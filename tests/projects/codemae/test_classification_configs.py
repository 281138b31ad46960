"""Every probe and fine-tuning config takes a step, and has the recipe of the release."""

import re
from pathlib import Path

import pytest
import torch

from mmovseg.config import LazyCall, get_config, instantiate
from mmovseg.config.loading import config_folders
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.modeling.classifier import ImageClassifier

ROOT = config_folders()[0].parent
NAMES = sorted(
    file.stem
    for pattern in ("linear_probe_*.py", "finetune_*.py")
    for file in (ROOT / "projects/CoDeMAE/configs").glob(pattern)
)
WEIGHTS = "data/codemae/codemae_b.safetensors"


def read(name):
    """Return a config with two classes and a small encoder."""
    config = get_config(f"projects/CoDeMAE/configs/{name}.py")
    config.dataloader.evaluator.classes = ["one", "other"]
    config.model.encoder.update(stem_dim=8, depths=[1, 1, 1], num_heads=2)
    if config.model.optical_norm is not None and "statistics" in config.model.optical_norm:
        config.model.optical_norm = LazyCall(PixelNorm)(mean=[100.0] * 3, std=[50.0] * 3)  # to be measured first
    return config


def fake_batch(model, count=4):
    several = torch.tensor([1.0, 0.0]) if model.multi_label else None
    size = model.encoder.grid[0] * model.encoder.unit_size
    batch = []
    for index in range(count):
        item = {"label": torch.tensor(index % 2) if several is None else several, "file_name": str(index)}
        item["image"] = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
        if "sar" in model.sensors:
            norm = model.norms["sar"].for_item(item)
            item["sar"] = norm.mean + norm.std * torch.randn(len(norm.mean), size, size)
        batch.append(item)
    return batch


@pytest.mark.parametrize("name", NAMES)
def test_the_model_of_every_config_takes_a_step(name):
    config = read(name)
    # a large encoder never starts at random unasked; small ones are told what to start from
    assert config.model.encoder.get("weights") == (WEIGHTS if name.endswith("_b") else None)
    forget_foundation_weights(config.model)
    # probes of one sensor and another are runs of their own
    own = f"{name}_{config.model.sensor}" if name.startswith("linear_probe") else name
    assert Path(config.train.output_dir).name == own
    model = instantiate(config.model).train()
    assert isinstance(model, ImageClassifier) and model.head.linear.out_features == 2
    assert model.freeze_encoder == name.startswith("linear_probe")
    optimizer = instantiate({**{key: config.optimizer[key] for key in config.optimizer}, "model": model})
    before = {key: value.clone() for key, value in model.named_parameters()}
    model(fake_batch(model))["loss_classification"].backward()
    optimizer.step()
    moved = {key for key, value in model.named_parameters() if not torch.equal(before[key], value)}
    learning = {key for key, value in model.named_parameters() if value.requires_grad}
    assert moved <= learning and {"head.linear.bias"} <= moved
    schedule = instantiate(config.lr_multiplier)
    assert config.optimizer.base_lr * schedule(1.0) == pytest.approx(1e-6, rel=1e-3)


def test_scripts_that_configs_name_exist():
    files = list((ROOT / "projects/CoDeMAE/configs").rglob("*.py"))
    named = {
        name
        for file in files
        for name in re.findall(r"(?<![\w/])(?:datasets|tools|projects)/[\w/]+\.py", file.read_text())
    }
    assert len(named) > 20 and [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_recipes_of_the_release():
    aid, resisc, chips = (
        get_config(f"projects/CoDeMAE/configs/finetune_{name}_b.py") for name in ("aid", "resisc45", "mstar")
    )
    assert (aid.optimizer.layer_decay, resisc.optimizer.layer_decay, chips.optimizer.layer_decay) == (0.85, 0.95, 0.85)
    assert get_config("projects/CoDeMAE/configs/finetune_sar_acd_b.py").optimizer.layer_decay is None
    assert aid.optimizer.base_lr == 1.25e-4 and chips.optimizer.base_lr == pytest.approx(1.953e-4, rel=1e-3)
    assert (aid.model.encoder.drop_path, chips.model.encoder.drop_path) == (0.1, 0.05)
    assert aid.model.mixing is not None and chips.model.get("mixing") is None and chips.model.batch_norm
    assert chips.train.max_iter * chips.dataloader.train.batch_size == 60 * 10 * 40
    assert resisc.model.optical_norm.mean == pytest.approx([255 * value for value in (0.368, 0.381, 0.3436)])
    assert resisc.dataloader.train.mapper.optical_photometric.mean == resisc.model.optical_norm.mean
    assert get_config("projects/CoDeMAE/configs/common/upernet.py").model.encoder.weights == WEIGHTS
    probe = get_config("projects/CoDeMAE/configs/linear_probe_pie_b.py")
    contract = instantiate(probe.model.input_contract)
    assert contract.sar.unit == "amplitude8" and list(contract.sar.mean) == list(probe.model.sar_norm.mean)
    assert (probe.optimizer.base_lr, probe.train.max_iter, probe.train.eval_period) == (0.5, 50, 5)


def test_xs_chips_are_trained_the_same_from_weights_and_from_scratch():
    for name in ("mstar", "sar_acd"):
        config = get_config(f"projects/CoDeMAE/configs/finetune_{name}_xs.py")
        assert config.model.encoder.get("weights") is None
        assert config.dataloader.train.dataset.shots == 40 and config.dataloader.train.batch_size == 50
        assert Path(config.train.output_dir).name == f"finetune_{name}_xs"
