"""Registered pairs of 8-bit optical and 8-bit SAR images, as PIE, DDHR and OpenEarthMap-SAR come; clouds are in them.

`choose_sets` says which. Names are asked in the `clean` flavour: it holds the words of the paper's text ("background",
"developed space"), which CLIP has read, where the release's lists have typos and run-together words. Those matter only
to checkpoints trained with them (`common/data/released.py`); `--vocabulary released` asks with them.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.datasets import get_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.transforms import OpticalJitter, RandomCrop, RandomFlip, ResizeShortestEdge
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.evaluation import OVSegEvaluator

_vocabulary = L(get_vocabulary)(dataset="pie", flavour="clean")
# Nobody says which backscatter these 8 bits stand for, so they stay what they are; a conversion to dB would make up a
# calibration. One band is repeated: the encoders then keep their three-channel filters.
_reader = L(FileReader)(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)

_train = L(build_train_loader)(
    dataset=L(get_dataset)(name="pie_cloud_train"),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=_vocabulary,
        reader=_reader,
        # Networks read 384 pixels (release); predictions return to the size of the raster.
        geometry=[L(ResizeShortestEdge)(short_edge_px=384), L(RandomCrop)(size=384), L(RandomFlip)()],
        # The release's colour jitter: brightness 32, contrast and saturation 0.5..1.5, hue 18 steps of OpenCV's 180.
        optical_photometric=L(OpticalJitter)(brightness=32.0, contrast=0.5, saturation=0.5, hue_deg=36.0),
        modality="both",
    ),
    batch_size=8,
    num_workers=4,
)
_test = L(build_test_loader)(
    dataset=L(get_dataset)(name="pie_cloud_val"),
    mapper=L(OpticalSARMapper)(
        is_train=False,
        vocabulary=_vocabulary,
        reader=_reader,
        geometry=[L(ResizeShortestEdge)(short_edge_px=384)],
        modality="both",
    ),
    batch_size=1,
)
_evaluator = L(OVSegEvaluator)(dataset_name="pie_cloud_val", vocabulary=_vocabulary, modality="both")

dataloader = dict(train=_train, test=_test, evaluator=_evaluator)
