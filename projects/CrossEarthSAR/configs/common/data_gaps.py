"""MiniEarth in the eight gaps: `pretraining` on a pool of domains, `downstream` on one source, tested on eight targets.

The loader `source` tests on the domain of training. Every scene is 64x64 pixels, one channel of amplitude 0..255.
"""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.transforms import RandomFlip
from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.crossearth.data.gaps import EIGHT_GAPS, AmplitudeReader, load_gap, load_pool
from mmovseg.projects.crossearth.evaluation.experts import ExpertEvaluator

vocabulary = L(closed_vocabulary)(dataset="miniearth")
# Mean and standard deviation of 240 scenes of the pool `factors`.
sar_contract = L(ModalityContract)(
    sensor="MiniEarth, co-polarised", bands=("amplitude",), unit="amplitude8", mean=(41.0,), std=(32.0,)
)
input_contract = L(InputContract)(optical=None, sar=sar_contract, gsd_m=(2.5, 5.0), train_size=64)
sar_norm = L(PixelNorm)(mean=sar_contract.mean, std=sar_contract.std)

_reader = L(AmplitudeReader)(reader=L(MiniEarthReader)())


def _train(dataset):
    # Flips alone, as in Rein, but for its crops of other sizes: 64 pixels leave nothing to crop.
    mapper = L(OpticalSARMapper)(
        is_train=True, vocabulary=vocabulary, reader=_reader, geometry=[L(RandomFlip)()], modality="sar"
    )
    return L(build_train_loader)(dataset=dataset, mapper=mapper, batch_size=8)


def _test(dataset):
    mapper = L(OpticalSARMapper)(is_train=False, vocabulary=vocabulary, reader=_reader, modality="sar")
    return L(build_test_loader)(dataset=dataset, mapper=mapper, batch_size=25)


_gaps = {"source": L(load_gap)(gap="region", side="source", split="test", num_scenes=200)}
_gaps.update({gap: L(load_gap)(gap=gap, side="target", num_scenes=200) for gap in EIGHT_GAPS})
_tests = {name: _test(dataset) for name, dataset in _gaps.items()}
_blocks = [f"block{number}" for number in range(1, 5)]
_evaluators = {name: L(ExpertEvaluator)(dataset_name=name, vocabulary=vocabulary, blocks=_blocks) for name in _gaps}

pretraining = dict(
    train=_train(L(load_pool)(pool="factors", num_scenes=1600)),
    # Domains of the pool, scenes of the test area.
    test=_test(L(load_pool)(pool="factors", split="test", num_scenes=200)),
    evaluator=L(ExpertEvaluator)(dataset_name="pool", vocabulary=vocabulary, blocks=_blocks),
)
downstream = dict(
    train=_train(L(load_gap)(gap="region", side="source", num_scenes=1000)), test=_tests, evaluator=_evaluators
)
