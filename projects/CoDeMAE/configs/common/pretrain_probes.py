"""What an encoder's tokens tell of land cover under a clear sky: linear probes on SAR and on optical MiniEarth scenes.

Two test loaders, `sar` and `optical`. The first gives both rasters, so that the report also says how SAR tokens agree
with those of the optical image of the same scene.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader
from mmovseg.data.datasets import get_dataset
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.evaluation import EncoderEvaluator, probe_pairs

_vocabulary = L(get_vocabulary)(dataset="miniearth", flavour="clean")
_fit = L(get_dataset)(name="miniearth_train", num_scenes=400)


def _loader(modality):
    return L(build_test_loader)(
        dataset=L(probe_pairs)(fit=_fit, test=L(get_dataset)(name="miniearth_test")),
        mapper=L(OpticalSARMapper)(
            is_train=False, vocabulary=_vocabulary, reader=L(MiniEarthReader)(), clouds=None, modality=modality
        ),
        batch_size=50,
    )


def _evaluator(student, teacher, modality):
    return L(EncoderEvaluator)(
        dataset_name="miniearth_test",
        vocabulary=_vocabulary,
        fit_dataset=_fit,
        student=student,
        teacher=teacher,
        modality=modality,
    )


dataloader = dict(
    test=dict(sar=_loader("both"), optical=_loader("optical")),
    evaluator=dict(sar=_evaluator("sar", "optical", "both"), optical=_evaluator("optical", "sar", "optical")),
)
