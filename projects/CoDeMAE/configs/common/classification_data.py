"""Readers, loaders and evaluators of classification, to be completed by a config: data sets, geometry, classes.

`norms.<data set>` is what a model takes (`model.update(...)`): norms on the scale of the rasters, and the contract.
"""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
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


# Mean and deviation of each data set as the release reports them, of values 0..1; SAR, then optical (R, G, B).
_figures = dict(
    pie=([[0.3328] * 3, [0.2265] * 3], [[0.3270, 0.3519, 0.2879], [0.2293, 0.2054, 0.2004]]),
    ddhr_sk=([[0.1991] * 3, [0.1945] * 3], [[0.6372, 0.6446, 0.6541], [0.1629, 0.1535, 0.1451]]),
    whu=([[0.2119] * 3, [0.1911] * 3], [[0.1639, 0.1527, 0.1260], [0.0723, 0.0740, 0.0703]]),
    dfc20=(
        [[0.4864, 0.5285, 0.5074], [0.2291, 0.2357, 0.2142]],
        [[0.1887, 0.2082, 0.1706], [0.1618, 0.1618, 0.1570]],
    ),
    ben=(
        [[0.5521, 0.5236, 0.5378], [0.2188, 0.2209, 0.1878]],
        [[0.2195, 0.2554, 0.2090], [0.1781, 0.1685, 0.1666]],
    ),
    eurosat=(
        [[0.4882, 0.5376, 0.5129], [0.2265, 0.2239, 0.1918]],
        [[0.2873, 0.3149, 0.2774], [0.2131, 0.2052, 0.2005]],
    ),
    aid=(None, [[0.3978, 0.4092, 0.3685], [0.2170, 0.1945, 0.1920]]),
    resisc45=(None, [[0.3680, 0.3810, 0.3436], [0.2034, 0.1853, 0.1848]]),
    # all chips of targets have the constants of the unpaired SAR images of pretraining
    chips=([[0.1738] * 3, [0.2226] * 3], None),
)
_dual = ("dfc20", "ben", "eurosat")  # Sentinel-1, whose two bands and their mean are the three channels


def _parts(name, sar, optical):
    """Return what the model of a data set takes: both norms, and the contract that says the same."""
    taken = dict(optical_norm=None, sar_norm=None)
    contracts = dict(optical=None, sar=None)
    for key, figures, bands, unit in (
        ("optical", optical, ("red", "green", "blue"), "uint8"),
        ("sar", sar, ("VV", "VH", "mean") if name in _dual else ("amplitude",) * 3, "amplitude8"),
    ):
        if figures is not None:
            mean, std = ([round(255 * value, 4) for value in values] for values in figures)
            taken[f"{key}_norm"] = L(PixelNorm)(mean=mean, std=std)
            contracts[key] = L(ModalityContract)(sensor=name, bands=bands, unit=unit, mean=mean, std=std)
    return dict(**taken, input_contract=L(InputContract)(**contracts, train_size=224))


norms = {name: _parts(name, sar, optical) for name, (sar, optical) in _figures.items()}
