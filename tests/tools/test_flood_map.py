"""tools/flood_map.py: products of two dates, of one, of a flood model; hectares; refusals; real rasters."""

import json

import flood_map
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmovseg.checkpoint.save import save_weights
from mmovseg.config import instantiate, load_config, save_config
from mmovseg.inference.flood import DRY, FLOODED, NO_DATA, PERMANENT_WATER, WATER_UNDATED
from mmovseg.inference.predictor import Predictor
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.models import write_random_xs
from mmovseg.testing.realdata import realdata_root

PROMPTS = "water, forest"
GRID = Affine(10, 0, 600000, 0, -10, 5700000)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_random_xs(tmp_path_factory.mktemp("xs"))


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("rasters"), np.random.default_rng(0)
    paths = {}
    for date in ("before", "after"):
        optical = np.kron(rng.integers(1, 255, (5, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        sar = np.kron(rng.normal(-15, 5, (5, 6, 2)), np.ones((8, 8, 1))).astype(np.float32)
        if date == "after":
            optical[:8], sar[:8] = 0, np.nan  # neither sensor has data there
        paths[f"optical_{date}"] = write_raster(folder / f"optical_{date}.tif", optical, nodata=0)
        paths[f"sar_{date}"] = write_raster(folder / f"sar_{date}.tif", sar)
    paths["elsewhere"] = write_raster(folder / "elsewhere.tif", sar, transform=Affine(10, 0, 600040, 0, -10, 5700000))
    power = rng.uniform(0.01, 0.3, (40, 48, 2))
    paths["power"] = write_raster(folder / "power.tif", power.astype(np.float32))
    paths["complex"] = write_raster(folder / "slc.tif", np.sqrt(power).astype(np.complex64))
    paths["bright"] = write_raster(folder / "bright.tif", rng.integers(15000, 55000, (40, 48, 3), dtype=np.uint16))
    paths["nowhere"] = write_raster(folder / "nowhere.tif", sar, crs=None)
    return paths


@pytest.fixture
def run(files, rasters, tmp_path, capsys):
    """Run the tool; returns (exit status, stdout, stderr); names in arguments are replaced by their rasters."""

    def run_it(*arguments, model=files, output="flood.tif"):
        status, words = 0, [str(rasters.get(word, word)) for word in arguments]
        options = ["--config-file", str(model[0]), "--weights", str(model[1]), "--output", str(tmp_path / output)]
        try:
            flood_map.main([*options, *words, "--device", "cpu"])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run_it


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def test_two_dates_give_what_the_maps_of_water_say(run, files, rasters, tmp_path):
    both = ("--optical-before", "optical_before", "--sar-before", "sar_before")
    status, out, _ = run(*both, "--optical-after", "optical_after", "--sar-after", "sar_after", "--prompts", PROMPTS)
    assert status == 0 and "hectares" in out
    product = read(tmp_path / "flood.tif")
    predictor = Predictor(*files, device="cpu")
    water = {}
    for date in ("before", "after"):
        with rasterio.open(rasters[f"optical_{date}"]) as optical, rasterio.open(rasters[f"sar_{date}"]) as sar:
            image = optical.read().transpose(1, 2, 0).astype(np.float32)
            image[(image == 0).all(axis=2)] = np.nan
            water[date] = predictor(image, sar.read().transpose(1, 2, 0), PROMPTS).argmax(dim=0).numpy() == 0
    assert (product[:8] == NO_DATA).all()
    expected = np.select(
        [water["after"] & water["before"], water["after"] & ~water["before"]], [PERMANENT_WATER, FLOODED], DRY
    )
    np.testing.assert_array_equal(product[8:], expected[8:])
    report = json.loads((tmp_path / "flood.json").read_text())
    for value, name in ((DRY, "dry"), (FLOODED, "flooded"), (NO_DATA, "no data")):
        assert report["classes"][name]["hectares"] == pytest.approx(0.01 * (product == value).sum())
    assert report["water"] == ["water"] and len(report["weights_sha256"]) == 64
    assert (tmp_path / "flood.png").is_file() and (tmp_path / "flood.csv").is_file()


def test_one_date_alone_maps_water_of_unknown_past(run, tmp_path):
    status, *_ = run("--sar-after", "sar_after", "--prompts", PROMPTS)
    assert status == 0
    product = read(tmp_path / "flood.tif")
    assert set(np.unique(product)) <= {DRY, WATER_UNDATED, NO_DATA} and (product[:8] == NO_DATA).all()


@pytest.fixture(scope="module")
def flood_model(tmp_path_factory):
    """A flood model of both dates with random weights."""
    folder, config = tmp_path_factory.mktemp("ombria"), load_config("ombria/ombria_xs.py")
    config.model.clip.weights = config.model.optical_encoder.weights = config.model.sar_encoder.weights = None
    config.model.sar_norm.mean, config.model.sar_norm.std = (100.0,) * 2, (50.0,) * 2
    save_config(config, folder / "config.yaml")
    save_weights(instantiate(config.model), folder / "model.safetensors")
    return folder / "config.yaml", folder / "model.safetensors"


def test_a_flood_model_reads_both_dates_at_once(run, rasters, tmp_path, flood_model):
    one = ("--optical-after", "optical_after", "--optical-before", "optical_before", "--method", "direct")
    sar = ("--sar-after", "sar_after", "--sar-before", "sar_before", "--sar-bands", "1")
    status, *_ = run(*one, *sar, model=flood_model)
    assert status == 0
    product = read(tmp_path / "flood.tif")
    assert set(np.unique(product[8:])) <= {DRY, FLOODED} and (product[:8] == NO_DATA).all()
    status, _, err = run("--optical-after", "optical_after", "--method", "direct", model=flood_model)
    assert status == 2 and "reads 6 optical bands, both dates; give --optical-before" in err


@pytest.mark.parametrize(("option", "name"), [("--sar-after", "flood.tif"), ("--optical-before", "flood.png")])
def test_an_input_is_not_written_over(run, tmp_path, option, name):
    dates = {"--sar-after": np.full((8, 8, 2), -9.5, np.float32), "--optical-before": np.ones((8, 8, 3), np.uint8)}
    paths = {"--sar-after": tmp_path / "sar.tif", "--optical-before": tmp_path / "optical.tif", option: tmp_path / name}
    for each, array in dates.items():
        write_raster(paths[each], array, crs="EPSG:32631", transform=GRID)
    before = paths[option].read_bytes()
    given = [word for pair in paths.items() for word in pair]
    status, _, err = run(*given, model=("gone.yaml", "gone.safetensors"))
    assert status == 2 and f"'{tmp_path / name}' is an input and would be written over" in err
    assert paths[option].read_bytes() == before and not (tmp_path / "flood.json").exists()


def test_a_place_without_areas_is_told_before_the_model_is_loaded(run):
    status, _, err = run("--sar-after", "nowhere", "--prompts", PROMPTS, model=("missing.yaml", "missing.safetensors"))
    assert status == 2 and "has no coordinate reference system" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sar-before", "sar_before"), "there is no image of the date after the event"),
        (("--sar-after", "sar_after", "--optical-before", "elsewhere"), "do not lie on one grid (4.00 pixels apart)"),
        (("--sar-after", "nowhere", "--prompts", PROMPTS), "has no coordinate reference system"),
        (("--sar-after", "sar_after", "--prompts", "forest, road"), "must hold one that is water"),
        (("--sar-after", "sar_after", "--prompts", PROMPTS, "--water", "sea"), "--water names 'sea'"),
        (("--sar-after", "power", "--prompts", PROMPTS), "look like linear power; give --sar-unit linear"),
        (("--sar-after", "complex", "--prompts", PROMPTS), "look like linear power; give --sar-unit linear"),
        (
            ("--optical-after", "optical_after", "--sar-before", "power", "--prompts", PROMPTS),
            "power.tif' is read as db, but",
        ),
        (("--optical-after", "bright", "--prompts", PROMPTS), "would be almost all white; give --optical-range"),
        (("--sar-after", "sar_after", "--max-size", "0"), "--max-size) must be at least 1, got 0"),
        (("--sar-after", "no_file.tif"), "'no_file.tif' does not exist"),
    ],
)
def test_bad_input_is_told_in_one_sentence(run, arguments, sentence):
    status, _, err = run(*arguments)
    assert status == 2 and sentence in err and err.count("\n") == 1


@pytest.mark.realdata
@pytest.mark.skipif(
    realdata_root() is None or not (realdata_root() / "sen1floods11").is_dir(), reason="no Sen1Floods11 chip here"
)
def test_a_real_chip_is_mapped_in_place(tmp_path):
    folder = realdata_root() / "sen1floods11"
    (optical,), (sar,) = folder.rglob("*S2Hand*.tif"), folder.rglob("*S1Hand*.tif")
    report = flood_map.main(
        ["--config-file", "miniearth/mmovseg_xs.py", "--weights", "shipped://mmovseg_xs", "--max-size", "128"]
        + ["--optical-after", str(optical), "--optical-bands", "4", "3", "2", "--sar-after", str(sar)]
        + ["--output", str(tmp_path / "flood.tif"), "--device", "cpu"]
    )
    with rasterio.open(tmp_path / "flood.tif") as product, rasterio.open(sar) as source:
        assert (product.crs, product.transform, product.shape) == (source.crs, source.transform, source.shape)
    total = sum(row["hectares"] for row in report["classes"].values())
    assert 2000 < total < 3000  # 512 x 512 pixels of about 10 m, on the ellipsoid
