"""The objectives of CoDe-MAE, one file each."""

from mmovseg.projects.codemae.losses.contrast import ConditionedContrast, ContrastSpec
from mmovseg.projects.codemae.losses.cross_reconstruction import CrossReconstruction, CrossSpec
from mmovseg.projects.codemae.losses.distillation import DistillationSpec, OpticalDistillation
from mmovseg.projects.codemae.losses.reconstruction import MaskedReconstruction

__all__ = [
    "ConditionedContrast",
    "ContrastSpec",
    "CrossReconstruction",
    "CrossSpec",
    "DistillationSpec",
    "MaskedReconstruction",
    "OpticalDistillation",
]
