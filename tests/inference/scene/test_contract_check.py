"""What a model was trained on against what a raster holds: refusals that say how to mend it."""

import numpy as np
import pytest
import rasterio

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.data.raster import Raster
from mmovseg.data.sar import convert_sar, db_to_linear
from mmovseg.errors import UserError
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair
from mmovseg.testing.fakes import write_raster

RGB = ModalityContract("RGB", ("red", "green", "blue"), "uint8", (107.0, 111.0, 85.0), (45.0, 32.0, 29.0))
DB = ModalityContract("C-band", ("VV", "VH"), "db", (-12.2, -18.2), (5.3, 5.3), (-35.0, 10.0))
LINEAR = ModalityContract("C-band", ("VV", "VH"), "linear", (0.1, 0.02), (0.2, 0.05), (0.0, 2.0))
DN = ModalityContract("any", ("amplitude",) * 3, "amplitude8", (90.0,) * 3, (60.0,) * 3)
SHAPE = (128, 160)


def values_in(unit, polarisations=2):
    rng = np.random.default_rng(0)
    sar_db = rng.normal((-12.0, -18.0, -9.0, -15.0)[:polarisations], 4.0, (*SHAPE, polarisations)).astype(np.float32)
    return convert_sar(sar_db, unit_in="db", unit_out=unit)


def write_sar(folder, unit="db", *, tag=None, names=None, sar=None):
    path = write_raster(folder / "sar.tif", values_in(unit) if sar is None else sar)
    with rasterio.open(path, "r+") as file:
        if tag is not None:
            file.update_tags(unit=tag)
        if names is not None:
            file.descriptions = names
    return str(path)


def opened(contract, *, override=False, **inputs):
    with ScenePair(SceneInputs(**inputs), contract=contract, override_contract=override) as scene:
        return scene, scene.read(0, 0, *SHAPE)


def refusal(contract, **inputs):
    with pytest.raises(UserError) as error:
        opened(contract, **inputs)
    assert "\n" not in str(error.value)
    scene, _ = opened(contract, override=True, **inputs)
    assert str(error.value) in scene.warnings and str(error.value) in scene.facts["warnings"]
    return str(error.value)


def contract(sar=DB, optical=RGB):
    return InputContract(optical=optical, sar=sar, gsd_m=(10.0, 10.0))


@pytest.mark.parametrize(
    ("model", "unit", "declared", "sentence"),
    [
        (DB, "linear", None, "is read as db, but its values .* look like linear power; give --sar-unit linear"),
        (DB, "amplitude8", None, "look like 8-bit amplitude; give --sar-unit amplitude8"),
        (DB, "db", "linear", "is read as linear, but .* look like decibel; give --sar-unit db"),
        (DB, "db", "amplitude8", "is read as amplitude8, but .* look like decibel"),
        (DB, "linear", "amplitude8", "look like linear power; give --sar-unit linear"),
        (DB, "amplitude8", "linear", "look like 8-bit amplitude"),
        (LINEAR, "db", None, "is read as linear, but .* look like decibel; give --sar-unit db"),
        (DN, "db", None, "is read as amplitude8, but .* look like decibel"),
    ],
)
def test_another_unit_than_said_is_refused(tmp_path, model, unit, declared, sentence):
    sar = values_in(unit) if model is not DN else values_in(unit, 3)
    path = write_sar(tmp_path, sar=sar)
    found = refusal(contract(model), sar=path, sar_unit=declared)
    assert "sar.tif'" in found
    pytest.raises(UserError, opened, contract(model), sar=path, sar_unit=declared).match(sentence)


@pytest.mark.parametrize("model", [DB, LINEAR])
@pytest.mark.parametrize("unit", ["db", "linear", "amplitude8"])
def test_a_named_unit_becomes_the_models(tmp_path, model, unit):
    scene, window = opened(contract(model), sar=write_sar(tmp_path, unit), sar_unit=unit)
    np.testing.assert_allclose(window.sar, convert_sar(values_in(unit), unit_in=unit, unit_out=model.unit))
    assert scene.facts["sar"]["unit"] == unit and not scene.warnings


