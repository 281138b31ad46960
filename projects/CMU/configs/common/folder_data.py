"""One's own folder of unlabelled pairs, ``data/pairs/{optical,sar}``, two SAR channels in dB.

A starting point that needs no data set of others. Before training, its pixels have to be measured:

    F=projects/CMU/configs/common/folder_data.py
    tools/compute_statistics.py --config-file $F --output data/pairs/statistics.json

To mix it with others, append its source and reader to those of `cmu_data.py`; projects/CMU/README.md shows how.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.io import FileReader

_base = get_config("projects/CMU/configs/common/cmu_data.py")
dataloader, teacher_norm, student_norm, input_contract = (
    _base[key] for key in ("dataloader", "teacher_norm", "student_norm", "input_contract")
)

dataloader.train.dataset.sources = [
    dict(name="pairs", folder=dict(optical_dir="data/pairs/optical", sar_dir="data/pairs/sar"))
]
dataloader.train.mapper.reader.readers = dict(pairs=L(FileReader)(sar_unit_in="db", sar_channels=2))
student_norm.statistics = "data/pairs/statistics.json"
input_contract.gsd_m = None
