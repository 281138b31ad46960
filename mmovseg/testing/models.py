"""XS runs that need no weights and take seconds, as files: what commands that read a config are tested with."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from mmovseg.checkpoint.save import save_weights
from mmovseg.config import LazyCall, instantiate, load_config, save_config
from mmovseg.config.instantiate import TARGET, resolve_target
from mmovseg.config.loading import walk_calls
from mmovseg.data.datasets import get_dataset, load_pair_folder
from mmovseg.data.io import FileReader
from mmovseg.data.sample import Modality
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.testing.fakes import FakePairs


def write_random_xs(folder: str | Path, modality: Modality = "both", *, with_weights: bool = True) -> tuple[Path, Path]:
    """Write `demo_<modality>.yaml` and random weights for it; no shipped or foundation weights are needed.

    Args:
        folder: is made if needed.
        modality: which of the three demo configs.
        with_weights: False writes the config only.

    Returns:
        Paths of the config and of the weights.
    """
    config_file, weights = Path(folder) / f"demo_{modality}.yaml", Path(folder) / f"demo_{modality}.safetensors"
    config = load_config(f"miniearth/demo_{modality}.py")
    forget_foundation_weights(config.model)
    save_config(config, config_file)
    if with_weights:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_weights(instantiate(config.model), weights)
    return config_file, weights


def write_tiny_run(folder: str | Path, name: str = "miniearth/mmovseg_xs.py") -> Path:
    """Write a shipped XS config shrunk to seconds: random weights, CPU, two steps of 4 of 8 scenes, 4 test scenes.

    Args:
        folder: gets `config.yaml`; the run's output goes to its subfolder `run`.
        name: which config, below ``configs/``.

    Returns:
        Path of the config.
    """
    config = load_config(name)
    _shrink(config, Path(folder))
    config.dataloader.train.dataset.num_scenes = 8
    for part in ("test", "evaluator"):
        for _, node in walk_calls(config.dataloader.get(part)):
            if resolve_target(node[TARGET]) is get_dataset:
                node.num_scenes = 4
    save_config(config, Path(folder) / "config.yaml")
    return Path(folder) / "config.yaml"


def write_pairs_run(folder: str | Path, pairs: FakePairs, *, sar: bool = True) -> Path:
    """Write a config that trains `mmovseg_xs` on rasters of `write_pairs` and tests on the same, without clouds.

    Args:
        folder: gets `config.yaml`; the run's output goes to its subfolder `run`.
        pairs: seven classes, as MiniEarth has.
        sar: False lists the optical rasters only.

    Returns:
        Path of the config.
    """
    config = load_config("miniearth/mmovseg_xs.py")
    _shrink(config, Path(folder))
    for part in (config.dataloader.train, config.dataloader.test):
        part.dataset = LazyCall(load_pair_folder)(
            optical_dir=str(pairs.optical_dir),
            sar_dir=str(pairs.sar_dir) if sar else None,
            label_dir=str(pairs.label_dir),
        )
        part.mapper.reader = LazyCall(FileReader)(**pairs.reader_options)
        part.mapper.clouds = None
    config.dataloader.evaluator.dataset_name = "pairs"
    save_config(config, Path(folder) / "config.yaml")
    return Path(folder) / "config.yaml"


def _shrink(config: DictConfig, folder: Path) -> None:
    forget_foundation_weights(config.model)
    config.dataloader.train.batch_size = 4
    if "test" in config.dataloader:
        config.dataloader.test.batch_size = 2
    config.train.max_iter = 2
    config.train.log_period = 1
    config.train.device = "cpu"
    config.train.tensorboard = False
    config.train.output_dir = str(folder / "run")
