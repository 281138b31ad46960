"""Rasters of a scene on one grid: places, values, gaps, and that a pixel does not depend on its window."""

import json
from dataclasses import asdict
from threading import Thread

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.enums import Resampling as GdalResampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.warp import transform as transform_points

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.data.sar import db_to_linear, linear_to_db
from mmovseg.errors import UserError
from mmovseg.inference.grid import compose
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair
from mmovseg.testing.fakes import write_raster

MAP_CRS, MAP_PLACE = "EPSG:32632", Affine(10.0, 0.0, 300000.0, 0.0, -10.0, 5900000.0)
SIZE = (120, 150)
CENTRE = (300750.0, 5899400.0)


@pytest.fixture
def optical(tmp_path):
    image = np.random.default_rng(1).integers(1, 256, (*SIZE, 3), dtype=np.uint8)
    return write_raster(tmp_path / "optical.tif", image, crs=MAP_CRS, transform=MAP_PLACE)


def smooth(shape, seed=0):
    """A field whose neighbours resemble each other, float32."""
    rows, columns = (np.arange(size)[:, None] if axis == 0 else np.arange(size) for axis, size in enumerate(shape))
    phases = np.random.default_rng(seed).uniform(0, 6, 4)
    waves = np.sin(rows / 9 + phases[0]) + np.sin(columns / 7 + phases[1]) + np.sin((rows + columns) / 12 + phases[2])
    return (waves * 3 - 12).astype(np.float32)


def place(crs, gsd, angle, shape, centre=CENTRE):
    x, y = (values[0] for values in transform_points(MAP_CRS, crs, [centre[0]], [centre[1]]))
    turned = compose(compose(Affine.translation(x, y), Affine.rotation(angle)), Affine.scale(gsd, -gsd))
    return compose(turned, Affine.translation(-shape[1] / 2, -shape[0] / 2))


def moved(columns, rows):
    return compose(MAP_PLACE, Affine.translation(columns, rows))


def write_sar(path, *, crs=MAP_CRS, gsd=10.0, angle=0.0, shape=(140, 170), holes=True, sar=None, **profile):
    if sar is None:
        sar = np.stack([smooth(shape), smooth(shape, 1)], axis=-1)
        if holes:
            sar[50:60, 70:95] = np.nan
    return write_raster(path, sar, crs=crs, transform=place(crs, gsd, angle, sar.shape[:2]), **profile)


def pair(optical=None, sar=None, contract=None, **options):
    paths = {"optical": optical, "sar": sar, "cloud_mask": options.pop("cloud_mask", None)}
    modality = options.pop("modality", "both")
    inputs = SceneInputs(**{name: None if path is None else str(path) for name, path in paths.items()}, **options)
    return ScenePair(inputs, contract=contract, modality=modality)


def test_rasters_on_one_grid_come_as_they_are(tmp_path, optical):
    sar = np.stack([smooth(SIZE), smooth(SIZE, 1)], axis=-1)
    sar[3:6, 10:20, 1] = np.nan
    path = write_raster(tmp_path / "sar.tif", sar, crs=MAP_CRS, transform=MAP_PLACE)
    with pair(optical, path) as scene, rasterio.open(optical) as file:
        window = scene.read(2, 5, 40, 60)
        assert window.optical.dtype == np.uint8 and window.optical_valid.all() and window.clouded is None
        np.testing.assert_array_equal(window.optical, file.read().transpose(1, 2, 0)[2:42, 5:65])
        expected = np.where(np.isnan(sar).any(-1, keepdims=True), np.nan, sar)
        np.testing.assert_array_equal(window.sar, expected[2:42, 5:65])
        np.testing.assert_array_equal(window.sar_valid, np.isfinite(sar).all(-1)[2:42, 5:65])
        assert (scene.grid.crs, scene.grid.transform) == (file.crs, file.transform)
    assert scene.facts["overlap_share"] == 1.0 and scene.facts["sar"]["placed"] == "shift"
    json.dumps([scene.facts, scene.identity, asdict(scene.inputs)])


WARPS = {
    "coarser": {"gsd": 23.0},
    "finer": {"gsd": 4.3, "shape": (260, 330)},
    "much finer, aligned": {"gsd": 2.5, "shape": (200, 240)},
    "turned": {"angle": 30.0},
    "turned and finer": {"gsd": 3.7, "angle": -20.0, "shape": (260, 330)},
    "other zone": {"crs": "EPSG:32633", "gsd": 9.0},
    "other zone, finer": {"crs": "EPSG:32633", "gsd": 4.0, "shape": (260, 330)},
    "degrees": {"crs": "EPSG:4326", "gsd": 2e-4},
}


