"""The six settings and the released models, shrunk, from files on disk to metrics, through the commands themselves."""

from __future__ import annotations

import json
import logging
import resource
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint.convert import convert_checkpoint
from mmovseg.checkpoint.load import read_metadata, read_state
from mmovseg.checkpoint.save import save_weights
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.config import load_config
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.cli import train_main
from mmovseg.errors import UserError
from mmovseg.testing.checkpoints import fake_state
from mmovseg.testing.settings import small_released_table, write_small_run
from mmovseg.testing.trees import write_tree

SETTINGS = {  # name -> data sets to train and to test on
    "pie_cloud": ("pie_cloud", "pie_cloud"),
    "ddhr_sk": ("ddhr_sk", "ddhr_sk"),
    "oem_thick": ("oem_thick", "oem_thick"),
    "oem_thin": ("oem_thin", "oem_thin"),
    "pie_clean": ("pie_clean", "pie_clean"),
    "ddhr_sk_to_ch": ("ddhr_sk", "ddhr_ch"),
}
ROOT = Path(__file__).parents[1]
SIZE = {"vitb16": "mmovseg_vitb16", "vitl14": "mmovseg_vitl14"}


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    root = tmp_path / "data"
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    return root


def write_sets(root, names, layout, *, count=2, size=64):
    for name in dict.fromkeys(names):
        write_tree(name, root, layout=layout, count=count, size=size)


def train_and_test(config):
    done = train_main(["--config-file", str(config)])
    (result,) = config.parent.glob("run/eval/*/*/result.json")
    return done, json.loads(result.read_text())


