"""Real samples through the reader; skipped where the folder is absent."""

import numpy as np
import pytest

from mmovseg.data.io import FileReader, read_label, read_optical, read_sar
from mmovseg.errors import UserError

pytestmark = pytest.mark.realdata


def test_sen12mscr_thirteen_bands_and_sar_in_db(realdata):
    name = "ROIs1970_fall_139_p839.tif"
    clear = realdata / "sen12mscr/s2_cloudfree" / name
    with pytest.raises(UserError, match="13 bands"):
        read_optical(clear)
    reader = FileReader(bands=(4, 3, 2), sar_polarisations_in=("VV", "VH"))
    raw = reader({"file_name": str(clear), "sar_file_name": str(realdata / "sen12mscr/s1" / name)})
    assert raw.optical.shape == (256, 256, 3) and raw.sar.shape == (256, 256, 2)
    assert 20 < raw.optical.mean() < 200
    assert -40 < np.nanmedian(raw.sar) < 0
    cloudy, _ = read_optical(realdata / "sen12mscr/s2_cloudy" / name, bands=(4, 3, 2))
    assert cloudy.mean() > raw.optical.mean()


def test_spacenet6_holes(realdata):
    folder = realdata / "spacenet6_rotterdam"
    raw = FileReader()(
        {"file_name": str(folder / "opt_rgb_200.tif"), "sar_file_name": str(folder / "sar_quadpol_db_200.tif")}
    )
    assert raw.optical.dtype == np.uint8 and raw.sar.shape == (200, 200, 4)
    assert 0.3 < 1 - raw.sar_valid.mean() < 0.5
    assert np.isfinite(raw.sar[raw.sar_valid]).all()
    power, valid = read_sar(folder / "slc_complex/sar_vv.tif")
    assert power.dtype == np.float32 and (power[valid] >= 0).all()


def test_ombria_png_with_mask_of_255(realdata):
    folder = realdata / "ombria/train"
    stem = sorted(path.name for path in (folder / "mask").iterdir())[0]
    reader = FileReader(sar_unit_in="amplitude8", label_map={0: 0, 255: 1})
    raw = reader(
        {
            "file_name": str(folder / "s2_after" / stem),
            "sar_file_name": str(folder / "s1_after" / stem),
            "sem_seg_file_name": str(folder / "mask" / stem),
        }
    )
    assert raw.optical.shape == (256, 256, 3) and raw.sar.shape[:2] == (256, 256)
    assert set(np.unique(raw.sem_seg)) <= {0, 1} and np.isfinite(raw.sar).all()


def test_sen1floods11_label_and_nodata(realdata):
    folder, chip = realdata / "sen1floods11", "Spain_7370579"
    label = read_label(folder / f"LabelHand/{chip}_LabelHand.tif", label_map={-1: 255, 0: 0, 1: 1})
    assert label.shape == (512, 512) and set(np.unique(label)) <= {0, 1, 255}
    optical, _ = read_optical(folder / f"S2Hand/{chip}_S2Hand.tif", bands=(4, 3, 2))
    sar, valid = read_sar(folder / f"S1Hand/{chip}_S1Hand.tif")
    assert optical.shape == (512, 512, 3) and sar.shape == (512, 512, 2)
    water, land = sar[valid & (label == 1)][:, 0], sar[valid & (label == 0)][:, 0]
    assert np.median(water) < np.median(land)
