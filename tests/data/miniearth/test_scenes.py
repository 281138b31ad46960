"""One large scene on disk: the pixels of the world, window by window, and SAR on a grid of its own."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor

import make_miniearth
import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.miniearth import get_domain, render
from mmovseg.data.miniearth.export import verify_miniearth_folder
from mmovseg.data.miniearth.scenes import _blocks, _Look, _Window, write_miniearth_scene
from mmovseg.data.sar import db_to_linear
from mmovseg.errors import UserError

SIZE = {"height": 530, "width": 600}  # two by two blocks


@pytest.fixture(scope="module")
def clouded(tmp_path_factory):
    root = tmp_path_factory.mktemp("scene") / "world"
    manifest = write_miniearth_scene(root, **SIZE, clouds="varied", cloud_cover=0.5)
    return root, manifest


@pytest.fixture(scope="module")
def warped(tmp_path_factory):
    root = tmp_path_factory.mktemp("scene") / "world"
    grid = {"sar_crs": "EPSG:32633", "sar_gsd_m": 5.0, "sar_shift_m": (250.0, -125.0)}
    manifest = write_miniearth_scene(root, height=200, width=260, domain="clean_sar", **grid)
    return root, manifest


def _read(path):
    with rasterio.open(path) as raster:
        return raster.read(), raster.profile, raster.tags()


def test_a_window_across_blocks_is_that_of_the_world(clouded):
    root, manifest = clouded
    world = manifest["world"]
    top, left, height, width = 490, 480, 40, 60
    scene = render("default", world["row"] + top, world["col"] + left, height, width)
    here = (slice(None), slice(top, top + height), slice(left, left + width))
    assert np.array_equal(_read(root / "sar.tif")[0][here], scene.sar.transpose(2, 0, 1))
    assert np.array_equal(_read(root / "label.tif")[0][here][0], scene.label)
    clouds = CloudSynthesizer(kind="varied", coverage=0.5, seed=0).cover(SIZE["height"], SIZE["width"])
    field = clouds.field(top, left, height, width)
    assert np.array_equal(_read(root / "optical.tif")[0][here], field.apply(scene.optical).transpose(2, 0, 1))
    assert np.array_equal(_read(root / "cloud_mask.tif")[0][here][0], field.alpha > 0.5)


def test_clouds_cover_the_wanted_share(clouded):
    root, manifest = clouded
    mask = _read(root / "cloud_mask.tif")[0]
    assert manifest["cloud_cover"] == pytest.approx(0.5, abs=0.01) == mask.mean()


@pytest.mark.parametrize("size", [(96, 128), (300, 70)])
def test_cover_of_a_small_scene_is_the_field_of_an_image(size):
    synthesizer = CloudSynthesizer(kind="varied", seed=3)
    whole, cover = synthesizer.field(*size, 5), synthesizer.cover(*size, 5)
    window = cover.field(11, 7, 50, 60)
    for name in ("alpha", "color", "shadow"):
        assert np.array_equal(getattr(cover.field(0, 0, *size), name), getattr(whole, name))
        assert np.array_equal(getattr(window, name), getattr(whole, name)[11:61, 7:67])


def test_rasters_are_tiled_and_described(clouded):
    root, _ = clouded
    for name, count in (("optical", 3), ("sar", 2), ("label", 1), ("cloud_mask", 1)):
        _, profile, tags = _read(root / f"{name}.tif")
        assert (profile["tiled"], profile["blockxsize"], profile["count"]) == (True, 512, count)
        assert profile["crs"].to_epsg() == 32632
        if name == "sar":
            assert tags["unit"] == "dB sigma nought" and tags["looks"] == "4"


def test_warped_sar_shows_the_same_ground(warped):
    """Without speckle, power averaged over a SAR pixel is that of the world's pixels below it."""
    root, manifest = warped
    assert manifest["grids"]["sar"]["crs"] == "EPSG:32633" and manifest["grids"]["sar"]["transform"][0] == 5.0
    world = manifest["world"]
    # 250 m east and 125 m south of the optical corner, at 2.5 m a pixel
    scene = render("clean_sar", world["row"] + 50, world["col"] + 100, 200, 260)
    with rasterio.open(root / "optical.tif") as optical, rasterio.open(root / "sar.tif") as sar:
        transform = rasterio.Affine(5.0, 0.0, optical.transform.c + 250.0, 0.0, -5.0, optical.transform.f - 125.0)
        with WarpedVRT(sar, crs=optical.crs, transform=transform, height=100, width=130, resampling=1) as back:
            seen = db_to_linear(back.read(1))
    truth = db_to_linear(scene.sar[..., 0]).reshape(100, 2, 130, 2).mean(axis=(1, 3))
    inside = (slice(3, -3), slice(3, -3))
    assert np.isfinite(seen[inside]).all()
    apart = np.corrcoef(np.log(seen[inside]).ravel(), np.log(truth[inside]).ravel())[0, 1]
    moved = np.corrcoef(np.log(seen[inside]).ravel(), np.log(truth[3:-3, 4:-2]).ravel())[0, 1]
    assert apart > 0.9 > moved
    assert seen[inside].mean() == pytest.approx(truth[inside].mean(), rel=0.02)