@pytest.mark.parametrize("text", ["linear", "Linear sigma nought", "power"])
def test_units_are_known_by_their_first_word(tmp_path, text):
    scene, _ = opened(contract(), sar=write_sar(tmp_path, "linear", tag=text))
    assert scene.facts["sar"]["unit"] == "linear"


def test_parts_of_complex_numbers_are_no_polarisations(tmp_path):
    with pytest.raises(UserError, match=r"holds 'complex amplitude \(I, Q\)' in bands of real numbers; detect it"):
        opened(contract(), sar=write_sar(tmp_path, "linear", tag="complex amplitude (I, Q)"))


def test_what_a_file_says_wins_over_what_the_model_reads(tmp_path):
    _, window = opened(contract(), sar=write_sar(tmp_path, "linear", tag="linear"))
    np.testing.assert_allclose(window.sar, values_in("db"), atol=1e-4)
    path = write_raster(tmp_path / "units.tif", values_in("linear"))
    with rasterio.open(path, "r+") as file:
        file.units = ("linear", "linear")
    _, window = opened(contract(), sar=str(path))
    np.testing.assert_allclose(window.sar, values_in("db"), atol=1e-4)
    scene, _ = opened(contract(), sar=write_sar(tmp_path, "db", tag="linear"), sar_unit="db")
    assert "is read as db as you say; its own tags say linear" in scene.warnings[0]


def test_values_no_model_of_this_contract_has_seen(tmp_path):
    numbers = np.random.default_rng(0).integers(200, 9000, (*SHAPE, 2)).astype(np.uint16)
    assert "uncalibrated digital numbers" in refusal(contract(), sar=write_sar(tmp_path, sar=numbers))
    assert "lie outside -35..10 db" in refusal(contract(), sar=write_sar(tmp_path, sar=numbers), sar_unit="linear")
    shifted = values_in("db") - np.float32(40.0)
    assert "lie outside -35..10 db" in refusal(contract(), sar=write_sar(tmp_path, sar=shifted))
    without_clip = ModalityContract("C-band", ("VV", "VH"), "db", (-12.2, -18.2), (5.3, 5.3))
    assert "half of SAR raster" in refusal(contract(without_clip), sar=write_sar(tmp_path, sar=shifted))
    scene, _ = opened(contract(), sar=write_sar(tmp_path, sar=values_in("db") + np.float32(18.0)))
    assert "while the model was trained on" in scene.warnings[0]


def test_a_scene_of_one_kind_of_ground_is_in_the_contract(tmp_path):
    calm_water = np.random.default_rng(0).normal((-24, -31), 1.5, (*SHAPE, 2)).astype(np.float32)
    scene, _ = opened(contract(), sar=write_sar(tmp_path, sar=calm_water))
    assert not scene.warnings
    ships = calm_water + np.float32(60) * (np.random.default_rng(1).random((*SHAPE, 1)) < 0.01)
    opened(contract(), sar=write_sar(tmp_path, sar=ships.astype(np.float32)))


def test_zeros_that_may_be_fill_are_pointed_out(tmp_path):
    power = values_in("linear")
    power[:, :60] = 0
    scene, window = opened(contract(), sar=write_sar(tmp_path, sar=power), sar_unit="linear")
    assert (
        "of SAR raster" in scene.warnings[0] and "give --sar-nodata 0" in scene.warnings[0] and window.sar_valid.all()
    )
    scene, window = opened(contract(), sar=write_sar(tmp_path, sar=power), sar_unit="linear", sar_nodata=0.0)
    assert not scene.warnings and not window.sar_valid[:, :60].any()
    image = np.random.default_rng(0).integers(30, 200, (*SHAPE, 3), dtype=np.uint8)
    image[:50] = 0
    scene, _ = opened(contract(), optical=str(write_raster(tmp_path / "o.tif", image)))
    assert "give --optical-nodata 0" in scene.warnings[0]


