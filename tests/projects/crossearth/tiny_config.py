"""A config of a tiny segmentor with experts and two domains of noise, for the commands that read configs."""

from collections import OrderedDict

import torch
from torch import nn

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.evaluation import OVSegEvaluator
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder

SIDE = 16
NAMES = "land, water, town"


def tiny_dataset(domain, count):
    """Dataset dicts with numbers for names."""
    return [{"image_id": f"{domain}_{n}", "file_name": f"made/{domain}_{n}", "domain": domain} for n in range(count)]


class TinyMapper:
    """Make a grey image of its name: domains differ in brightness."""

    def __call__(self, item):
        rng = torch.Generator().manual_seed(int(item["image_id"].split("_")[1]))
        sar = torch.randn(1, SIDE, SIDE, generator=rng) + {"near": 0.0, "far": 4.0}[item["domain"]]
        label = (sar[0] > sar.mean()).long()
        label[0] = 255
        return {
            "image_id": item["image_id"],
            "file_name": item["file_name"],
            "sar": 40 + 20 * sar,
            "sem_seg": label,
            "height": SIDE,
            "width": SIDE,
            "vocabulary": vocabulary_from_names(NAMES),
        }


class TinyLoader:
    """Holds what a test loader is made of; nothing here iterates."""

    def __init__(self, *, dataset, mapper):
        self.items = [mapper(item) for item in dataset]

    def __iter__(self):
        return ([item] for item in self.items)


class TinySegmentor(nn.Module):
    """Two blocks, one score a class and patch."""

    input_contract = {"sar": {"unit": "amplitude8", "bands": ("amplitude",)}}

    def __init__(self, *, num_experts=3):
        super().__init__()
        self.encoder = MoEEncoder(
            "vit_small_patch8_224",
            taps=(2,),
            num_experts=num_experts,
            image_size=SIDE,
            in_chans=1,
            model_args=OrderedDict(patch_size=4, embed_dim=16, depth=2, num_heads=2),
        )
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, inputs):
        """Whole images of one size."""
        x = torch.stack([item["sar"] for item in inputs]) / 64
        scores = self.head(self.encoder(x)["block2"])
        maps = nn.functional.interpolate(scores, size=(SIDE, SIDE))
        return [{"sem_seg": one} for one in maps]


def _loader(domain):
    return L(TinyLoader)(dataset=L(tiny_dataset)(domain=domain, count=6), mapper=L(TinyMapper)())


def _evaluator(domain):
    return L(OVSegEvaluator)(dataset_name=domain, vocabulary=L(vocabulary_from_names)(names=NAMES))


model = L(TinySegmentor)()
train = get_config("common/train.py").train
dataloader = dict(
    test={name: _loader(name) for name in ("near", "far")},
    evaluator={name: _evaluator(name) for name in ("near", "far")},
)