def test_warped_sar_holds_nan_where_it_sees_nothing(warped):
    sar, profile, tags = _read(warped[0] / "sar.tif")
    assert np.isnan(profile["nodata"]) and tags["looks"] == "16.0"
    share = np.isnan(sar[0]).mean()
    assert 0.02 < share < 0.4 and np.array_equal(np.isnan(sar[0]), np.isnan(sar[1]))


def test_the_same_command_gives_the_same_bytes(tmp_path, capsys):
    command = ["--scene", "64x90", "--clouds", "thick", "--sar-gsd", "4", "--seed", "3", "--domain", "amplitude8"]
    for name in ("first", "second"):
        make_miniearth.main(["--output", str(tmp_path / name), *command])
    out = capsys.readouterr().out
    assert "optical: 64x90 pixels of 2.5 m, EPSG:32632" in out and "sar: 40x57 pixels of 4 m" in out
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("first", "second"))
    assert first == second and len(first["files"]) == 4
    make_miniearth.main(["--output", str(tmp_path / "second"), "--verify"])
    sar = _read(tmp_path / "first" / "sar.tif")[0]
    values = sar[np.isfinite(sar)]
    assert values.min() >= 0 and values.max() <= 255 and np.array_equal(values, np.rint(values))


def test_workers_give_the_blocks_in_order():
    window = _Window(0, 0, 600, 1100, ("optical", "label", "sar"))
    look = _Look(get_domain("default"), 0, None)
    with ThreadPoolExecutor(2) as pool:
        for alone, together in zip(_blocks(window, look, None), _blocks(window, look, pool), strict=True):
            assert alone.place == together.place
            assert all(np.array_equal(alone.layers[kind], together.layers[kind]) for kind in window.kinds)


@pytest.mark.slow  # starts two processes
def test_two_processes_give_the_same_files(clouded, tmp_path):
    other = write_miniearth_scene(tmp_path / "world", **SIZE, clouds="varied", cloud_cover=0.5, workers=2)
    assert other["files"] == clouded[1]["files"] and verify_miniearth_folder(tmp_path / "world") == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 31}, "at least 32 pixels high and wide, got 31x40"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"sar_gsd_m": 1.0}, "must be 2.5 .. 1000 m wide, got 1.0"),
        ({"sar_shift_m": (1.0, 0.0)}, "whole pixels of 2.5 m, got 1.0 m"),
        ({"sar_crs": "EPSG:1"}, "'EPSG:1' is no coordinate system"),
        ({"sar_crs": "EPSG:4326"}, "coordinate system in metres, got 'EPSG:4326'"),
        ({"sar_gsd_m": 5.0, "domain": "unseen_complex"}, "complex SAR values"),
        ({"cloud_cover": 0.4}, "needs a kind of clouds"),
        ({"clouds": "thick", "cloud_cover": 1.4}, r"within 0\.\.1, got 1\.4"),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        write_miniearth_scene(tmp_path / "world", **({"height": 40, "width": 40} | options))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmovseg.data.miniearth.scenes.describe_label", fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_miniearth_scene(tmp_path / "world", height=40, width=40)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["5000", "0x", "10xten", "-5x5"])
def test_sizes_are_height_x_width(text):
    assert make_miniearth.scene_size("20000x300") == (20000, 300)
    with pytest.raises(argparse.ArgumentTypeError, match="is no size"):
        make_miniearth.scene_size(text)
