"""The tables of CMU run as they ship, cut to one iteration and a few scenes."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from mmovseg.checkpoint import read_state
from mmovseg.engine.tables import read_classes, read_rows

ROOT = Path(__file__).parents[3]
FEW = 8
OF_ENCODERS = [
    f"dataloader.test.dataset.fit.num_scenes={FEW}",
    f"dataloader.evaluator.fit_dataset.num_scenes={FEW}",
    f"dataloader.test.dataset.test.num_scenes={FEW}",
    "dataloader.evaluator.gallery=4",
]
ONE_STEP = ["train.max_iter=1", "dataloader.train.batch_size=2", "dataloader.train.num_workers=0"]


def write_small(folder, name, runs, seeds=(0,)):
    table = json.loads((ROOT / "configs" / "tables" / f"{name}.json").read_text())
    few = OF_ENCODERS if table.get("report") == "encoder" else [f"dataloader.test.dataset.num_scenes={FEW}"]
    table |= {"seeds": list(seeds), "runs": [run for run in table["runs"] if run["name"] in runs]}
    for run in table["runs"]:
        run["overrides"] = [*run.get("overrides", ()), *few]
    (folder / f"{name}.json").write_text(json.dumps(table))


@pytest.mark.slow
def test_an_ablation_and_its_encoders_run_from_one_part(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, runs in (
        ("table4", ("none", "infonce")),
        ("table_a5", ("infonce", "both_sar")),
        ("cmu_encoders", ("encoder_none", "encoder_infonce")),
    ):
        write_small(tmp_path, name, runs)
        monkeypatch.setattr(sys, "argv", ["run_table.py", f"{name}.json", *ONE_STEP])
        runpy.run_path(str(ROOT / "tools" / "run_table.py"), run_name="__main__")
    folder = Path("output/tables/ablation_miniearth")
    trained = sorted(file.parent.name for file in folder.glob("*/model_final.safetensors"))
    assert trained == ["both_sar-seed0", "cmu_infonce-seed0", "infonce-seed0", "none-seed0"]
    part, _ = read_state(folder / "cmu_infonce-seed0.safetensors")
    both, _ = read_state(folder / "both_sar-seed0" / "model_final.safetensors")
    for encoder in ("sar_encoder", "clip_sar_encoder"):
        assert all(bool((both[f"{encoder}.model.{name}"] == tensor).all()) for name, tensor in part.items())
    rows = read_rows("results/ablation_miniearth.csv")
    assert [(row["run"], row["parts"], row["part_iterations"], row["images"]) for row in rows] == [
        ("none", "", "", "8"), ("infonce", "cmu_infonce", "1", "8"), ("both_sar", "cmu_infonce", "1", "8")
    ]  # fmt: skip
    assert len(read_classes("results/ablation_miniearth_classes.csv")) == 3 * 7
    encoders = read_rows("results/cmu_encoders.csv")
    assert [(row["run"], row["train_seconds"]) for row in encoders] == [("encoder_none", ""), ("encoder_infonce", "")]
    assert all(0 <= float(row["R@1 sar->optical"]) <= 100 for row in encoders)
    assert {float(row["chance R@1"]) for row in encoders} == {25.0}
    assert "| CMU with InfoNCE |" in (folder / "cmu_encoders.md").read_text()
