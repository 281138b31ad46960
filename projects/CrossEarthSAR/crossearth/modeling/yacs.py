"""The heads for stock Detectron2: yacs keys.

``add_mask2former_config(cfg)`` declares the keys; ``MODEL.SEM_SEG_HEAD.NAME: Mask2FormerHead`` or ``LinearHead`` then
puts the head on any backbone of Detectron2, with ``MODEL.META_ARCHITECTURE: SemanticSegmentor`` for example.
``NUM_CLASSES`` and ``IN_FEATURES`` are Detectron2's own keys; an empty list stands for the default of the head.
"""

from __future__ import annotations

import inspect

from detectron2.config import CfgNode

from mmovseg.projects.crossearth.modeling.linear_head import LinearHead
from mmovseg.projects.crossearth.modeling.mask2former import Mask2FormerHead

__all__ = ["LinearHead", "Mask2FormerHead", "add_mask2former_config"]

_OF_DETECTRON2 = ("self", "input_shape", "num_classes", "in_features")


def add_mask2former_config(cfg: CfgNode) -> None:
    """Add ``MODEL.SEM_SEG_HEAD.MASK2FORMER`` with the arguments of `Mask2FormerHead` and their defaults.

    ``SCALES: []`` stands for None: the backbone's maps are a pyramid already.
    """
    arguments = inspect.signature(inspect.unwrap(Mask2FormerHead.__init__)).parameters
    cfg.MODEL.SEM_SEG_HEAD.MASK2FORMER = CfgNode(
        {
            name.upper(): list(argument.default) if isinstance(argument.default, tuple) else argument.default
            for name, argument in arguments.items()
            if name not in _OF_DETECTRON2
        }
    )
