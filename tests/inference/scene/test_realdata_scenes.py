"""Real pairs through `mmovseg predict`: geometry, nodata and quality are right. What the classes are says nothing here:
the shipped model knows another world, so `--override-contract` goes with every command."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from mmovseg.inference.scene import command

pytestmark = pytest.mark.realdata
PROMPTS = "water, road, forest, city, farmland"
SENTINEL_2 = ("--optical-bands", "4", "3", "2", "--gsd", "10")
"""The shipped model would see pixels of 2.5 m, for which there would be 16 times as much to compute."""
MISSING = 255


@pytest.fixture(scope="module")
def model():
    """The shipped model, loaded once."""
    real, kept = command.load_predictor, {}

    def load(args):
        if args.modality not in kept:
            kept[args.modality] = real(args)
        return kept[args.modality]

    return load


@pytest.fixture
def predict(tmp_path, monkeypatch, model, capsys):
    """Map a pair; returns labels, quality and the report, after checking what holds for every map."""
    monkeypatch.setattr(command, "load_predictor", model)

    def run(optical, sar, *words):
        rasters = [
            word for name, path in (("--optical", optical), ("--sar", sar)) if path for word in (name, str(path))
        ]
        fixed = ["--prompts", PROMPTS, "--output", str(tmp_path / "map.tif"), "--device", "cpu", "--quiet"]
        status = command.main([*rasters, *fixed, "--override-contract", "--quality", "--confidence", *words])
        assert (status, capsys.readouterr().err) == (0, "")
        with rasterio.open(tmp_path / "map.tif") as labels, rasterio.open(optical or sar) as source:
            assert (labels.crs, labels.shape, labels.nodata) == (source.crs, source.shape, MISSING)
            assert labels.transform.almost_equals(source.transform, precision=1e-12)
            assert labels.tags()["CONTRACT"] == "overridden"
            found = labels.read(1)
        with rasterio.open(tmp_path / "map.quality.tif") as file:
            quality = file.read(1)
        with rasterio.open(tmp_path / "map.confidence.tif") as file:
            confidence = file.read(1)
        assert set(np.unique(found)) <= {0, 1, 2, 3, 4, MISSING}
        np.testing.assert_array_equal(found == MISSING, quality == 3)
        np.testing.assert_array_equal(confidence == MISSING, quality == 3)
        assert confidence[quality < 3].min() >= 1 / 5 / 0.004 - 1  # a winner of five has at least a fifth
        report = json.loads((tmp_path / "map.json").read_text())
        assert sum(row["pixels"] for row in report["classes"].values()) == (quality < 3).sum()
        return found, quality, report

    return run


def stack(paths, output):
    """Join one-band files to one raster, as a user would with gdalbuildvrt -separate."""
    with rasterio.open(paths[0]) as first:
        profile = first.profile | {"count": len(paths), "driver": "GTiff"}
    with rasterio.open(output, "w", **profile) as target:
        for band, path in enumerate(paths, 1):
            with rasterio.open(path) as source:
                target.write(source.read(1), band)
    return output


def expected_quality(optical, sar, *, optical_bands, sar_bands):
    """Quality of a pair on one grid, from the pixels themselves."""
    with rasterio.open(optical) as file:
        image = file.read(optical_bands)
        seen = (image != file.nodata).any(axis=0) if file.nodata is not None else np.ones(file.shape, dtype=bool)
    with rasterio.open(sar) as file:
        heard = np.isfinite(file.read(sar_bands)).all(axis=0)
    return np.select([seen & heard, heard, seen], [0, 1, 2], 3)


@pytest.mark.slow
def test_sen1floods11_on_degrees(realdata, predict):
    (optical,), (sar,) = (list((realdata / "sen1floods11").rglob(f"*{name}Hand.tif")) for name in ("S2", "S1"))
    _, quality, report = predict(optical, sar, *SENTINEL_2)
    expected = expected_quality(optical, sar, optical_bands=[4, 3, 2], sar_bands=[1, 2])
    np.testing.assert_array_equal(quality, expected)
    assert 2000 < sum(row["hectares"] for row in report["classes"].values()) < 3000  # 512 x 512 of about 10 m


@pytest.mark.slow
@pytest.mark.parametrize("season", ["s2_cloudfree", "s2_cloudy"])
@pytest.mark.parametrize("name", ["ROIs2017_winter_112_p797.tif", "ROIs1970_fall_139_p839.tif"])
def test_sen12mscr_clear_and_cloudy(realdata, predict, season, name):
    folder = realdata / "sen12mscr"
    labels, quality, report = predict(folder / season / name, folder / "s1" / name, *SENTINEL_2)
    assert (quality == 0).all() and (labels < MISSING).all()
    assert report["facts"]["gsd_m"] == pytest.approx(10, rel=0.01)
    total = sum(row["hectares"] for row in report["classes"].values())
    assert total == pytest.approx(256 * 256 * 0.01, rel=1e-3)


@pytest.mark.slow
def test_ssl4eo_grids_that_differ(realdata, predict, tmp_path):
    places = realdata / "ssl4eo_s12"
    optical_day, sar_day = (next(iter(sorted((places / kind / "0000200").iterdir()))) for kind in ("s2a", "s1"))
    optical = stack([optical_day / f"B{band}.tif" for band in (4, 3, 2)], tmp_path / "optical.tif")
    sar = stack([sar_day / f"{name}.tif" for name in ("VV", "VH")], tmp_path / "sar.tif")
    _, quality, report = predict(optical, sar, "--gsd", "10")
    with rasterio.open(optical) as seen, rasterio.open(sar) as heard:
        inside = [
            all(low <= value <= high for value, low, high in zip(seen.xy(row, col), *bounds(heard), strict=True))
            for row, col in np.ndindex(seen.shape)
        ]
    inside = np.reshape(inside, quality.shape)
    assert 0 < inside.mean() <= 1
    assert (quality[inside] == 0).mean() > 0.999  # the outermost half pixel depends on the rule at the edge
    assert (quality[~inside] == 2).all() if (~inside).any() else True
    assert report["facts"]["overlap_share"] == pytest.approx(inside.mean(), abs=0.02)


def bounds(raster):
    box = raster.bounds
    return (box.left, box.bottom), (box.right, box.top)


def test_spacenet6_holes_in_sar(realdata, predict):
    folder = realdata / "spacenet6_rotterdam"
    optical, sar = folder / "opt_rgb_200.tif", folder / "sar_quadpol_db_200.tif"
    _, quality, _ = predict(optical, sar, "--sar-bands", "4", "3")
    with rasterio.open(sar) as file:
        holes = ~np.isfinite(file.read([4, 3])).all(axis=0)
    assert 0.3 < holes.mean() < 0.5
    # the two grids have pixels of 4.49997 m and 4.49970 m, so a pixel beside a hole may count either way
    assert (np.isin(quality, (2, 3)) == holes).mean() > 0.98
    assert (quality == 2)[holes].mean() > 0.9


@pytest.mark.parametrize("name", [pytest.param("sar_hh", marks=pytest.mark.slow), "sar_vv"])
def test_spacenet6_complex_and_rotated(realdata, predict, name):
    folder = realdata / "spacenet6_rotterdam"
    sar = folder / "slc_complex" / f"{name}.tif"
    _, quality, report = predict(folder / "opt_rgb_200.tif", sar)
    with rasterio.open(folder / "opt_rgb_200.tif") as seen, rasterio.open(sar) as heard:
        inverse = ~heard.transform
        covered = np.zeros(seen.shape, dtype=bool)
        for row, col in np.ndindex(seen.shape):
            x, y = seen.xy(row, col)
            across = inverse.a * x + inverse.b * y + inverse.c
            down = inverse.d * x + inverse.e * y + inverse.f
            covered[row, col] = 0.5 < across < heard.width - 0.5 and 0.5 < down < heard.height - 0.5
    assert 0.1 < covered.mean() < 0.5
    assert (quality[covered] == 0).mean() > 0.99
    assert np.isin(quality, (2, 3))[~covered].mean() > 0.97
    assert report["facts"]["sar"]["unit"] == "linear"


@pytest.mark.slow
def test_a_complex_raster_alone_keeps_its_rotation(realdata, predict):
    sar = realdata / "spacenet6_rotterdam" / "slc_complex" / "sar_vv.tif"
    _, quality, _ = predict(None, sar)
    assert set(np.unique(quality)) <= {1, 3}  # no optical raster: only SAR speaks
    with rasterio.open(sar) as file:
        first = file.read(1, window=Window(0, 0, 50, 50))
    assert np.isfinite(first).all() and (quality[:50, :50] == 1).all()


@pytest.mark.slow
def test_a_cloud_mask_is_told_and_withheld(realdata, predict, tmp_path):
    folder, name = realdata / "sen12mscr", "ROIs1970_fall_139_p839.tif"
    optical = folder / "s2_cloudy" / name
    with rasterio.open(optical) as file:
        bright = (file.read(2) > 2500).astype(np.uint8)
        with rasterio.open(tmp_path / "clouds.tif", "w", **file.profile | {"count": 1, "dtype": "uint8"}) as mask:
            mask.write(bright, 1)
    maps = {}
    for clouds in ("keep", "withhold"):
        words = ("--cloud-mask", str(tmp_path / "clouds.tif"), "--clouds", clouds, "--overwrite")
        maps[clouds], quality, _ = predict(optical, folder / "s1" / name, *SENTINEL_2, *words)
        np.testing.assert_array_equal(quality == 1, bright == 1)
    alone = predict(optical, folder / "s1" / name, *SENTINEL_2, "--modality", "sar", "--overwrite")[0]
    under = bright == 1
    assert 0.05 < under.mean()
    agree = {clouds: (labels == alone)[under].mean() for clouds, labels in maps.items()}
    assert agree["withhold"] > agree["keep"]
