import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from omegaconf import OmegaConf
from PIL import Image
from rasterio.shutil import copy
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from torch import nn

from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.inference.scene import memory, run
from mmovseg.inference.scene.layers import BOTH, NEITHER, ONLY_OPTICAL, ONLY_SAR
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.parts import PartStore
from mmovseg.inference.scene.plan import make_plan
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair
from mmovseg.inference.scene.run import predict_scene
from mmovseg.inference.scene.stream import SceneStream
from mmovseg.inference.scene.windows import WindowModel
from mmovseg.testing.fakes import write_raster

NAMES = ["water", "road", "forest"]
RADIUS = 3
GRID = Affine(2.5, 0, 600_000, 0, -2.5, 5_700_000)
QUIET = dict(show_progress=False)


class LocalModel(nn.Module):
    """Scores that depend on the pixels within `RADIUS` only: two convolutions over whatever modality there is."""

    input_contract = None
    modality = "both"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.optical = nn.Conv2d(3, 8, 3, padding=1)
        self.sar = nn.Conv2d(2, 8, 3, padding=1)
        self.out = nn.Conv2d(8, len(NAMES), 5, padding=2)
        self.calls = []

    def forward(self, items):
        self.calls.append([sorted(set(item) & {"image", "sar"}) for item in items])
        answers = []
        for item in items:
            features = 0
            if "image" in item:
                features = features + self.optical(item["image"].float() * item["valid"] / 255)
            if "sar" in item:
                features = features + self.sar(torch.nan_to_num(item["sar"]) * item["sar_valid"] / 10)
            scores = self.out(torch.relu(features)[None])[0]
            answers.append({"sem_seg": scores[: len(item["vocabulary"])] if "vocabulary" in item else scores})
        return answers


