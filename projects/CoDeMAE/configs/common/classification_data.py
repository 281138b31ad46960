"""Readers, loaders and evaluators of classification, to be completed by a config: data sets, geometry, classes.

Norms are on the scale of the rasters: the reported constants, which are of values 0..1, times 255.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader
from mmovseg.data.io import FileReader
from mmovseg.data.transforms.centre_crop import CubicResize
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.data.classification_mapper import ClassificationMapper, build_classification_loader
from mmovseg.projects.codemae.data.labels import few_shot
from mmovseg.projects.codemae.evaluation.classification import ClassificationEvaluator

# 8-bit SAR as it is stored, one channel three times: what the released weights were trained with.
reader8 = L(FileReader)(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)

# Few images of the training part, another few for every `train.seed`.
shots = L(few_shot)(
    dataset=None, classes="${dataloader.evaluator.classes}", shots=10, protocol="release", seed="${train.seed}"
)

_train = L(build_classification_loader)(
    dataset=shots,
    mapper=L(ClassificationMapper)(
        is_train=True, reader=reader8, geometry=[L(CubicResize)(size=224)], modality="${model.sensor}"
    ),
    batch_size=256,
)
_test = L(build_test_loader)(
    dataset=None,
    mapper=L(ClassificationMapper)(
        is_train=False, reader=reader8, geometry=[L(CubicResize)(size=224)], modality="${model.sensor}"
    ),
    batch_size=64,
)
_evaluator = L(ClassificationEvaluator)(dataset_name="test", classes=None, multi_label=False)

dataloader = dict(train=_train, test=_test, evaluator=_evaluator)


def _norm(mean, std):
    return L(PixelNorm)(mean=[round(255 * value, 4) for value in mean], std=[round(255 * value, 4) for value in std])


# Reported in the release: (SAR, optical) of each data set.
norms = dict(
    pie=dict(sar=_norm([0.3328] * 3, [0.2265] * 3), optical=_norm([0.3270, 0.3519, 0.2879], [0.2293, 0.2054, 0.2004])),
    ddhr_sk=dict(
        sar=_norm([0.1991] * 3, [0.1945] * 3), optical=_norm([0.6372, 0.6446, 0.6541], [0.1629, 0.1535, 0.1451])
    ),
    whu=dict(sar=_norm([0.2119] * 3, [0.1911] * 3), optical=_norm([0.1639, 0.1527, 0.1260], [0.0723, 0.0740, 0.0703])),
    dfc20=dict(
        sar=_norm([0.4864, 0.5285, 0.5074], [0.2291, 0.2357, 0.2142]),
        optical=_norm([0.1887, 0.2082, 0.1706], [0.1618, 0.1618, 0.1570]),
    ),
    ben=dict(
        sar=_norm([0.5521, 0.5236, 0.5378], [0.2188, 0.2209, 0.1878]),
        optical=_norm([0.2195, 0.2554, 0.2090], [0.1781, 0.1685, 0.1666]),
    ),
    eurosat=dict(
        sar=_norm([0.4882, 0.5376, 0.5129], [0.2265, 0.2239, 0.1918]),
        optical=_norm([0.2873, 0.3149, 0.2774], [0.2131, 0.2052, 0.2005]),
    ),
    aid=dict(optical=_norm([0.3978, 0.4092, 0.3685], [0.2170, 0.1945, 0.1920])),
    resisc45=dict(optical=_norm([0.3680, 0.3810, 0.3436], [0.2034, 0.1853, 0.1848])),
    # all chips of targets have the constants of the unpaired SAR images of pretraining
    chips=dict(sar=_norm([0.1738] * 3, [0.2226] * 3)),
)
