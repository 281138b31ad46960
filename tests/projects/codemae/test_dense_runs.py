"""Segmentation and change through the real command, shrunk to seconds; real change scenes where they are."""

import json

import numpy as np
import predict_scene
import pytest
import rasterio
import torch
from PIL import Image

from mmovseg.config import instantiate, load_config, save_config
from mmovseg.config.loading import config_folders
from mmovseg.data.miniearth.damage import load_miniearth_damage, render_damage
from mmovseg.data.miniearth.export import write_scene
from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.engine.cli import train_main
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.errors import UserError
from mmovseg.inference.predictor import Predictor
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.realdata import realdata_root

CONFIGS = "projects/CoDeMAE/configs"
ENCODER = {"stem_dim": 8, "depths": [1, 1, 1], "num_heads": 2, "pyramid_dim": 8}


def tiny(folder, name, *, scenes=True):
    """Write a shipped config with a small encoder, random weights, CPU and two steps; output goes to ``run``."""
    config = load_config(f"{CONFIGS}/{name}.py")
    forget_foundation_weights(config.model)
    config.model.encoder.update(ENCODER)
    config.model.head.update(channels=8, norm="group")
    if config.model.get("auxiliary"):
        config.model.auxiliary.update(channels=8, norm="group")
    for loader in (config.dataloader.train, config.dataloader.test):
        loader.batch_size, loader.num_workers = 2, 0
        if scenes:
            loader.dataset.num_scenes = 4
    config.train.max_iter, config.train.log_period = 2, 1
    config.train.device, config.train.tensorboard = "cpu", False
    config.train.amp.enabled = False
    config.train.output_dir = str(folder / "run")
    save_config(config, folder / "config.yaml")
    return folder / "config.yaml"


def run(config, *arguments):
    return train_main(["--config-file", str(config), *arguments])


def own_configs():
    root = config_folders()[0].parent
    names = sorted(file.stem for file in (root / CONFIGS).glob("*.py"))
    return [name for name in names if name.startswith(("upernet_", "damage_", "change_"))]


@pytest.mark.parametrize("name", own_configs())
def test_every_config_builds_its_model_and_optimiser(name):
    config = load_config(f"{CONFIGS}/{name}.py")
    forget_foundation_weights(config.model)
    config.model.encoder.update(ENCODER)
    config.model.head.channels = 16
    # said by each, so that the command line can change it
    large = {"damage_bright_b": "batch", "upernet_ddhr_sk_b": "sync", "upernet_loveda_b": "sync"}
    assert config.model.head.norm == large.get(name, "group")
    model = instantiate(config.model)
    optimizer = instantiate({**{key: config.optimizer[key] for key in config.optimizer}, "model": model})
    rates = {group["lr"] for group in optimizer.param_groups}
    assert max(rates) == config.optimizer.base_lr and len(rates) > 3  # layers decay
    assert instantiate(config.lr_multiplier)(0.5) == pytest.approx(0.5)
    assert {"train", "test", "evaluator"} <= set(config.dataloader)
    owners = (config.dataloader.train.mapper, config.dataloader.test.mapper, config.dataloader.evaluator)
    assert all(instantiate(owner.vocabulary) == model.vocabulary for owner in owners)


@pytest.mark.parametrize("name", ["upernet_miniearth_xs", "upernet_miniearth_xs_sar"])
def test_upernet_runs_on_miniearth(tmp_path, name):
    result = run(tiny(tmp_path, name))
    assert {"loss_sem_seg", "loss_auxiliary"} <= set(result["losses"])
    assert 0 <= result["results"]["miniearth_test"]["sem_seg"]["mIoU"] <= 100


def test_damage_runs_on_miniearth(tmp_path):
    config = tiny(tmp_path, "damage_miniearth_xs")
    result = run(config)
    metrics = result["results"]["miniearth_damage_test"]["sem_seg"]
    assert {"mIoU", "F1-building", "F1-damage", "F1-overall"} <= set(metrics)
    assert len(result["losses"]) == 5
    (file,) = tmp_path.rglob("result.json")
    report = json.loads(file.read_text())
    assert report["provenance"]["images"] == 4 and (file.parent / "pictures.png").is_file()
    again = run(config, "--eval-only", f"train.init_checkpoint={tmp_path}/run/model_final.safetensors")
    assert again["results"]["miniearth_damage_test"]["sem_seg"]["mIoU"] == pytest.approx(metrics["mIoU"])


