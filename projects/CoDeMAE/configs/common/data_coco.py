"""Any set in COCO format: JSON files, folders of images, and the names of the categories (`model.categories`).

A leaf, or the command line, sets `json_file` and `optical_dir` or `sar_dir` of both loaders.
"""

from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.datasets.coco_boxes import load_coco_boxes
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.transforms import RandomFlip
from mmovseg.projects.codemae.evaluation.detection import BoxEvaluator

_train = L(build_train_loader)(
    dataset=L(load_coco_boxes)(
        json_file="data/coco/train.json",
        categories="${model.categories}",
        optical_dir="data/coco/images",
        sar_dir=None,
        keep_empty=False,  # as the release: images without an object teach the heads nothing but background
    ),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=None,
        reader=L(FileReader)(),
        geometry=[L(RandomFlip)()],
        modality="${model.sensor}",
    ),
    batch_size=16,
    num_workers=4,
)
_test = L(build_test_loader)(
    dataset=L(load_coco_boxes)(
        json_file="data/coco/test.json",
        categories="${model.categories}",
        optical_dir="data/coco/images",
        sar_dir=None,
    ),
    mapper=L(OpticalSARMapper)(
        is_train=False, vocabulary=None, reader=L(FileReader)(), geometry=[], modality="${model.sensor}"
    ),
    batch_size=1,
    num_workers=4,
)
_evaluator = L(BoxEvaluator)(dataset_name="coco_test", categories="${model.categories}")

dataloader = dict(train=_train, test=_test, evaluator=_evaluator)
