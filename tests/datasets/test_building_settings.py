"""The configs of SpaceNet 6 and DFC2023, shrunk: two steps on a prepared tree, evaluated, with SAR in its range."""

import json

import pytest

from mmovseg.checkpoint.load import read_metadata
from mmovseg.config import instantiate, load_config
from mmovseg.data.datasets import catalog, get_dataset
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.cli import train_main
from mmovseg.testing.settings import write_small_run
from mmovseg.testing.trees import write_tree


@pytest.fixture
def prepared(request, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    write_tree(request.param, tmp_path / "sets", count=2, size=64)
    return request.param


@pytest.mark.parametrize(
    "prepared",
    ["spacenet6", "dfc2023", pytest.param("dfc2023_building", marks=pytest.mark.slow)],
    indirect=True,
)
def test_two_steps_and_an_evaluation(prepared, tmp_path):
    done = train_main(["--config-file", str(write_small_run(tmp_path / "job", f"mmovseg/{prepared}_vitb16.py"))])
    assert done["iteration"] == 2 and 0 < done["losses"]["loss_sem_seg"] < 10
    (path,) = (tmp_path / f"job/run/eval/{prepared}_val").glob("*/result.json")
    result = json.loads(path.read_text())
    assert [entry["name"] for entry in result["per_class"]] == get_vocabulary(prepared).names
    assert result["provenance"]["images"] == 2
    contract = json.loads(read_metadata(done["checkpoint"])["input_contract"])["sar"]
    assert contract["unit"] == "db" and len(contract["bands"]) == (2 if prepared == "spacenet6" else 1)


@pytest.mark.parametrize("prepared", ["spacenet6", "dfc2023"], indirect=True)
def test_sar_is_normalised_to_numbers_near_zero(prepared):
    config = load_config(f"mmovseg/{prepared}_vitb16.py")
    item = instantiate(config.dataloader.test.mapper)(get_dataset(f"{prepared}_val")[0])
    shown = instantiate(config.model.sar_norm)(item["sar"][None])[0]
    there = shown[:, item["sar_valid"]] if "sar_valid" in item else shown.flatten(1)
    assert (there.mean(dim=1).abs() < 2).all() and there.isfinite().all()
