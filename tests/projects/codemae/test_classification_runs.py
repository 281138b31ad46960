"""Probes and fine-tuning through the real command: last and best, other shots for other seeds, resuming, real chips."""

import json
from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint import read_state
from mmovseg.config import apply_overrides, get_config, instantiate, load_config, save_config
from mmovseg.config.loading import config_folders
from mmovseg.data.statistics import compute_statistics, read_statistics
from mmovseg.engine.cli import train_main
from mmovseg.engine.table_trainings import Trainings
from mmovseg.engine.tables import fill_table, read_table
from mmovseg.engine.train_loop import Trainer
from mmovseg.projects.codemae.data.copies import copy_groups

PROBE = "projects/CoDeMAE/configs/linear_probe_miniearth_xs.py"
TABLE = "projects/CoDeMAE/configs/tables/few_shot_miniearth.json"
SMALL = (
    "dataloader.train.dataset.dataset.num_scenes=30", "dataloader.test.dataset.num_scenes=12",
    "dataloader.train.dataset.shots=2", "train.max_iter=4", "train.eval_period=2", "train.device=cpu",
    "train.tensorboard=false", "model.encoder.depths=[1,1,1]",
)  # fmt: skip


def table_file():
    return config_folders()[0].parent / TABLE


def classification(done):
    (tasks,) = done["results"].values()
    return tasks["classification"]


def test_a_probe_of_both_sensors_trains_and_its_best_is_found_again_later(tmp_path):
    argv = ["--config-file", PROBE, *SMALL, "model.sensor=both", f"train.output_dir={tmp_path}"]
    trained = classification(train_main(argv))
    assert trained["micro AP best"] >= trained["micro AP"] and trained["last iteration"] == 4
    checkpoint = tmp_path / "model_final.safetensors"
    later = classification(train_main([*argv, "--eval-only", f"train.init_checkpoint={checkpoint}"]))
    assert later == trained
    report = json.loads((tmp_path / "eval/miniearth_test/classification/result.json").read_text())
    assert len(report["per_class"]) == 7 and report["provenance"]["images"] == 12
    assert [entry["iteration"] for entry in report["history"]] == [2, 4]


def shots_of(config_file, seed, *overrides):
    config = apply_overrides(load_config(config_file), [*SMALL, f"train.seed={seed}", *overrides])
    return [item["image_id"] for item in instantiate(config.dataloader.train.dataset)]


@pytest.mark.parametrize("protocol", ["release", "balanced"])
def test_the_seed_of_a_run_chooses_the_shots(protocol):
    draws = [shots_of(PROBE, seed, f"dataloader.train.dataset.protocol={protocol}") for seed in (0, 1, 0)]
    assert draws[0] == draws[2] and set(draws[0]) != set(draws[1])


def test_the_table_has_five_seeds_that_are_five_draws():
    table = read_table(table_file())
    assert table["seeds"] == [0, 1, 2, 3, 4] and {"micro AP", "micro AP best"} <= set(table["metrics"])
    run = next(run for run in table["runs"] if run["name"] == "random_sar")
    trainings = Trainings(table, "output", start=train_main)
    assert len({trainings.training_sha256(run, seed) for seed in table["seeds"]}) == 5
    settings = trainings.settings(run, 3)
    assert settings.index("train.eval_period=-1") < settings.index("train.eval_period=5")  # the later one wins
    assert "train.seed=3" in settings


@pytest.mark.slow
def test_a_table_of_probes_writes_last_and_best_of_every_draw(tmp_path):
    table = read_table(table_file())
    overrides = [value for value in SMALL if not value.startswith(("train.eval_period", "train.tensorboard"))]
    rows = fill_table(
        table,
        tmp_path / "rows.csv",
        tmp_path / "runs",
        overrides=[*overrides, "train.eval_period=2"],
        only=["random_sar"],
        seeds=[0, 1],
    )
    assert [(row["seed"], row["modality"]) for row in rows] == [("0", "sar"), ("1", "sar")]
    assert all(float(row["micro AP best"]) >= float(row["micro AP"]) for row in rows)
    assert rows[0]["micro AP"] != rows[1]["micro AP"]


def write_finetune(folder, **model):
    """Write a small fine-tuning on MiniEarth chips with everything random switched on."""
    config = get_config("projects/CoDeMAE/configs/finetune_miniearth_targets_xs.py")
    config.model.encoder.depths, config.model.encoder.drop_path = [1, 1, 2], 0.3
    config.model.update(model)
    for part in (config.dataloader.train.dataset, config.dataloader.test):
        part.dataset.num = 12
    config.dataloader.train.dataset.shots = 3
    config.dataloader.train.batch_size = 4
    config.train.update(max_iter=4, eval_period=-1, device="cpu", tensorboard=False, output_dir=str(folder / "run"))
    config.train.log_period, config.train.checkpoint.period = 1, 2
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.yaml")
    return str(folder / "config.yaml")


