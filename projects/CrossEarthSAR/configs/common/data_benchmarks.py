"""One of the 22 benchmarks: ``dataloader.benchmark=VV2F`` chooses images and classes of training, test and model alike.

What the paper leaves open: ``dataloader.polarisation``, ``regions`` and ``unification``, arguments of `load_benchmark`.
Tiles have 512x512 pixels of 8-bit amplitude, one band three times or the composite of full polarisation.
"""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.transforms import FixedSizePad, RandomCrop, RandomFlip, ResizeShortestEdge
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.crossearth.data.benchmarks import benchmark_vocabulary, load_benchmark
from mmovseg.projects.crossearth.evaluation.experts import ExpertEvaluator

_crop_px = 512
vocabulary = L(benchmark_vocabulary)(code="${dataloader.benchmark}")
# Of ImageNet, as in Rein: DINOv2 was trained with them, and a frozen one keeps to what it knows.
sar_contract = L(ModalityContract)(
    sensor="8-bit amplitude, one band three times or three polarisations",
    bands=("amplitude", "amplitude", "amplitude"),
    unit="amplitude8",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
input_contract = L(InputContract)(optical=None, sar=sar_contract, gsd_m=None, train_size=_crop_px)
sar_norm = L(PixelNorm)(mean=sar_contract.mean, std=sar_contract.std)

_reader = L(FileReader)(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)


def _part(part):
    own = {key: f"${{dataloader.{key}}}" for key in ("polarisation", "regions", "unification", "root")}
    return L(load_benchmark)(code="${dataloader.benchmark}", part=part, **own)


_train = L(build_train_loader)(
    dataset=_part("train"),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=vocabulary,
        reader=_reader,
        # As Rein; its jitter of colours means nothing to SAR, and its rule on crops of one class is left out.
        geometry=[
            L(ResizeShortestEdge)(short_edge_px=list(range(256, 1025, 51)), max_size_px=2048),
            L(RandomCrop)(size=_crop_px),
            L(FixedSizePad)(size=_crop_px),
            L(RandomFlip)(),
        ],
        modality="sar",
    ),
    batch_size=2,
    num_workers=2,
)
_test = L(build_test_loader)(
    dataset=_part("test"),
    mapper=L(OpticalSARMapper)(is_train=False, vocabulary=vocabulary, reader=_reader, modality="sar"),
    num_workers=2,
)
dataloader = dict(
    benchmark="N2S",
    polarisation="hh",
    regions=None,
    unification=None,
    root=None,
    train=_train,
    test=_test,
    evaluator=L(ExpertEvaluator)(dataset_name="${dataloader.benchmark}", vocabulary=vocabulary),
)
