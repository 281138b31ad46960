"""The tables of the project: what the paper reports, that cells agree with the benchmarks, and that stages fit."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path

import pytest

from mmovseg.config import apply_overrides, config_to_dict, load_config
from mmovseg.engine.tables import read_table, to_markdown
from mmovseg.projects.crossearth.data.benchmarks import get_benchmark, list_benchmarks, paper_figures
from mmovseg.projects.crossearth.data.gaps import EIGHT_GAPS

TABLES = Path(__file__).parents[3] / "projects/CrossEarthSAR/configs/tables"
GAP_TABLES = ("gaps_main", "gaps_experts", "gaps_topk", "gaps_heads")
PAPER_ROWS = {"dinov2_l": "DINOv2-L", "s": "CrossEarth-SAR-S", "b": "CrossEarth-SAR-B", "l": "CrossEarth-SAR-L",
              "l_adapter": "CrossEarth-SAR-L*"}  # fmt: skip


@pytest.fixture(scope="module")
def benchmarks():
    return read_table(TABLES / "benchmarks22.json")


def test_every_cell_trains_its_benchmark_and_reads_its_metric(benchmarks):
    grid = benchmarks["grid"]
    assert list(grid["columns"]) == list_benchmarks()
    for code, column in grid["columns"].items():
        assert column["overrides"] == [f"dataloader.benchmark={code}"]
        assert column.get("metric", "mIoU") == get_benchmark(code).metric
    printed = [code for table in grid["tables"] for code in table["columns"]]
    assert printed == list_benchmarks()
    assert [get_benchmark(code).num_gaps > 1 for code in printed] == [False] * 12 + [True] * 10


def test_shared_trainings_are_of_the_same_images_and_classes(benchmarks):
    shared = {c: own["weights_of"] for c, own in benchmarks["grid"]["columns"].items() if "weights_of" in own}
    assert len(shared) == 5
    for code, other in shared.items():
        one, two = get_benchmark(code), get_benchmark(other)
        assert (one.source, one.classes, one.num_train) == (two.source, two.classes, two.num_train)
        assert one.target != two.target


def test_reported_figures_are_those_of_the_paper(benchmarks):
    figures = paper_figures()
    rows = {row["name"]: row for row in benchmarks["grid"]["rows"]}
    assert len(rows) == len(figures) == 15
    for row in rows.values():
        method = PAPER_ROWS.get(row["name"]) or next(key for key in figures if key.casefold() == row["name"])
        assert row["reported"] == figures[method], row["name"]
    assert {name for name, row in rows.items() if "config" in row} == set(PAPER_ROWS)
    text = to_markdown(benchmarks, [])
    # the paper's own means of Tables 2 and 3 (not 28.45 of the last row, which it rounds up)
    for mean in ("55.5", "61.9", "62.7", "24.3", "27.7"):
        assert f"| *{mean}* |" in text


@lru_cache
def loaded(config):
    return load_config(config)


def described(config, overrides):
    return config_to_dict(apply_overrides(copy.deepcopy(loaded(config)), overrides))


@pytest.mark.parametrize("name", GAP_TABLES)
def test_loaders_and_metrics_of_gap_tables_are_those_of_their_configs(name):
    table = read_table(TABLES / f"{name}.json")
    assert table["loaders"] == ["source", *EIGHT_GAPS] and table["results"] == "crossearth_gaps"
    assert table["averages"]["mean of the eight"] == [f"{gap} mIoU" for gap in EIGHT_GAPS]
    config = described(table["runs"][0]["config"], ())
    evaluators = config["dataloader"]["evaluator"]
    assert list(config["dataloader"]["test"]) == list(evaluators) == table["loaders"]
    assert [item["dataset_name"] for item in evaluators.values()] == table["loaders"]
    blocks = {f"source share {block}" for block in evaluators["source"]["blocks"]}
    assert blocks == {metric for metric in table["metrics"] if "share" in metric}


@pytest.mark.parametrize("name", GAP_TABLES)
def test_both_stages_of_a_run_build_the_same_encoder(name):
    table = read_table(TABLES / f"{name}.json")
    parts = {part["name"]: part for part in table["parts"]}
    for run in table["runs"]:
        own = described(run["config"], run.get("overrides", ()))["model"]["encoder"]
        assert own["freeze"] is True
        for key, part in run.get("uses", {}).items():
            assert key == "model.encoder.weights" and parts[part]["part"] == "encoder"
            first = described(parts[part]["config"], parts[part].get("overrides", ()))["model"]["encoder"]
            assert first["freeze"] is False
            stage = {"freeze", "weights", "balance_weight"}
            assert {k: v for k, v in own.items() if k not in stage} == {
                k: v for k, v in first.items() if k not in stage
            }


def test_runs_that_tables_share_are_the_same():
    known = {}
    for name in GAP_TABLES:
        table = read_table(TABLES / f"{name}.json")
        for entry in (*table["runs"], *table["parts"]):
            plain = {key: value for key, value in entry.items() if key != "label"}
            assert known.setdefault(entry["name"], plain) == plain
    assert {"dense", "moe", "moe_balance", "moe_descriptors", "both", "both_n3", "both_n4", "both_n5", "both_k2"} < set(
        known
    )


@pytest.mark.parametrize(
    ("run", "experts", "top_k", "balance", "descriptors"),
    [
        ("dense", None, 1, 0.005, True),
        ("moe", 6, 1, 0.0, False),
        ("moe_balance", 6, 1, 0.005, False),
        ("moe_descriptors", 6, 1, 0.0, True),
        ("both", 6, 1, 0.005, True),
        ("both_n3", 3, 1, 0.005, True),
        ("both_k3", 6, 3, 0.005, True),
    ],
)
def test_what_is_pretrained(run, experts, top_k, balance, descriptors):
    parts = {}
    for name in GAP_TABLES:
        parts |= {part["name"]: part for part in read_table(TABLES / f"{name}.json")["parts"]}
    part = parts[f"cpt_{run}"]
    encoder = described(part["config"], part.get("overrides", ()))["model"]["encoder"]
    assert (encoder["num_experts"], encoder["top_k"]) == (experts, top_k)
    assert encoder.get("balance_weight", 0.005) == balance
    assert (encoder["descriptors"] is not None) == descriptors
