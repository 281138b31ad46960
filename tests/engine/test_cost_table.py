"""Rows and tables of costs from measurements that are made up, and energy from a tracker that is."""

import json
import sys
import types

import pytest

from mmovseg.config import find_config
from mmovseg.engine import cost_table
from mmovseg.engine.cost_table import (
    FIELDS,
    REPORTED,
    Request,
    cost_markdown,
    cost_row,
    fill_cost_table,
    footnote,
    measure_row,
    read_cost_table,
)
from mmovseg.engine.energy import EnergyMeter
from mmovseg.engine.table_rows import read_rows
from mmovseg.errors import UserError

ENERGY = {"kwh": 0.002, "kg_co2": 0.001, "source": "CPU guessed"}


def measured(job, **changes):
    """What `measure` would return: four steps of 1, 2, 3 and 10 seconds, half of them the teacher's."""
    training = job.phase == "train"
    return {
        "phase": job.phase,
        "seconds": [1.0, 2.0, 3.0, 10.0],
        "cpu_seconds": [2.0, 4.0, 6.0, 20.0],
        "other_cores": 0.0625,
        "shares": {"forward": 0.75, "backward": 0.125, "optimizer": 0.0625} if training else {},
        "parts": {"teacher": 0.5, "student": 0.25},
        "frozen": ["teacher"],
        "parameters": {"total": (3_000_000, 1_000_000)},
        "start_mb": 700.4,
        "peak_mb": 900.0 if training else 800.0,
        "energy": dict(ENERGY) if job.energy else None,
        "batch": job.batch or (8 if training else 1),
        "input": "sar 2x64x64",
        "precision": "float32",
        "device": "cpu",
        "machine": "CPU, 2 cores",
        "threads": 2,
        "matmul_gflops": 40.0,
        "max_iter": 1000,
        "config_sha256": "a" * 64,
        "commit": None,
        "versions": {"torch": "2.14.1"},
        "job": {},
    } | changes


def definition(tmp_path, **changes):
    said = {"train_ms": 343.7, "infer_kg": 0.006}
    rows = [
        {"name": "cmu", "label": "CMU", "config": "c.py", "steps": 5, "reported": said},
        {"name": "head", "label": "DEF", "config": "m.py", "part": "head", "overrides": ["train.max_iter=7"]},
        {"name": "other", "label": "GSNet", "reported": {"parameters_m": 244}},
    ]
    content = {"title": "Cost", "reported": "some paper", "notes": ["A note."], "rows": rows} | changes
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(content))
    return path


# ---------------------------------------------------------------- rows


def test_a_row_holds_medians_shares_and_what_a_training_takes():
    row, found = measure_row(Request("cmu", "c.py", options={"energy": True, "steps": None}), run=measured)
    assert set(row) <= set(FIELDS) and found["train"]["batch"] == 8
    expected = {
        "train_ms": "2500.0",
        "train_ms_least": "1000.0",
        "train_ms_most": "10000.0",
        "train_cpu_ms": "5000.0",
        "train_steps": 4,
        "frozen_share": "50.0",
        "forward_share": "75.0",
        "forward_parts": "teacher 50.0, student 25.0",
        "train_peak_mb": "900",
        "infer_peak_mb": "800",
        "infer_ms": "2500.0",
        "train_kwh": "0.5",  # 0.002 kWh for four steps, a thousand steps
        "train_kg": "0.25",
        "infer_kwh_1000": "0.5",
        "energy_source": "CPU guessed",
        "other_cores": "0.06",
    }
    assert {key: row[key] for key in expected} == expected


def test_inference_counts_an_image_and_one_phase_leaves_the_other_empty():
    request = Request("cmu", "c.py", phases=("infer",), images=4, options={"energy": True})
    row, found = measure_row(request, run=measured)
    assert list(found) == ["infer"] and "train_ms" not in row
    assert row["infer_ms"] == "625.0" and row["infer_cpu_ms"] == "1250.0" and row["infer_kg_1000"] == "0.0625"


def test_without_parts_the_frozen_share_is_unknown_not_zero():
    request = Request("x", "c.py", phases=("train",))
    job = request.jobs()["train"]
    assert cost_row(request, {"train": measured(job, parts={}, frozen=[])})["frozen_share"] == ""
    assert cost_row(request, {"train": measured(job, other_cores=None)})["other_cores"] == ""