@pytest.mark.slow
def test_two_processes_log_the_loss_of_one_with_the_whole_batch(tmp_path):
    weights = "+model.loss_weights={lovasz_damage: 0.0, lovasz_building: 0.0}"
    losses = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        config = tiny(folder, "damage_miniearth_xs")
        run(config, weights, "train.eval_period=-1", "--num-gpus", str(count))
        lines = (folder / "run/metrics.json").read_text().splitlines()
        losses.append([json.loads(line)["total_loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and len(losses[0]) == 2


@pytest.mark.slow
def test_bright_and_loveda_run_from_their_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "BRIGHT").mkdir(exist_ok=True)
        (tmp_path / f"BRIGHT/{split}_set.txt").write_text(f"quake_{split}\n")
        name, size = f"quake_{split}", (48, 64)
        write_raster(tmp_path / f"BRIGHT/pre-event/{name}_pre_disaster.tif", rng.integers(1, 255, (*size, 3), np.uint8))
        write_raster(tmp_path / f"BRIGHT/post-event/{name}_post_disaster.tif", rng.integers(1, 255, size, np.uint8))
        write_raster(tmp_path / f"BRIGHT/target/{name}_building_damage.tif", rng.integers(0, 4, size, np.uint8))
    folder = tmp_path / "bright"
    folder.mkdir()
    config = tiny(folder, "damage_bright_b", scenes=False)
    small = ("model.window=32", "model.window_stride=16", "dataloader.train.mapper.geometry.1.size=32")
    result = run(config, *small, "dataloader.train.mapper.geometry.2.size=32")
    assert "F1-damage" in result["results"]["bright_test"]["sem_seg"]
    report = json.loads(next(folder.rglob("result.json")).read_text())
    assert [row["event"] for row in report["by_event"]] == ["quake"]

    for number, split in enumerate(("Train", "Val", "Test")):
        for area in ("Urban", "Rural"):
            place, stem = tmp_path / "LoveDA" / split / area, f"{number}{area[0]}"
            write_raster(place / f"images_png/{stem}.png", rng.integers(0, 255, (64, 64, 3), np.uint8))
            if split != "Test":
                write_raster(place / f"masks_png/{stem}.png", rng.integers(0, 8, (64, 64), np.uint8))
    folder = tmp_path / "loveda"
    folder.mkdir()
    config = tiny(folder, "upernet_loveda_b", scenes=False)
    sizes = [f"dataloader.train.mapper.geometry.{key}=32" for key in ("0.base_px", "1.size", "2.size")]
    result = run(config, *small[:2], *sizes)
    assert result["results"]["loveda_test"]["maps"]["written"] == 2
    for stem in ("2U", "2R"):
        with Image.open(folder / f"run/maps/loveda_test/{stem}.png") as image:
            assert image.size == (64, 64) and np.asarray(image).max() <= 6


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("change_hetero_xs", 0.05),
        ("change_yellow_river_xs", 0.06),
        ("change_yellow_b_xs", 0.03),
        ("change_yellow_c_xs", 0.07),
    ],
)
def test_real_change_scenes_run(tmp_path, name, share):
    root = realdata_root()
    if root is None:
        pytest.skip("no folder of real samples (MMOVSEG_REALDATA, default ../shared/data)")
    config = tiny(tmp_path, name, scenes=False)
    data = [f"dataloader.{part}.dataset.root={root}" for part in ("train", "test")]
    result = run(config, *data, "train.max_iter=1")
    (metrics,) = (tasks["sem_seg"] for tasks in result["results"].values())
    assert {"F1-changed", "precision-changed", "recall-changed"} & set(metrics) and "kappa" in metrics
    (file,) = tmp_path.rglob("result.json")
    rows = json.loads(file.read_text())["per_class"]
    changed = rows[1]["pixels"] / (rows[0]["pixels"] + rows[1]["pixels"])
    assert 0 < changed < share and (file.parent / "pictures.png").is_file()


@pytest.mark.slow
def test_a_change_model_maps_a_scene_from_two_rasters(tmp_path):
    config = tiny(tmp_path, "damage_miniearth_xs")
    run(config, "train.eval_period=-1")
    world = load_miniearth_damage("val", num_scenes=1, size=96)[0]["world"]
    scene = render_damage(world["domain"], world["row"], world["col"], 96, 96)
    write_scene(scene, *(tmp_path / f"{name}.tif" for name in ("before", "after", "label")))
    predictor = Predictor(config, tmp_path / "run/model_final.safetensors", "cpu")
    everything = predictor(scene.optical, scene.sar, closed_vocabulary("building_damage").names)
    assert torch.equal(predictor(scene.optical, scene.sar, "destroyed, background"), everything[[3, 0]])
    with pytest.raises(UserError, match="the later date"):
        predictor(scene.optical, None, "background, intact")
    words = ["--optical", "before.tif", "--sar", "after.tif", "--output", "map.tif"]
    paths = [str(tmp_path / word) if word.endswith(".tif") else word for word in words]
    weights = [
        "--weights",
        str(tmp_path / "run/model_final.safetensors"),
        "--config-file",
        str(config),
        "--device",
        "cpu",
    ]
    predict_scene.main([*paths, *weights, "--prompts", "background, intact, damaged, destroyed", "--quiet"])
    with rasterio.open(tmp_path / "map.tif") as raster:
        assert raster.shape == (96, 96) and raster.crs is not None and raster.read(1).max() <= 3
