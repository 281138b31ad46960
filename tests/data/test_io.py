"""Reading rasters: formats, masks, scaling, and one clear sentence for each kind of bad file."""

import os

import numpy as np
import pytest
import rasterio
from PIL import Image

from mmovseg.data.io import FileReader, read_label, read_optical, read_sar
from mmovseg.data.sample import RawSample
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs, write_raster


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (9, 14, 3)).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_8_bit_rgb_is_read_as_stored(tmp_path, image, suffix):
    optical, valid = read_optical(write_raster(tmp_path / f"a.{suffix}", image))
    assert optical.dtype == np.uint8 and valid.all()
    np.testing.assert_array_equal(optical, image)


def test_jpeg(tmp_path):
    flat = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    optical, valid = read_optical(write_raster(tmp_path / "a.jpg", flat))
    assert valid.all() and np.abs(optical.astype(int) - flat).max() <= 3


def test_one_band_is_repeated(tmp_path, image):
    optical, _ = read_optical(write_raster(tmp_path / "a.png", image[:, :, 0]))
    np.testing.assert_array_equal(optical, np.repeat(image[:, :, :1], 3, axis=2))


def test_palette_is_expanded(tmp_path):
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), mode="P")
    picture.putpalette([10, 20, 30, 200, 150, 100])
    picture.save(tmp_path / "a.png")
    optical, _ = read_optical(tmp_path / "a.png")
    assert optical[0].tolist() == [[10, 20, 30], [200, 150, 100]]


def test_alpha_band_becomes_the_mask(tmp_path, image):
    alpha = np.full(image.shape[:2], 255, dtype=np.uint8)
    alpha[2, 3] = 0
    Image.fromarray(np.dstack([image, alpha]), mode="RGBA").save(tmp_path / "a.png")
    optical, valid = read_optical(tmp_path / "a.png")
    assert optical.shape == (9, 14, 3) and not valid[2, 3] and valid.sum() == valid.size - 1
    assert optical[2, 3].tolist() == [0, 0, 0]


def test_16_bit_default_range_is_reflectance(tmp_path):
    stored = np.zeros((4, 4, 3), dtype=np.uint16)
    stored[0] = 3000
    stored[1] = 1500
    stored[2] = 12000
    optical, _ = read_optical(write_raster(tmp_path / "a.tif", stored))
    assert optical.dtype == np.float32
    assert optical[:, 0, 0].tolist() == [255.0, 127.5, 255.0, 0.0]


def test_scaling_does_not_depend_on_the_scene(tmp_path):
    dark = np.full((4, 4, 3), 600, dtype=np.uint16)
    mixed = dark.copy()
    mixed[0] = 9000
    first, _ = read_optical(write_raster(tmp_path / "dark.tif", dark))
    second, _ = read_optical(write_raster(tmp_path / "mixed.tif", mixed))
    np.testing.assert_array_equal(first[1:], second[1:])


def test_float_needs_a_range_and_takes_it(tmp_path):
    stored = np.full((4, 4, 3), 0.15, dtype=np.float32)
    stored[0, 0, 1] = np.nan
    path = write_raster(tmp_path / "a.tif", stored)
    with pytest.raises(UserError, match=r"a\.tif' holds float32 values.*optical_range"):
        read_optical(path)
    optical, valid = read_optical(path, optical_range=(0.0, 0.3))
    assert not valid[0, 0] and valid.sum() == 15
    assert optical[0, 0].tolist() == [0, 0, 0] and optical[1, 1, 1] == pytest.approx(127.5)


def declare(path, scales, offsets):
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = scales, offsets
    return path


def test_a_declared_scale_and_offset_of_reflectance_are_applied(tmp_path):
    stored = np.zeros((4, 4, 3), dtype=np.uint16)
    stored[1], stored[2], stored[3] = 1000, 2500, 4000
    path = declare(write_raster(tmp_path / "a.tif", stored, nodata=0), (1e-4,) * 3, (-0.1,) * 3)
    optical, valid = read_optical(path)
    assert valid[:, 0].tolist() == [False, True, True, True]  # nodata is a number as stored
    np.testing.assert_allclose(optical[:, 0, 1], [0.0, 0.0, 127.5, 255.0], atol=1e-3)
    optical, _ = read_optical(path, optical_range=(0.1, 0.2))  # of the scaled values
    np.testing.assert_allclose(optical[2:, 0, 0], [127.5, 255.0], atol=1e-2)