@pytest.fixture
def predictor(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    model = LocalModel().eval()
    return SimpleNamespace(
        model=model,
        name="local",
        checkpoint=weights,
        contract=None,
        ask_for=lambda prompts: vocabulary_from_names(prompts, source="--prompts"),
    )


def _smooth(rng, height, width, bands, scale):
    coarse = rng.normal(size=(height // 8 + 2, width // 8 + 2, bands))
    return np.kron(coarse, np.ones((8, 8, 1)))[:height, :width] * scale


def write_pair(folder, height=150, width=131, *, seed=0, transform=GRID, window=None, holes=False):
    """Write optical and SAR on one grid, or a window (row, column, height, width) of them."""
    rng = np.random.default_rng(seed)
    optical = np.clip(120 + _smooth(rng, height, width, 3, 40) + rng.normal(0, 9, (height, width, 3)), 1, 255)
    sar = (-12 + _smooth(rng, height, width, 2, 3) + rng.normal(0, 1, (height, width, 2))).astype(np.float32)
    optical = optical.astype(np.uint8)
    if holes:
        sar[:40, :50] = np.nan
        optical[-30:, -60:] = 0
        sar[-10:, -20:] = np.nan
    if window is not None:
        row, column, height, width = window
        place = slice(row, row + height), slice(column, column + width)
        optical, sar = optical[place], sar[place]
        transform = Affine(
            transform.a, 0, transform.c + column * transform.a, 0, transform.e, transform.f + row * transform.e
        )
    folder.mkdir(exist_ok=True, parents=True)
    nodata = {"nodata": 0} if holes else {}
    write_raster(folder / "optical.tif", optical, transform=transform, photometric="rgb", **nodata)
    write_raster(folder / "sar.tif", sar, transform=transform)
    return SceneInputs(optical=str(folder / "optical.tif"), sar=str(folder / "sar.tif"), sar_unit="db"), optical, sar


def options(**changes):
    return SceneOptions(**(dict(tile=32, overlap=0.5, margin=4, batch=3, **QUIET) | changes))


def read(path):
    with rasterio.open(path) as source:
        return source.read()


def scores_of(predictor, inputs, settings):
    with ScenePair(inputs, contract=None) as pair:
        plan = make_plan(pair.grid, contract=None, num_classes=len(NAMES), options=settings)
        model = WindowModel(predictor, predictor.ask_for(NAMES))
        stream = SceneStream(pair, plan, model, [])
        rows = [found.scores.clone() for found in stream.rows(0, plan.grid.height)]
    return torch.cat(rows, dim=1), plan


def whole_scores(predictor, optical, sar):
    item = {
        "image": torch.from_numpy(optical.transpose(2, 0, 1).copy()),
        "sar": torch.from_numpy(sar.transpose(2, 0, 1).copy()),
    }
    item |= {"valid": torch.ones(optical.shape[:2], dtype=torch.bool), "sar_valid": torch.isfinite(item["sar"]).all(0)}
    with torch.no_grad():
        return predictor.model([item])[0]["sem_seg"]


@pytest.mark.parametrize("settings", [dict(), dict(anchor="scene"), dict(tile=48, overlap=0.25, margin=3, batch=1)])
def test_tiled_equals_whole_for_a_model_that_looks_no_farther_than_the_margin(tmp_path, predictor, settings):
    inputs, optical, sar = write_pair(tmp_path)
    expected = whole_scores(predictor, optical, sar)
    scores, plan = scores_of(predictor, inputs, options(**settings))
    assert plan.tiling.num_windows > 10 and plan.margin >= RADIUS
    assert torch.allclose(scores, expected, atol=1e-4)  # everywhere: the edge of the scene is the same edge
    assert torch.equal(scores.argmax(0), expected.argmax(0))


def test_a_scene_that_fits_one_window_is_not_cut(tmp_path, predictor):
    inputs, optical, sar = write_pair(tmp_path, 60, 50)
    scores, plan = scores_of(predictor, inputs, options(tile=64))
    assert plan.tiling.num_windows == 1
    assert torch.equal(scores, whole_scores(predictor, optical, sar))


def test_the_map_and_its_files(tmp_path, predictor):
    inputs, optical, sar = write_pair(tmp_path)
    output = tmp_path / "maps" / "map.tif"
    settings = options(confidence=True, probabilities=True, quality=True)
    report = predict_scene(predictor, inputs, NAMES, output, options=settings)
    expected = whole_scores(predictor, optical, sar)
    with rasterio.open(output) as source, rasterio.open(inputs.optical) as reference:
        assert (source.crs, source.transform, source.shape) == (reference.crs, reference.transform, reference.shape)
        assert source.nodata == 255 and source.tags(1)["CLASS_1"] == "road" and source.colormap(1)[0]
        assert source.tags()["PROMPTS"] == "water, road, forest" and source.tags()["CONTRACT"] == "met"
        assert np.array_equal(source.read(1), expected.argmax(0).numpy())
    probability = expected.softmax(0).numpy()
    assert np.abs(read(output.with_name("map.probabilities.tif")) * 0.004 - probability).max() < 0.0021
    assert np.abs(read(output.with_name("map.confidence.tif"))[0] * 0.004 - probability.max(0)).max() < 0.0021
    assert (read(output.with_name("map.quality.tif")) == BOTH).all()
    assert sum(row["pixels"] for row in report["classes"].values()) == 150 * 131
    assert report["classes"]["road"]["hectares"] == pytest.approx(
        report["classes"]["road"]["pixels"] * 6.25e-4, abs=1e-4
    )
    assert json.loads(output.with_suffix(".json").read_text())["classes"] == report["classes"]
    assert not (tmp_path / "maps" / "map.tif.parts").exists()


def test_nodata_quality_and_the_branch_of_the_sensor_that_is_left(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path, holes=True)
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options(quality=True))
    quality, labels = read(tmp_path / "map.quality.tif")[0], read(tmp_path / "map.tif")[0]
    assert (quality[:40, :50] == ONLY_OPTICAL).all()
    assert (quality[-30:-10, -60:] == ONLY_SAR).all()
    assert (quality[-10:, -20:] == NEITHER).all()
    assert (quality == BOTH).sum() == 150 * 131 - 40 * 50 - 30 * 60
    assert np.array_equal(labels == 255, quality == NEITHER)
    kinds = {tuple(kind) for call in predictor.model.calls for kind in call}
    assert kinds == {("image", "sar"), ("image",)}  # a window without any SAR is asked as optical alone
    assert all(len({tuple(kind) for kind in call}) == 1 for call in predictor.model.calls)


def test_clouds_are_marked_and_can_be_withheld(tmp_path, predictor):
    inputs, optical, sar = write_pair(tmp_path)
    mask = np.zeros((150, 131), np.uint8)
    mask[50:90, 30:100] = 1
    write_raster(tmp_path / "clouds.tif", mask, transform=GRID)
    clouded = SceneInputs(
        optical=inputs.optical, sar=inputs.sar, sar_unit="db", cloud_mask=str(tmp_path / "clouds.tif")
    )
    kept = predict_scene(predictor, clouded, NAMES, tmp_path / "kept.tif", options=options())
    predict_scene(predictor, clouded, NAMES, tmp_path / "withheld.tif", options=options(clouds="withhold"))
    assert any(path.endswith("kept.quality.tif") for path in kept["files"])
    for name in ("kept", "withheld"):
        assert np.array_equal(read(tmp_path / f"{name}.quality.tif")[0] == ONLY_SAR, mask == 1)
    assert np.array_equal(read(tmp_path / "kept.tif")[0], whole_scores(predictor, optical, sar).argmax(0).numpy())
    inner = np.s_[50 + RADIUS : 90 - RADIUS, 30 + RADIUS : 100 - RADIUS]
    with torch.no_grad():
        item = {
            "sar": torch.from_numpy(sar.transpose(2, 0, 1).copy()),
            "sar_valid": torch.ones(150, 131, dtype=torch.bool),
        }
        item |= {"image": torch.zeros(3, 150, 131), "valid": torch.zeros(150, 131, dtype=torch.bool)}
        sar_alone = predictor.model([item])[0]["sem_seg"].argmax(0).numpy()
    assert np.array_equal(read(tmp_path / "withheld.tif")[0][inner], sar_alone[inner])


def test_a_run_that_was_stopped_goes_on_to_the_same_file(tmp_path, predictor, monkeypatch):
    inputs, _, _ = write_pair(tmp_path, 700, 90)
    settings = options(confidence=True)
    predict_scene(predictor, inputs, NAMES, tmp_path / "unbroken.tif", options=settings)
    write, count = PartStore.write, itertools.count()

    def stop_at_the_second(self, index, arrays):
        if next(count) == 1:
            raise KeyboardInterrupt
        write(self, index, arrays)

    monkeypatch.setattr(PartStore, "write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=settings)
    assert not (tmp_path / "map.tif").exists() and (tmp_path / "map.tif.parts").is_dir()
    written = []
    monkeypatch.setattr(
        PartStore, "write", lambda self, index, arrays: (written.append(index), write(self, index, arrays))
    )
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=settings)
    assert written and 0 not in written
    for name in (".tif", ".confidence.tif"):
        assert (tmp_path / f"map{name}").read_bytes() == (tmp_path / f"unbroken{name}").read_bytes()


def test_the_interior_does_not_depend_on_how_the_raster_was_cut(tmp_path, predictor):
    whole, _, _ = write_pair(tmp_path / "whole", 260, 240)
    part, _, _ = write_pair(tmp_path / "part", 260, 240, window=(37, 51, 180, 170))
    settings = options(margin=0, overlap=0.25)  # windows that disagree at their seams
    a, _ = scores_of(predictor, whole, settings)
    b, _ = scores_of(predictor, part, settings)
    inner = np.s_[:, 32:-32, 32:-32]
    assert torch.allclose(a[:, 37:217, 51:221][inner], b[inner], atol=1e-5)
    c, _ = scores_of(predictor, part, options(margin=0, overlap=0.25, anchor="scene"))
    assert not torch.allclose(a[:, 37:217, 51:221][inner], c[inner], atol=1e-3)  # and would without the anchor


def test_the_model_sees_the_gsd_it_was_trained_with(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path)
    seen = []
    predictor.model.register_forward_pre_hook(lambda _, args: seen.extend(item["sar"].shape[-2:] for item in args[0]))
    report = predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options(gsd=1.25, tile=64))
    assert set(map(tuple, seen)) == {(64, 64)} and report["plan"]["tile"] == 32
    assert read(tmp_path / "map.tif").shape == (1, 150, 131)
    coarse = predict_scene(predictor, inputs, NAMES, tmp_path / "coarse.tif", options=options(gsd=5.0, tile=32))
    assert coarse["plan"]["tile"] == 64 and tuple(seen[-1]) == (32, 32)


def test_what_is_there_is_not_made_again_or_written_over(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path)
    output = tmp_path / "map.tif"
    first = predict_scene(predictor, inputs, NAMES, output, options=options())
    calls = len(predictor.model.calls)
    again = predict_scene(predictor, inputs, NAMES, output, options=options())
    assert again["classes"] == first["classes"] and len(predictor.model.calls) <= calls + 2  # the estimate
    with pytest.raises(UserError, match="overwrite"):
        predict_scene(predictor, inputs, ["water", "road"], output, options=options())
    predict_scene(predictor, inputs, ["water", "road"], output, options=options(overwrite=True, tile=64))
    assert read(output).max() <= 1


def test_an_edited_config_is_another_model(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path, 60, 50)
    predictor.config = OmegaConf.create({"model": {"temperature": 1.0}, "train": {"seed": 0}})
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options())
    predictor.config.train.seed = 1  # does not change a pixel
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options())
    predictor.config.model.temperature = 2.0
    with pytest.raises(UserError, match="overwrite"):
        predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options())


