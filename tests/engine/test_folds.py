"""Cross-validation: counts of places become figures; rows are kept; a model is trained on its own folds."""

import csv

import numpy as np
import pytest

from mmovseg.config import load_config, save_config
from mmovseg.data.datasets import catalog
from mmovseg.data.datasets.ombria import OmbriaReader, load_ombria
from mmovseg.engine import folds
from mmovseg.engine.folds import PlaceCount, bootstrap, fill_fold_table, flood_iou, mean_iou, read_counts, to_markdown
from mmovseg.engine.table_rows import read_rows
from mmovseg.errors import UserError
from mmovseg.evaluation.flood_baselines import run_baseline
from mmovseg.testing.models import forget_foundation_weights
from mmovseg.testing.trees_ombria import write_tree

TABLE = {
    "name": "ombria",
    "title": "a test",
    "dataset": {"dates": "both"},
    "num_folds": 3,
    "folds": [1, 2],
    "seed": 0,
    "cloudy_from": 0.1,
    "overcast_from": 0.3,
    "runs": [],
    "baselines": [{"name": "all_flooded", "label": "all"}, {"name": "sar_change", "label": "darkening"}],
}


@pytest.fixture
def sets(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(write_tree(tmp_path / "sets", count=6)))
    return tmp_path / "sets"


def place(name, tp, fp, fn, tn, *, run="fused", group=None, cloud=0.0, fold=1):
    return PlaceCount(run, fold, name, group or name, cloud, np.array([[tn, fp], [fn, tp]]))


def test_iou_is_pooled_over_places():
    counts = np.stack([place("a", 10, 0, 10, 80).counts, place("b", 0, 20, 0, 80).counts])
    assert flood_iou(counts) == pytest.approx(100 * 10 / 40)
    assert mean_iou(counts) == pytest.approx((25 + 100 * 160 / 190) / 2)
    assert np.isnan(flood_iou(np.array([[5, 0], [0, 0]])))


def test_the_interval_is_over_groups_and_paired_for_differences():
    same = [place(str(i), 10, 5, 5, 80, group="one") for i in range(8)]
    assert bootstrap(same) == (50.0, 50.0)  # one group: nothing to redraw
    spread = [place(str(i), 5 * i, 10, 10, 50) for i in range(8)]
    low, high = bootstrap(spread)
    assert low < flood_iou(np.stack([row.counts for row in spread])) < high and high - low > 5
    better = [place(row.place, int(row.counts[1, 1]), 0, 10, 60) for row in spread]
    low, high = bootstrap(better, spread)
    assert low > 0 and bootstrap(spread, spread) == (0.0, 0.0) and high < 40


def test_baselines_are_counted_once_and_places_are_not_mixed(sets, tmp_path):
    results = tmp_path / "ombria.csv"
    fill_fold_table(TABLE, results, tmp_path / "runs")
    before = results.read_text()
    fill_fold_table(TABLE, results, tmp_path / "runs")
    assert results.read_text() == before
    with pytest.raises(UserError, match="holds run 'all_flooded', fold 1, measured with another config"):
        fill_fold_table(TABLE | {"dataset": {"dates": "after"}}, results, tmp_path / "runs")
    counts = read_counts(results)
    held_out = {fold: {item["image_id"] for item in load_ombria("val", fold=fold, num_folds=3)} for fold in (1, 2)}
    for fold in (1, 2):
        assert {row.place for row in counts if row.fold == fold and row.run == "sar_change"} == held_out[fold]
    darkening = np.stack([row.counts for row in counts if row.run == "sar_change"])
    everything = np.stack([row.counts for row in counts if row.run == "all_flooded"])
    assert flood_iou(darkening) > flood_iou(everything) and everything.sum() == darkening.sum()
    with results.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["places"] for row in rows] == ["2"] * 4 and float(rows[1]["IoU"]) == pytest.approx(
        flood_iou(np.stack([r.counts for r in counts if r.run == "sar_change" and r.fold == 1])), abs=0.01
    )
    text = to_markdown(TABLE, counts)
    assert "all (4 places)" in text and "| darkening |" in text


