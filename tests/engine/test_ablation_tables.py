"""The shipped tables of ablations: the paper's figures stand in them, and what they share is the same thing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmovseg.config import apply_overrides, load_config
from mmovseg.engine.table_trainings import Trainings
from mmovseg.engine.tables import read_rows, read_table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "tables"
SMALL = ("table3", "table4", "table_a5", "cmu_encoders")
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


def test_what_tables_share_is_made_in_the_same_way():
    tables = [read_table(FOLDER / f"{name}.json") for name in SMALL]
    assert {table["output"] for table in tables} == {"ablation_miniearth"}
    assert [table["results"] for table in tables] == ["ablation_miniearth"] * 3 + ["cmu_encoders"]
    made: dict[str, set[str]] = {}
    for table, entry in entries(*tables):
        made.setdefault(entry["name"], set()).add(trainings(table).training_sha256(entry, 0))
    assert [name for name, hashes in made.items() if len(hashes) > 1] == []
    assert len(set.union(*made.values())) == len(made)  # and nothing is made twice under two names
    assert {"none", "infonce", "shipped", "cmu_infonce", "encoder_none"} <= set(made)


@pytest.mark.parametrize("name", SMALL)
def test_parts_fit_the_keys_that_take_them(name):
    table = read_table(FOLDER / f"{name}.json")
    for _, entry in entries(table):
        config = load_config(entry["config"])
        files = [f"{key}=file.safetensors" for key in entry.get("uses", {})]
        apply_overrides(config, [*entry.get("overrides", ()), *files])
        if "part" in entry:
            assert entry["part"].removesuffix(".model") in config.model  # an encoder of the aligner


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