# ---------------------------------------------------------------- tables


@pytest.fixture(autouse=True)
def configs_as_measured(monkeypatch):
    """The configs that the tables here name do not exist: they hash to what `measured` says."""
    monkeypatch.setattr(cost_table, "_config_digest", lambda file, overrides: "a" * 64)


def test_a_row_is_measured_again_for_energy_and_refused_when_its_config_changed(tmp_path, monkeypatch):
    table, results, jobs = read_cost_table(definition(tmp_path)), tmp_path / "cost.csv", []

    def run(job):
        jobs.append(job)
        return measured(job)

    fill_cost_table(table, results, options={}, only=["cmu"], run=run)
    fill_cost_table(table, results, options={"energy": True}, only=["cmu"], run=run)
    fill_cost_table(table, results, options={"energy": True}, only=["cmu"], run=run)
    assert len(jobs) == 4  # both phases, without and with energy; the third time there is nothing left to measure
    monkeypatch.setattr(cost_table, "_config_digest", lambda file, overrides: "f" * 64)
    with pytest.raises(UserError, match="'cmu' was measured with another config than 'c.py' is now .* --again"):
        fill_cost_table(table, results, options={}, only=["cmu"], run=run)


def test_a_table_is_filled_once_and_newer_rows_count(tmp_path):
    table, results, jobs = read_cost_table(definition(tmp_path)), tmp_path / "cost.csv", []

    def run(job):
        jobs.append(job)
        return measured(job)

    fill_cost_table(table, results, options={"steps": None, "warmup": 2, "energy": None}, run=run)
    assert [(job.config_file, job.phase, job.part, job.steps, job.warmup) for job in jobs] == [
        ("c.py", "train", None, 5, 2),
        ("c.py", "infer", None, 5, 2),
        ("m.py", "train", "head", 20, 2),
        ("m.py", "infer", "head", 20, 2),
    ]
    assert jobs[2].overrides == ("train.max_iter=7",)
    fill_cost_table(table, results, options={}, run=run)
    assert len(jobs) == 4

    def faster(job):
        return measured(job, seconds=[0.5])

    rows = fill_cost_table(table, results, options={}, only=["cmu"], again=True, run=faster)
    assert [row["name"] for row in rows] == ["cmu", "head", "cmu"]
    line = next(line for line in cost_markdown(table, rows).splitlines() if line.startswith("| CMU"))
    assert "| 500 (500 to 500) |" in line


def test_the_table_sets_reported_figures_beside_measured_ones(tmp_path):
    table, results = read_cost_table(definition(tmp_path)), tmp_path / "cost.csv"
    rows = fill_cost_table(
        table, results, options={"energy": True}, only=["cmu"], run=lambda job: measured(job, other_cores=1.5)
    )
    head, _, cmu, rest, other = cost_markdown(table, rows).splitlines()
    assert head.count("|") == cmu.count("|") == rest.count("|") == other.count("|")
    assert cmu == (
        "| CMU | 8 x (sar 2x64x64) | 2,500 (1,000 to 10,000) (busy machine) | 50.0 / 25.0 / 12.5 / 6.2 | "
        "2,500 (1,000 to 10,000) (busy machine) | 900 / 800 | 3.00M (1.00M) | 0.5 / 0.25 | 0.5 / 0.25 | "
        "*343.7* / - | - / *0.006* |  |"
    )
    assert rest.startswith("| DEF | not run |") and other.startswith("| GSNet | not ours |") and "*244M*" in other
    assert footnote(rows, table).splitlines() == [
        "Measured here on CPU, 2 cores, 2 thread(s), torch 2.14.1.",
        "Energy: CPU guessed.",
        "Reported: some paper.",
        "A note.",
    ]


