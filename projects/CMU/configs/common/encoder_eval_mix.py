"""A SAR encoder of CMU-Data by itself: `encoder_eval.py` on scenes of 256 px, 16 x 16 patches of 16 px.

For configs with the data of `cmu_data.py`, which set the mapper's reader to that of training: scenes say of which
source they are, so that its reader and the statistics of `model.student_norm` serve them as in training. Statistics
that lack the source get it by

    tools/compute_statistics.py --config-file F --loader test --update --output FILE.json

Labelled pairs of one's own take the place of the scenes as a source of `test.dataset.{fit,test}` and, the same as
`fit`, of `evaluator.fit_dataset`; mapper and evaluator take their vocabulary.
"""

from omegaconf import DictConfig

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import mix_datasets

dataloader = get_config("projects/CMU/configs/common/encoder_eval.py").dataloader


def _scenes(split: str, **options: int) -> DictConfig:
    source = dict(name="miniearth", dataset=f"miniearth_{split}", options=dict(size=256, **options))
    return L(mix_datasets)(sources=[source])


_fit = _scenes("train", num_scenes=400)
dataloader.test.dataset.fit = dataloader.evaluator.fit_dataset = _fit
dataloader.test.dataset.test = _scenes("test")
dataloader.test.batch_size = 4  # sixteen times the pixels of the XS scenes, and two encoders of full size
