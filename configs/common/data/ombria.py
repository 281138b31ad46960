"""OMBRIA, both dates: train on all folds of its training part but one, test on the one left out.

Images are halved to 20 m, the resolution of the short-wave infrared band: one crop of 64 px then shows 1.28 km. Answers
come back at 10 m. Clouds are real here, so none are made up.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.datasets.ombria import OmbriaReader, load_ombria
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.transforms import RandomCrop, RandomFlip, RandomRotate90, RandomScale, Resize
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.evaluation.per_image import PerImageEvaluator

_vocabulary = L(get_vocabulary)(dataset="ombria", flavour="clean")

_train = L(build_train_loader)(
    dataset=L(load_ombria)(split="train", dates="both", fold=0),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=_vocabulary,
        reader=L(OmbriaReader)(),
        geometry=[L(RandomCrop)(size=128), L(Resize)(size=64), L(RandomFlip)(vertical=True), L(RandomRotate90)()],
        modality="both",
    ),
    batch_size=8,
)
_test = L(build_test_loader)(
    dataset=L(load_ombria)(split="val", dates="both", fold=0),
    mapper=L(OpticalSARMapper)(
        is_train=False,
        vocabulary=_vocabulary,
        reader=L(OmbriaReader)(),
        geometry=[L(RandomScale)(low=0.5, high=0.5)],  # always by half, also for a scene of another size
        modality="both",
    ),
    batch_size=4,
)
_evaluator = L(PerImageEvaluator)(dataset_name="ombria_val", vocabulary=_vocabulary, modality="both")

dataloader = dict(train=_train, test=_test, evaluator=_evaluator)
