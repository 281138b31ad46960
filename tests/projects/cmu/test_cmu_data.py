"""CMU-Data: the mix of all kinds of sources trains, resumes and says what it was; geometry moves pairs as one."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmovseg.checkpoint import read_metadata
from mmovseg.checkpoint.contract import contract_from_dict
from mmovseg.checkpoint.export import export_part
from mmovseg.config import apply_overrides, get_config, instantiate, load_config
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.sample import RawSample
from mmovseg.data.statistics import read_statistics, write_statistics
from mmovseg.engine.cli import train_main
from mmovseg.errors import UserError
from mmovseg.modeling.meta_arch import PatchAligner
from mmovseg.testing.fakes import write_pairs
from mmovseg.testing.trees import write_tree

ROOT = Path(__file__).parents[3]
SIDE_PX = 32
SHRUNK = [
    f"dataloader.train.mapper.geometry.0.size={2 * SIDE_PX}",
    f"dataloader.train.mapper.geometry.6.size={SIDE_PX}",
    f"dataloader.train.mapper.geometry.7.size={SIDE_PX}",
    "dataloader.train.num_workers=0",
]
MIX = """
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.io import FileReader
from mmovseg.engine.run import forget_foundation_weights

_data = get_config("projects/CMU/configs/common/cmu_data.py")
_base = get_config("projects/CMU/configs/cmu_xs.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))
forget_foundation_weights(model)
model.teacher_norm, model.student_norm, model.input_contract = (
    _data[key] for key in ("teacher_norm", "student_norm", "input_contract")
)
dataloader = _data.dataloader
dataloader.train.dataset.sources.append(
    dict(name="mine", folder=dict(optical_dir="mine/optical", sar_dir="mine/sar"))
)
dataloader.train.mapper.reader.readers.mine = L(FileReader)(sar_unit_in="linear")
dataloader.train.batch_size = 4
for _source, _ratio in zip(dataloader.train.dataset.sources, (3, 2, 1, 2)):
    _source.ratio = _ratio
dataloader.train.dataset.sources[2].options = dict(num_scenes=5, size=48)
train.max_iter, train.log_period, train.checkpoint.period = 4, 1, 2
train.device, train.tensorboard, train.output_dir = "cpu", False, "run"
"""
SOURCES = ("spacenet6", "dfc2023", "miniearth", "mine")


def measure(config, output):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", "--config-file", config, "--quiet", "--output", output])
        runpy.run_path(str(ROOT / "tools" / "compute_statistics.py"), run_name="__main__")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Trees of every kind of source, a config that mixes them, and its statistics."""
    folder = tmp_path_factory.mktemp("mix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(folder / "sets"))
        patch.chdir(folder)
        write_tree("spacenet6", folder / "sets", count=3, size=72)
        write_tree("dfc2023", folder / "sets", count=2, size=64)
        write_pairs("mine", count=4, height=40, width=56, sar="tif_linear")
        for label in (folder / "mine" / "label").iterdir():
            label.unlink()
        Path("mix.py").write_text(MIX)
        measure("mix.py", "statistics.json")
    return folder


@pytest.fixture
def folder(trees, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(trees / "sets"))
    monkeypatch.chdir(trees)
    return trees


def train(output, *arguments):
    overrides = [*SHRUNK, "model.student_norm.statistics=statistics.json", f"train.output_dir={output}"]
    return train_main(["--config-file", "mix.py", *arguments, *overrides])


def test_a_mix_of_all_kinds_trains_and_resumes_to_the_same_weights(folder, monkeypatch):
    seen, forward = [], PatchAligner.forward
    dies_at: list[int] = []

    def watched(model, inputs):
        if dies_at and len(seen) == dies_at[0]:
            raise RuntimeError("killed")
        seen.append([item["image_id"] for item in inputs])
        return forward(model, inputs)

    monkeypatch.setattr(PatchAligner, "forward", watched)
    done = train("unbroken")
    unbroken, seen[:] = list(seen), []
    assert done["iteration"] == 4 and 0 < done["losses"]["loss_infonce"] < 20
    assert {name.split("/")[0] for batch in unbroken for name in batch} == set(SOURCES)
    dies_at.append(3)
    with pytest.raises(RuntimeError, match="killed"):
        train("killed")
    dies_at.clear(), seen.clear()
    train("killed", "--resume")
    assert seen == unbroken[2:], "a resumed run must go on with the batches of the unbroken one"
    final = [Path(name, "model_final.safetensors").read_bytes() for name in ("unbroken", "killed")]
    assert final[0] == final[1]
    check_what_is_handed_on(done["checkpoint"])


def check_what_is_handed_on(checkpoint):
    export_part(checkpoint, "sar.safetensors", part="student.model")
    contract = contract_from_dict(json.loads(read_metadata("sar.safetensors")["input_contract"]))
    assert tuple(source.name for source in contract.sources) == SOURCES
    measured = read_statistics("statistics.json")
    for source in contract.sources:
        assert source.sar.mean == measured[source.name].sar.mean and source.sar.unit == "db"
    assert contract.sar.bands == ("VV", "VH") and contract.sources[0].sar.bands == ("VV", "VH")


def test_each_source_is_normalised_by_its_own_statistics(folder):
    config = apply_overrides(load_config("mix.py"), SHRUNK)
    mapper, dataset = instantiate(config.dataloader.train.mapper), instantiate(config.dataloader.train.dataset)
    mapper.geometry = []
    config.model.student_norm.statistics = "statistics.json"
    norm = instantiate(config.model.student_norm)
    for name in SOURCES:
        items = [mapper(item | {"_draw": 0}) for item in dataset if item["source"] == name]
        assert all(item["sar"].shape[0] == 2 and item["source"] == name for item in items)
        pixels = torch.cat([norm.for_item(item)(item["sar"])[:, item["sar_valid"]] for item in items], dim=1)
        assert pixels.mean(dim=1).abs().max() < 0.05, name
        assert (pixels.std(dim=1) - 1).abs().max() < 0.05, name


def test_a_source_without_statistics_stops_with_its_name(folder):
    with pytest.raises(UserError, match="'cmu_db' have no SAR of mine; they have: spacenet6, dfc2023, miniearth"):
        train_main(["--config-file", "mix.py", *SHRUNK, "train.output_dir=run"])


def test_an_unlabelled_folder_alone_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs("data/pairs", count=3, height=40, width=40)
    config = "projects/CMU/configs/common/folder_data.py"
    measure(config, "data/pairs/statistics.json")
    head = MIX.split("dataloader.train.dataset.sources.append")[0].replace("cmu_data.py", "folder_data.py")
    Path("own.py").write_text(
        head + "dataloader.train.batch_size = 2\ntrain.device, train.tensorboard = 'cpu', False\n"
    )
    done = train_main(["--config-file", "own.py", *SHRUNK, "train.max_iter=1", "train.output_dir=run"])
    assert done["iteration"] == 1 and np.isfinite(done["losses"]["loss_infonce"])


def test_both_modalities_move_by_one_transform():
    """The same pattern in both rasters is the same after every draw, and so are the margins that open."""
    config = apply_overrides(get_config("projects/CMU/configs/common/cmu_data.py"), SHRUNK)
    pattern = np.random.default_rng(0).uniform(0, 255, (48, 56, 1)).astype(np.float32)
    grid = np.indices((48, 56)).sum(axis=0) // 6 % 2 * 100.0
    pattern = np.float32(0.4) * pattern + grid[:, :, None].astype(np.float32)

    def read(_):
        return RawSample(optical=np.repeat(pattern, 3, axis=2), sar=np.repeat(pattern, 2, axis=2))

    mapper = OpticalSARMapper(
        is_train=True, vocabulary=None, reader=read, geometry=instantiate(config.dataloader.train.mapper.geometry)
    )
    views = [mapper({"_draw": draw}) for draw in range(60)]
    for item in views:
        assert item["image"].shape == (3, SIDE_PX, SIDE_PX) and item["sar"].shape == (2, SIDE_PX, SIDE_PX)
        assert torch.equal(item["valid"], item["sar_valid"])
        torch.testing.assert_close(item["image"][:2], item["sar"], atol=1e-2, rtol=0)
        assert (item["sar"][:, ~item["sar_valid"]] == 0).all() and item["valid"].float().mean() > 0.15
    shares = [item["valid"].float().mean().item() for item in views]
    assert min(shares) < 0.8 and max(shares) == 1.0, "some draws must open a margin, and some none"
    assert len({item["sar"].sum().item() for item in views}) == len(views)


@pytest.mark.parametrize(
    ("name", "channels", "unit"), [("cmu_data", 2, "db"), ("cmu_data_amplitude8", 3, "amplitude8")]
)
def test_every_source_gives_the_channels_that_the_config_says(name, channels, unit, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_tree("spacenet6", tmp_path, count=1, size=64)
    write_tree("dfc2023", tmp_path, count=1, size=64)
    config = get_config(f"projects/CMU/configs/common/{name}.py")
    overrides = [f"dataloader.train.dataset.sources.{i}.ratio=1" for i in range(3)]
    config.dataloader.train.dataset.sources[2].options = {"num_scenes": 1, "size": 64}
    config = apply_overrides(config, [*SHRUNK, *overrides])
    mapper, norm = instantiate(config.dataloader.train.mapper), instantiate(config.student_norm)
    contract = instantiate(config.input_contract)
    assert mapper.reader.sar_unit == contract.sar.unit == unit and len(contract.sar.bands) == channels
    for item in instantiate(config.dataloader.train.dataset):
        sar = mapper(item | {"_draw": 0})["sar"]
        assert len(sar) == len(norm.for_item(item).mean) == channels
        if unit == "amplitude8":
            assert torch.equal(sar[0], sar[2]) and 0 <= sar.min() and sar.max() <= 255
    assert [source.name for source in contract.sources] == ["spacenet6", "dfc2023", "miniearth"]


def test_the_config_of_the_readme_mixes_a_folder_in(tmp_path):
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "projects/CMU/README.md").read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(snippet)
    config = load_config(tmp_path / "mine.py")
    assert [source.name for source in config.dataloader.train.dataset.sources][-1] == "mine"
    assert set(config.dataloader.train.mapper.reader.readers) == {"spacenet6", "dfc2023", "miniearth", "mine"}
    pairs = write_pairs(tmp_path / "pairs", count=1, sar="tif_linear")
    reader = instantiate(config.dataloader.train.mapper.reader)
    assert reader({**pairs.dicts[0], "source": "mine"}).sar.shape[2] == 2
    write_statistics(tmp_path / "s.json", {"mine": read_statistics("cmu_db")["spacenet6"]})
    config.model.student_norm.statistics = str(tmp_path / "s.json")
    assert instantiate(config.model.student_norm).sources == ("mine",)
    with pytest.raises(UserError, match="have no SAR of spacenet6; they have: mine"):
        instantiate(config.model.input_contract)
