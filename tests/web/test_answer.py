"""From a question to a map: MiniEarth scenes and uploads, with the model that ships."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmovseg.data.miniearth import load_miniearth, render
from mmovseg.data.miniearth.export import write_scene
from mmovseg.errors import UserError
from mmovseg.inference.predictor import Predictor
from mmovseg.testing.fakes import write_raster
from mmovseg.web.answer import MAP_NAME, MAX_CLASSES, MapMaker, UploadedPair
from mmovseg.web.samples import Gallery
from mmovseg.web.uploads import UploadLimits

CLASSES = "bareland, rangeland, farmland, forest, city, road, water"


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    predictor = Predictor("miniearth/mmovseg_xs.py", "shipped://mmovseg_xs", "cpu")
    limits = UploadLimits(max_bytes=1_000_000, max_pixels=30_000)
    folder = tmp_path_factory.mktemp("page")
    return MapMaker(predictor, folder=folder, limits=limits, gallery=Gallery(count=2, size=64))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    world = load_miniearth("test", num_scenes=3, size=64)[2]["world"]
    scene = render(world["domain"], world["row"], world["col"], 64, 96, seed=0)
    optical, sar, label = (folder / f"{name}.tif" for name in ("my optical", "my sar", "label"))
    write_scene(scene, optical, sar, label)
    return optical, sar, scene


def test_a_scene_is_mapped_with_its_place_colours_and_names(maker):
    answer = maker.map_sample(0, 30, CLASSES, "both")
    sample = maker.gallery.sample(0, 30)
    for view in (answer.optical, answer.sar, answer.overlay, answer.prediction):
        assert view.shape == (512, 512, 3) and view.dtype == np.uint8
    np.testing.assert_array_equal(answer.optical[::8, ::8], sample.optical)
    with rasterio.open(answer.map_path) as file:
        labels = file.read(1)
        assert (file.crs, file.transform, file.nodata) == (sample.grid.crs, sample.grid.transform, 255)
        colors = file.colormap(1)
        assert file.tags(1)["CLASS_6"] == "water"
    assert (labels == sample.label).mean() > 0.6
    assert [share.pixels for share in answer.shares] == np.bincount(labels.ravel(), minlength=7).tolist()
    assert sum(share.hectares for share in answer.shares) == pytest.approx(64 * 64 * 2.5**2 / 1e4)
    assert sum(share.truth for share in answer.shares) == pytest.approx(1)
    painted = {tuple(color) for color in answer.prediction.reshape(-1, 3)}
    assert painted == {colors[value][:3] for value in np.unique(labels)}
    assert "clouds hide 30 %" in answer.facts and "EPSG:32632" in answer.facts and "both images" in answer.facts


@pytest.mark.parametrize("modality", ["both", "sar"])
def test_a_scene_larger_than_in_training_is_mapped_as_an_uploaded_one(maker, tmp_path, monkeypatch, modality):
    monkeypatch.setattr(maker, "gallery", Gallery(count=1, size=160))
    sample = maker.gallery.sample(0, 0)
    optical = write_raster(tmp_path / "a.tif", sample.optical, crs=sample.grid.crs, transform=sample.grid.transform)
    sar = write_raster(tmp_path / "b.tif", sample.sar, crs=sample.grid.crs, transform=sample.grid.transform)
    found = maker.map_sample(0, 0, CLASSES, modality)
    expected = maker.map_upload(UploadedPair(str(optical), str(sar)), CLASSES, modality)
    with rasterio.open(found.map_path) as one, rasterio.open(expected.map_path) as other:
        np.testing.assert_array_equal(one.read(1), other.read(1))
        assert (one.read(1) == sample.label).mean() > (0.7 if modality == "both" else 0.5)


def test_names_cloud_and_modality_change_the_map(maker):
    def labels(*question):
        with rasterio.open(maker.map_sample(1, *question).map_path) as file:
            return file.read(1)

    clear, clouded = labels(0, CLASSES, "optical"), labels(90, CLASSES, "optical")
    assert (clear != clouded).mean() > 0.1
    np.testing.assert_array_equal(labels(0, CLASSES, "sar"), labels(90, CLASSES, "sar"))  # SAR sees through clouds
    assert (labels(0, CLASSES, "both") != labels(0, CLASSES, "sar")).any()
    assert labels(0, "water, forest", "both").max() <= 1
    assert maker.map_sample(1, 0, " water ,\n the  forest,", "both").vocabulary.names == ["water", "the forest"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("", "the list of classes has no class names"),
        (" , ", "the list of classes has no class names"),
        ("water", "'water' alone would win everywhere"),
        ("water,, road", "the list of classes has an empty class name at position 2 of 3"),
        ("water, Water", "the list of classes names the class 'water' more than once"),
        (", ".join(f"c{i}" for i in range(MAX_CLASSES + 1)), f"there are {MAX_CLASSES + 1} class names"),
        ("x" * 3000, "the class names have 3000 letters"),
    ],
)
def test_class_names_that_cannot_be_asked_for_are_refused(maker, names, sentence):
    with pytest.raises(UserError) as caught:
        maker.map_sample(0, 0, names, "both")
    assert str(caught.value).startswith(sentence)


def test_the_page_asks_for_classes_by_the_rule_of_scenes(maker, monkeypatch):
    def refuse(predictor, prompts):
        assert predictor is maker.predictor
        raise UserError(f"vocabulary '--prompts' is refused: {prompts}")

    monkeypatch.setattr("mmovseg.web.answer.check_prompts", refuse)
    with pytest.raises(UserError, match=r"^the list of classes is refused: \['water', 'road'\]$"):
        maker.ask_for("water,\nroad,")


def test_an_uploaded_pair_is_mapped_on_its_grid(maker, pair):
    optical, sar, scene = pair
    answer = maker.map_upload(UploadedPair(str(optical), str(sar)), CLASSES, "both")
    with rasterio.open(optical) as before, rasterio.open(answer.map_path) as after:
        labels = after.read(1)
        assert (after.crs, after.transform, after.shape) == (before.crs, before.transform, before.shape)
        assert after.nodata == 255 and after.tags(1)["CLASS_0"] == "bareland" and after.colormap(1)[6][3] == 255
    assert (labels == scene.label).mean() > 0.6
    assert answer.optical.shape == answer.sar.shape == answer.prediction.shape == (320, 480, 3)
    np.testing.assert_array_equal(answer.optical[::5, ::5], scene.optical)
    assert sum(share.pixels for share in answer.shares) == labels.size and answer.shares[0].truth is None
    assert answer.shares[0].hectares == pytest.approx(answer.shares[0].pixels * 2.5**2 / 1e4)
    assert sorted(path.name for path in maker.folder.iterdir() if path.name.startswith("upload-")) == []


def test_one_raster_is_enough(maker, pair):
    optical, sar, _ = pair
    answer = maker.map_upload(UploadedPair(sar=str(sar)), CLASSES, "both")
    assert answer.optical is None and answer.sar is not None and "the SAR image only" in answer.facts
    answer = maker.map_upload(UploadedPair(str(optical)), CLASSES, "optical")
    assert answer.sar is None and answer.optical is not None and "the optical image only" in answer.facts


def test_rasters_on_different_grids_are_mapped(maker, pair, tmp_path):
    optical, _, scene = pair
    with rasterio.open(optical) as source:
        place = source.transform
        transform = Affine(2 * place.a, 0.0, place.c, 0.0, 2 * place.e, place.f)
    power = 10 ** (scene.sar / 10)
    coarse = power.reshape(32, 2, 48, 2, 2).mean(axis=(1, 3)).astype(np.float32)
    sar = write_raster(tmp_path / "coarse.tif", coarse, crs="EPSG:32632", transform=transform)
    asked = UploadedPair(str(optical), str(sar), sar_unit="linear", override_contract=True)
    answer = maker.map_upload(asked, CLASSES, "both")
    with rasterio.open(answer.map_path) as file:
        assert file.shape == (64, 96) and (file.read(1) == scene.label).mean() > 0.5


def test_png_without_a_place_has_no_hectares(maker, pair, tmp_path):
    image = write_raster(tmp_path / "a.png", pair[2].optical)
    answer = maker.map_upload(UploadedPair(str(image)), CLASSES, "both")
    assert all(share.hectares is None for share in answer.shares) and "no coordinate system" in answer.facts
    sar = write_raster(tmp_path / "b.tif", pair[2].sar, crs=None, transform=None)
    both = maker.map_upload(UploadedPair(str(image), str(sar)), CLASSES, "both")
    assert "Note: " in both.facts and "a.png" in both.facts and str(maker.folder) not in both.facts


def test_uploads_that_do_not_fit_are_refused_in_words_of_the_page(maker, pair, tmp_path):
    optical, sar, scene = pair

    def refusal(modality="both", **given):
        with pytest.raises(UserError) as caught:
            maker.map_upload(UploadedPair(**given), CLASSES, modality)
        assert not [path for path in maker.folder.rglob("*") if path.name.startswith("upload-")]
        sentence = str(caught.value)
        assert str(maker.folder) not in sentence and "--" not in sentence
        return sentence

    assert refusal() == "there is no raster yet; upload an optical one, a SAR one, or both"
    only = refusal("sar", optical=str(optical))
    assert only == "the model shall see SAR only, but no such raster is uploaded"
    text = tmp_path / "notes.tif"
    text.write_text("hello")
    assert "the SAR file 'notes.tif' is no GeoTIFF, PNG or JPEG" in refusal(optical=str(optical), sar=str(text))
    floats = write_raster(tmp_path / "floats.tif", scene.optical.astype(np.float32) / 1000)
    assert "floats.tif" in refusal(optical=str(floats))
    large = write_raster(tmp_path / "large.png", np.zeros((200, 200, 3), np.uint8))
    assert "has 200 x 200 = 0.0 million pixels; this page takes 0.03 million" in refusal(optical=str(large))
    away = write_raster(tmp_path / "away.tif", scene.sar, crs="EPSG:32755")
    assert "away.tif" in refusal(optical=str(optical), sar=str(away))


def test_maps_lie_in_folders_of_their_own(maker):
    paths = {maker.map_sample(0, 0, "water, road", "both").map_path for _ in range(2)}
    assert len(paths) == 2 and all(path.name == MAP_NAME and path.is_relative_to(maker.folder) for path in paths)
