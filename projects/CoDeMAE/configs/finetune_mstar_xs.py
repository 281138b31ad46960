"""Fine-tuning of the XS encoder on MSTAR chips, ten classes, 40 shots a class; the middle 64 pixels of each.

``<datasets>/mstar10/{train,val}/<class>/``. `model.encoder.weights=<pretraining run>` starts from pretraining, without
it the encoder starts at random; all else is equal.

Chips are 8-bit amplitude of one channel, the encoder knows VV and VH in dB. So amplitude becomes dB: the unknown gain
of a picture is an offset there, which the mean of the data set takes away, and speckle is as pretraining saw it.
The channel is given twice, since VV and VH are much alike once they are normalised; a channel of zeros would be
something new. Mean, deviation and clip range (`sar_chips`) are those of the training chips:

    F=projects/CoDeMAE/configs/finetune_mstar_xs.py
    tools/compute_statistics.py --config-file $F --source mstar --output output/statistics/mstar.json \
        dataloader.train.dataset.shots=60
"""

from mmovseg.checkpoint.contract import contract_of_sources
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.io import FileReader
from mmovseg.data.transforms.centre_crop import CentreCrop
from mmovseg.layers.norm import norm_of_sources
from mmovseg.projects.codemae.data.classification import class_names, load_class_folder

_base = get_config("projects/CoDeMAE/configs/common/finetune_chips.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.encoder = get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_xs
model.encoder.in_chans = dict(sar=2)
model.encoder.pyramid_dim = None
model.encoder.drop_path = 0.05
model.sar_norm = L(norm_of_sources)(statistics="sar_chips", modality="sar", sources=["mstar"], default="mstar")
model.input_contract = L(contract_of_sources)(
    statistics="sar_chips", bands=("amplitude", "amplitude"), sources=["mstar"], train_size=64
)

for _part, _folder in ((dataloader.train.dataset, "mstar10/train"), (dataloader.test, "mstar10/val")):
    _part.dataset = L(load_class_folder)(folder=_folder, classes="${dataloader.evaluator.classes}", sensor="sar")
for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader = L(FileReader)(sar_unit_in="amplitude8", sar_unit="db", sar_channels=2)
    _part.mapper.geometry = [L(CentreCrop)(size=64)]
dataloader.evaluator.dataset_name = "mstar10_val"
dataloader.evaluator.classes = L(class_names)(folder="mstar10/train")

optimizer.base_lr = 1e-3
lr_multiplier.end_factor = 1e-3
train.output_dir = "output/codemae/finetune_mstar_xs"