@pytest.mark.parametrize(
    ("warp", "resampling"), [*((warp, None) for warp in WARPS), ("coarser", "nearest"), ("other zone", "nearest")]
)
def test_a_pixel_is_the_same_to_the_last_bit_in_every_window(tmp_path, optical, warp, resampling):
    path = write_sar(tmp_path / "sar.tif", **WARPS[warp])
    rng = np.random.default_rng(3)
    with pair(optical, path, sar_resampling=resampling) as scene:
        whole = scene.read(0, 0, *SIZE)
        assert 0.1 < whole.sar_valid.mean() < 1.0
        for _ in range(6):
            height, width = (int(rng.integers(1, size + 1)) for size in SIZE)
            row, column = int(rng.integers(0, SIZE[0] - height + 1)), int(rng.integers(0, SIZE[1] - width + 1))
            window = scene.read(row, column, height, width)
            part = (slice(row, row + height), slice(column, column + width))
            np.testing.assert_array_equal(window.sar, whole.sar[part])
            np.testing.assert_array_equal(window.sar_valid, whole.sar_valid[part])


@pytest.mark.parametrize("warp", WARPS)
def test_a_resampled_window_agrees_with_its_halves(tmp_path, optical, warp):
    path = write_sar(tmp_path / "sar.tif", **WARPS[warp])
    with pair(optical, path) as scene:
        for factor in (0.5, 2.0):
            size = (int(80 * factor), int(100 * factor))
            whole = scene.read(10, 20, 80, 100, out_shape=size)
            part = scene.read(30, 60, 40, 50, out_shape=(size[0] // 2, size[1] // 2))
            top, left = int(20 * factor), int(40 * factor)
            for name in ("optical", "sar", "sar_valid", "optical_valid"):
                expected = getattr(whole, name)[top : top + size[0] // 2, left : left + size[1] // 2]
                np.testing.assert_array_equal(getattr(part, name), expected)


@pytest.mark.parametrize("warp", ["coarser", "turned", "other zone", "degrees"])
def test_interpolation_equals_an_obvious_loop(tmp_path, optical, warp):
    path = write_sar(tmp_path / "sar.tif", **WARPS[warp])
    with pair(optical, path) as scene, rasterio.open(path) as file:
        window = scene.read(0, 0, *SIZE)
        values, to_pixel = file.read().astype(np.float64), ~file.transform
        for row, column in np.random.default_rng(0).integers(0, SIZE, (150, 2)):
            x, y = MAP_PLACE.a * (column + 0.5) + MAP_PLACE.c, MAP_PLACE.e * (row + 0.5) + MAP_PLACE.f
            ((east,), (north,)) = transform_points(MAP_CRS, file.crs, [x], [y])
            u = to_pixel.a * east + to_pixel.b * north + to_pixel.c
            v = to_pixel.d * east + to_pixel.e * north + to_pixel.f
            inside = 0 <= u < file.width and 0 <= v < file.height
            expected = np.full(2, np.nan)
            if inside and np.isfinite(values[:, int(v), int(u)]).all():
                sums, weights = np.zeros(2), 0.0
                for i in range(file.height):
                    for j in (int(u) - 1, int(u), int(u) + 1):
                        weight = max(0.0, 1 - abs(i + 0.5 - v)) * max(0.0, 1 - abs(j + 0.5 - u))
                        if weight and 0 <= j < file.width and np.isfinite(values[:, i, j]).all():
                            sums, weights = sums + weight * values[:, i, j], weights + weight
                expected = sums / weights
            close = np.allclose(window.sar[row, column], expected, atol=0.02, equal_nan=True)
            at_the_edge = min(abs(u - round(u)), abs(v - round(v))) < 0.02  # of two pixels, one of them a gap
            assert close or at_the_edge, (row, column, window.sar[row, column], expected)


@pytest.mark.parametrize(("warp", "method"), [("coarser", "bilinear"), ("degrees", "bilinear"), ("finer", "average")])
def test_warping_agrees_with_gdal(tmp_path, optical, warp, method):
    power = db_to_linear(np.stack([smooth(WARPS[warp].get("shape", (140, 170)))] * 2, axis=-1))
    path = write_sar(tmp_path / "sar.tif", sar=power, **{k: v for k, v in WARPS[warp].items() if k != "shape"})
    expected = np.full((2, *SIZE), np.nan, np.float32)
    with rasterio.open(path) as file, pair(optical, path, sar_unit="linear") as scene:
        if method == "bilinear":  # between neighbours of like value decibel are as good as power
            sar, source = scene.read(0, 0, *SIZE).sar, linear_to_db(file.read())
        else:
            sar, source = db_to_linear(scene.read(0, 0, *SIZE).sar), file.read()
        reproject(
            source,
            expected,
            src_crs=file.crs,
            src_transform=file.transform,
            dst_crs=MAP_CRS,
            dst_transform=MAP_PLACE,
            resampling=GdalResampling[method],
            tolerance=0,
            init_dest_nodata=True,
            dst_nodata=np.nan,
        )
    found = np.abs(sar.transpose(2, 0, 1) - expected)
    both = np.isfinite(found)
    assert both.mean() > 0.2 and (np.isfinite(expected) == np.isfinite(sar.transpose(2, 0, 1))).mean() > 0.98
    limit = 0.03 if method == "bilinear" else 0.03 * np.nanmax(expected)
    assert np.quantile(found[both], 0.99) < limit


def test_means_are_taken_of_power_over_the_pixels_below(tmp_path, optical):
    sar_db = np.random.default_rng(0).normal(-12, 5, (480, 600, 1)).astype(np.float32)
    sar_db[8:12, 4:6] = np.nan  # half of the map's pixel (2, 1)
    sar_db[8:11, 12:16] = np.nan  # three quarters of (2, 3)
    path = write_raster(
        tmp_path / "sar.tif", sar_db, crs=MAP_CRS, transform=compose(MAP_PLACE, Affine.scale(0.25)), nodata=np.nan
    )
    with pair(optical, path) as scene:
        window = scene.read(0, 0, *SIZE)
        double = scene.read(0, 0, *SIZE, out_shape=(60, 75))
    blocks = db_to_linear(sar_db[..., 0]).reshape(120, 4, 150, 4)
    with np.errstate(invalid="ignore"):
        expected = linear_to_db(np.nanmean(blocks, axis=(1, 3)))
    expected[2, 3] = np.nan
    np.testing.assert_allclose(window.sar[..., 0], expected, atol=1e-4)
    assert window.sar_valid[2, 1] and not window.sar_valid[2, 3] and window.sar_valid.sum() == window.sar_valid.size - 1
    of_double = linear_to_db(np.nanmean(blocks.reshape(60, 8, 75, 8), axis=(1, 3)))
    np.testing.assert_allclose(double.sar[..., 0], of_double, atol=1e-4)


def test_complex_samples_become_power_also_on_a_turned_grid(tmp_path, optical):
    rng = np.random.default_rng(0)
    samples = (rng.normal(0, 0.2, (300, 300, 1)) + 1j * rng.normal(0, 0.2, (300, 300, 1))).astype(np.complex64)
    path = write_sar(tmp_path / "slc.tif", sar=samples, gsd=5.0, angle=17.0)
    with pair(optical, path) as scene:
        window = scene.read(0, 0, *SIZE)
        assert scene.facts["sar"]["unit"] == "linear" and scene.facts["sar"]["samples_per_pixel"] == [2, 2]
    assert db_to_linear(window.sar[window.sar_valid]).mean() == pytest.approx(2 * 0.2**2, rel=0.02)


def test_partial_overlap_leaves_gaps(tmp_path, optical):
    sar = smooth((60, 80))[..., None]
    path = write_raster(tmp_path / "sar.tif", sar, crs=MAP_CRS, transform=moved(-20, 90))
    with pair(optical, path) as scene:
        window = scene.read(0, 0, *SIZE)
        assert scene.facts["overlap_share"] == pytest.approx(30 * 60 / (120 * 150), abs=0.01)
    expected = np.full(SIZE, np.nan, np.float32)
    expected[90:, :60] = sar[:30, 20:, 0]
    np.testing.assert_array_equal(window.sar[..., 0], expected)
    np.testing.assert_array_equal(window.sar_valid, np.isfinite(expected))


def test_a_raster_far_smaller_than_the_map_is_found(tmp_path, optical):
    path = write_raster(
        tmp_path / "sar.tif",
        smooth((2, 2))[..., None],
        crs=MAP_CRS,
        transform=moved(71.3, 8.2),
    )
    with pair(optical, path) as scene:
        assert 0 < scene.facts["overlap_share"] < 0.001 and scene.read(0, 0, *SIZE).sar_valid.sum() == 4


def test_sar_alone_keeps_its_own_grid(tmp_path):
    path = write_sar(tmp_path / "sar.tif", angle=12.0, crs="EPSG:32633")
    with pair(sar=path) as scene, rasterio.open(path) as file:
        assert (scene.grid.transform, scene.grid.crs) == (file.transform, file.crs)
        window = scene.read(0, 0, file.height, file.width)
        np.testing.assert_array_equal(window.sar, file.read().transpose(1, 2, 0))
    assert window.optical is None and not window.optical_valid.any()


def test_modality_leaves_the_other_raster_alone(tmp_path, optical):
    path = write_sar(tmp_path / "sar.tif", gsd=7.0)
    with pair(optical, path, modality="sar") as scene:
        window = scene.read(0, 0, 9, 9)
        assert (scene.grid.height, scene.grid.width) == SIZE and window.optical is None and window.sar is not None
    with pair(optical, tmp_path / "no_such.tif", modality="optical") as scene:
        assert scene.read(0, 0, 9, 9).sar is None


def test_a_raster_that_the_model_does_not_read_still_gives_the_grid(tmp_path):
    bands = write_raster(tmp_path / "many.tif", np.zeros((*SIZE, 13), np.uint16), crs=MAP_CRS, transform=MAP_PLACE)
    path = write_sar(tmp_path / "sar.tif", gsd=7.0)
    radar = ModalityContract("C-band", ("VV", "VH"), "db", (-12.0, -12.0), (5.0, 5.0))
    with pair(bands, path, contract=InputContract(optical=None, sar=radar)) as scene:
        window = scene.read(0, 0, 9, 9)
        assert (
            (scene.grid.height, scene.grid.width) == SIZE and window.optical is None and window.sar.shape == (9, 9, 2)
        )
        assert scene.identity["files"]["place"][0][0] == str(bands)
    with pytest.raises(UserError, match="for modality 'both' and this model; give a SAR raster"):
        pair(bands, contract=InputContract(optical=None, sar=radar)).__enter__()


def test_gaps_by_number_mask_and_alpha(tmp_path):
    image = np.random.default_rng(0).integers(1, 200, (*SIZE, 3), dtype=np.uint8)
    image[:10], image[20:30, 5, 0] = 0, 0
    path = write_raster(tmp_path / "optical.tif", image, crs=MAP_CRS, transform=MAP_PLACE)
    sar = np.full((*SIZE, 1), 40, np.float32)
    sar[:, :7] = -9999
    radar = write_raster(tmp_path / "sar.tif", sar, crs=MAP_CRS, transform=MAP_PLACE)
    with pair(path, radar, optical_nodata=0, sar_nodata=-9999) as scene:
        window = scene.read(0, 0, *SIZE)
    assert not window.optical_valid[:10].any() and window.optical_valid[10:].all()  # a dark band is no gap
    assert not window.sar_valid[:, :7].any() and window.sar_valid[:, 7:].all()
    with_alpha = np.dstack([image, np.full(SIZE, 255, np.uint8)])
    with_alpha[50:60, :, 3] = 0
    kinds = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    path = write_raster(
        tmp_path / "alpha.tif", with_alpha, crs=MAP_CRS, transform=MAP_PLACE, photometric="rgb", alpha="yes"
    )
    with rasterio.open(path, "r+") as file:
        file.colorinterp = kinds
    with pair(path) as scene:
        window = scene.read(0, 0, *SIZE)
        shrunk = scene.read(40, 0, 40, 40, out_shape=(20, 20))
    assert window.optical.shape[2] == 3 and not window.optical_valid[50:60].any() and window.optical_valid[60:].all()
    assert not shrunk.optical_valid[5:10].any() and shrunk.optical_valid[10:].all() and shrunk.optical_valid[:5].all()


def test_wide_integers_are_scaled_before_they_are_resampled(tmp_path):
    image = np.random.default_rng(0).integers(0, 6000, (*SIZE, 3), dtype=np.uint16)
    path = write_raster(tmp_path / "optical.tif", image, crs=MAP_CRS, transform=MAP_PLACE)
    with pair(path) as scene:
        window, half = scene.read(0, 0, *SIZE), scene.read(0, 0, *SIZE, out_shape=(60, 75))
    scaled = np.clip(image / 3000 * 255, 0, 255)
    np.testing.assert_allclose(window.optical, scaled, atol=1e-3)
    np.testing.assert_allclose(half.optical, scaled.reshape(60, 2, 75, 2, 3).mean(axis=(1, 3)), atol=1e-3)


def test_a_cloud_mask_counts_any_cloud_below_a_pixel(tmp_path, optical):
    mask = np.zeros((240, 300), np.uint8)
    mask[41, 61], mask[100:120, 0:40] = 7, 1
    path = write_raster(tmp_path / "clouds.tif", mask, crs=MAP_CRS, transform=compose(MAP_PLACE, Affine.scale(0.5)))
    with pair(optical, cloud_mask=path) as scene:
        clouded = scene.read(0, 0, *SIZE).clouded
    assert clouded[20, 30] and clouded.sum() == 1 + 10 * 20 and clouded[50:60, :20].all()
    beside = write_raster(tmp_path / "beside.tif", mask, crs=MAP_CRS, transform=moved(0, 60))
    with pair(optical, cloud_mask=beside) as scene:
        assert not scene.read(0, 0, 60, 150).clouded.any()


def test_longitudes_may_be_counted_either_way(tmp_path):
    image = np.random.default_rng(0).integers(1, 200, (40, 50, 3), dtype=np.uint8)
    place_east = Affine(0.001, 0, 190.0, 0, -0.001, 10.0)
    path = write_raster(tmp_path / "optical.tif", image, crs="EPSG:4326", transform=place_east)
    sar = smooth((40, 50))[..., None]
    west = write_raster(tmp_path / "west.tif", sar, crs="EPSG:4326", transform=Affine(0.001, 0, -170, 0, -0.001, 10))
    with pair(path, west) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 40, 50).sar, sar)
    x, y = transform_points("EPSG:4326", "EPSG:32702", [-169.98], [9.98])
    zone = write_raster(
        tmp_path / "zone.tif", sar, crs="EPSG:32702", transform=Affine(100, 0, x[0] - 2500, 0, -100, y[0] + 2000)
    )
    with pair(path, zone) as scene:
        assert scene.facts["overlap_share"] > 0.5


def test_another_thread_may_read(tmp_path, optical):
    path = write_sar(tmp_path / "sar.tif", crs="EPSG:32633")
    found = []
    with pair(optical, path) as scene:
        thread = Thread(target=lambda: found.append(scene.read(5, 5, 30, 30)))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(found[0].sar, scene.read(5, 5, 30, 30).sar)


def test_a_file_written_again_is_another_input(tmp_path, optical):
    with pair(optical) as scene:
        before = scene.identity
    with pair(optical) as scene:
        assert scene.identity == before
    write_raster(optical, np.ones((*SIZE, 3), np.uint8), crs=MAP_CRS, transform=MAP_PLACE)
    with pair(optical) as scene:
        assert scene.identity != before
    with pair(optical, optical_nodata=float("nan")) as scene:
        assert json.loads(json.dumps(scene.identity)) == scene.identity != before


@pytest.mark.parametrize(
    "content",
    [
        "<NoDataValue>7</NoDataValue>",
        "<ColorInterp>Alpha</ColorInterp>",
        "<Scale>0.0001</Scale>",
        "<Offset>-0.1</Offset>",
    ],
    ids=["nodata", "alpha", "scale", "offset"],
)
def test_a_side_file_that_changes_the_pixels_is_noticed(tmp_path, optical, content):
    with pair(optical, optical_bands=(1, 2, 3)) as scene:
        before = scene.identity
    band = f'<PAMRasterBand band="3">{content}</PAMRasterBand>'
    side = optical.with_name(optical.name + ".aux.xml")
    side.write_text(f"<PAMDataset>{band}</PAMDataset>")
    with pair(optical, optical_bands=(1, 2, 3)) as scene:
        assert scene.identity["files"] == before["files"]  # others may add such files, so they do not count
        assert scene.identity["read_as"] != before["read_as"]
        json.dumps(scene.identity, allow_nan=False)


@pytest.mark.parametrize("window", [(-1, 0, 5, 5), (0, 0, 121, 5), (0, 150, 5, 5), (0, 0, 0, 5)])
def test_windows_over_the_edge_are_a_mistake(optical, window):
    with pair(optical) as scene, pytest.raises(ValueError, match="is not inside"):
        scene.read(*window)


def test_unknown_resampling_is_named(tmp_path, optical):
    with pytest.raises(UserError, match="unknown resampling 'cubic' .*nearest, bilinear, average"):
        pair(optical, write_sar(tmp_path / "sar.tif"), sar_resampling="cubic").__enter__()
