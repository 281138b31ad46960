"""Real pairs on one grid, those of different grids too: what is read lies where it should."""

import numpy as np
import pytest

from mmovseg.inference.scene.rasters import SceneInputs, ScenePair

pytestmark = pytest.mark.realdata


def read_sar(optical, sar, bands=None):
    with ScenePair(SceneInputs(str(optical), str(sar), sar_bands=bands)) as scene:
        return scene, scene.read(0, 0, scene.grid.height, scene.grid.width)


def test_a_complex_raster_on_a_turned_grid_lies_on_its_calibrated_twin(realdata):
    folder = realdata / "spacenet6_rotterdam"
    scene, complex_data = read_sar(folder / "opt_rgb_200.tif", folder / "slc_complex/sar_vv.tif")
    calibrated = read_sar(folder / "opt_rgb_200.tif", folder / "sar_quadpol_db_200.tif", bands=(4,))[1]
    assert scene.facts["sar"]["placed"] == "affine" and scene.facts["sar"]["samples_per_pixel"] == [2, 2]
    assert calibrated.sar_valid.mean() == pytest.approx(0.61, abs=0.01)
    found = {}
    for shift in [(down, across) for down in range(-3, 4) for across in range(-3, 4)]:
        other = np.roll(calibrated.sar[..., 0], shift, axis=(0, 1))
        both = complex_data.sar_valid & np.isfinite(other)
        found[shift] = np.corrcoef(complex_data.sar[..., 0][both], other[both])[0, 1]
    assert max(found, key=found.get) == (0, 0) and found[0, 0] > 0.7


def test_a_flood_is_dark_where_its_label_says(realdata):
    folder, chip = realdata / "sen1floods11", "Spain_7370579"
    optical = folder / f"S2Hand/{chip}_S2Hand.tif"
    inputs = SceneInputs(str(optical), str(folder / f"S1Hand/{chip}_S1Hand.tif"), optical_bands=(4, 3, 2))
    with ScenePair(inputs) as scene:
        window = scene.read(0, 0, 512, 512)
        assert scene.grid.gsd_m() == pytest.approx(8.86, abs=0.01) and not scene.warnings
    with ScenePair(SceneInputs(str(folder / f"LabelHand/{chip}_LabelHand.tif"), optical_range=(0, 1))) as scene:
        water = scene.read(0, 0, 512, 512).optical[..., 0] == 255
    assert np.nanmedian(window.sar[water, 0]) < np.nanmedian(window.sar[~water, 0]) - 5


def test_scenes_of_one_place_on_two_grids(realdata):
    folder = realdata / "ssl4eo_s12"
    optical = sorted(folder.glob("s2a/*/*/B4.tif"))[0]
    scene, window = read_sar(optical, sorted(folder.glob("s1/*/*/VV.tif"))[0])
    assert scene.facts["sar"]["placed"] == "axes" and scene.facts["overlap_share"] > 0.95
    assert 0.95 < window.sar_valid.mean() < 1.0 and -25 < np.nanmedian(window.sar) < 0