def test_each_band_has_its_own_scale(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.full((2, 2, 4), 1000, dtype=np.int16))
    declare(path, (1.0, 1e-4, 2e-4, 1e-5), (0.0, 0.05, 0.0, 0.0))
    optical, _ = read_optical(path, bands=(4, 3, 2))
    np.testing.assert_allclose(optical[0, 0], [8.5, 170.0, 127.5], atol=1e-2)


def test_scales_without_a_usual_range_need_one(tmp_path, image):
    path = declare(write_raster(tmp_path / "a.tif", image.astype(np.uint16)), (0.01,) * 3, (0.0,) * 3)
    with pytest.raises(UserError, match=r"a\.tif' declares scale 0.01 and offset 0, too coarse .*optical_range=\("):
        read_optical(path)
    assert read_optical(path, optical_range=(0, 2.55))[0] == pytest.approx(image, abs=1e-3)
    path = declare(write_raster(tmp_path / "b.tif", image), (1 / 255,) * 3, (0.0,) * 3)
    np.testing.assert_array_equal(read_optical(path)[0], image)  # 8 bits are black to white as they are
    path = declare(write_raster(tmp_path / "c.tif", image.astype(np.uint16)), (0.0, 1.0, 1.0), (0.0,) * 3)
    with pytest.raises(UserError, match=r"c\.tif' declares scales .* which tell nothing"):
        read_optical(path)


def test_sar_in_hundredths_of_a_decibel(tmp_path):
    stored = np.array([[[-1197, -2003], [-9999, -9999], [7, -5]]], dtype=np.int16)
    path = declare(write_raster(tmp_path / "a.tif", stored, nodata=-9999), (0.01, 0.01), (0.0, 1.0))
    sar, valid = read_sar(path, nodata=7)
    assert valid.tolist() == [[True, False, False]] and sar.dtype == np.float32
    np.testing.assert_allclose(sar[0, 0], [-11.97, -19.03], atol=1e-5)
    one, _ = read_sar(path, bands=(2,))
    np.testing.assert_allclose(one[0, 0], [-19.03], atol=1e-5)


def test_many_bands_need_a_choice(tmp_path):
    stored = np.stack([np.full((4, 4), 100 * band, dtype=np.uint16) for band in range(1, 14)], axis=-1)
    path = write_raster(tmp_path / "s2.tif", stored)
    with pytest.raises(UserError, match="13 bands.*bands="):
        read_optical(path)
    optical, _ = read_optical(path, bands=(4, 3, 2), optical_range=(0, 2550))
    np.testing.assert_allclose(optical[0, 0], [40, 30, 20], rtol=1e-5)
    with pytest.raises(UserError, match="no band 14"):
        read_optical(path, bands=(14, 3, 2))


def test_optical_nodata_needs_all_bands(tmp_path, image):
    image = np.maximum(image, 1)
    image[0, 0] = 0
    image[0, 1, 2] = 0
    _, valid = read_optical(write_raster(tmp_path / "a.tif", image, nodata=0))
    assert not valid[0, 0] and valid[0, 1] and valid.sum() == valid.size - 1


def test_sar_mask_from_nan_infinity_and_nodata(tmp_path):
    stored = np.full((5, 6, 2), -12.5, dtype=np.float32)
    stored[0, 0, 0] = np.nan
    stored[1, 1, 1] = -np.inf
    stored[2, 2] = -9999
    stored[3, 3] = -32768
    sar, valid = read_sar(write_raster(tmp_path / "a.tif", stored, nodata=-9999), nodata=-32768)
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert np.isnan(sar[~valid]).all() and (sar[valid] == -12.5).all()


def test_complex_sar_becomes_power(tmp_path):
    path = write_raster(tmp_path / "slc.tif", np.full((3, 3), 3 + 4j, dtype=np.complex64))
    sar, valid = read_sar(path)
    assert valid.all() and (sar == 25.0).all()
    raw = FileReader(sar_unit_in="linear")({"sar_file_name": str(path)})
    np.testing.assert_allclose(raw.sar, 10 * np.log10(25.0), rtol=1e-6)
    with pytest.raises(UserError, match="complex"):
        read_optical(path)


def test_label_ids_nodata_and_map(tmp_path):
    stored = np.array([[-1, 0], [1, 255]], dtype=np.int16)
    assert read_label(write_raster(tmp_path / "a.tif", stored, nodata=-1)).tolist() == [[255, 0], [1, 255]]
    plain = write_raster(tmp_path / "b.tif", stored)
    assert read_label(plain).tolist() == [[-1, 0], [1, 255]]
    assert read_label(plain, label_map={-1: 255, 0: 3, 1: 0}).tolist() == [[255, 3], [0, 255]]
    assert read_label(plain, label_map={-1: 0, 0: 0, 1: 0, 255: 1}).tolist() == [[0, 0], [0, 1]]
    with pytest.raises(UserError, match=r"b\.tif' has the value 1"):
        read_label(plain, label_map={-1: 255, 0: 0})


