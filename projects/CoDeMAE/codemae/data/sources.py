"""What CoDe-MAE is pretrained on: MiniEarth, or folders laid out as OSPretrain-1M, with either part or both in use."""

from __future__ import annotations

from typing import Any

from mmovseg.data.miniearth import load_miniearth
from mmovseg.data.miniearth.chips import load_miniearth_targets
from mmovseg.data.miniearth.domain import Domain
from mmovseg.projects.codemae.data.pretraining import PretrainingDataset, Use, check_use, pretraining_dataset


def miniearth_pretraining(
    *,
    use: Use = "both",
    num_pairs: int = 1500,
    num_chips: int = 750,
    split: str = "train",
    size: int = 64,
    domain: str | Domain | dict[str, Any] = "default",
    seed: int = 0,
) -> PretrainingDataset:
    """Return scenes of MiniEarth as pairs, of source ``scenes``, and chips with targets as unpaired images, ``chips``.

    Optical and SAR chips show different ground (`mmovseg.data.miniearth.chips`). What is not in use is not looked for.

    Args:
        use: ``paired``, ``unpaired`` or ``both``.
        num_pairs: scenes.
        num_chips: optical chips, and as many SAR chips.
        split: of both.
        size: side of scenes and chips, pixels.
        domain: name, `Domain` or its dict.
        seed: which world.

    Raises:
        UserError: an argument is not valid, or the area holds too few scenes or targets.
    """
    world: dict[str, Any] = dict(size=size, domain=domain, seed=seed)
    parts: dict[str, list[dict[str, Any]]] = {}
    if check_use(use) != "unpaired":
        scenes = load_miniearth(split, num_scenes=num_pairs, **world)
        parts["paired"] = [{**scene, "source": "scenes"} for scene in scenes]
    if use != "paired":
        for sensor in ("optical", "sar"):
            chips = load_miniearth_targets(split, sensor=sensor, num=num_chips, source="chips", **world)
            parts[f"unpaired_{sensor}"] = [dict(chip) for chip in chips]
    return pretraining_dataset(**parts)
