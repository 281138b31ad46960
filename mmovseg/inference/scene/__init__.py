"""Maps of whole scenes: any two rasters, any size, a sentence of class names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmovseg.inference.scene.many import predict_scenes
    from mmovseg.inference.scene.options import SceneOptions
    from mmovseg.inference.scene.rasters import SceneInputs, ScenePair
    from mmovseg.inference.scene.run import predict_scene

__all__ = ["SceneInputs", "SceneOptions", "ScenePair", "predict_scene", "predict_scenes"]

_HOMES = {
    "SceneInputs": "rasters",
    "SceneOptions": "options",
    "ScenePair": "rasters",
    "predict_scene": "run",
    "predict_scenes": "many",
}


def __getattr__(name: str) -> Any:
    """Import a part when it is first asked for: the command line answers before torch is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
