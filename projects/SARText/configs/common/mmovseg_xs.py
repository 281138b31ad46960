"""What a CLIP of SAR for MM-OVSeg XS reads, in its training and in its place: VV of MiniEarth's default domain as grey.

The shape of the CLIP is that of MM-OVSeg XS, so that it can begin with those weights and stand in their place.
"""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.meta_arch.sar_text import SARTextEncoder
from mmovseg.projects.sartext.modeling.norms import grey_norm

_models = get_config("common/models/mmovseg_xs.py")

# -25 .. 5 dB become 0 .. 255, then the constants of the optical images that the CLIP began with. The contract states
# the same in dB.
_low, _high = -25.0, 5.0
_scale = (_high - _low) / 255.0
_optical = _models.optical_contract
sar_contract = L(ModalityContract)(
    sensor="MiniEarth C-band, VV as grey",
    bands=("VV", "VV", "VV"),
    unit="db",
    mean=[round(_low + _scale * value, 3) for value in _optical.mean],
    std=[round(_scale * value, 3) for value in _optical.std],
    clip=(_low, _high),
)
input_contract = L(InputContract)(optical=None, sar=sar_contract, gsd_m=(2.5, 2.5), train_size=64)
# As MM-OVSeg reads it: each patch's own residual, see docs/model.md.
sar_text = L(SARTextEncoder)(
    clip=L(OpenCLIPEncoder)(
        architecture=_models.clip_architecture, taps=(), dense="value_own", finetune="none", weights=None
    ),
    norm=L(grey_norm)(clip=(_low, _high), mean=_optical.mean, std=_optical.std),
    bands=(0, 0, 0),
)
