"""MiniEarth scenes that hold aircraft, ships or vehicles, clear; both sensors are there, the model reads one.

Written folders (`tools/make_miniearth.py`) have the same objects in COCO's format: `data_coco.py` with the json_file
``<folder>/train/targets.json``, the optical_dir ``<folder>/train/optical`` or the sar_dir ``<folder>/train/sar``.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.transforms import RandomFlip, RandomRotate90
from mmovseg.projects.codemae.data.detection import load_miniearth_boxes
from mmovseg.projects.codemae.evaluation.detection import BoxEvaluator

_train = L(build_train_loader)(
    # Of 64 px, as in pretraining: there are 2.5 times as many aircraft and ships a pixel as in scenes of 128 px.
    dataset=L(load_miniearth_boxes)(split="train", num_scenes=600, size=64, categories="${model.categories}"),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=None,
        reader=L(MiniEarthReader)(),
        geometry=[L(RandomFlip)(), L(RandomRotate90)()],
        modality="${model.sensor}",
    ),
    batch_size=16,
)
_test = L(build_test_loader)(
    dataset=L(load_miniearth_boxes)(split="test", num_scenes=200, size=128, categories="${model.categories}"),
    mapper=L(OpticalSARMapper)(
        is_train=False, vocabulary=None, reader=L(MiniEarthReader)(), modality="${model.sensor}"
    ),
    batch_size=10,
)
# Vehicles are 2 to 4 px, ships and aircraft up to 14 px: COCO's own groups would hold all of them in one.
_evaluator = L(BoxEvaluator)(dataset_name="miniearth_test", categories="${model.categories}", size_edges_px=[5.0, 10.0])

dataloader = dict(train=_train, test=_test, evaluator=_evaluator)