def test_a_dry_run_writes_nothing(tmp_path, predictor, capsys):
    inputs, _, _ = write_pair(tmp_path)
    report = predict_scene(
        predictor, inputs, NAMES, tmp_path / "m" / "map.tif", options=options(dry_run=True, show_progress=True)
    )
    assert (
        report["plan"]["windows"][0] > 3
        and report["estimate"]["seconds"] > 0
        and report["estimate"]["memory_mib"] > 100
    )
    assert not (tmp_path / "m").exists()
    assert "windows" in capsys.readouterr().out


def test_a_scene_that_does_not_fit_into_memory_is_refused(tmp_path, predictor, monkeypatch, capsys):
    inputs, _, _ = write_pair(tmp_path)
    predict_scene(predictor, inputs, NAMES, tmp_path / "there.tif", options=options())
    (tmp_path / "meminfo").write_text("MemTotal: 999999 kB\nMemAvailable:      10240 kB\n")
    monkeypatch.setattr(memory, "_MEMORY_FILE", tmp_path / "meminfo")
    sentence = r"the map needs about \d+ MiB of memory, and 10 MiB are free; give a smaller --tile, or ask for fewer"
    with pytest.raises(UserError, match=sentence):
        predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options())
    assert not list(tmp_path.glob("map*"))
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options(dry_run=True, show_progress=True))
    assert "note: the map needs about" in capsys.readouterr().out
    predict_scene(predictor, inputs, NAMES, tmp_path / "there.tif", options=options())  # nothing is left to do
    monkeypatch.setattr(memory, "_MEMORY_FILE", tmp_path / "of another system")
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options())