@pytest.mark.parametrize(
    ("setting", "size", "layout"), [("pie_cloud", "vitb16", "own"), ("ddhr_sk_to_ch", "vitl14", "release")]
)
def test_a_setting_trains_and_evaluates(setting, size, layout, data_root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_sets(data_root, SETTINGS[setting], layout)
    done, report = train_and_test(write_small_run(tmp_path / "job", f"mmovseg/{setting}_{size}.py"))
    check_run(setting, done, report, size)
    assert f"(layout '{'own' if layout == 'own' else 'MM-OVSeg release'}')" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("size", list(SIZE))
@pytest.mark.parametrize("layout", ["own", "release"])
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_every_setting_of_every_size_trains_and_evaluates(setting, layout, size, data_root, tmp_path):
    write_sets(data_root, SETTINGS[setting], layout)
    done, report = train_and_test(write_small_run(tmp_path / "job", f"mmovseg/{setting}_{size}.py"))
    check_run(setting, done, report, size)


def check_run(setting, done, report, size):
    test = SETTINGS[setting][1]
    vocabulary = get_vocabulary(test if test.startswith("ddhr") else test.split("_")[0])
    assert done["iteration"] == 2 and 0 < done["losses"]["loss_sem_seg"] < 10
    assert report["dataset"] == f"{test}_val" and report["provenance"]["images"] == 2
    assert [row["name"] for row in report["per_class"]] == vocabulary.names
    assert report["mIoU-unseen"] is not None
    contract = json.loads(read_metadata(done["checkpoint"])["input_contract"])
    assert contract["sar"]["unit"] == "amplitude8" and len(contract["sar"]["bands"]) == 3
    config = load_config(f"mmovseg/{setting}_{size}.py")
    assert done["checkpoint"].endswith("run/model_final.safetensors") and config.train.max_iter == 120_000


@pytest.mark.slow
def test_the_release_layout_gives_the_labels_of_the_own_one(data_root, tmp_path):
    """Training labels of the release number the seen classes alone; both layouts must mean the same."""
    losses = []
    for layout in ("own", "release"):
        write_tree("ddhr_sk", data_root, layout=layout, count=2, size=64)
        done, _ = train_and_test(write_small_run(tmp_path / layout, "mmovseg/ddhr_sk_vitb16.py"))
        losses.append(done["losses"]["loss_sem_seg"])
        for folder in data_root.iterdir():
            folder.rename(tmp_path / f"gone_{folder.name}")
    assert losses[0] == losses[1]


@pytest.mark.parametrize("size", ["vitb16", pytest.param("vitl14", marks=pytest.mark.slow)])
def test_a_released_model_trains_and_evaluates(size, data_root, tmp_path):
    write_sets(data_root, ["pie_cloud"], "release")
    done, report = train_and_test(write_small_run(tmp_path / "job", f"mmovseg/released_{size}.py"))
    assert done["iteration"] == 2 and 0 < done["losses"]["loss_sem_seg"] < 10
    assert [row["name"] for row in report["per_class"]] == get_vocabulary("pie", "released").names


def convert_small(size, folder, monkeypatch):
    """Convert an authors' file of the small released model with the command's own function."""
    table = small_released_table(size)
    monkeypatch.setitem(SOURCES, SIZE[size], lambda: (table,))
    torch.save({"model": fake_state(table, seed=3), "iteration": 79_999}, folder / "modelPIE.pth")
    convert_checkpoint(folder / "modelPIE.pth", folder / "modelPIE.safetensors", source=SIZE[size])
    return folder / "modelPIE.safetensors"


@pytest.mark.parametrize("size", [pytest.param("vitb16", marks=pytest.mark.slow), "vitl14"])
def test_a_converted_checkpoint_is_evaluated_by_the_released_config(size, data_root, tmp_path, monkeypatch):
    write_sets(data_root, ["pie_cloud"], "release")
    config = write_small_run(tmp_path / "job", f"mmovseg/released_{size}.py")
    checkpoint = convert_small(size, tmp_path, monkeypatch)
    command = ["--config-file", str(config), "--eval-only", f"train.init_checkpoint={checkpoint}"]
    (results,) = train_main(command)["results"].values()
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
    (file,) = config.parent.glob("run/eval/pie_cloud_val/both-released/result.json")
    facts = json.loads(file.read_text())["provenance"]
    assert facts["images"] == 2 and facts["checkpoint_sha256"]


@pytest.mark.slow
def test_a_checkpoint_with_a_tensor_renamed_stops_the_evaluation(data_root, tmp_path, monkeypatch):
    write_sets(data_root, ["pie_cloud"], "release")
    config = write_small_run(tmp_path / "job", "mmovseg/released_vitb16.py")
    state, _ = read_state(convert_small("vitb16", tmp_path, monkeypatch))
    state["head.decoder.0.up.kernel"] = state.pop("head.decoder.0.up.weight")
    save_weights(state, tmp_path / "renamed.safetensors")
    with pytest.raises(UserError, match=r"head\.decoder\.0\.up\.weight"):
        train_main(
            ["--config-file", str(config), "--eval-only", f"train.init_checkpoint={tmp_path}/renamed.safetensors"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["own", "release"])
def test_the_tables_run_through_the_command(layout, data_root, tmp_path, monkeypatch, capsys):
    """Both tables, every run with its config shrunk: train and evaluate, and evaluate converted checkpoints."""
    write_sets(data_root, [name for names in SETTINGS.values() for name in names], layout)
    for name in ("table1", "table1_released"):
        table = json.loads((ROOT / "configs" / "tables" / f"{name}.json").read_text())
        for run in table["runs"]:
            run["config"] = str(write_small_run(tmp_path / "configs" / name / run["name"], run["config"]))
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    (tmp_path / "B16").mkdir()
    convert_small("vitb16", tmp_path, monkeypatch).rename(tmp_path / "B16" / "modelPIE.safetensors")
    (tmp_path / "B16" / "modelDDCH.safetensors").symlink_to(tmp_path / "B16" / "modelPIE.safetensors")

    def run(name, *options):
        paths = ["--results", str(tmp_path / f"{name}.csv"), "--output", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", ["run_table.py", str(tmp_path / f"{name}.json"), *paths, *options])
        runpy.run_path(str(ROOT / "tools" / "run_table.py"), run_name="__main__")
        return (tmp_path / name / "table.md").read_text().splitlines()

    lines = run("table1", "--runs", *(f"{setting}_vitb16" for setting in SETTINGS))
    rows = [line for line in lines if line.startswith("| ") and "ViT-B/16" in line]
    assert len(rows) == 7 and not any("not run" in line for line in rows)
    assert all("not run" in line for line in lines if "ViT-L/14" in line and "|" in line)
    assert not (tmp_path / "table1" / "ddhr_sk_to_ch_vitb16-seed0" / "model_final.safetensors").exists()
    before = (tmp_path / "table1.csv").read_text()
    capsys.readouterr()
    run("table1", "--runs", *(f"{setting}_vitb16" for setting in SETTINGS))
    assert (tmp_path / "table1.csv").read_text() == before and "] iter " not in capsys.readouterr().out
    lines = run("table1_released", "--checkpoints", str(tmp_path))
    measured = [line for line in lines if line.startswith("| ") and "->" in line and "not run" not in line]
    assert [line.split(" |")[0] for line in measured] == [
        "| PIE-cloud -> PIE-cloud, ViT-B/16", "| DDHR-SK -> DDHR-CH, ViT-B/16"
    ]  # fmt: skip
    assert "modelDDSK.safetensors' does not exist" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("size", list(SIZE))
def test_a_full_size_released_model_is_converted_and_evaluated(size, data_root, tmp_path, capsys):
    """Random weights under the authors' names; the command line that a user with their file would type."""
    write_tree("pie_cloud", data_root, layout="release", count=1, size=256)
    (table,) = SOURCES[SIZE[size]]()
    torch.save({"model": fake_state(table), "iteration": 79_999}, tmp_path / "model.pth")
    started = time.perf_counter()
    convert_checkpoint(tmp_path / "model.pth", tmp_path / "model.safetensors", source=SIZE[size])
    converted = time.perf_counter()
    (tmp_path / "model.pth").unlink()
    done = train_main(
        [
            *("--config-file", f"configs/mmovseg/released_{size}.py", "--eval-only"),
            *(f"train.init_checkpoint={tmp_path / 'model.safetensors'}", "train.device=cpu"),
            f"train.output_dir={tmp_path / 'run'}",
        ]
    )
    (file,) = (tmp_path / "run").glob("eval/pie_cloud_val/both-released/result.json")
    report = json.loads(file.read_text())
    assert report["provenance"]["images"] == 1 and report["mIoU"] is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    with capsys.disabled():
        print(
            f"\nreleased_{size}: converted in {converted - started:.0f} s, built, loaded and evaluated on one pair in "
            f"{done['seconds']:.0f} s, peak memory of the process {peak:.1f} GiB"
        )
