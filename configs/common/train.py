"""Defaults of `train`; every key with its meaning is in mmovseg/config/schema.py."""

from omegaconf import OmegaConf

from mmovseg.config import TrainCfg

train = OmegaConf.structured(TrainCfg)
