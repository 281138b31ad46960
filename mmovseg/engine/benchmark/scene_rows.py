"""What mapping a scene costs beside the model: reading, warping, blending, writing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmovseg.checkpoint.save import save_weights
from mmovseg.config import instantiate, load_config
from mmovseg.engine.benchmark.data_rows import write_scene
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.engine.stopwatch import Clock, OtherLoad
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.run import predict_scene

PROMPTS = "bareland, rangeland, farmland, forest, city, road, water"
_RUNS = 3


def measure_scene(settings: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Map a scene of MiniEarth several times: clouds, SAR on another CRS and a coarser grid, all three small layers.

    Settings: ``scene_config``, ``weights`` (None = random), ``scene_pixels``, ``device``.

    Returns:
        ``seconds`` of every whole call, ``model_seconds`` of the model in it, ``spent`` the medians by kind of work,
        ``classes``, ``pixels``, and ``other_cores``.
    """
    options = SceneOptions(confidence=True, quality=True, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        predictor = Predictor(settings["scene_config"], _weights(settings, Path(folder)), settings["device"])
        inputs = write_scene(Path(folder) / "scene", settings["scene_pixels"], "warped")
        predict_scene(predictor, inputs, PROMPTS, Path(folder) / "first.tif", options=options)
        seconds, reports, others = [], [], OtherLoad()
        for number in range(_RUNS):
            start = time.perf_counter()
            reports.append(predict_scene(predictor, inputs, PROMPTS, Path(folder) / f"{number}.tif", options=options))
            seconds.append(time.perf_counter() - start)
        other_cores = others.cores()
    spent = {name: sorted(report["seconds"][name] for report in reports)[_RUNS // 2] for name in reports[0]["seconds"]}
    return {
        "seconds": seconds,
        "model_seconds": [report["seconds"]["model"] for report in reports],
        "spent": spent,
        "classes": len(PROMPTS.split(",")),
        "pixels": settings["scene_pixels"] ** 2,
        "other_cores": other_cores,
    }


def _weights(settings: Mapping[str, Any], folder: Path) -> str:
    if settings["weights"] is not None:
        return str(settings["weights"])
    config = load_config(settings["scene_config"])
    forget_foundation_weights(config.model)
    torch.manual_seed(0)
    save_weights(instantiate(config.model), folder / "random.safetensors")
    return str(folder / "random.safetensors")
