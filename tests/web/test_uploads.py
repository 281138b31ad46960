"""What a page takes from strangers, and what it refuses before any pixel is read."""

from __future__ import annotations

import re
import time
import zipfile

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_raster
from mmovseg.web import uploads
from mmovseg.web.uploads import MAX_BANDS, UploadLimits, recognise, shorten, take_upload

LIMITS = UploadLimits(max_bytes=2_000_000, max_pixels=100_000)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "private").mkdir()
    return tmp_path / "private"


def take(path, folder, role="optical", limits=LIMITS):
    return take_upload(path, role=role, folder=folder, limits=limits)


def refusal(path, folder, **options):
    with pytest.raises(UserError) as caught:
        take(path, folder, **options)
    assert list(folder.iterdir()) == []  # nothing is left of what was refused
    sentence = str(caught.value)
    assert "\n" not in sentence and str(folder) not in sentence and str(path.parent) not in sentence
    return sentence


def test_a_geotiff_keeps_pixels_place_nodata_units_and_names(tmp_path, folder):
    sar = np.random.default_rng(0).normal(-12, 4, (30, 40, 2)).astype(np.float32)
    sar[3:5] = np.nan
    path = write_raster(tmp_path / "a.tif", sar, nodata=np.nan)
    with rasterio.open(path, "r+") as file:
        file.descriptions, file.units = ("VV", "VH"), ("dB", "dB")
        file.update_tags(unit="dB sigma nought")
    taken = take(path, folder, role="sar")
    assert taken == folder / "sar.tif" and list(folder.iterdir()) == [taken]
    with rasterio.open(path) as before, rasterio.open(taken) as after:
        np.testing.assert_array_equal(before.read(), after.read())
        assert (before.crs, before.transform) == (after.crs, after.transform)
        assert np.isnan(after.nodata) and after.descriptions == ("VV", "VH") and after.units == ("dB", "dB")
        assert after.tags()["unit"] == "dB sigma nought"


def test_palette_alpha_and_inner_mask_survive(tmp_path, folder):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_raster(tmp_path / "masked.tif", np.full((20, 24, 3), 9, np.uint8))
        mask = np.zeros((20, 24), np.uint8)
        mask[:7] = 255
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    with rasterio.open(take(path, folder)) as taken:
        np.testing.assert_array_equal(taken.dataset_mask(), mask)
    path = write_raster(tmp_path / "palette.tif", np.arange(4, dtype=np.uint8).reshape(2, 2))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {2: (10, 20, 30, 255)})
    with rasterio.open(take(path, folder)) as taken:
        assert taken.colormap(1)[2][:3] == (10, 20, 30) and taken.colorinterp[0] == ColorInterp.palette
    path = write_raster(tmp_path / "alpha.png", np.full((6, 6, 4), 200, np.uint8))
    with rasterio.open(take(path, folder)) as taken:
        assert taken.colorinterp[3] == ColorInterp.alpha and taken.count == 4


def test_complex_samples_and_rotated_grids_pass(tmp_path, folder):
    samples = (np.ones((8, 9)) * (2 + 1j)).astype(np.complex64)
    turned = Affine(10.0, 3.0, 600000.0, 3.0, -10.0, 5700000.0)
    path = write_raster(tmp_path / "slc.tif", samples, transform=turned)
    with rasterio.open(take(path, folder, role="sar")) as taken:
        np.testing.assert_array_equal(taken.read(1), samples)
        assert taken.transform == turned


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_png_and_jpeg_are_taken_and_have_no_place(tmp_path, folder, name):
    path = write_raster(tmp_path / name, np.full((16, 20, 3), 120, np.uint8))
    with rasterio.open(path) as before, rasterio.open(take(path, folder)) as after:
        np.testing.assert_array_equal(before.read(), after.read())
        assert after.crs is None and after.transform.is_identity and after.driver == "GTiff"


