"""Fine-tuning of the XS encoder on SAR-ACD chips of aircraft, 40 shots a class; as many classes as there are folders.

``<datasets>/sar_acd/<class>/``. It comes without a split: a seeded half of every class is for testing, the same for all
`train.seed`, and copies of a chip stay on one side, see `finetune_sar_acd_b.py`. Chips are cut to the middle 128
pixels, so that size tells aircraft apart, and halved. Training is as long as that of MSTAR: 480 steps, which are 100
epochs of the shots of six classes.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.transforms.centre_crop import CentreCrop, CubicResize
from mmovseg.projects.codemae.data.classification import class_names, load_class_folder

_base = get_config("projects/CoDeMAE/configs/finetune_mstar_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.sar_norm.sources, model.sar_norm.default, model.input_contract.sources = ["sar_acd"], "sar_acd", ["sar_acd"]

for _part, _split in ((dataloader.train.dataset, "train"), (dataloader.test, "test")):
    _part.dataset = L(load_class_folder)(
        folder="sar_acd",
        classes="${dataloader.evaluator.classes}",
        sensor="sar",
        part=_split,
        test_share=0.5,
        copies_above=0.9,
    )
for _part in (dataloader.train, dataloader.test):
    _part.mapper.geometry = [L(CentreCrop)(size=128), L(CubicResize)(size=64)]
dataloader.evaluator.dataset_name = "sar_acd_test"
dataloader.evaluator.classes = L(class_names)(folder="sar_acd")
train.output_dir = "output/codemae/finetune_sar_acd_xs"
