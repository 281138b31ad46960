"""Every config of the project builds its model, and trains what its recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mmovseg.config import instantiate, load_config

CONFIGS = Path(__file__).parents[3] / "projects" / "CrossEarthSAR" / "configs"
# millions of parameters: all, trained
COUNTS = {
    "benchmark_b": (390.15, 20.30),
    "benchmark_dinov2_l": (324.76, 20.56),
    "benchmark_l": (1332.16, 20.56),
    "benchmark_l_adapter": (1336.93, 25.34),
    "benchmark_s": (112.82, 19.91),
    "benchmark_xs": (1.14, 0.26),
    "cmu_moe_xs": (1.10, 0.88),
    "cpt_b": (390.15, 390.15),
    "cpt_l": (1332.16, 1332.15),
    "cpt_s": (112.82, 112.82),
    "gaps_cpt_xs": (1.14, 1.14),
    "gaps_linear_xs": (0.88, 0.00),
    "gaps_xs": (1.14, 0.26),
    "mmovseg_moe_xs": (1.90, 1.25),
}


def without_files(node: Any) -> None:
    """Take out weights that would be downloaded or read from a run."""
    if isinstance(node, Mapping):
        for key, value in list(node.items()):
            if key == "weights" and isinstance(value, str) and "shipped://" not in value:
                node[key] = None  # type: ignore[index]
            else:
                without_files(value)


def test_every_leaf_is_listed():
    assert sorted(COUNTS) == sorted(file.stem for file in CONFIGS.glob("*.py"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*meta parameter.*")
@pytest.mark.parametrize("name", COUNTS)
def test_the_model_of_a_config_has_these_parameters(name):
    config = load_config(CONFIGS / f"{name}.py")
    without_files(config.model)
    with torch.device("meta"):
        model = instantiate(config.model)
    found = [sum(p.numel() for p in model.parameters() if p.requires_grad or every) / 1e6 for every in (True, False)]
    assert found == pytest.approx(COUNTS[name], abs=0.006)
