"""Downstream training on one of the 22 benchmarks; leaves choose the encoder, see `benchmark_l.py`."""

from mmovseg.config import get_config

_base = get_config("projects/CrossEarthSAR/configs/common/downstream.py")
_data = get_config("projects/CrossEarthSAR/configs/common/data_benchmarks.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
dataloader = _data.dataloader
model.vocabulary, model.sar_norm, model.input_contract = _data.vocabulary, _data.sar_norm, _data.input_contract
