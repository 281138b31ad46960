"""All 22 benchmarks from files to the printed table, with a small model on small trees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmovseg.engine import tables
from mmovseg.engine.table_grid import grid_run
from mmovseg.projects.crossearth.data.benchmarks import get_benchmark, list_benchmarks
from mmovseg.testing.trees_sar import write_sar_tree

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "projects/CrossEarthSAR/configs/tables/benchmarks22.json"
XS = {"name": "xs", "label": "XS", "config": "projects/CrossEarthSAR/configs/benchmark_xs.py"}
SIZE = 32


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return write_sar_tree(tmp_path_factory.mktemp("sets"), count=2, size=SIZE)


@pytest.fixture
def table(tmp_path):
    content = json.loads(TABLE.read_text())
    content["grid"]["rows"] = [XS]
    (tmp_path / "xs.json").write_text(json.dumps(content))
    return tables.read_table(tmp_path / "xs.json")


def fill(table, folder, trees, codes, **options):
    settings = [f"dataloader.root={trees}", "dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    settings += ["train.max_iter=1", "train.num_threads=1", "train.log_period=1"]
    only = [grid_run("xs", code) for code in codes]
    return tables.fill_table(table, folder / "t.csv", folder / "runs", overrides=settings, only=only, **options)


def check(table, folder, trees, rows, codes):
    """Compare rows and classes with the benchmarks; return the printed lines of the model."""
    found = {row["run"]: row for row in rows}
    classes = tables.read_classes(tables.classes_file(folder / "t.csv"))
    for code in codes:
        row, benchmark = found[grid_run("xs", code)], get_benchmark(code)
        assert row["mIoU"] and row["iterations"] == "1"
        own = [item["class"] for item in classes if item["run"] == row["run"]]
        assert own == benchmark.vocabulary().names
        assert int(row["images"]) == len(benchmark.load("test", root=trees))
    text = tables.to_markdown(table, tables.table_rows(folder / "t.csv"))
    return [line for line in text.splitlines() if line.startswith("| XS |")]


def test_one_benchmark_of_one_class_and_one_that_tests_the_training_of_another(table, tmp_path, trees):
    codes = ["S2A", "F2HH"]
    lines = check(table, tmp_path, trees, fill(table, tmp_path, trees, codes), codes)
    cells = [cell for line in lines for cell in line.split(" | ")]
    assert sum(cell.strip(" |").replace(".", "").isdigit() for cell in cells) == 2
    trained = sorted(path.parent.name for path in (tmp_path / "runs").glob("*/model_final.safetensors"))
    assert trained == ["xs_F2VV-seed0", "xs_S2A-seed0"]


@pytest.mark.slow
def test_all_22_run_end_to_end(table, tmp_path, trees):
    codes = list_benchmarks()
    one, more = check(table, tmp_path, trees, fill(table, tmp_path, trees, codes), codes)
    assert "not run" not in one + more
    assert (one.count("|"), more.count("|")) == (12 + 3, 10 + 3)
    assert len(list((tmp_path / "runs").glob("*/model_final.safetensors"))) == 17
