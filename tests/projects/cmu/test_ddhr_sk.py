"""The runs of the paper's own setting read SAR by the statistics of their data, and say so."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmovseg.checkpoint import read_metadata
from mmovseg.checkpoint.contract import ModalityContract, contract_from_dict
from mmovseg.config import apply_overrides, get_config, instantiate, load_config
from mmovseg.data.statistics import ModalityStatistics, SourceStatistics, read_statistics, write_statistics
from mmovseg.engine.cli import train_main
from mmovseg.engine.table_trainings import Trainings
from mmovseg.engine.tables import fill_table, read_table
from mmovseg.errors import UserError
from mmovseg.inference.predictor import Predictor
from mmovseg.layers.norm import SourceNorm
from mmovseg.modeling.meta_arch.batching import batch_view
from mmovseg.testing.settings import write_small_run
from mmovseg.testing.trees import write_tree

ROOT = Path(__file__).parents[3]
CONFIG = "projects/CMU/configs/mmovseg_ddhr_sk_vitb16.py"
CLIP_SAR = "projects/CMU/configs/mmovseg_ddhr_sk_vitb16_clip_sar.py"
STATISTICS = "output/statistics/ddhr_sk.json"
TABLES = ("table3_ddhr_sk", "table4_ddhr_sk", "table_a5_ddhr_sk")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return write_tree("ddhr_sk", tmp_path / "data", count=3, size=64)


def write_made_up(mean=90.0):
    sar = ModalityStatistics("amplitude8", ("band 1",) * 3, (mean,) * 3, (40.0,) * 3, clip=(0.0, 255.0))
    write_statistics(STATISTICS, {"ddhr_sk": SourceStatistics(1, "made up", sar=sar, sensor="Gaofen-3")})


def test_measured_data_train_and_test_a_model_whose_contract_says_so(data, monkeypatch):
    config_file = write_small_run("job", CONFIG)
    with pytest.raises(UserError) as missing:
        train_main(["--config-file", CONFIG])
    command = str(missing.value).partition("measure them first: python ")[2].split()
    assert command == ["tools/compute_statistics.py", "--config-file", CONFIG, "--output", STATISTICS]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", [*command, "--quiet"])
        runpy.run_path(str(ROOT / command[0]), run_name="__main__")
    pixels = np.concatenate([read_gray(file) for file in sorted(data.glob("ddhr_sk/train/sar/*"))])
    measured = read_statistics(STATISTICS)["ddhr_sk"].sar
    assert measured.mean == pytest.approx((pixels.mean(),) * 3, rel=1e-5)
    assert measured.std == pytest.approx((pixels.std(),) * 3, rel=1e-5)

    done = train_main(["--config-file", str(config_file)])
    assert 0 < done["losses"]["loss_sem_seg"] < 10 and list(Path("job").glob("run/eval/*/*/result.json"))
    contract = contract_from_dict(json.loads(read_metadata(done["checkpoint"])["input_contract"]))
    bands = ("amplitude",) * 3
    said = ModalityContract("ddhr_sk", bands, "amplitude8", measured.mean, measured.std, measured.clip)
    assert contract.sar == said and contract.sources[0].sar.mean == measured.mean and contract.train_size == 384
    assert contract.optical.mean == (123.675, 116.28, 103.53)

    predictor = Predictor(config_file, weights=done["checkpoint"], device="cpu")  # its inputs name no source
    assert (predictor.num_polarisations, predictor.sar_unit) == (3, "amplitude8")
    sar = np.full((64, 64, 3), measured.mean[0], dtype=np.float32)
    assert predictor(None, sar, "water, city").shape == (2, 64, 64)


def read_gray(file):
    from PIL import Image

    return np.asarray(Image.open(file)).reshape(-1).astype(np.float64)


def test_pixels_of_an_input_without_a_source_get_the_constants_of_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_made_up()
    norm = instantiate(get_config(CONFIG).model.sar_norm)
    assert isinstance(norm, SourceNorm)
    view = batch_view([{"sar": torch.full((3, 16, 16), 130.0)}], "sar", "sar_valid", norm, 16)
    assert view.x.unique().tolist() == [1.0] and view.valid is None


def test_both_configs_of_the_tables_read_the_same_data_in_the_same_way():
    plain, clip_sar = (get_config(name) for name in (CONFIG, CLIP_SAR))
    base = get_config("mmovseg/ddhr_sk_vitb16.py")
    assert (
        plain.model.sar_norm == clip_sar.model.sar_norm and plain.dataloader == clip_sar.dataloader == base.dataloader
    )
    assert plain.optimizer == base.optimizer and plain.train.max_iter == base.train.max_iter


@pytest.mark.parametrize("name", TABLES)
def test_every_run_that_reads_sar_reads_it_by_these_statistics(name):
    norms = []
    for run in read_table(ROOT / "configs" / "tables" / f"{name}.json")["runs"]:
        config = load_config(run["config"])
        apply_overrides(config, run.get("overrides", ()))
        if config.model.sar_norm is not None:
            norms.append(config.model.sar_norm)
    assert len(norms) >= 2 and all(norm == norms[0] and norm.statistics == STATISTICS for norm in norms)


def test_a_table_tells_of_missing_statistics_before_it_trains_cmu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmovseg.engine.tables.train_main", lambda argv: pytest.fail(f"trained {argv}"))
    table = read_table(ROOT / "configs" / "tables" / "table4_ddhr_sk.json")
    with pytest.raises(UserError, match=f"--config-file {CONFIG} --output {STATISTICS}$"):
        fill_table(table, "results.csv", "output", only=["infonce"])


def test_other_statistics_make_another_training(tmp_path, monkeypatch):
    from mmovseg.engine import table_trainings

    monkeypatch.chdir(tmp_path)
    table = read_table(ROOT / "configs" / "tables" / "table4_ddhr_sk.json")
    trainings = Trainings(table, "output", start=lambda argv: {})
    (run,) = [run for run in table["runs"] if run["name"] == "none"]
    hashes = []
    for mean in (90.0, 91.0, 90.0):
        write_made_up(mean)
        table_trainings.describe_config.cache_clear()
        hashes.append(trainings.training_sha256(run, 0))
    table_trainings.describe_config.cache_clear()
    assert hashes[0] == hashes[2] != hashes[1]
