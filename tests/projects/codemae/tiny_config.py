"""A config of a tiny pretrainer with pairs of stripes and noise, for the commands that read configs."""

import torch

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.evaluation import EncoderEvaluator
from mmovseg.testing.checks import tiny_vocabulary
from tests.projects.codemae.tiny_pretrainer import SIDE, make_pretrainer


def tiny_dataset(first, last):
    """Dataset dicts with numbers for names."""
    return [{"image_id": f"{number:02d}", "file_name": f"made/{number:02d}"} for number in range(first, last)]


class TinyMapper:
    """Make a pair of its number: optical brightness and SAR follow the same stripes under noise of their own."""

    def __init__(self, modality="both"):
        self.modality = modality

    def __call__(self, item):
        rng = torch.Generator().manual_seed(int(item["image_id"]))
        stripes = torch.linspace(0, 6, SIDE).add(float(torch.rand((), generator=rng)) * 6).sin()[:, None]
        made = dict(item)
        if self.modality != "sar":
            made["image"] = (128 + 60 * stripes + 20 * torch.randn(3, SIDE, SIDE, generator=rng)).clamp(0, 255)
        if self.modality != "optical":
            made["sar"] = -12 + 5 * stripes + 2 * torch.randn(2, SIDE, SIDE, generator=rng)
        return made


class TinyLoader:
    """Batches of one."""

    def __init__(self, *, dataset, mapper):
        self.items = [[mapper(item)] for item in dataset]

    def __iter__(self):
        return iter(self.items)


def _loader(modality):
    return L(TinyLoader)(dataset=L(tiny_dataset)(first=0, last=12), mapper=L(TinyMapper)(modality=modality))


_evaluator = L(EncoderEvaluator)(
    dataset_name="tiny", vocabulary=L(tiny_vocabulary)(seen=2, unseen=1), fit_dataset=L(tiny_dataset)(first=0, last=3)
)
model = L(make_pretrainer)(cross=dict(target="grey"))
dataloader = dict(
    test=dict(optical=_loader("optical"), sar=_loader("both")), evaluator=dict(optical=_evaluator, sar=_evaluator)
)
train = get_config("common/train.py").train