VRT = """<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""


@pytest.mark.parametrize("name", ["a.vrt", "a.tif", "a.png"])
def test_files_that_name_other_files_are_refused_whatever_they_are_called(tmp_path, folder, name):
    secret = write_raster(tmp_path / "secret.tif", np.full((20, 20), 7, np.uint8))
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_text(VRT.format(source=secret))
    with rasterio.open(path, driver="VRT") as opened:  # it would work if it were let in
        assert opened.read(1).max() == 7
    assert (
        refusal(path, folder) == f"the optical file '{name}' is no GeoTIFF, PNG or JPEG; this page reads nothing else"
    )


def test_other_formats_and_non_rasters_are_refused(tmp_path, folder):
    jpeg2000 = tmp_path / "a.tif"
    jpeg2000.write_bytes(b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(100))
    archive = tmp_path / "b.tif"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inner.tif", b"II*\0")
    empty = tmp_path / "c.tif"
    empty.write_bytes(b"")
    text = tmp_path / "d.png"
    text.write_text("<WMS><Service name='WMS'><ServerUrl>http://192.0.2.1/</ServerUrl></Service></WMS>")
    for path in (jpeg2000, archive, empty, text):
        assert recognise(path) is None
        assert "is no GeoTIFF, PNG or JPEG" in refusal(path, folder)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
@pytest.mark.parametrize("share", [0.02, 0.6, 0.95])
def test_files_that_are_cut_off_are_refused(tmp_path, folder, name, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    path = write_raster(tmp_path / name, noise)
    content = path.read_bytes()
    path.write_bytes(content[: max(10, int(share * len(content)))])
    assert "damaged or cut off" in refusal(path, folder, role="sar")


def test_only_the_driver_of_the_signature_opens_a_file(tmp_path, folder):
    path = tmp_path / "a.png"
    path.write_bytes(b"II*\0" + b"<VRTDataset>" * 20)
    assert "damaged or cut off" in refusal(path, folder)


def test_limits_are_checked_from_the_header(tmp_path, folder):
    huge = tmp_path / "huge.tif"
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "SPARSE_OK": True, "tiled": True, "compress": "deflate"}
    with rasterio.open(huge, "w", width=400_000, height=300_000, **profile):
        pass
    size = huge.stat().st_size
    start = time.perf_counter()
    sentence = refusal(huge, folder, limits=UploadLimits(max_bytes=size))
    assert time.perf_counter() - start < 2  # 120 billion pixels would take longer
    assert "has 400000 x 300000 = 120000.0 million pixels; this page takes 4 million" in sentence
    assert "has 2.5 MB; this page takes 2 MB a file" in refusal(_of_size(tmp_path, 2_500_000), folder)


def test_blocks_and_bands_that_unpack_to_too_much_are_refused(tmp_path, folder):
    block = tmp_path / "block.tif"
    profile = {"driver": "GTiff", "dtype": "uint8", "SPARSE_OK": True, "compress": "deflate"}
    with rasterio.open(
        block, "w", width=100, height=100, count=1, tiled=True, blockxsize=16384, blockysize=16384, **profile
    ):
        pass
    assert "stored in blocks of 16384 x 16384 pixels" in refusal(block, folder)
    bands = tmp_path / "bands.tif"
    with rasterio.open(bands, "w", width=10, height=10, count=MAX_BANDS + 1, **profile):
        pass
    assert f"has {MAX_BANDS + 1} bands; this page takes {MAX_BANDS}" in refusal(bands, folder)
    fat = tmp_path / "fat.tif"
    with rasterio.open(fat, "w", width=300, height=300, count=20, **{**profile, "dtype": "float32"}):
        pass
    assert "unpacks to 7 MB; this page takes 3 MB" in refusal(fat, folder)


def test_side_files_and_names_are_not_followed(tmp_path, folder):
    path = write_raster(tmp_path / "in" / "a.tif", np.full((20, 20), 5, np.uint8))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(np.zeros((20, 20), np.uint8))
    assert (path.parent / "a.tif.msk").is_file()
    with rasterio.open(path) as plain:
        assert plain.dataset_mask().max() == 0
    with rasterio.open(take(path, folder)) as taken:
        assert taken.dataset_mask().min() == 255
    odd = path.rename(path.parent / "..%2f..%2fzip:x!a$(id).tif")
    assert take(odd, folder) == folder / "optical.tif"


def test_the_cache_of_gdal_has_64_mebibytes(tmp_path, folder, monkeypatch):
    seen, name = [], "GDAL_CACHEMAX"
    monkeypatch.setattr(uploads, "_copy_checked", lambda *_: seen.append(rasterio.env.getenv()[name]))
    take(write_raster(tmp_path / "a.tif", np.ones((6, 6), np.uint8)), folder)
    assert seen == [64 * 1024**2]


@pytest.mark.parametrize("name", ["bidx", "ns", "self", "kwargs"])
def test_tags_called_like_parameters_are_left_out(tmp_path, folder, name):
    plain = write_raster(tmp_path / "plain.tif", np.arange(36, dtype=np.uint8).reshape(6, 6))
    virtual = tmp_path / "a.vrt"
    rasterio.shutil.copy(plain, virtual, driver="VRT")
    metadata = f'<Metadata><MDI key="{name}">1</MDI><MDI key="unit">dB</MDI></Metadata>'
    text = re.sub("<Metadata>.*?</Metadata>", "", virtual.read_text(), flags=re.DOTALL)
    text = re.sub("(<VRTRasterBand[^>]*>)", rf"{metadata}\1{metadata}", text, count=1)
    virtual.write_text(text)
    path = tmp_path / "a.tif"
    rasterio.shutil.copy(virtual, path, driver="GTiff")
    with rasterio.open(path) as before, rasterio.open(take(path, folder)) as after:
        assert before.tags()[name] == before.tags(1)[name] == "1"
        assert {name, "unit"} & set(after.tags()) == {"unit"} == set(after.tags(1))


def test_names_are_shown_on_one_line():
    assert shorten("a\nb\x1b[31m.tif") == "a?b?[31m.tif"
    assert len(shorten("x" * 300)) == 60


def _of_size(tmp_path, count):
    path = tmp_path / "large.tif"
    path.write_bytes(b"II*\0" + bytes(count - 4))
    return path