def test_memory_is_that_of_all_processes_and_of_each_gpu():
    need = {"seconds": 9e9, "memory_mib": 300.0, "gpu_mib": 500.0}
    assert memory.describe_shortage(need, {"memory_mib": 700.0, "gpu_mib": 500.0}, processes=2) is None
    assert "in each of 3 processes" in memory.describe_shortage(need, {"memory_mib": 700.0}, processes=3)
    assert "500 MiB of GPU memory, and 499" in memory.describe_shortage(need, {"gpu_mib": 499.0}, processes=1)


def test_one_class_cannot_lose(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path, 40, 40)
    with pytest.raises(UserError, match="'water' alone would win everywhere"):
        predict_scene(predictor, inputs, "water", tmp_path / "map.tif", options=options())
    assert not (tmp_path / "map.tif.parts").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        dict(tile=3),
        dict(overlap=0.7),
        dict(batch=0),
        dict(gsd=float("nan")),
        dict(gsd=0.0),
        dict(margin=-1),
        dict(clouds="x"),
    ]
    + [dict(min_area_m2=-1.0), dict(simplify_m=float("inf")), dict(min_area_m2=3.0), dict(precision="half")],
)
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UserError, match="--"):
        options(**wrong)


def test_the_picture_shows_what_was_read_and_mapped(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path, holes=True)
    settings = options(picture=str(tmp_path / "map.png"), quality=True, confidence=True)
    report = predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=settings)
    assert report["files"][-1].endswith("map.png")
    with Image.open(tmp_path / "map.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    labels = read(tmp_path / "map.tif")[0]
    colors = predictor.ask_for(NAMES).colors
    for value in np.unique(labels[labels != 255]):
        assert (pixels == colors[value]).all(axis=1).sum() > 100
    with pytest.raises(UserError, match="png"):
        predict_scene(predictor, inputs, NAMES, tmp_path / "b.tif", options=options(picture="map.jpg"))
    before = (tmp_path / "map.png").read_bytes()
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=settings)  # its own picture is no obstacle
    assert (tmp_path / "map.png").read_bytes() == before
    with pytest.raises(UserError, match="not the picture of this map"):
        predict_scene(predictor, inputs, ["a", "b"], tmp_path / "b.tif", options=settings)


