"""The shipped tables of ablations: the paper's figures stand in them, and what they share is the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmovseg.config import apply_overrides, load_config
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.table_trainings import Trainings
from mmovseg.engine.tables import read_rows, read_table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "tables"
SMALL = ("table3", "table4", "table_a5", "cmu_encoders")
LARGE = ("table3_ddhr_sk", "table4_ddhr_sk", "table_a5_ddhr_sk")
REPORTED = {  # mIoU of Tables 3, 4 and A5, by the names of runs
    "table3": {"infonce": 73.1, "none": 64.1, "clip_only": 55.0},
    "table4": {"none": 64.1, "mse": 67.7, "l1": 69.0, "infonce": 73.1},
    "table_a5": {"none": 64.1, "clip_sar": 65.4, "infonce": 73.1, "both_sar": 66.5},
}


def nobody(argv):
    raise AssertionError(argv)


def trainings(table):
    return Trainings(table, "runs", start=nobody)


def entries(*tables):
    return [(table, entry) for table in tables for entry in (*table["parts"], *table["runs"])]


@pytest.mark.parametrize("name", list(REPORTED))
def test_a_table_holds_the_papers_figures_and_three_seeds(name):
    table = read_table(FOLDER / f"{name}.json")
    found = {run["name"]: run["reported"]["mIoU"] for run in table["runs"] if "reported" in run}
    assert found == REPORTED[name] and table["seeds"] == [0, 1, 2]
    paper = read_table(FOLDER / f"{name}_ddhr_sk.json")
    assert {run["name"]: run["reported"]["mIoU"] for run in paper["runs"]} == REPORTED[name]
    assert [run["name"] for run in paper["runs"]] == list(found)  # in the same order


def test_the_papers_own_setting_reports_its_classes():
    table = read_table(FOLDER / "table3_ddhr_sk.json")
    figures = [tuple(run["reported"][metric] for metric in table["metrics"]) for run in table["runs"]]
    assert figures == [  # forest, city, farmland, road, water, mIoU
        (87.3, 86.8, 85.6, 21.2, 84.8, 73.1), (57.2, 83.7, 81.2, 16.8, 81.4, 64.1), (80.0, 90.3, 79.0, 6.8, 19.1, 55.0)
    ]  # fmt: skip
    for row in figures:
        assert sum(row[:5]) / 5 == pytest.approx(row[5], abs=0.06)
    names = {f"IoU-{name}" for name in get_vocabulary("ddhr_sk", "clean").names}
    assert set(table["metrics"]) == {*names, "mIoU"}


@pytest.mark.parametrize(
    "names, results, expected",
    [
        (SMALL, ["ablation_miniearth"] * 3 + ["cmu_encoders"], {"none", "infonce", "shipped", "encoder_none"}),
        (LARGE, ["ablation_ddhr_sk"] * 3, {"none", "infonce", "clip_only", "cmu_clip", "cmu_l1"}),
    ],
)
def test_what_tables_share_is_made_in_the_same_way(names, results, expected):
    tables = [read_table(FOLDER / f"{name}.json") for name in names]
    assert {table["output"] for table in tables} == {results[0]}
    assert [table["results"] for table in tables] == results
    made: dict[str, set[str]] = {}
    for table, entry in entries(*tables):
        made.setdefault(entry["name"], set()).add(trainings(table).training_sha256(entry, 0))
    assert [name for name, hashes in made.items() if len(hashes) > 1] == []
    assert len(set.union(*made.values())) == len(made)  # and nothing is made twice under two names
    assert expected <= set(made)


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_parts_fit_the_keys_that_take_them(name):
    table = read_table(FOLDER / f"{name}.json")
    for _, entry in entries(table):
        config = load_config(entry["config"])
        files = [f"{key}=file.safetensors" for key in entry.get("uses", {})]
        apply_overrides(config, [*entry.get("overrides", ()), *files])
        if "part" in entry:
            assert entry["part"].removesuffix(".model") in config.model  # an encoder of the aligner
            assert len(config.model.loss_weights) == (2 if entry["name"] == "cmu_shipped" else 1)


def test_the_un_aligned_start_of_the_model_is_where_cmu_starts():
    shipped = load_config("projects/CMU/configs/cmu_xs.py").model.student.weights
    for name in SMALL:
        for run in read_table(FOLDER / f"{name}.json")["runs"]:
            given = [item.partition("=")[2] for item in run.get("overrides", ())]
            assert given in ([], [shipped])


def test_unseen_and_seen_classes_are_those_of_the_first_table():
    whole, split = (read_table(FOLDER / f"{name}.json") for name in ("miniearth", "table_a3"))
    assert split["results"] == split["output"] == "miniearth" and split["metrics"] == [
        "mIoU-unseen",
        "mIoU-seen",
        "mIoU",
    ]
    settings = [[(run["name"], run["config"], run["evaluate"][0]) for run in t["runs"]] for t in (whole, split)]
    assert settings[0] == settings[1]
    assert split["runs"][0]["reported"] == {"mIoU-unseen": 32.3, "mIoU-seen": 62.5, "mIoU": 51.7}
    measured = {(row["run"], row["modality"]) for row in read_rows(ROOT / "results" / "miniearth.csv")}
    assert {(name, modality) for name, _, modality in settings[1]} <= measured


def test_the_model_without_cmu_and_def_is_the_shipped_baseline():
    (run,) = [run for run in read_table(FOLDER / "table3_ddhr_sk.json")["runs"] if run["name"] == "clip_only"]
    config = load_config(run["config"])
    apply_overrides(config, run["overrides"])
    baseline = load_config("mmovseg/mmovseg_vitb16_clip_only.py")
    for key in ("optical_encoder", "sar_encoder", "sar_norm", "modality"):
        assert config.model[key] == baseline.model[key]
    assert [config.dataloader[part].mapper.modality for part in ("train", "test")] == ["optical"] * 2
    assert config.dataloader.evaluator.modality == "optical" == run["evaluate"][0]
