"""The process that measures one row: ``python -m mmovseg.engine.benchmark.worker <row as JSON> <answer file>``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mmovseg.config import apply_overrides, load_config
from mmovseg.engine.benchmark.data_rows import measure_evaluator, measure_loader, measure_windows
from mmovseg.engine.benchmark.operations import Operations, count_operations
from mmovseg.engine.benchmark.rows import Row
from mmovseg.engine.benchmark.scene_rows import measure_scene
from mmovseg.engine.benchmark.tricks import measure_tricks
from mmovseg.engine.cost import Job, measure
from mmovseg.engine.cost_inputs import noise_batch
from mmovseg.engine.launch import choose_device
from mmovseg.engine.own_process import answer_of
from mmovseg.engine.run import build_model, prepare
from mmovseg.engine.stopwatch import Clock, OtherLoad, machine_name, matmul_gflops
from mmovseg.errors import exit_on_user_error

EMULATED_BELOW = 0.75
"""A device whose bfloat16 products are slower than this share of its float32 ones has no arithmetic for them."""

_STEPS = {"cpu": 20, "cuda": 100}
_WARMUP = {"cpu": 1, "cuda": 5}


def measure_row(row: Row, device: str, *, threads: int | None = None) -> dict[str, Any]:
    """Measure one row in a new process.

    Args:
        row: what to measure.
        device: ``cpu`` or ``cuda``, of the machine as the first row found it.
        threads: of torch; None = its own choice.

    Raises:
        UserError: it cannot be measured; the sentence says why.
    """
    environment = {"OMP_NUM_THREADS": str(threads)} if threads is not None else {}
    if row.kind == "model":
        return _measure_model(row.settings, device, threads)
    job = {"kind": row.kind, "settings": row.settings}
    found: dict[str, Any] = answer_of(
        "mmovseg.engine.benchmark.worker", job, what=f"'{row.name}'", environment=environment
    )
    return found


def _measure_model(settings: Mapping[str, Any], device: str, threads: int | None) -> dict[str, Any]:
    overrides = [*settings["overrides"]]
    if threads is not None:
        overrides.append(f"train.num_threads={threads}")
    found = measure(
        Job(
            settings["config_file"],
            settings["phase"],
            overrides=tuple(overrides),
            steps=_STEPS[device],
            warmup=_WARMUP[device],
            batch=settings["batch"],
            pixels=settings["pixels"],
            classes=settings["classes"],
            seconds=settings["seconds"],
        )
    )
    return {key: value for key, value in found.items() if key not in ("versions", "job", "energy", "commit")}


def _measure_matmul(settings: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Return the rates of matrix products, 1e9 operations a second, by type, and what they say of bfloat16."""
    others = OtherLoad()
    small = {dtype: matmul_gflops(clock, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    emulated = small[torch.bfloat16] < EMULATED_BELOW * small[torch.float32]
    rates = {"float32": matmul_gflops(clock, large=True), "bfloat16": small[torch.bfloat16]}
    if not emulated:
        rates["bfloat16"] = matmul_gflops(clock, dtype=torch.bfloat16, large=True)
    return {"gflops": rates, "bfloat16_is_emulated": emulated, "other_cores": others.cores()}


def _measure_operations(settings: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Count the multiply-adds of inference and training of one pair, and what a class and a step add to it."""
    config = apply_overrides(load_config(settings["config_file"]), settings["overrides"])
    model = build_model(prepare(config, settings["config_file"]), checkpoint=None, resumed=True)

    def count(number: int, classes: int, *, training: bool) -> Operations:
        model.train(training)
        batch = noise_batch(
            model.input_contract, pixels=settings["pixels"], count=number, classes=classes, is_train=training
        )
        if not training:
            with torch.no_grad():
                model.clip.encode_vocabulary(batch[0]["vocabulary"])
        return count_operations(model, batch)

    classes = settings["classes"]
    pass_, one_class = count(1, classes, training=False), count(1, 1, training=False)
    step, two = count(1, classes, training=True), count(2, classes, training=True)
    per_class = (pass_.forward - one_class.forward) / (classes - 1)
    return {
        "classes": classes,
        "infer": {"per_image": pass_.forward, "per_class": per_class},
        "train": {"per_image": two.step - step.step, "per_step": 2 * step.step - two.step},
        "by_operator": pass_.by_operator,
        "left_out": pass_.left_out,
    }


_KINDS: dict[str, Callable[[Mapping[str, Any], Clock], dict[str, Any]]] = {
    "matmul": _measure_matmul,
    "operations": _measure_operations,
    "loader": measure_loader,
    "windows": measure_windows,
    "evaluator": measure_evaluator,
    "scene": measure_scene,
    "tricks": measure_tricks,
}


def measure_here(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measure in this process; facts of the machine are added."""
    device = choose_device(str(settings.get("device", "auto")))
    clock = Clock(device)
    found = _KINDS[kind](settings, clock)
    return found | {"device": device.type, "machine": machine_name(device), "threads": torch.get_num_threads()}


@exit_on_user_error
def main(arguments: list[str]) -> None:
    """Measure the row given as JSON and write the answer to the file given."""
    job = json.loads(arguments[0])
    Path(arguments[1]).write_text(json.dumps(measure_here(job["kind"], job["settings"])), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
