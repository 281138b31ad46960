"""Linear probe on EuroSAT as it is published, HiViT-B: 13-band GeoTIFFs, one folder a class, optical only.

``<datasets>/eurosat_ms/<class>/*.tif``. The public download has no split, so a seeded half of every class is for
testing. Bands 4, 3 and 2 are red, green and blue; reflectance 0 to 0.3 becomes 0..255. The constants of the release are
for its own 8-bit arrays, so the data are measured once, before the first run:

    F=projects/CoDeMAE/configs/linear_probe_eurosat_ms_b.py
    tools/compute_statistics.py --config-file $F --source eurosat_ms --output output/statistics/eurosat_ms.json \
        dataloader.train.dataset.shots=1000
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.io import FileReader
from mmovseg.layers.norm import norm_of_sources
from mmovseg.projects.codemae.data.classification import class_names, load_class_folder

_base = get_config("projects/CoDeMAE/configs/common/linear_probe.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

model.sensor = "optical"
model.optical_norm = L(norm_of_sources)(
    statistics="output/statistics/eurosat_ms.json", modality="optical", sources=["eurosat_ms"], default="eurosat_ms"
)
for _part, _split in ((dataloader.train.dataset, "train"), (dataloader.test, "test")):
    _part.dataset = L(load_class_folder)(
        folder="eurosat_ms", classes="${dataloader.evaluator.classes}", sensor="optical", part=_split
    )
for _part in (dataloader.train, dataloader.test):
    _part.mapper.reader = L(FileReader)(bands=[4, 3, 2])
dataloader.evaluator.dataset_name = "eurosat_ms_test"
dataloader.evaluator.classes = L(class_names)(folder="eurosat_ms")
train.output_dir = "output/codemae/linear_probe_eurosat_ms_b_${model.sensor}"
