"""Rasters that cannot be mapped: one sentence each that names the file and the value, and quickly."""

import os
import struct
import time

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine

from mmovseg.data.raster import Raster
from mmovseg.errors import UserError
from mmovseg.inference.scene.integrity import check_whole
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair
from mmovseg.testing.fakes import write_raster

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 255, (64, 96, 3), dtype=np.uint8)
SAR = RNG.normal(-12, 4, (64, 96, 2)).astype(np.float32)
PLACE = Affine(10.0, 0.0, 600000.0, 0.0, -10.0, 5700000.0)


def refusal(optical=None, sar=None, **options):
    inputs = SceneInputs(optical=optical and str(optical), sar=sar and str(sar), **options)
    started = time.perf_counter()
    with pytest.raises(UserError) as error, ScenePair(inputs) as scene:
        scene.read(0, 0, scene.grid.height, scene.grid.width)
    assert time.perf_counter() - started < 10
    assert "\n" not in str(error.value)
    return str(error.value)


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def write_tiff_header(path, *, width, height, tile=256, offsets=1):
    """A TIFF of 8-bit grey tiles whose header claims a size that its tables do not have."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, offsets, 400), (325, 4, offsets, 400)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes((b"II*\0" + struct.pack("<IH", 8, len(entries)) + body).ljust(2048, b"\0"))
    return path


def test_files_that_are_no_rasters(tmp_path):
    empty, text = tmp_path / "empty.tif", tmp_path / "text.tif"
    empty.write_bytes(b"")
    text.write_text("no raster")
    os.mkfifo(tmp_path / "pipe.tif")
    assert "'" + str(tmp_path / "none.tif") + "' does not exist" in refusal(tmp_path / "none.tif")
    assert "empty.tif' is empty (0 bytes)" in refusal(empty)
    assert "text.tif' is not a readable raster" in refusal(text)
    assert f"'{tmp_path}' is a folder, not a file" in refusal(tmp_path)
    assert "pipe.tif' is a pipe or a device" in refusal(tmp_path / "pipe.tif")
    assert "SAR raster '/dev/null' is a pipe or a device" in refusal(sar="/dev/null")
    assert "give an optical raster or a SAR raster" in refusal()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"compress": "deflate"}])
def test_cut_off_geotiffs(tmp_path, share, options):
    path = cut(write_raster(tmp_path / "cut.tif", IMAGE, **options), share)
    assert "cut.tif' is" in refusal(path) and ("damaged" in refusal(path) or "not a readable" in refusal(path))


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_cut_off_pictures(tmp_path, name, share):
    path = cut(write_raster(tmp_path / name, IMAGE), share)
    assert f"{name}' is" in refusal(path) and ("damaged" in refusal(path) or "not a readable" in refusal(path))


def test_damage_in_the_middle_is_found_when_it_is_read(tmp_path):
    path = write_raster(tmp_path / "holed.tif", RNG.integers(0, 255, (2000, 64, 3), dtype=np.uint8), compress="deflate")
    data = bytearray(path.read_bytes())
    for start in range(1000, len(data) - 1000, 3000):
        data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    assert "holed.tif' is damaged or cut off: its pixels cannot be read" in refusal(path)


@pytest.mark.parametrize(("width", "height"), [(1_000_000, 1_000_000), (2_000_000_000, 2), (100_000, 90_000)])
def test_sizes_that_cannot_be_in_the_file(tmp_path, width, height):
    path = write_tiff_header(tmp_path / "huge.tif", width=width, height=height)
    assert "huge.tif'" in refusal(path)
    count = -(-width // 256) * -(-height // 256)
    path = write_tiff_header(tmp_path / "huge.tif", width=width, height=height, offsets=min(count, 2**31))
    assert "huge.tif'" in refusal(path)


def test_one_block_larger_than_memory(tmp_path):
    path = write_tiff_header(tmp_path / "block.tif", width=60_000, height=60_000, tile=60_000 // 16 * 16 + 16)
    assert "block.tif'" in refusal(path)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_block_holds_all_bands_when_they_are_interleaved(tmp_path, interleave):
    profile = {"driver": "GTiff", "width": 19_000, "height": 19_000, "count": 4, "dtype": "uint8", "sparse_ok": True}
    profile |= {"crs": "EPSG:32631", "transform": PLACE, "interleave": interleave, "tiled": True}
    path = tmp_path / "wide.tif"
    with rasterio.open(path, "w", **profile, blockxsize=19_008, blockysize=19_008):
        pass
    expected = r"pieces of 19008x19008 pixels, 1.3 GiB each" if interleave == "pixel" else "bytes cannot hold them"
    with Raster(path, "optical") as raster, pytest.raises(UserError, match=expected):
        check_whole(raster)


def test_a_sparse_file_is_no_damage_but_holds_no_data(tmp_path):
    profile = {"driver": "GTiff", "width": 30_000, "height": 30_000, "count": 3, "dtype": "uint8", "nodata": 0}
    profile |= {"crs": "EPSG:32631", "transform": PLACE, "tiled": True, "sparse_ok": True}
    path = tmp_path / "sparse.tif"
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.full((3, 256, 256), 9, np.uint8), window=rasterio.windows.Window(0, 0, 256, 256))
    with ScenePair(SceneInputs(optical=str(path))) as scene:
        assert scene.read(0, 0, 300, 300).optical_valid.sum() == 256 * 256
    with rasterio.open(path, "w", **profile):
        pass
    assert "sparse.tif' holds no data" in refusal(path)


def test_no_data_at_all(tmp_path):
    nothing = np.full((64, 96, 2), np.nan, np.float32)
    good = write_raster(tmp_path / "good.tif", IMAGE)
    assert "SAR raster '" + str(tmp_path / "nan.tif") in refusal(good, write_raster(tmp_path / "nan.tif", nothing))
    zero = write_raster(tmp_path / "zero.tif", np.zeros((64, 96, 3), np.uint8), nodata=0)
    assert "zero.tif' holds no data" in refusal(zero)


def test_places_that_do_not_fit(tmp_path):
    optical = write_raster(tmp_path / "optical.tif", IMAGE)
    far = write_raster(tmp_path / "far.tif", SAR, transform=Affine(10, 0, 700000, 0, -10, 5700000))
    sentence = refusal(optical, far)
    assert "longitude 4.4387 to 4.4527" in sentence and "longitude 5.8" in sentence and "do not overlap" in sentence
    vast = write_raster(tmp_path / "vast.tif", SAR, transform=Affine(1e300, 0, 600000, 0, -1e300, 5700000))
    assert "a pixel of '" in refusal(optical, vast) and "times larger or smaller" in refusal(optical, vast)
    australia = write_raster(tmp_path / "aus.tif", SAR, crs="EPSG:28355", transform=PLACE)
    assert "do not overlap" in refusal(optical, australia)
    bare = write_raster(tmp_path / "bare.tif", SAR, crs=None, transform=Affine.identity())
    assert "bare.tif' has no coordinate system but" in refusal(optical, bare)
    small = write_raster(tmp_path / "small.png", IMAGE[:60])
    assert "(60x96 against 64x96 pixels)" in refusal(small, bare)
    local = write_raster(tmp_path / "local.tif", SAR, crs='LOCAL_CS["workshop",UNIT["metre",1]]', transform=PLACE)
    assert "cannot be converted into each other" in refusal(optical, local)
    degrees = write_raster(tmp_path / "degrees.tif", IMAGE, crs="EPSG:4326", transform=PLACE)
    assert "claims EPSG:4326, which counts degrees, but reaches longitude 600960" in refusal(degrees)
    unplaced = write_raster(tmp_path / "unplaced.tif", IMAGE, transform=Affine.identity())
    assert "names the coordinate system EPSG:32631 but no position" in refusal(unplaced)


@pytest.mark.parametrize(
    "numbers",
    [(1e-200, 0, 600000, 0, -1e-200, 5700000), (10, 10, 600000, 10, 10, 57e5), (float("nan"), 0, 6e5, 0, -10, 57e5)],
)
def test_transforms_without_area(tmp_path, numbers):
    path = write_raster(tmp_path / "flat.tif", IMAGE, transform=Affine(*numbers))
    assert "flat.tif' has the transform (" in refusal(path)


def test_a_position_without_pixel_size(tmp_path):
    path = write_raster(tmp_path / "tie.tif", IMAGE, transform=Affine(0, 0, 600000, 0, -10, 5700000))
    assert "tie.tif' gives a position but no size of its pixels" in refusal(path)


def test_control_points_and_sensor_models_need_warping(tmp_path):
    points = [GroundControlPoint(row, col, 5 + col / 1e3, 50 - row / 1e3) for row in (0, 64) for col in (0, 96)]
    path = write_raster(tmp_path / "gcp.tif", IMAGE, transform=Affine.identity(), crs="EPSG:4326", gcps=points)
    assert "gcp.tif' is placed by 4 ground control points only; warp it first" in refusal(path)
    coefficients = [1.0, *[0.0] * 19]
    model = RPC(0, 100, 50, 1, coefficients, coefficients, 32, 64, 5, 1, coefficients, coefficients, 48, 96)
    path = write_raster(tmp_path / "rpc.tif", IMAGE, transform=Affine.identity(), crs=None, rpcs=model)
    assert "rpc.tif' is placed by a sensor model (RPC) only; orthorectify it first" in refusal(path)


def test_pairs_without_coordinates_go_pixel_by_pixel_with_a_warning(tmp_path):
    optical = write_raster(tmp_path / "a.png", IMAGE)
    sar = write_raster(tmp_path / "b.tif", SAR, crs=None, transform=Affine.identity())
    with ScenePair(SceneInputs(str(optical), str(sar))) as scene:
        window = scene.read(3, 4, 20, 30)
        assert "are laid over each other pixel by pixel" in scene.warnings[0] and scene.grid.crs is None
    np.testing.assert_array_equal(window.sar, SAR[3:23, 4:34])
    np.testing.assert_array_equal(window.optical, IMAGE[3:23, 4:34])


def test_bands(tmp_path):
    many = write_raster(tmp_path / "many.tif", np.repeat(IMAGE, 4, axis=2), photometric="minisblack")
    sentence = refusal(many)
    assert "many.tif' has 12 bands" in sentence and "--optical-bands 4 3 2" in sentence
    assert "many.tif' has 12 bands, no band 13" in refusal(many, optical_bands=(13, 3, 2))
    assert "names 2 bands of" in refusal(many, optical_bands=(1, 2))
    slc = write_raster(tmp_path / "slc.tif", SAR.astype(np.complex64))
    assert "holds complex samples; is it the SAR file?" in refusal(slc, optical_bands=(1,))
    assert "become linear power; leave out --sar-unit" in refusal(sar=slc, sar_unit="db")
    floats = write_raster(tmp_path / "floats.tif", IMAGE.astype(np.float32))
    assert "floats.tif' holds float32 values; say which range" in refusal(floats)
    inputs = SceneInputs(str(write_raster(tmp_path / "o.tif", IMAGE)), cloud_mask=str(many))
    with pytest.raises(UserError, match=r"many.tif' has 12 bands; it must have one"):
        ScenePair(inputs).__enter__()


def test_containers_and_virtual_rasters(tmp_path):
    good = write_raster(tmp_path / "good.tif", IMAGE)
    xml = f"""<VRTDataset rasterXSize="96" rasterYSize="64"><SRS>EPSG:32631</SRS>
    <GeoTransform>600000, 10, 0, 5700000, 0, -10</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
    <SourceFilename>{good}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""
    virtual = tmp_path / "mosaic.vrt"
    virtual.write_text(xml)
    with ScenePair(SceneInputs(str(virtual))) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 64, 96).optical[..., 0], IMAGE[..., 0])
        assert any(str(good) in entry[0] for entry in scene.identity["files"]["optical"])
    good.unlink()
    assert "mosaic.vrt' is" in refusal(virtual)
    code = "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
    code += f"<PixelFunctionCode><![CDATA[\ndef f(*a, **k):\n    open('{tmp_path}/ran', 'w')\n]]></PixelFunctionCode>"
    write_raster(good, IMAGE)
    virtual.write_text(xml.replace('band="1">', f'band="1" subClass="VRTDerivedRasterBand">{code}', 1))
    assert "a program inside" in refusal(virtual)
    assert not (tmp_path / "ran").exists()
