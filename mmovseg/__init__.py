"""mmovseg: open-vocabulary segmentation of optical and SAR imagery, through clouds, on Detectron2."""

__version__ = "0.1.0.dev0"
