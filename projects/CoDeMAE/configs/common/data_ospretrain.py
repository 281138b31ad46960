"""OSPretrain-1M for pretraining, as the CoDe-MAE release reads it: pairs by source, and unpaired images.

The tree lies at ``$DETECTRON2_DATASETS/OSPretrain-1M`` (or `dataloader.train.dataset.root=DIR`), laid out as
mmovseg/data/datasets/ospretrain.py says; any folder with RGB/ and SAR/ in it is one more source once its pixels are
measured. `dataloader.train.dataset.use=paired` or `=unpaired` takes one part alone, `.include=[...]` some sources,
`.exclude` and `.exclude_lists` leave out what the release leaves out. `.statistics=FILE.json` changes the constants of
data and model together.
"""

from mmovseg.checkpoint.contract import contract_of_sources
from mmovseg.config import LazyCall as L
from mmovseg.data.build import build_train_loader
from mmovseg.data.datasets.ospretrain import EXCLUDED, EXCLUDED_LISTS
from mmovseg.data.io import FileReader
from mmovseg.data.transforms import RandomFlip, RandomResizedCrop
from mmovseg.layers.norm import norm_of_sources
from mmovseg.projects.codemae.data.pretraining import PretrainingMapper
from mmovseg.projects.codemae.data.sources import ospretrain_pretraining

_size_px = 224
_train = L(build_train_loader)(
    dataset=L(ospretrain_pretraining)(
        root=None,
        use="both",
        include=None,
        exclude=EXCLUDED,
        exclude_lists=EXCLUDED_LISTS,
        unequal="refuse",
        statistics="ospretrain",
    ),
    mapper=L(PretrainingMapper)(
        # Grey SAR becomes three equal channels, as the release converts it. Files of more than 8 bits want decoder=gdal
        # with sar_channels=3, a unit, and statistics measured with them.
        reader=L(FileReader)(decoder="pil", sar_unit_in="amplitude8", sar_unit="amplitude8"),
        # The recipe: 0.2 to 1 of the area, bicubic, mirrored; no colour jitter. One draw moves a pair, two draws move
        # unpaired images. The teacher reads the same crop, which is not standardised before it is in the model.
        geometry=[L(RandomResizedCrop)(size=_size_px, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)), L(RandomFlip)()],
    ),
    batch_size=1024,  # one optical and one SAR image each: 2048 images
    num_workers=8,
)
dataloader = dict(train=_train)

_statistics = "${dataloader.train.dataset.statistics}"
optical_norm = L(norm_of_sources)(statistics=_statistics, modality="optical")
sar_norm = L(norm_of_sources)(statistics=_statistics, modality="sar")
# Stands beside the norms in a model, and lists the constants of every source.
input_contract = L(contract_of_sources)(
    statistics=_statistics, bands=("amplitude", "amplitude", "amplitude"), optical="by source", train_size=_size_px
)