def test_label_must_be_one_band_of_whole_numbers(tmp_path, image):
    with pytest.raises(UserError, match=r"rgb\.png' has 3 bands"):
        read_label(write_raster(tmp_path / "rgb.png", image))
    floats = np.array([[1.0, np.nan], [2.5, 0.0]], dtype=np.float32)
    with pytest.raises(UserError, match=r"f\.tif' has the value 2\.5"):
        read_label(write_raster(tmp_path / "f.tif", floats))
    floats[1, 0] = 2
    assert read_label(write_raster(tmp_path / "g.tif", floats)).tolist() == [[1, 255], [2, 0]]


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("read", [read_optical, read_sar, read_label])
def test_unusable_files_are_named(tmp_path, read, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    whole = write_raster(tmp_path / f"whole.{suffix}", noise)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    other = tmp_path / f"text.{suffix}"
    other.write_text("this is not a raster")
    for path in (cut, other, tmp_path / f"absent.{suffix}"):
        with pytest.raises(UserError, match=path.name) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_name_that_is_not_utf8_is_told_in_printable_words(tmp_path, image):
    path = write_raster(tmp_path / "a.png", image).rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(UserError, match=r"optical raster '.*/caf\\udce9[.]png' cannot be opened, .* not UTF-8; rename"):
        read_optical(path)


@pytest.mark.parametrize("optical", ["png", "tif16", "tif_float"])
@pytest.mark.parametrize("sar", ["tif_db", "tif_linear", "png8"])
def test_file_reader_returns_what_was_meant(tmp_path, optical, sar):
    pairs = write_pairs(tmp_path, count=1, height=17, width=23, optical=optical, sar=sar)
    raw = FileReader(**pairs.reader_options)(pairs.dicts[0])
    truth = pairs.truth[0]
    np.testing.assert_allclose(raw.optical, truth["optical"], atol=0.05)
    np.testing.assert_array_equal(raw.sem_seg, truth["sem_seg"])
    np.testing.assert_array_equal(raw.sar_valid, np.isfinite(truth["sar_db"]).all(axis=-1))
    tolerance = 0.5 if sar == "png8" else 1e-4
    np.testing.assert_allclose(raw.sar, truth["sar_db"], atol=tolerance)


def test_absent_key_is_absent_modality_but_absent_file_is_an_error(tmp_path):
    pairs = write_pairs(tmp_path, count=1)
    whole = pairs.dicts[0]
    raw = FileReader()({"file_name": whole["file_name"]})
    assert isinstance(raw, RawSample) and raw.sar is None and raw.sar_valid is None and raw.sem_seg is None
    raw = FileReader()({"sar_file_name": whole["sar_file_name"]})
    assert raw.optical is None and raw.sar is not None
    with pytest.raises(UserError, match=r"SAR raster '.*gone\.tif' does not exist"):
        FileReader()({**whole, "sar_file_name": str(tmp_path / "gone.tif")})


@pytest.mark.parametrize("key", ["sar_file_name", "sem_seg_file_name"])
def test_size_mismatch_names_both_files_and_sizes(tmp_path, key):
    pairs = write_pairs(tmp_path, count=1, height=24, width=32)
    other = write_raster(tmp_path / "other.tif", np.zeros((24, 31), dtype=np.uint8))
    with pytest.raises(UserError, match=r"000000\.png' is 24x32 .* '.*other\.tif' is 24x31"):
        FileReader()({**pairs.dicts[0], key: str(other)})


def test_polarisations_by_name(tmp_path):
    pairs = write_pairs(tmp_path, count=1, with_nan=False)
    reader = FileReader(sar_polarisations_in=("VV", "VH"), sar_polarisations=("VH", "VV"))
    raw = reader(pairs.dicts[0])
    np.testing.assert_array_equal(raw.sar, pairs.truth[0]["sar_db"][:, :, ::-1])
    with pytest.raises(UserError, match="name those of the files"):
        FileReader(sar_polarisations=("VV",))


def test_captions_are_passed_on(tmp_path):
    pairs = write_pairs(tmp_path, count=1)
    raw = FileReader()({**pairs.dicts[0], "caption": "a", "captions": ["b", "c"]})
    assert raw.captions == ["a", "b", "c"]
