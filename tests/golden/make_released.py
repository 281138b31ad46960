#!/usr/bin/env python
"""Write released.json: what the released model gives with seeded weights. Only when its numbers are meant to change.

python -m tests.golden.make_released
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.meta_arch import MMOVSeg
from tests.modeling.released_parts import small_head, small_model

FILE = Path(__file__).with_name("released.json")
SEED = 7
TOLERANCE = 1e-4  # absolute, for values of the order of 1
VALUES = 24  # stored of each array
NAMES = vocabulary_from_names("city, road, forest, water, farmland")


def seeded(module: nn.Module, seed: int = SEED) -> nn.Module:
    """Fill every tensor from NumPy, so that neither torch's generators nor its initialisation matter.

    Weights keep the variance of their input, scales lie around 1, offsets around 0.
    """
    rng = np.random.default_rng(seed)
    for name, value in sorted(module.state_dict().items()):
        draw = torch.from_numpy(rng.standard_normal(tuple(value.shape)).astype(np.float32))
        if value.ndim > 1:
            draw = draw / value[0].numel() ** 0.5
        elif name.endswith("rope.periods"):
            draw = 1.3 * value
        elif name.endswith("weight"):
            draw = 1 + 0.2 * draw
        value.copy_(0.2 * draw if name.endswith("bias") else draw)
    return module


def noise(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def pictures(count: int, height: int, width: int) -> list[dict]:
    """Model inputs with labels of the first three names and some ignored pixels."""
    rng = np.random.default_rng(SEED)
    items = []
    for _ in range(count):
        image, sar = (torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)) for _ in range(2))
        label = torch.from_numpy(rng.choice([0, 1, 2, 255], (height, width)))
        items.append({"image": image, "sar": sar, "sem_seg": label, "height": 50, "width": 70, "vocabulary": NAMES})
    return items


def golden_model() -> MMOVSeg:
    """12x12 patches of 8 px on a table of 7x7, a volume of 6x6 in windows of 3."""
    model = seeded(small_model(head={"window": 3}, network_size=96, pad_multiple=32))
    assert isinstance(model, MMOVSeg)
    return model.eval()


def results() -> Iterator[tuple[str, Tensor]]:
    """Name and value of everything that is stored."""
    model = golden_model()
    with torch.no_grad():
        yield "text", model.clip.encode_vocabulary(NAMES)
        yield "sem_seg", torch.stack([one["sem_seg"] for one in model(pictures(2, 96, 96))])
        yield "sem_seg of a padded input", model(pictures(1, 90, 61))[0]["sem_seg"]
        yield from model.explain(pictures(1, 96, 96))[0].items()
        without_sar = [{key: value for key, value in item.items() if key != "sar"} for item in pictures(1, 96, 96)]
        yield "sem_seg without SAR", model(without_sar)[0]["sem_seg"]
    model.train()
    loss = model(pictures(2, 96, 96))["loss_sem_seg"]
    loss.backward()
    yield "loss", loss.detach()
    norms = [p.grad.norm() for _, p in sorted(model.head.named_parameters()) if p.grad is not None]
    yield "gradient norms of the head", torch.stack(norms)
    # The grid and the windows of the release.
    head = seeded(small_head(window=12, class_padding=256)).eval()
    features = [noise(1, 16, 24, 24, seed=seed) for seed in (1, 2)]
    guidance = [noise(1, 8, 48, 48, seed=3).abs(), noise(1, 4, 96, 96, seed=4).abs()]
    with torch.no_grad():
        yield "head", head.aggregate(noise(5, 16, seed=5), features[0], features[1], features[0], guidance)
        arguments = dict(embed_dim=128, depth=2, num_heads=2)
        dinov3 = TimmEncoder("vit_large_patch16_dinov3_qkvb", taps=(1, 2), model_args=arguments, keep_rope_periods=True)
        yield "dinov3", seeded(dinov3)(noise(1, 3, 48, 64, seed=6))["block2"]


def sample(value: Tensor) -> dict:
    """Shape, mean, spread, and values at even distances."""
    flat = value.double().flatten()
    chosen = flat[torch.linspace(0, len(flat) - 1, min(VALUES, len(flat))).round().long()]
    spread = float(flat.std()) if len(flat) > 1 else 0.0
    return {
        "shape": list(value.shape),
        "mean": round(float(flat.mean()), 7),
        "std": round(spread, 7),
        "values": [round(float(x), 7) for x in chosen],
    }


def main() -> None:
    """Write the file."""
    facts = {"seed": SEED, "tolerance": TOLERANCE, "device": "cpu", "dtype": "float32", "torch": torch.__version__}
    lines = [f"  {json.dumps(name)}: {json.dumps(sample(value))}" for name, value in results()]
    head = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in facts.items()]
    text = "\n".join(["{", *head, ' "results": {', ",\n".join(lines), " }", "}"])
    FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