def test_the_report_is_there_when_the_picture_cannot_be_drawn(tmp_path, predictor, monkeypatch):
    inputs, _, _ = write_pair(tmp_path, 60, 50)

    def draw(*_, **__):
        raise UserError("no picture today")

    monkeypatch.setattr(run, "draw_map", draw)
    with pytest.raises(UserError, match="no picture today"):
        predict_scene(predictor, inputs, NAMES, tmp_path / "m.tif", options=options(picture=str(tmp_path / "m.png")))
    report = json.loads((tmp_path / "m.json").read_text())
    assert report["files"] == [str(tmp_path / "m.tif")] and set(report["classes"]) == set(NAMES)


def test_nothing_is_computed_for_a_map_that_would_write_over_the_source_of_an_input(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path, 60, 50)
    with rasterio.open(inputs.optical) as source, WarpedVRT(source) as view:
        copy(view, tmp_path / "optical.vrt", driver="VRT")
    before = (tmp_path / "optical.tif").read_bytes()
    through = SceneInputs(optical=str(tmp_path / "optical.vrt"), sar=inputs.sar, sar_unit="db")
    with pytest.raises(UserError, match="optical.tif' is an input"):
        predict_scene(predictor, through, NAMES, tmp_path / "optical.tif", options=options(overwrite=True))
    assert (tmp_path / "optical.tif").read_bytes() == before and not predictor.model.calls


def test_a_file_that_is_no_report_is_not_written_over(tmp_path, predictor):
    inputs, _, _ = write_pair(tmp_path, 60, 50)
    (tmp_path / "map.json").write_text('{"type": "FeatureCollection"}')
    with pytest.raises(UserError, match="map.json' is where the report goes"):
        predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options())
    assert not (tmp_path / "map.tif").exists()
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options(overwrite=True))
    predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options())  # its own report is no obstacle


@pytest.mark.parametrize(
    ("precision", "sentence"),
    [("float16", "in float16; use --precision float32"), ("float32", "; its weights may be damaged")],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_give_no_map(predictor, tmp_path, precision, sentence, value):
    inputs, *_ = write_pair(tmp_path / "pair", 60, 50)
    with torch.no_grad():
        predictor.model.out.bias[1] = value
    with pytest.raises(UserError, match=f"'local' gives no numbers.*{sentence}"):
        predict_scene(predictor, inputs, NAMES, tmp_path / "map.tif", options=options(precision=precision))
    assert not (tmp_path / "map.tif").exists()
