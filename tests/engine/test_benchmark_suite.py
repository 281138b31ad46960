"""Which rows a benchmark measures, what it keeps, and what it makes of the figures."""

import json

import pytest

from mmovseg.engine.benchmark import suite
from mmovseg.engine.benchmark.brief import to_brief_markdown
from mmovseg.engine.benchmark.ratios import ratios_of
from mmovseg.engine.benchmark.report import to_markdown
from mmovseg.engine.benchmark.results import Results
from mmovseg.engine.benchmark.rows import Scope, choose, rows_of
from mmovseg.engine.benchmark.suite import run_suite, why_not
from mmovseg.errors import UserError
from tests.engine.fake_benchmark import MACHINE, failing, measured

SCOPE = Scope(device="cpu", config_file="miniearth/mmovseg_xs.py", released_config="miniearth/mmovseg_xs.py")
ROWS = {row.name: row for row in rows_of(SCOPE)}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a suite with made-up measurements; returns (results, what was said, names measured)."""
    monkeypatch.setattr(suite, "machine_name", lambda device: MACHINE[1])

    def run_it(measure=measured, **options):
        said, names = [], []

        def noted(row, device, *, threads=None):
            names.append(row.name)
            return measure(row, device, threads=threads)

        results = Results(tmp_path / "benchmark.json")
        options = {"scope": SCOPE, "threads": MACHINE[2], "budget_seconds": 1e9} | options
        run_suite(options.pop("scope"), results, say=said.append, measure=noted, **options)
        return results, said, names

    return run_it


def test_the_rows_cover_what_is_asked_for():
    names = list(ROWS)
    assert len(set(names)) == len(names) and names[:2] == ["machine/matmul", "machine/operations"]
    models = [row for row in ROWS.values() if row.group == "model"]
    assert len(models) == 2 * 2 * 2 * 2  # phase, batch, precision, mode
    assert {(row.settings["batch"], row.settings["classes"]) for row in models} == {(1, 6), (8, 6)}
    assert [ROWS[f"classes/{count}"].settings["classes"] for count in (5, 20, 150, 847)] == [5, 20, 150, 847]
    at_once = ROWS["classes/150-at-once"].settings
    assert at_once["overrides"][-1] == "+model.head.class_chunk=150"
    for row in ROWS.values():
        assert all(names.index(need) < names.index(row.name) for need in row.needs)
        assert len(row.digest) == 64 and json.dumps(row.settings)


def test_overrides_decide_precision_and_mode():
    overrides = ROWS["training/batch8/bfloat16/compiled"].settings["overrides"]
    assert {"train.amp.enabled=true", "train.amp.dtype=bfloat16", "train.compile=true"} <= set(overrides)
    overrides = ROWS["inference/batch1/float32/eager"].settings["overrides"]
    assert {"train.amp.enabled=false", "train.compile=false", "train.device=cpu"} <= set(overrides)


def test_rows_are_chosen_by_name_or_pattern():
    assert [row.name for row in choose(list(ROWS.values()), ["classes/5", "scene/*"])] == ["classes/5", "scene/xs"]
    with pytest.raises(UserError, match="--rows 'clases/5' matches no row; there are: machine/matmul"):
        choose(list(ROWS.values()), ["clases/5"])


def test_on_a_cpu_float32_is_measured_eagerly_and_the_rest_says_why_not(run):
    results, said, names = run()
    entries = results.of(MACHINE)
    assert list(entries) == list(ROWS)
    left = {name: entry["reason"] for name, entry in entries.items() if entry["status"] == "not run"}
    assert len(left) == 12 and not set(left) & set(names)
    assert left["inference/batch1/bfloat16/eager"] == (
        "bfloat16 is emulated on this processor, at 0.1 of its float32 rate"
    )
    assert left["training/batch8/float32/compiled"] == "torch.compile is measured on accelerators only"
    assert said[2] == "[3/32] inference/batch1/float32/eager: 2 s (1 to 3, n = 3)"
    assert all(entry["commit"] is None or len(entry["commit"]) >= 40 for entry in entries.values())


def test_on_an_accelerator_everything_is_measured():
    assert all(why_not(row, {}, device="cuda", budget_seconds=1.0) is None for row in ROWS.values())


def test_a_stopped_run_goes_on_and_again_measures_anew(run):
    class Stop(Exception):
        pass

    def stopped(row, device, *, threads=None):
        if row.name == "classes/20":
            raise Stop
        return measured(row)

    with pytest.raises(Stop):
        run(stopped)
    *_, names = run()
    assert names[:2] == ["classes/20", "classes/150"] and "classes/5" not in names
    results, said, names = run(only=["classes/*"])
    assert names == [] and said == [f"[{n}/5] {row}: measured before" for n, row in enumerate(
        ("classes/5", "classes/20", "classes/150", "classes/847", "classes/150-at-once"), start=1)]  # fmt: skip
    assert list(results.of(MACHINE)) == list(ROWS)
    *_, names = run(only=["classes/5"], again=True)
    assert names == ["classes/5"]


def test_a_row_of_other_settings_or_another_config_is_measured_anew(run):
    run(only=["scene/xs", "classes/5"])
    other = Scope(device="cpu", config_file="miniearth/mmovseg_xs_sar.py", released_config=SCOPE.released_config)
    assert run(only=["scene/xs", "classes/5"], scope=other)[2] == ["classes/5"]
    other = Scope(**{**vars(other), "scene_pixels": 512})
    assert run(only=["scene/xs", "classes/5"], scope=other)[2] == ["scene/xs"]


def test_a_row_that_fails_says_why_and_the_rest_goes_on(run):
    results, said, _ = run(failing("classes/847", "reference/tricks"), only=["classes/*", "reference/*"])
    entry = results.of(MACHINE)["classes/847"]
    assert entry["status"] == "failed" and "killed by signal 9" in entry["reason"]
    assert len(said) == 6 and "classes/847: failed: the process" in said[3]
    assert "failed: the process that measured 'reference/tricks'" in to_markdown(results)
    assert run(only=["classes/847"])[2] == ["classes/847"]  # what failed is tried again


def test_rows_that_take_too_long_are_not_run(run):
    # batch 8 would take 16 s a step, so one is measured after one to warm up: 32 s; training twice that
    _, said, names = run(only=["machine/matmul", "inference/*/float32/eager", "training/*/float32/eager"],
                         budget_seconds=40)  # fmt: skip
    assert names[-1] == "training/batch1/float32/eager" and "inference/batch8/float32/eager" in names
    assert said[-1].endswith("not run: would take about 64 s, more than --budget-seconds 40")


def test_class_lists_are_predicted_along_a_line(run):
    _, said, names = run(only=["classes/*"], budget_seconds=700)
    # 5 and 20 classes take 1.5 and 9 s; 150 would take 74 s, 847 422.5 s, twice each
    assert names == ["classes/5", "classes/20", "classes/150", "classes/150-at-once"]
    assert "would take about 845 s" in said[3]


def test_results_of_two_machines_share_a_file(run, tmp_path):
    run(only=["scene/xs"])
    _, _, names = run(only=["scene/xs"], threads=1)
    results = Results(tmp_path / "benchmark.json")
    assert names == ["scene/xs"] and results.machines() == [MACHINE, ("cpu", "toy", 1)]
    text = to_markdown(results)
    assert "**toy, 2 threads**" in text and "**toy, 1 thread**" in text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("[]", "is no file of benchmark results"), ('{"rows": [{"name": "a"}]}', "a row lacks 'group'"), ("{", "no file")],
)
def test_another_file_is_refused(tmp_path, content, sentence):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        Results(path)


# ---------------------------------------------------------------- figures


def test_ratios_by_hand(run):
    found = ratios_of(run()[0].of(MACHINE))
    one, eight = found["inference/batch1/float32/eager"], found["inference/batch8/float32/eager"]
    assert one["images_per_s"] == eight["images_per_s"] == 0.5 and one["seconds"] == (2.0, 1.0, 3.0)
    assert one["gflop"] == pytest.approx(100) and one["of_matmul"] == pytest.approx(100 / 2 / 100)
    train = found["training/batch8/float32/eager"]
    assert train["gflop"] == pytest.approx(2 * (8 * 120 + 30))  # the names are encoded once a step
    classes = found["classes/150"]
    assert classes["time"] == pytest.approx(74 / 9) and classes["memory"] == pytest.approx(1300 / 1040)
    assert classes["gflop"] == pytest.approx(2 * (50 + 144))
    loader = found["loader/png/workers0"]
    assert loader["images_per_s"] == 16 and loader["mpx_per_s"] == 16 and loader["busy"]
    assert loader["of_inference"] == 32 and loader["of_training"] == 64
    scene = found["scene/xs"]
    assert scene["of_model"] == 2 and scene["share"]["read"] == 0.1 and scene["share"]["other"] == pytest.approx(0.2)
    assert not scene["busy"]
    whole = found["reference/tricks"]["tricks"][0]
    assert whole["ratio"] == 2.25 and whole["spread"] == (2.0, 2.5)


def test_rows_that_were_not_measured_leave_no_ratio(run):
    results, *_ = run(only=["classes/5", "loader/png/*"])
    found = ratios_of(results.of(MACHINE))
    assert "of_matmul" not in found["classes/5"] and found["classes/5"]["time"] == 1.0
    assert found["loader/png/workers0"]["of_inference"] is None
    text = to_markdown(results)
    assert "| 5 | 1,500 (750 to 2,250, n = 3) | 1.00 | 1,010 | 1.00 |  |" in text and "A scene is read" not in text


def test_the_report_states_every_row_and_what_is_behind_it(run):
    text = to_markdown(run()[0])
    for line in (
        "**toy, 2 threads**: matrix products run at 100 GFLOP/s in float32, 10 GFLOP/s in bfloat16 (emulated).",
        "| inference | 1 | float32 | eager | 0.5 | 2,000 (1,000 to 3,000, n = 3) | 1,012 | 100 | 0.50 |",
        "| 150, decoded all at once | 74,000 (37,000 to 111,000, n = 3) | 8.22 | 1,800 | 1.73 | 0.05 |",
        "| training loader, PNG pairs | in the trainer's | 16 (busy machine) | 16 | 32 | 64 |",
        "| windows of a scene, SAR warped |  | 16 (busy machine) | 16 | 32 |  |",
        "| 1024 x 1024 px, SAR warped | 2.00 | 10 (9 to 11, n = 3) | 0.10 | 10 | 50 | 10 | 5 | 5 | 20 |",
        "| fused attention | `optical_encoder` alone | 2.25 (2.00 to 2.50, n = 2) | 1,500 | 3,500 | 2.0e-07 |",
    ):
        assert line in text.splitlines(), line
    assert "A scene is read while the model works, on the same cores" in text
    assert "Not counted: add, gelu." in text and "| `mmovseg_xs` without |" in text
    assert "*Reported in the project's notes*" not in text  # that is about the large model
    assert "\nNot run: inference, batch 1, float32, compiled; " in text
    assert "(torch.compile is measured on accelerators only)." in text
    assert "Others used the machine during: loader/png/workers0" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_brief_table_has_a_column_a_machine(run, tmp_path):
    run(), run(only=["scene/xs"], threads=1)
    assert to_brief_markdown(Results(tmp_path / "benchmark.json")).splitlines() == [
        "|  | toy, 2 threads | toy, 1 thread |",
        "| --- | --- | --- |",
        "| inference, one image of 384 px | 2 s, 1,012 MiB, 0.50 of the rate of matrix products |  |",
        "| training step, one image | 4 s, 1,012 MiB, 0.75 of the rate of matrix products |  |",
        "| 150 classes instead of 20 | 8.22 x the time, 1.25 x the memory |  |",
        "| 847 classes instead of 20 | 46.94 x the time, 2.59 x the memory |  |",
        "| loaders of training pairs | at least 64 x the images that training takes in |  |",
        "| reading a scene | at least 32 x the images that inference takes in |  |",
        "| evaluator | 32 x the images that inference takes in |  |",
        "| a scene, SAR warped | 2.00 x the model's time in it | 2.00 x the model's time in it |",
    ]