@pytest.mark.parametrize(
    ("names", "expected"), [(("VH", "VV"), [2, 1]), (("Sigma0_VV_db", "Sigma0_VH_db"), [1, 2]), (("a", "b"), [1, 2])]
)
def test_polarisations_are_found_by_name(tmp_path, names, expected):
    scene, window = opened(contract(), sar=write_sar(tmp_path, names=names))
    assert scene.facts["sar"]["bands"] == expected
    np.testing.assert_array_equal(window.sar, values_in("db")[..., [band - 1 for band in expected]])


def test_too_many_too_few_and_other_polarisations(tmp_path):
    four = values_in("db", 4)
    path = write_sar(tmp_path, sar=four)
    with pytest.raises(UserError, match=r"sar.tif' has 4 bands, the model was trained on 2 \(VV, VH\); choose with"):
        opened(contract(), sar=path)
    scene, _ = opened(contract(), sar=path, sar_bands=(3, 1))
    assert scene.facts["sar"]["bands"] == [3, 1]
    path = write_sar(tmp_path, sar=four, names=("HH", "VH", "HV", "VV"))
    assert opened(contract(), sar=path)[0].facts["sar"]["bands"] == [4, 2]
    assert "one value only (0, 0)" in refusal(contract(), sar=write_sar(tmp_path, sar=np.zeros_like(four[..., :2])))
    path = write_sar(tmp_path, sar=four, names=("HH", "VH", "HV", "VV"))
    with pytest.raises(UserError, match=r"--sar-bands names 3 bands of .*sar.tif', the model reads 2 \(VV, VH\)"):
        opened(contract(), sar=path, sar_bands=(1, 2, 3))
    with pytest.raises(UserError, match=r"sar.tif' has 4 bands, no band 7"):
        opened(contract(), sar=path, sar_bands=(1, 7))
    scene, window = opened(contract(), sar=write_sar(tmp_path, sar=four[..., :1]))
    assert "gives one polarisation" in scene.warnings[0]
    np.testing.assert_array_equal(window.sar[..., 0], window.sar[..., 1])
    scene, _ = opened(contract(), sar=write_sar(tmp_path, sar=four[..., 2:], names=("HH", "HV")))
    assert "gives HH, HV, the model was trained on VV, VH" in scene.warnings[0]
    grey = write_sar(tmp_path, sar=values_in("amplitude8", 1).astype(np.uint8))
    scene, window = opened(contract(DN), sar=grey)
    assert window.sar.shape == (*SHAPE, 3) and not scene.warnings


def test_optical_ranges_that_show_nothing(tmp_path):
    rng = np.random.default_rng(0)

    def write(array):
        return str(write_raster(tmp_path / "optical.tif", array))

    eight_bits = write(rng.integers(0, 255, (*SHAPE, 3)).astype(np.uint16))
    sentence = refusal(contract(), optical=eight_bits)
    assert "0 as black and 3000 as white" in sentence and "--optical-range, for example 0 255" in sentence
    wide = write(rng.integers(5000, 65535, (*SHAPE, 3)).astype(np.uint16))
    assert "almost all white; give --optical-range, for example 0 65535" in refusal(contract(), optical=wide)
    reflectance = write(rng.uniform(0.01, 0.25, (*SHAPE, 3)).astype(np.float32))
    sentence = refusal(contract(), optical=reflectance, optical_range=(0.0, 255.0))
    assert "for example 0 0.3" in sentence
    scene, _ = opened(contract(), optical=reflectance, optical_range=(0.0, 0.3))
    assert not scene.warnings
    nothing = write(np.full((*SHAPE, 3), 255, np.uint8))
    assert "holds one value only (255, 255, 255) wherever" in refusal(contract(), optical=nothing)
    overcast = write(rng.integers(4000, 9000, (*SHAPE, 3)).astype(np.uint16))
    scene, _ = opened(contract(), optical=overcast)
    assert "as thick cloud is" in scene.warnings[0]


