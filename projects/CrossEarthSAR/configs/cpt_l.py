"""Continued pretraining of CrossEarth-SAR-L on SAR images with labels from their optical twins.

    tools/train_net.py --config-file projects/CrossEarthSAR/configs/cpt_l.py --num-gpus 8

The paper's own 203,240 images are not public; `tools/pseudo_label.py --vocabulary loveda --output output/pseudo_labels`
makes such a folder with LoveDA's seven classes, as there. Others: dataloader.labels=FOLDER and
dataloader.classes=FOLDER/vocabulary.json. Another length: train.max_iter = 18 * images / 64.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.build import build_train_loader
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.transforms import FixedSizePad, RandomCrop, RandomFlip
from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.projects.crossearth.data.pseudo_labels import load_pseudo_labels

_base = get_config("projects/CrossEarthSAR/configs/common/cpt.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))

_crop_px = 512
model.vocabulary = L(closed_vocabulary)(dataset="${dataloader.classes}")
_train = L(build_train_loader)(
    dataset=L(load_pseudo_labels)(folder="${dataloader.labels}", vocabulary=model.vocabulary),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=model.vocabulary,
        reader=L(FileReader)(sar_unit_in="amplitude8", sar_unit="amplitude8"),
        # The paper crops or resizes to 512 and says no more.
        geometry=[L(RandomCrop)(size=_crop_px), L(FixedSizePad)(size=_crop_px), L(RandomFlip)()],
        modality="sar",
    ),
    batch_size=64,
    num_workers=4,
)
dataloader = dict(labels="output/pseudo_labels", classes="loveda", train=_train)
