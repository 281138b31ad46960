"""Loaders of the three stages on MiniEarth: `natural`, `optical` and `sar`, each with train, test and evaluator.

Training draws from all wordings of the captions; retrieval is tested on those that state numbers.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.transforms import RandomFlip, RandomRotate90
from mmovseg.projects.sartext.data.stages import ChosenWording, load_stage
from mmovseg.projects.sartext.evaluation.retrieval_evaluator import RetrievalEvaluator


def _mapper(stage, *, is_train, wordings):
    # The captions say nothing of places, so images may be turned.
    return L(OpticalSARMapper)(
        is_train=is_train,
        vocabulary=None,
        reader=L(ChosenWording)(reader=L(MiniEarthReader)(), wordings=wordings),
        geometry=[L(RandomFlip)(), L(RandomRotate90)()] if is_train else [],
        modality="sar" if stage == "sar" else "optical",
        keep_caption=True,
    )


def _loaders(stage):
    train = L(build_train_loader)(
        dataset=L(load_stage)(stage=stage),
        mapper=_mapper(stage, is_train=True, wordings=("list", "amount", "percent", "count")),
        batch_size=32,
    )
    test = L(build_test_loader)(
        dataset=L(load_stage)(stage=stage, split="test"),
        mapper=_mapper(stage, is_train=False, wordings=("percent", "count")),
        batch_size=50,
    )
    evaluator = L(RetrievalEvaluator)(
        dataset_name=f"miniearth_{stage}_test", modality="sar" if stage == "sar" else "optical"
    )
    return dict(train=train, test=test, evaluator=evaluator)


natural, optical, sar = _loaders("natural"), _loaders("optical"), _loaders("sar")