@pytest.mark.slow
def test_a_resumed_fine_tuning_equals_an_unbroken_one_with_all_its_randomness(tmp_path, monkeypatch):
    mixing = {"_target_": "mmovseg.projects.codemae.modeling.classifier.Mixing"}
    options = {"mixing": mixing, "label_smoothing": 0.1, "erase_prob": 0.5, "batch_norm": True}
    whole, broken = (write_finetune(tmp_path / name, **options) for name in ("whole", "broken"))
    train_main(["--config-file", whole])
    step = Trainer.run_step

    def killed(trainer):
        if trainer.iter == 3:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train_main(["--config-file", broken])
    train_main(["--config-file", broken, "--resume"])
    states = [read_state(tmp_path / name / "run" / "model_final.safetensors")[0] for name in ("whole", "broken")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "classes", "test"), [("mstar", 10, 300), ("sar_acd", 6, 300)])
def test_real_chips_load_and_step(realdata, tmp_path, monkeypatch, name, classes, test):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(realdata))
    config = get_config(f"projects/CoDeMAE/configs/finetune_{name}_xs.py")
    dataset, tested = (instantiate(config.dataloader[part].dataset) for part in ("train", "test"))
    assert len(dataset) == 40 * classes and len(tested) == test
    paths = [{item["sar_file_name"] for item in part} for part in (dataset, tested)]
    assert not paths[0] & paths[1]
    assert [sum(item["label"] == label for item in dataset) for label in range(classes)] == [40] * classes
    mapper = instantiate(config.dataloader.train.mapper)
    model = instantiate(config.model).train()
    batch = [mapper({**item, "_draw": 0}) for item in dataset[:4]]
    assert batch[0]["sar"].shape == (2, 64, 64) and len(model.classes) == classes
    images = model._images(batch)["sar"]
    assert torch.equal(images[:, 0], images[:, 1]) and abs(float(images.mean())) < 1.5
    loss = model(batch)["loss_classification"]
    loss.backward()
    assert torch.isfinite(loss) and all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mstar", "sar_acd"])
def test_no_real_chip_is_tested_on_whose_copy_was_learned_from(realdata, monkeypatch, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(realdata))
    config = get_config(f"projects/CoDeMAE/configs/finetune_{name}_xs.py")
    train, test = (
        instantiate(node) for node in (config.dataloader.train.dataset.dataset, config.dataloader.test.dataset)
    )
    learned = tuple(Path(item["sar_file_name"]) for item in train)
    groups = copy_groups((*learned, *(Path(item["sar_file_name"]) for item in test)), 0.98)
    assert not set(groups[: len(learned)]) & set(groups[len(learned) :])


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mstar", "sar_acd"])
def test_the_shipped_statistics_are_those_of_real_chips(realdata, monkeypatch, name):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(realdata))
    config = get_config(f"projects/CoDeMAE/configs/finetune_{name}_xs.py")
    dataset, reader = instantiate(config.dataloader.train.dataset), instantiate(config.dataloader.train.mapper.reader)
    found = compute_statistics(dataset, reader, default_source=name, max_samples=60)[name].sar
    shipped = read_statistics("sar_chips")[name].sar
    assert (found.unit, len(found.bands)) == (shipped.unit, len(shipped.bands)) == ("db", 2)
    assert found.mean == pytest.approx(shipped.mean, abs=1.5) and found.std == pytest.approx(shipped.std, rel=0.1)


@pytest.mark.realdata
def test_real_sentinel_2_tiles_load_and_step(realdata, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(realdata))
    config = get_config("projects/CoDeMAE/configs/linear_probe_eurosat_ms_b.py")
    assert instantiate(config.dataloader.evaluator).classes == ["AnnualCrop", "Pasture", "SeaLake"]
    config.dataloader.test.dataset.part = "all"  # one tile of each class can not be split
    dataset = instantiate(config.dataloader.test.dataset)
    config.dataloader.test.mapper.geometry[0].size = 64
    mapper = instantiate(config.dataloader.test.mapper)
    batch = [mapper(item) for item in dataset]
    assert [int(item["label"]) for item in batch] == [0, 1, 2] and batch[0]["image"].shape == (3, 64, 64)
    means = [item["image"].float().mean(dim=(1, 2)) for item in batch]
    assert float(means[2][0]) < float(means[0][0])  # a lake is darker in red than a field
