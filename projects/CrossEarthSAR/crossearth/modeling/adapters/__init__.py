"""What trains inside a frozen encoder: one interface for all kinds, see `adapt_encoder`."""

from mmovseg.projects.crossearth.modeling.adapters.base import Adapter, adapt_encoder
from mmovseg.projects.crossearth.modeling.adapters.earth import EarthAdapter
from mmovseg.projects.crossearth.modeling.adapters.lora import LoRAAdapter, merge_lora
from mmovseg.projects.crossearth.modeling.adapters.rein import ReinAdapter

__all__ = ["Adapter", "EarthAdapter", "LoRAAdapter", "ReinAdapter", "adapt_encoder", "merge_lora"]
