"""The XS model with random weights, as files: what commands that take a config and a checkpoint are tested with."""

from __future__ import annotations

from pathlib import Path

import torch

from mmovseg.checkpoint.save import save_weights
from mmovseg.config import instantiate, load_config, save_config
from mmovseg.data.sample import Modality


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
    for part in ("clip", "optical_encoder", "sar_encoder"):
        if config.model.get(part) is not None:
            config.model[part].weights = None
    save_config(config, config_file)
    if with_weights:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_weights(instantiate(config.model), weights)
    return config_file, weights