def test_a_fitted_threshold_does_not_look_at_the_test_places(sets):
    train, test = (load_ombria(split, fold=0, num_folds=3) for split in ("train", "val"))
    reader = OmbriaReader()
    once = run_baseline("optical_wetness", train, test, reader)
    for item in test:
        alone = run_baseline("optical_wetness", train, [item], reader)
        np.testing.assert_array_equal(alone[item["image_id"]], once[item["image_id"]])
    otsu = sum(run_baseline("otsu_sar_change", [], test, reader).values())
    assert flood_iou(otsu) > 60


def test_an_unknown_baseline_is_told(sets, tmp_path):
    with pytest.raises(UserError, match="no baseline 'magic'"):
        fill_fold_table(TABLE | {"baselines": [{"name": "magic", "label": "?"}]}, tmp_path / "r.csv", tmp_path)


def test_a_table_that_is_none_is_told(tmp_path):
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(UserError, match="is not a table of folds"):
        folds.read_fold_table(tmp_path / "t.json")


def test_a_model_trains_on_its_folds_and_is_counted_place_by_place(sets, tmp_path):
    config = load_config("ombria/ombria_xs_sar.py")
    forget_foundation_weights(config.model)
    config.train.max_iter, config.train.device = 2, "cpu"
    config.dataloader.train.mapper.geometry[0].size = 32
    config.dataloader.train.mapper.geometry[1].size = 16
    config.dataloader.train.batch_size = 2
    save_config(config, tmp_path / "config.yaml")
    run = {"name": "sar", "label": "SAR", "config": str(tmp_path / "config.yaml")}
    table = TABLE | {"runs": [run], "baselines": [], "folds": [2]}
    fill_fold_table(table, tmp_path / "ombria.csv", tmp_path / "runs")
    counts = read_counts(tmp_path / "ombria.csv")
    assert {row.place for row in counts} == {i["image_id"] for i in load_ombria("val", fold=2, num_folds=3)}
    known = {item["image_id"]: (OmbriaReader()(item).sem_seg != 255).sum() for item in load_ombria("train")}
    assert all(row.counts.sum() == known[row.place] for row in counts)
    fill_fold_table(table, tmp_path / "ombria.csv", tmp_path / "runs", overrides=["train.max_iter=2"])
    assert read_counts(tmp_path / "ombria.csv") and len(read_rows(tmp_path / "ombria.csv")) == 1
    with pytest.raises(UserError, match="holds run 'sar', fold 2, measured with another config"):
        fill_fold_table(table, tmp_path / "ombria.csv", tmp_path / "runs", overrides=["train.max_iter=3"])


def test_the_brief_table_leaves_out_folds_minor_baselines_and_leads():
    def counts(run, right):
        cells = np.array([[5, 0], [10 - right, right]])
        return [PlaceCount(run, 1, place, place, cloud, cells) for place, cloud in (("a", 0.0), ("b", 0.5))]

    runs = [{"name": "x", "label": "X"}, {"name": "y", "label": "Y", "compared_with": "x"}]
    baselines = [{"name": "z", "label": "Z", "minor": True}]
    table = {"cloudy_from": 0.1, "overcast_from": 0.3, "runs": runs, "baselines": baselines}
    rows = [*counts("x", 8), *counts("y", 6), *counts("z", 1)]
    whole, brief = to_markdown(table, rows), to_markdown(table, rows, brief=True)
    assert "- x minus y, all: +20.0 [+20.0, +20.0]" in whole and "| Z |" in whole and "by fold" in whole
    assert "minus" not in brief and "| Z |" not in brief and "by fold" not in brief
    assert "| X | 80.0 [80.0, 80.0] | 80.0 [80.0, 80.0] | 80.0 [80.0, 80.0] |" in brief