def test_a_row_that_cannot_be_measured_stops_the_table_or_is_told(tmp_path):
    table, results, told = read_cost_table(definition(tmp_path)), tmp_path / "cost.csv", []

    def run(job):
        if job.config_file == "c.py":
            raise UserError("no data")
        return measured(job)

    with pytest.raises(UserError, match="no data"):
        fill_cost_table(table, results, options={}, run=run)
    rows = fill_cost_table(table, results, options={}, run=run, skip=lambda *words: told.append(words))
    assert told == [("cmu", "no data")] and [row["name"] for row in rows] == ["head"]
    with pytest.raises(UserError, match="measures no row 'other'; it has: cmu, head"):
        fill_cost_table(table, results, options={}, only=["other"], run=run)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rows": [{"label": "x"}]}, "rows with names"),
        ({"rows": [{"name": "x", "speed": 1}]}, "no key 'speed'"),
        ({"rows": [{"name": "x", "reported": {"mIoU": 1}}]}, "no key 'mIoU'"),
        ({"rows": [{"name": "x"}, {"name": "x"}]}, "two rows named 'x'"),
    ],
)
def test_a_wrong_definition_is_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        read_cost_table(definition(tmp_path, **changes))


def test_the_shipped_table_reports_what_the_paper_says():
    table = read_cost_table("configs/tables/table_a2.json")
    assert all(find_config(row["config"]).is_file() for row in table["rows"] if "config" in row)
    said = {
        row["name"]: tuple(row["reported"].get(key) for key in REPORTED) for row in table["rows"] if "reported" in row
    }
    assert said == {
        "cmu_vitb16": (343.7, 31.6, 1.05, 0.006, 85),
        "def_vitb16": (377.2, 46.8, 1.14, 0.008, 92),
        "mmovseg_vitb16": (955.7, 116.9, 3.9, 0.014, 331),
        "gsnet": (700.6, 83.2, 3.48, 0.011, 244),
    }  # fmt: skip


# ---------------------------------------------------------------- energy


class Tracker:
    """Stands in for codecarbon's: 0.4 Wh a run, of which 0.1 the memory's."""

    energy = 0.0004

    def __init__(self, **options):
        self.options = options
        self._hardware = [type("RAM", (), {})(), type("CPU", (), {"_mode": "cpu_load", "_tdp": 85})()]
        self.calls = []

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")
        data = {"duration": 12.0, "energy_consumed": self.energy, "emissions": 0.00019, "cpu_energy": 0.0003}
        data |= {"gpu_energy": 0.0, "ram_energy": 0.0001, "country_name": "Germany", "codecarbon_version": "3.3"}
        self.final_emissions_data = types.SimpleNamespace(**data)


@pytest.fixture
def codecarbon(monkeypatch):
    source = types.SimpleNamespace(get_global_energy_mix_data=lambda: {"DEU": {}})
    monkeypatch.setitem(sys.modules, "codecarbon", types.SimpleNamespace(OfflineEmissionsTracker=Tracker))
    monkeypatch.setitem(sys.modules, "codecarbon.input", types.SimpleNamespace(DataSource=lambda: source))


def test_energy_says_how_it_was_had(codecarbon):
    with EnergyMeter("deu") as meter:
        assert meter._tracker.calls == ["start"] and meter._tracker.options["country_iso_code"] == "DEU"
    assert meter._tracker.calls == ["start", "stop"]
    assert meter.report["kwh"] == 0.0004 and meter.report["ram_kwh"] == 0.0001
    assert meter.report["source"] == (
        "RAM estimated; CPU estimated from load and a TDP of 85 W; Germany; codecarbon 3.3"
    )
    with EnergyMeter() as meter:
        assert meter._tracker.options["force_carbon_intensity_g_co2e_kwh"] == 475
    assert "world average 475 g/kWh" in meter.report["source"]


def test_a_country_without_an_energy_mix_is_refused_before_anything_runs(codecarbon):
    with pytest.raises(UserError, match="codecarbon knows no country 'XX'"):
        EnergyMeter("XX")


def test_no_energy_is_an_error_not_a_zero(codecarbon, monkeypatch):
    monkeypatch.setattr(Tracker, "energy", 0.0)
    with pytest.raises(UserError, match="measured no energy"), EnergyMeter():
        pass


def test_without_codecarbon_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(UserError, match=r"install it with: pip install 'mmovseg\[energy\]'"):
        EnergyMeter()


def test_rows_are_appended_under_one_header(tmp_path):
    table, results = read_cost_table(definition(tmp_path)), tmp_path / "cost.csv"
    fill_cost_table(table, results, options={}, run=measured)
    assert tuple(results.read_text().splitlines()[0].split(",")) == FIELDS and len(read_rows(results)) == 2
