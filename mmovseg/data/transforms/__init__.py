"""Joint geometry for all rasters of a pair, and photometry for each modality."""

from mmovseg.data.transforms.geometry import (
    AffineTransform,
    FixedSizePad,
    RandomCrop,
    RandomFlip,
    RandomRotate90,
    RandomRotation,
    RandomScale,
    RandomTranslation,
    Resize,
    ResizeShortestEdge,
    ResizeTransform,
    Rotate90Transform,
    ShiftTransform,
)
from mmovseg.data.transforms.joint import JointSample
from mmovseg.data.transforms.official import GREY, PilResizeShortestEdge, PilResizeTransform, lay_on_canvas
from mmovseg.data.transforms.photometric import OpticalJitter, SarJitter
from mmovseg.data.transforms.resized_crop import CubicResizeTransform, RandomResizedCrop

__all__ = [
    "AffineTransform",
    "CubicResizeTransform",
    "FixedSizePad",
    "GREY",
    "JointSample",
    "OpticalJitter",
    "PilResizeShortestEdge",
    "PilResizeTransform",
    "RandomCrop",
    "RandomFlip",
    "RandomResizedCrop",
    "RandomRotate90",
    "RandomRotation",
    "RandomScale",
    "RandomTranslation",
    "Resize",
    "ResizeShortestEdge",
    "ResizeTransform",
    "Rotate90Transform",
    "SarJitter",
    "ShiftTransform",
    "lay_on_canvas",
]
