"""Every data set from its public download to a result: prepare, check, load, train two steps, evaluate."""

import importlib
import json

import pytest

from mmovseg.config import LazyCall, load_config, save_config
from mmovseg.data.datasets import catalog, choose_sets, get_dataset
from mmovseg.data.datasets.check import inspect_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.transforms import RandomCrop
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.cli import train_main
from mmovseg.testing.models import write_tiny_run
from mmovseg.testing.trees import write_tree

_8_BIT = {"sar_unit_in": "amplitude8", "sar_channels": 2}
_QUAD = {"sar_polarisations_in": ("HH", "HV", "VH", "VV"), "sar_polarisations": ("VV", "VH")}
SETS = {
    # name: (train on, script, its options, options of the reader)
    "ombria": ("ombria", "prepare_ombria", (), _8_BIT),
    "pie_cloud": ("pie_cloud", "prepare_pie", (), _8_BIT),
    "pie_clean": ("pie_clean", "prepare_pie", (), _8_BIT),
    "ddhr_sk": ("ddhr_sk", "prepare_ddhr", (), _8_BIT),
    "ddhr_ch": ("ddhr_sk", "prepare_ddhr", (), _8_BIT),
    "oem_thick": ("oem_thick", "prepare_oem", (), _8_BIT),
    "oem_thin": ("oem_thin", "prepare_oem", (), _8_BIT),
    "spacenet6": ("spacenet6", "prepare_spacenet6", (), _QUAD),
    "dfc2023": ("dfc2023", "prepare_dfc2023", (), {"sar_channels": 2}),
    "dfc2023_building": ("dfc2023_building", "prepare_dfc2023", ("--labels", "building"), {"sar_channels": 2}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "ddhr_ch" else pytest.mark.slow) for name in SETS]
)
def test_from_the_public_download_to_a_result(tmp_path, monkeypatch, name):
    trained_on, script, options, reader = SETS[name]
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "sets"))
    for needed in dict.fromkeys((trained_on, name)):
        write_tree(needed, tmp_path / "download", layout="public", count=4, size=64)
    importlib.import_module(script).main(["--source", str(tmp_path / "download"), *options])
    for needed in dict.fromkeys((trained_on, name)):
        assert inspect_dataset(needed).faults == []
    config = load_config(write_tiny_run(tmp_path))
    for part in (config.dataloader.train, config.dataloader.test):
        part.dataset = LazyCall(get_dataset)(name="set below", **({"dates": "after"} if name == "ombria" else {}))
        part.mapper.reader = LazyCall(FileReader)(**reader)
        part.mapper.clouds = None
    config.dataloader.train.mapper.geometry = [LazyCall(RandomCrop)(size=32)]
    test_split = "test" if name == "ombria" else "val"
    choose_sets(config.dataloader, train=trained_on, test=name, test_split=test_split)
    save_config(config, tmp_path / "config.yaml")
    trained = train_main(["--config-file", str(tmp_path / "config.yaml")])
    assert trained["iteration"] == 2 and 0 < trained["losses"]["total_loss"] < 20
    (path,) = (tmp_path / "run/eval" / f"{name}_{test_split}").glob("*/result.json")
    result = json.loads(path.read_text())
    vocabulary = get_vocabulary(catalog.dataset_entry(name).vocabulary)
    assert [entry["name"] for entry in result["per_class"]] == vocabulary.names
    assert 0 <= result["mIoU"] <= 100
    assert result["provenance"]["images"] == len(get_dataset(f"{name}_{test_split}")) >= 1


def test_every_data_set_with_files_is_covered():
    with_files = {entry.name for entry in catalog.TABLE if entry.layouts}
    assert with_files == set(SETS)
