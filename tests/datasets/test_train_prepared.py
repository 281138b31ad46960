"""SpaceNet 6 and DFC2023 as prepared: a small model trains two steps on them and is evaluated."""

import json

import pytest

from mmovseg.config import LazyCall, load_config, save_config
from mmovseg.data.datasets import catalog, choose_sets, get_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.transforms import RandomCrop
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.cli import train_main
from mmovseg.testing.models import write_tiny_run
from mmovseg.testing.trees import write_tree

READERS = {
    "spacenet6": {"sar_polarisations_in": ("HH", "HV", "VH", "VV"), "sar_polarisations": ("VV", "VH")},
    "dfc2023": {"sar_channels": 2},
    "dfc2023_building": {"sar_channels": 2},
}


@pytest.mark.parametrize("name", ["spacenet6", "dfc2023", pytest.param("dfc2023_building", marks=pytest.mark.slow)])
def test_two_steps_and_an_evaluation(tmp_path, monkeypatch, name):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(write_tree(name, tmp_path / "sets", count=4, size=64)))
    config = load_config(write_tiny_run(tmp_path))
    for part in (config.dataloader.train, config.dataloader.test):
        part.dataset = LazyCall(get_dataset)(name="set below")
        part.mapper.reader = LazyCall(FileReader)(**READERS[name])
        part.mapper.clouds = None
    config.dataloader.train.mapper.geometry = [LazyCall(RandomCrop)(size=32)]
    choose_sets(config.dataloader, train=name, test=name)
    save_config(config, tmp_path / "config.yaml")
    trained = train_main(["--config-file", str(tmp_path / "config.yaml")])
    assert trained["iteration"] == 2 and 0 < trained["losses"]["total_loss"] < 20
    (path,) = (tmp_path / "run/eval" / f"{name}_val").glob("*/result.json")
    result = json.loads(path.read_text())
    assert [entry["name"] for entry in result["per_class"]] == get_vocabulary(name).names
    assert 0 <= result["mIoU"] <= 100 and result["provenance"]["images"] == 4
