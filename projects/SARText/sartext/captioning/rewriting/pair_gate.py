"""Does an optical image show what its SAR twin shows? The agreement of their edges, for captions that change sides.

A caption of the optical image is true of the SAR image only if both show the same ground at about the same time. Edges
count by their direction, not by which side is bright (`mmovseg.inference.coregistration`); no shift is looked for,
because twins are registered, and looking for one finds some agreement between any two images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmovseg.data.io import read_optical, read_sar
from mmovseg.data.sar import SarUnit, convert_sar
from mmovseg.errors import UserError
from mmovseg.inference.coregistration import edge_field

MIN_AGREEMENT = 0.03
"""Of 14 pairs of QXS-SAROPT (1 m) 12 reach this, of 90 wrong pairings of them one in ten; chosen on the same images."""
SIGMA_PX = 4.0
"""Scale of the edges: at less, the speckle of metre-wide SAR pixels decides."""
_GREY = np.array((0.299, 0.587, 0.114))


def edge_agreement(optical: np.ndarray, sar_db: np.ndarray, *, sigma_px: float = SIGMA_PX) -> float:
    """Return how well the edges of two registered images agree, -1..1; about 0 for images of different places.

    Args:
        optical: (H, W, 3) 0..255.
        sar_db: (H, W) dB, NaN where there is no data.
        sigma_px: edges are looked for at this scale.

    Raises:
        UserError: the sizes differ, or hardly any pixel is known in both.
    """
    if optical.shape[:2] != sar_db.shape:
        raise UserError(f"the optical image has {optical.shape[:2]} pixels and the SAR image {sar_db.shape}")
    valid = np.isfinite(sar_db)
    everywhere = np.ones(valid.shape, dtype=bool)
    here, here_known = edge_field(optical @ _GREY, everywhere, sigma_px=sigma_px)
    there, there_known = edge_field(np.where(valid, sar_db, 0.0), valid, sigma_px=sigma_px)
    known = here_known & there_known
    energy = float(np.sqrt((np.abs(here[known]) ** 2).sum() * (np.abs(there[known]) ** 2).sum()))
    if energy == 0:
        raise UserError(f"no edges can be compared in a pair of {sar_db.shape[0]}x{sar_db.shape[1]} pixels")
    return float((np.conj(here[known]) * there[known]).sum().real) / energy


def read_sar_db(path: str | Path, *, sar_unit: SarUnit = "amplitude8") -> np.ndarray:
    """Read a SAR image as (H, W) dB, its bands averaged, NaN where there is no data.

    Raises:
        UserError: the file is missing or damaged.
    """
    stored, _ = read_sar(path)
    return convert_sar(stored, unit_in=sar_unit, unit_out="db").mean(axis=2)


def score_files(optical: str | Path, sar: str | Path, *, sar_unit: SarUnit = "amplitude8") -> float:
    """Return the `edge_agreement` of two files.

    Raises:
        UserError: a file is missing or damaged, or the two cannot be compared; the sentence names the SAR file.
    """
    image, _ = read_optical(optical)
    try:
        return edge_agreement(image, read_sar_db(sar, sar_unit=sar_unit))
    except UserError as error:
        raise UserError(f"'{sar}': {error}") from error
