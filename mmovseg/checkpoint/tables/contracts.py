"""Input contracts of foreign checkpoints: what their authors fed them."""

from __future__ import annotations

from mmovseg.checkpoint.contract import InputContract, ModalityContract, contract_of_sources

RGB = ("red", "green", "blue")
# Statistics on the 0..255 scale: CLIP's own, and ImageNet's.
CLIP_MEAN, CLIP_STD = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.3231630)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# DINOv3's satellite models have their own (its model card; timm's `pretrained_cfg` of the same weights).
SATELLITE_MEAN, SATELLITE_STD = (109.65, 104.805, 75.48), (54.315, 39.78, 36.465)

_CLIP_RGB = ModalityContract("any RGB", RGB, "uint8", CLIP_MEAN, CLIP_STD)
# The release reads SAR as an 8-bit image, its one band three times, and normalises it with CLIP's statistics.
_SAR_PICTURE = ModalityContract("any SAR as an 8-bit image", ("grey",) * 3, "amplitude8", CLIP_MEAN, CLIP_STD)

RELEASED = InputContract(optical=_CLIP_RGB, sar=_SAR_PICTURE, train_size=384)


def clip_contract(size: int) -> InputContract:
    """RGB with CLIP's statistics, for a tower trained at `size` pixels."""
    return InputContract(optical=_CLIP_RGB, sar=None, train_size=size)


def dino_contract(size: int, *, satellite: bool = False) -> InputContract:
    """RGB with the statistics of DINO's own training: ImageNet's, or those of DINOv3's satellite images."""
    mean, std = (SATELLITE_MEAN, SATELLITE_STD) if satellite else (IMAGENET_MEAN, IMAGENET_STD)
    optical = ModalityContract("satellite RGB" if satellite else "any RGB", RGB, "uint8", mean, std)
    return InputContract(optical=optical, sar=None, train_size=size)


def sar_picture_contract(size: int | None) -> InputContract:
    """The contract of an encoder that reads SAR as the release does: an 8-bit image with CLIP's statistics."""
    return InputContract(optical=None, sar=_SAR_PICTURE, train_size=size)


def ospretrain_contract(size: int) -> InputContract:
    """The contract of CoDe-MAE: 8-bit RGB and 8-bit SAR in three equal channels, by the constants of each source."""
    bands = ("amplitude", "amplitude", "amplitude")
    return contract_of_sources(statistics="ospretrain", bands=bands, optical="by source", train_size=size)
