"""MM-OVSeg in the paper's own setting (Tables 3, 4 and A5), SAR normalised by the statistics of DDHR-SK itself.

CMU has read each of its sources by that source's own statistics. `configs/mmovseg/ddhr_sk_vitb16.py` reads SAR with
ImageNet's constants; with an encoder of CMU its result would be that of CMU and of a shift. The runs without CMU read
the same, so that CMU alone makes the difference. The data are measured once, before the first run:

    F=projects/CMU/configs/mmovseg_ddhr_sk_vitb16.py
    tools/compute_statistics.py --config-file $F --output output/statistics/ddhr_sk.json
"""

from mmovseg.checkpoint.contract import contract_of_sources
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.layers.norm import norm_of_sources

_base = get_config("mmovseg/ddhr_sk_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

_source = "ddhr_sk"  # what the tool calls the data set `ddhr_sk_train`
model.sar_norm = L(norm_of_sources)(
    statistics="output/statistics/ddhr_sk.json", modality="sar", sources=[_source], default=_source
)
model.input_contract = L(contract_of_sources)(
    statistics="${..sar_norm.statistics}",
    bands=model.input_contract.sar.bands,
    optical=model.input_contract.optical,
    sources=[_source],
    train_size=model.input_contract.train_size,
)
train.output_dir = "output/cmu/mmovseg_ddhr_sk_vitb16"