def write_scaled(folder, kind, values, scale, offset):
    path = write_raster(folder / f"{kind}.tif", values)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,) * file.count, (offset,) * file.count
    return str(path)


def test_declared_scales_are_applied_said_and_checked(tmp_path):
    numbers = np.random.default_rng(0).integers(1000, 4000, (*SHAPE, 3), dtype=np.uint16)
    optical = write_scaled(tmp_path, "optical", numbers, 1e-4, -0.1)
    sar_db = values_in("db")
    sar = write_scaled(tmp_path, "sar", np.rint(100 * sar_db).astype(np.int16), 0.01, 0.0)
    scene, window = opened(contract(), optical=optical, sar=sar)
    np.testing.assert_allclose(window.optical, (numbers * 1e-4 - 0.1) / 0.3 * 255, atol=0.01)
    np.testing.assert_allclose(window.sar, sar_db, atol=0.006)
    assert scene.warnings == [
        f"optical raster '{optical}' declares scale 0.0001 and offset -0.1, which are applied; of the values after "
        "that 0 is black and 0.3 white, unless --optical-range differs",
        f"SAR raster '{sar}' declares scale 0.01 and offset 0, which are applied before its values are read as db",
    ]
    assert scene.facts["sar"]["scale"] == [0.01, 0.01] and scene.facts["optical"]["offset"] == [-0.1] * 3
    sentence = refusal(contract(), optical=optical, optical_range=(0.0, 3000.0))
    assert "almost black" in sentence and "for example 0 0.3" in sentence
    power = write_scaled(tmp_path, "power", numbers[..., :2], 1e-5, 0.0)
    assert "(0.01 to 0.03999, half of them below 0.02491) look like linear power" in refusal(contract(), sar=power)


def test_zeros_that_a_scale_moves_are_still_zeros(tmp_path):
    numbers = np.random.default_rng(0).integers(1000, 4000, (*SHAPE, 3), dtype=np.uint16)
    numbers[:40] = 0
    scene, _ = opened(contract(), optical=write_scaled(tmp_path, "optical", numbers, 1e-4, -0.1))
    assert any("are 0 in all bands and not declared as no data" in sentence for sentence in scene.warnings)
    scene, window = opened(contract(), optical=scene.inputs.optical, optical_nodata=0.0)
    assert not window.optical_valid[:40].any() and window.optical_valid[40:].all()


def test_without_a_contract_values_are_taken_as_they_come(tmp_path):
    scene, window = opened(None, sar=write_sar(tmp_path, "linear"), sar_unit="linear")
    np.testing.assert_allclose(window.sar, values_in("db"), atol=1e-4)
    numbers = values_in("amplitude8").astype(np.uint8)
    scene, _ = opened(None, sar=write_sar(tmp_path, sar=numbers))
    assert scene.facts["sar"]["unit"] == "amplitude8"


def test_the_check_reads_samples_only(tmp_path, monkeypatch):
    power = np.broadcast_to(db_to_linear(np.random.default_rng(0).normal(-15, 4, (2000, 1, 2))), (2000, 2000, 2))
    path = write_raster(tmp_path / "big.tif", power)
    pixels, read = [], Raster.read

    def counted(self, bands, *, every_band, window=None):
        pixels.append(window.width * window.height)
        return read(self, bands, every_band=every_band, window=window)

    monkeypatch.setattr(Raster, "read", counted)
    with pytest.raises(UserError, match="linear power"):
        ScenePair(SceneInputs(sar=str(path)), contract=contract()).__enter__()
    assert 0 < sum(pixels) < 2000 * 2000 / 10
