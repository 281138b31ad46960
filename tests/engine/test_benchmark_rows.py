"""What single rows of a benchmark measure, on sizes that take a second."""

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmovseg.config import instantiate, load_config, save_config
from mmovseg.engine import cost
from mmovseg.engine.benchmark import timing, tricks, worker
from mmovseg.engine.benchmark.rows import Row, Scope, rows_of
from mmovseg.engine.benchmark.timing import alternate, repeat
from mmovseg.engine.benchmark.worker import measure_here, measure_row
from mmovseg.engine.cost import Job
from mmovseg.engine.cost import measure_here as measure_cost
from mmovseg.engine.cost_inputs import noise_batch
from mmovseg.engine.stopwatch import Clock, matmul_gflops
from mmovseg.errors import UserError
from mmovseg.testing.models import write_tiny_run

CPU = torch.device("cpu")
RELEASED = dict(
    name="released", strides=(4, 2, 8), channels=16, context_channels=8, level_channels=(12, 6),
    guidance_channels=(4, 2), decoder_channels=(16, 8), num_heads=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return str(write_tiny_run(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def released(config, tmp_path_factory):
    changed = load_config(config)
    changed.model.head, changed.model.init_projection_from_clip = RELEASED, False
    path = tmp_path_factory.mktemp("released") / "released.yaml"
    save_config(changed, path)
    return str(path)


def settings_of(name, config, **changes):
    rows = rows_of(Scope(config_file=config, released_config=config, device="cpu", pixels=32, files=3, workers=1))
    row = next(row for row in rows if row.name == name)
    return row.settings | {"seconds": 0.01, "scene_pixels": 64} | changes


# ---------------------------------------------------------------- clocks


def test_calls_take_turns_and_the_first_round_does_not_count():
    order = []
    found = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, Clock(CPU), seconds=0.0)
    assert "".join(order) == "abababab" and len(found["a"]["seconds"]) == len(found["b"]["seconds"]) == 3
    assert found["a"]["first_seconds"] > 0 and "other_cores" in found


def test_a_long_call_is_measured_once(monkeypatch):
    monkeypatch.setattr(timing, "LONG_STEP_SECONDS", 0.0)
    assert len(repeat(lambda: None, Clock(CPU), seconds=0.0)["seconds"]) == 1


def test_repeats_stop_at_the_time_given_or_at_the_most(monkeypatch):
    monkeypatch.setattr(timing, "MOST_REPEATS", 5)
    assert len(repeat(lambda: None, Clock(CPU), seconds=60.0)["seconds"]) == 5


def test_the_rate_of_products_knows_the_type():
    rates = [matmul_gflops(Clock(CPU), dtype=dtype, repeats=1) for dtype in (torch.float32, torch.float64)]
    assert min(rates) > 0


# ---------------------------------------------------------------- the model


def test_a_step_with_made_up_classes_takes_as_many_steps_as_fit(config, monkeypatch):
    rates = {False: 10.0, True: 20.0}
    monkeypatch.setattr(cost, "matmul_gflops", lambda clock, *, dtype=None, large=False: rates[large])
    overrides = ("train.device=cpu",)
    facts = measure_cost(Job(config, "infer", overrides, steps=5, warmup=1, batch=2, pixels=32, classes=9, seconds=0.0))
    assert len(facts["seconds"]) == 3 and facts["batch"] == 2 and facts["input"] == "image 3x32x32, sar 2x32x32"
    assert facts["first_seconds"] > 0 and facts["first_peak_mb"] > 0 and not facts["compiled"]
    assert (facts["matmul_gflops"], facts["matmul_gflops_precision"]) == (10.0, 20.0)
    facts = measure_cost(Job(config, "train", overrides, steps=4, warmup=1, pixels=32, classes=2, seconds=60.0))
    assert len(facts["seconds"]) == 4 and facts["batch"] == 1


def test_made_up_classes_need_made_up_rasters(config):
    with pytest.raises(UserError, match="9 made-up classes need --pixels"):
        Job(config, "infer", classes=9).check()
    with pytest.raises(UserError, match="--classes is 0"):
        Job(config, "infer", pixels=32, classes=0).check()


def test_compiled_inference_compiles_the_model(config, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    job = Job(config, "infer", ("train.device=cpu", "train.compile=true"), steps=1, warmup=1, pixels=32, classes=2)
    assert measure_cost(job)["compiled"] and compiled == ["MMOVSeg"]


def test_a_model_row_becomes_a_job(monkeypatch):
    jobs = []
    monkeypatch.setattr(worker, "measure", lambda job: jobs.append(job) or {"seconds": [1.0], "versions": {}})
    rows = {row.name: row for row in rows_of(Scope())}
    assert measure_row(rows["training/batch8/bfloat16/compiled"], "cuda", threads=3) == {"seconds": [1.0]}
    job = jobs[0]
    assert (job.phase, job.batch, job.pixels, job.classes, job.steps, job.warmup) == ("train", 8, 384, 6, 100, 5)
    assert job.overrides[-1] == "train.num_threads=3" and job.config_file == "configs/mmovseg/mmovseg_vitb16.py"


@pytest.mark.slow
def test_the_cost_of_classes_and_steps_is_told_apart(config):
    found = measure_here("operations", settings_of("machine/operations", config))
    infer, train = found["infer"], found["train"]
    assert 0 < infer["per_class"] < infer["per_image"] and found["classes"] == 6
    assert train["per_step"] > 0 and train["per_image"] > infer["per_image"]  # names are encoded once a step
    assert found["left_out"] and found["device"] == "cpu" and found["threads"] >= 1


# ---------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("source", "workers"), [("png", 0), ("geotiff", 0), pytest.param("geotiff", 1, marks=pytest.mark.slow)]
)
def test_a_loader_reads_files_of_its_kind(config, source, workers):
    found = measure_here("loader", settings_of("loader/png/workers0", config, source=source, workers=workers))
    assert found["images"] == 8 and found["pixels"] == 8 * 32 * 32 and min(found["seconds"]) > 0
    assert workers == 0 or found["other_cores"] is None  # its own workers do not make the machine a busy one


@pytest.mark.parametrize("source", ["aligned", "warped"])
def test_windows_of_a_scene_are_read(source, config):
    found = measure_here("windows", settings_of(f"loader/{source}", config))
    assert found["pixels"] == 32 * 32 and found["images"] == 1 and len(found["seconds"]) >= 3


def test_the_evaluator_counts_every_batch(config):
    found = measure_here("evaluator", settings_of("evaluation/confusion", config))
    assert found["pixels"] == 8 * 32 * 32 and found["whole_seconds"] > sum(found["seconds"])


def test_a_scene_is_mapped_and_its_time_split(config):
    settings = settings_of("scene/xs", config, scene_config=config, weights=None)
    found = measure_here("scene", settings)
    assert len(found["seconds"]) == len(found["model_seconds"]) == 3
    assert {"total", "read", "model", "blend", "write", "finish"} <= set(found["spent"])
    assert 0 < max(found["model_seconds"]) < max(found["seconds"]) and found["pixels"] == 64 * 64


# ---------------------------------------------------------------- tricks


def test_plain_forms_give_the_same_answers_at_a_higher_cost(released):
    torch.manual_seed(0)
    model = instantiate(load_config(released).model).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.requires_grad_(False)
    batch = noise_batch(model.input_contract, pixels=32, count=1, classes=3, is_train=False)

    def answer():
        with FlopCounterMode(display=False) as counter:
            scores = model(batch)[0]["sem_seg"]
        return scores, counter.get_total_flops()

    with torch.no_grad():
        model(batch)  # encodes the names
        ours, work = answer()
        assert ours.std() > 1e-3
        for name, (_, plain) in tricks.TRICKS.items():
            with plain(model):
                scores, more = answer()
            assert torch.allclose(scores, ours, atol=1e-5) and more > work, name
        assert answer()[1] == work  # everything is put back


def test_tricks_are_measured_on_the_whole_and_on_their_parts(released):
    found = measure_here("tricks", settings_of("reference/tricks", released))
    assert [row["part"] for row in found["tricks"]] == ["", *(part for part, _ in tricks.TRICKS.values())]
    for row in found["tricks"]:
        assert len(row["ours"]["seconds"]) == len(row["plain"]["seconds"]) >= 3
        assert row["largest_difference"] < 1e-5


def test_a_row_that_fails_in_its_process_tells_why(monkeypatch, tmp_path):
    commands = itertools.count()

    class Done:
        returncode, stderr = 2, "error: config 'x.py' is not there\n"

    monkeypatch.setattr("mmovseg.engine.own_process.subprocess.run", lambda *args, **kwargs: next(commands) or Done)
    with pytest.raises(UserError, match="^config 'x.py' is not there$"):
        measure_row(Row("machine/operations", "machine", "operations", {}), "cpu")
    assert next(commands) == 1
