"""Tables of ablations: parts trained once and used by runs, models as built, shared results, encoders, classes."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import pytest

from mmovseg.checkpoint import read_metadata, read_state
from mmovseg.engine import table_rows, table_trainings, tables
from mmovseg.errors import UserError
from tests.engine.fake_runs import FakeRuns, described

ROOT = Path(__file__).parents[2]
PARTS = [
    {"name": "base", "config": "base.py", "part": "student.model"},
    {"name": "next", "config": "next.py", "part": "student.model", "uses": {"model.start": "base"}},
]
RUNS = [
    {"name": "none", "label": "None", "config": "a.py", "evaluate": ["both"], "reported": {"mIoU": 64.1}},
    {"name": "first", "label": "First", "config": "a.py", "evaluate": ["both"], "uses": {"model.sar": "base"}},
    {"name": "second", "label": "Second", "config": "a.py", "evaluate": ["both"], "uses": {"model.sar": "next"}},
]
TABLE = {"title": "T", "seeds": [0], "parts": PARTS, "runs": RUNS}
ENCODERS = {
    **{"title": "E", "seeds": [0, 1], "report": "encoder", "metrics": ["R@1", "CKA", "none"], "decimals": {"CKA": 3}},
    "parts": PARTS[:1],
    "runs": [
        {"name": "start", "label": "Start", "config": "e.py", "train": False},
        {"name": "aligned", "label": "Aligned", "config": "e.py", "train": False, "uses": {"model.student": "base"}},
    ],
}


@pytest.fixture
def runs(monkeypatch):
    fake = FakeRuns()
    monkeypatch.setattr(tables, "train_main", fake)
    monkeypatch.setattr(table_trainings, "describe_config", described)
    return fake


@pytest.fixture
def fill(tmp_path):
    def measure(content, name="t", **options):
        return tables.fill_table(read(tmp_path, content, name), tmp_path / f"{name}.csv", tmp_path / "runs", **options)

    return measure


def read(folder, content, name="t"):
    (folder / f"{name}.json").write_text(json.dumps(content))
    return tables.read_table(folder / f"{name}.json")


def trained(fake):
    return [call[1] for call in fake.calls if call[0] == "train"]


def test_a_part_is_trained_once_and_its_file_reaches_the_runs_that_use_it(runs, fill, tmp_path):
    rows = fill(TABLE)
    assert trained(runs) == ["a.py", "base.py", "a.py", "next.py", "a.py"]
    file = tmp_path / "runs" / "base-seed0.safetensors"
    assert list(read_state(file)[0]) == ["x"] and read_metadata(file)["exported_part"] == "student.model"
    given = [[item for item in argv if item.startswith("model.")] for argv in runs.argvs]
    base, following = f"={file}", f"={tmp_path / 'runs' / 'next-seed0.safetensors'}"
    first, second = ["model.sar" + base], ["model.sar" + following]
    assert given == [[], [], [], first, first, ["model.start" + base], second, second]
    facts = [[row[key] for key in ("run", "parts", "part_iterations", "part_seconds")] for row in rows]
    assert facts == [["none", "", "", ""], ["first", "base", "5", "1"], ["second", "base+next", "5+5", "2"]]


def test_every_seed_has_its_own_part(runs, fill, tmp_path):
    fill({**TABLE, "seeds": [0, 1]}, only=["first"])
    values = [float(read_state(tmp_path / "runs" / f"base-seed{seed}.safetensors")[0]["x"]) for seed in (0, 1)]
    assert values == [0.0, 1.0]


def test_a_table_stopped_anywhere_goes_on_without_repeating_a_training(runs, fill):
    for calls in range(1, 9):
        runs.stop_after = calls
        if calls < 8:
            with pytest.raises(KeyboardInterrupt):
                fill(TABLE)
    rows = fill(TABLE)
    assert trained(runs) == ["a.py", "base.py", "a.py", "next.py", "a.py"] and len(runs.argvs) == 8
    assert [row["run"] for row in rows] == ["none", "first", "second"]


def test_a_killed_training_is_resumed_unless_it_was_set_up_otherwise(runs, fill, tmp_path):
    folder = tmp_path / "runs" / "none-seed0"

    def die(argv):
        (folder / "training_state.pth").touch()
        raise KeyboardInterrupt

    def sitting(**options):
        with pytest.raises(KeyboardInterrupt):
            tables.fill_table(read(tmp_path, TABLE), tmp_path / "t.csv", tmp_path / "runs", only=["none"], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "train_main", die)
        sitting()
    (row,) = fill(TABLE, only=["none"])
    assert "--resume" in runs.argvs[0] and row["train_seconds"] == ""  # how long the first sitting took is not known
    (tmp_path / "t.csv").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "train_main", die)
        sitting(overrides=["x=2"])
    (folder / "training_state.pth").touch()
    (row,) = fill(TABLE, only=["none"])  # not with x=2
    assert "--resume" not in runs.argvs[-2] and row["train_seconds"] == "1"


def test_what_was_made_otherwise_is_not_taken_for_it(runs, fill, tmp_path):
    fill(TABLE, only=["first"], overrides=["x=1"])
    with pytest.raises(UserError, match=r"t\.csv' holds run 'first', seed 0, both, measured with another config"):
        fill(TABLE, only=["first"])
    told = []
    fill(TABLE, only=["first"], skip=lambda *facts: told.append(facts))
    assert told[0][0] == "first" and trained(runs) == ["base.py", "a.py"]
    (tmp_path / "t.csv").unlink()
    fill(TABLE, only=["first"])
    assert trained(runs) == ["base.py", "a.py"] * 2
    changed = {**TABLE, "parts": [{**PARTS[0], "overrides": ["y=1"]}, PARTS[1]]}
    with pytest.raises(UserError, match="measured with another config"):  # of its part alone
        fill(changed, only=["first"])


def test_a_model_is_evaluated_as_built_with_the_metrics_that_the_table_names(runs, fill, tmp_path):
    rows = fill(ENCODERS, "e")
    assert trained(runs) == ["base.py", "base.py"]
    assert [call for call in runs.calls if call[0] == "evaluate"] == [("evaluate", "e.py", None)] * 4
    assert all("--modality" not in argv for argv in runs.argvs)
    header = (tmp_path / "e.csv").read_text().splitlines()[0].split(",")
    assert header[:8] == ["table", "run", "seed", "modality", "R@1", "CKA", "none", "config"]
    first = {key: rows[0][key] for key in ("run", "R@1", "CKA", "none", "iterations", "parts")}
    assert first == {"run": "start", "R@1": "40.0000", "CKA": "0.1235", "none": "", "iterations": "", "parts": ""}
    lines = tables.to_markdown(read(tmp_path, ENCODERS, "e"), rows).splitlines()
    assert lines[0] == "| encoder | R@1 | CKA | none | seeds |"
    assert lines[2:] == [
        "| Start | 45.0 ± 7.1 | 0.123 ± 0.000 | - | 2 |", "| Aligned | 45.0 ± 7.1 | 0.123 ± 0.000 | - | 2 |"
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"has no metric 'R@7'; it has: R@1, CKA, none"):
        fill({**ENCODERS, "metrics": ["R@7"], "decimals": {}}, "other")


def test_tables_share_the_rows_and_trainings_of_equal_runs(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    third = {"name": "third", "label": "Third", "config": "c.py", "evaluate": ["both"]}
    for name, content in (("one", TABLE), ("two", {**TABLE, "runs": [RUNS[1], third]}), ("three", ENCODERS)):
        shared = {"output": "both"} if content is ENCODERS else {"results": "both"}
        (tmp_path / f"{name}.json").write_text(json.dumps({**content, "seeds": [0], **shared}))
        monkeypatch.setattr(sys, "argv", ["run_table.py", f"{name}.json"])
        runpy.run_path(str(ROOT / "tools" / "run_table.py"), run_name="__main__")
    rows = tables.read_rows("results/both.csv")
    assert [(row["table"], row["run"]) for row in rows] == [
        ("one", "none"), ("one", "first"), ("one", "second"), ("two", "third")
    ]  # fmt: skip
    assert trained(runs) == ["a.py", "base.py", "a.py", "next.py", "a.py", "c.py"]
    folder = Path("output/tables/both")
    assert {file.stem for file in folder.glob("*.md")} == {"one", "two", "three"}
    assert (
        "| First | both | 40.0 |" in (folder / "two.md").read_text() and len(tables.read_rows("results/three.csv")) == 2
    )


def test_an_older_file_goes_on_with_its_own_columns(runs, fill, tmp_path):
    with (ROOT / "results" / "miniearth.csv").open(newline="") as file:
        header = next(csv.reader(file))
    (tmp_path / "t.csv").write_text(",".join(header) + "\n")
    (row,) = fill(TABLE, only=["first"])
    assert row["machine"] and list(row) == header and "setup_sha256" not in header
    assert fill(TABLE, only=["first"]) == [row]
    with pytest.raises(UserError, match=r"t\.csv' does not tell how its rows were made .* name another file"):
        fill(TABLE, only=["first"], overrides=["x=1"])
    (tmp_path / "t.csv").write_text("table,run,seed\n")
    with pytest.raises(UserError, match="has no column 'modality'"):
        fill(TABLE, only=["none"])
    (tmp_path / "t.csv").write_text("table,run,seed,sweep\n")
    with pytest.raises(UserError, match="has a column 'sweep'"):
        fill(TABLE, only=["none"])


def test_the_iou_of_every_class_is_kept_and_can_be_a_column(runs, fill, tmp_path):
    content = {
        **TABLE,
        "seeds": [0, 1],
        "metrics": ["mIoU", "IoU-water", "IoU-road"],
        "runs": [{**RUNS[0], "reported": {"IoU-water": 84.8}}],
    }
    fill(content)
    file = tables.classes_file(tmp_path / "t.csv")
    assert file.read_text().splitlines() == [
        "table,run,seed,modality,dataset,class,seen,IoU",
        *("t,none,0,both,d,water,0,20.00", "t,none,0,both,d,road,1,", "t,none,1,both,d,water,0,25.00"),
        "t,none,1,both,d,road,1,",
    ]
    lines = tables.to_markdown(read(tmp_path, content), tables.table_rows(tmp_path / "t.csv")).splitlines()
    assert lines[0] == "| setting | tested with | mIoU | IoU-water | *reported* | IoU-road | seeds |"
    assert lines[2] == "| None | both | 45.0 ± 7.1 | 22.5 ± 3.5 | *84.8* | - | 2 |"


def test_a_class_measured_twice_counts_once(tmp_path):
    row = {"table": "t", "run": "a", "seed": 0, "modality": "both"}
    for iou in (10.0, 20.0):  # the first sitting stopped before its row was written
        report = {"dataset": "d", "per_class": [{"name": "water", "seen": True, "IoU": iou}]}
        table_rows.append_classes(tmp_path / "c.csv", row, report)
    assert [found["IoU"] for found in tables.read_classes(tmp_path / "c.csv")] == ["20.00"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"runs": [{**RUNS[1], "uses": {"model.sar": "other"}}]}, "uses the part 'other'; the table has: base, next"),
        ({"parts": PARTS[::-1]}, "part 'next' uses 'base', which is no part above it"),
        ({"parts": [{**PARTS[0], "name": "none"}, PARTS[1]]}, "more than one run or part 'none'"),
        ({"parts": [{"name": "base", "config": "base.py"}]}, "part 'base' lacks 'part'"),
        ({"runs": [{**RUNS[0], "trian": False}]}, "run 'none' has an unknown key 'trian'.*'train'"),
        ({"runs": [{**RUNS[0], "train": False, "weights_of": "none"}]}, "train false, so it takes no other weights"),
        ({"metrics": ["mIou"]}, "metric 'mIou' must be one of mIoU"),
        ({"metrics": ["hIoU"]}, "figure or digits for 'mIoU', which is none of its metrics"),
        ({"report": "encoder"}, "has to name its 'metrics'"),
        ({"report": "encoders"}, "must be one of segmentation, encoder"),
        ({"results": "../x"}, "'../x' must be a plain name"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, {**TABLE, **change})


def test_an_evaluation_without_a_report_is_told(runs, fill, monkeypatch):
    monkeypatch.setattr(runs, "evaluate", lambda *_: None)
    with pytest.raises(UserError, match="the evaluation of run 'none' wrote no report"):
        fill(TABLE, only=["none"])


def settings_of(*overrides, config="miniearth/mmovseg_xs.py", replaced=()):
    return table_trainings.describe_config(config, overrides, replaced)


def test_the_hash_of_a_training_sees_what_makes_weights_and_nothing_else(tmp_path):
    plain = settings_of()
    assert plain["train"] == {"clip_grad": {"enabled": True, "max_norm": 1.0}, "max_iter": 300}
    quiet = ("train.log_period=7", "train.num_threads=1", "train.checkpoint.period=3", "train.output_dir=elsewhere")
    assert settings_of(*quiet, "dataloader.train.num_workers=0", "dataloader.test.num_workers=3") == plain
    changed = {
        "train": "train.seed=3",
        "optimizer": "optimizer.base_lr=1.0",
        "model": "model.head.similarity_scale=2.0",
        "data": "dataloader.train.batch_size=3",
        "test": "dataloader.test.dataset.num_scenes=3",
    }
    for key, override in changed.items():
        other = settings_of(override)
        assert [name for name in plain if plain[name] != other[name]] == [key]


def test_the_hash_of_a_training_reads_the_files_it_starts_from(tmp_path):
    file = tmp_path / "start.safetensors"
    override = f"model.sar_encoder.weights=clip:{file}"
    before = settings_of(override)["weights"]
    assert len(settings_of()["weights"]) == 3 and all(len(digest) == 64 for digest in settings_of()["weights"])
    file.write_bytes(b"weights")
    table_trainings.describe_config.cache_clear()
    after = settings_of(override)["weights"]
    assert [first == second for first, second in zip(before, after, strict=True)].count(False) == 1
    replaced = settings_of(replaced=("model.sar_encoder.weights",))
    assert replaced == settings_of(override, replaced=("model.sar_encoder.weights",)) and len(replaced["weights"]) == 2
