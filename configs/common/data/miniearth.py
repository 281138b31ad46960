"""MiniEarth under clouds: training pairs with labels of the seen classes, test pairs with all."""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.datasets import get_dataset
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.transforms import RandomFlip, RandomRotate90
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.evaluation import OVSegEvaluator

_vocabulary = L(get_vocabulary)(dataset="miniearth", flavour="clean")

_train = L(build_train_loader)(
    dataset=L(get_dataset)(name="miniearth_train"),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=_vocabulary,
        reader=L(MiniEarthReader)(),
        geometry=[L(RandomFlip)(), L(RandomRotate90)()],
        clouds=L(CloudSynthesizer)(kind="varied"),
        modality="both",
    ),
    batch_size=16,
)
_test = L(build_test_loader)(
    dataset=L(get_dataset)(name="miniearth_test"),
    mapper=L(OpticalSARMapper)(
        is_train=False,
        vocabulary=_vocabulary,
        reader=L(MiniEarthReader)(),
        clouds=L(CloudSynthesizer)(kind="varied"),
        modality="both",
    ),
    batch_size=25,
)
_evaluator = L(OVSegEvaluator)(dataset_name="miniearth_test", vocabulary=_vocabulary, modality="both")

dataloader = dict(train=_train, test=_test, evaluator=_evaluator)
