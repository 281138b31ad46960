"""Measure the rows of a benchmark one after the other; what cannot or need not be measured says why.

Nothing of the CUDA path (events, the allocator's peak, bfloat16, compilation) has been run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from mmovseg.engine.benchmark.results import DONE, FAILED, NOT_RUN, Results
from mmovseg.engine.benchmark.rows import Row, Scope, choose, rows_of
from mmovseg.engine.benchmark.worker import measure_row
from mmovseg.engine.cost import LEAST_STEPS, LONG_STEP_SECONDS
from mmovseg.engine.launch import choose_device
from mmovseg.engine.stopwatch import machine_name
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit

Entries = Mapping[str, Mapping[str, Any]]


def run_suite(
    scope: Scope,
    results: Results,
    *,
    only: Sequence[str] | None = None,
    again: bool = False,
    budget_seconds: float = 300.0,
    threads: int | None = None,
    say: Callable[[str], None] = print,
    measure: Callable[..., dict[str, Any]] = measure_row,
) -> None:
    """Measure what the results do not hold yet of this machine; a row that fails is noted, and the rest goes on.

    Args:
        scope: what is measured.
        results: filled row by row.
        only: names or patterns of rows, None = all.
        again: measure also rows that are there. A row whose config or settings have changed is always measured anew.
        budget_seconds: rows that would take longer, by what smaller ones took, are not run.
        threads: of torch; None = its own choice.
        say: told each row's outcome.
        measure: measures a row, see `measure_row`.

    Raises:
        UserError: unknown row or config, no such device, or the file cannot be written.
    """
    device = choose_device(scope.device)
    machine = (device.type, machine_name(device), threads or torch.get_num_threads())
    rows = rows_of(scope)
    order = [row.name for row in rows]
    chosen = choose(rows, only)
    digests = {row.name: row.digest for row in chosen}  # a config that cannot be read is told before anything runs
    for number, row in enumerate(chosen, start=1):
        known = results.of(machine)
        digest = digests[row.name]
        there = known.get(row.name, {})
        head = f"[{number}/{len(chosen)}] {row.name}"
        if there.get("status") == DONE and there["digest"] == digest and not again:
            say(f"{head}: measured before")
            continue
        entry = {
            "name": row.name,
            "group": row.group,
            "kind": row.kind,
            "settings": row.settings,
            "digest": digest,
            **dict(zip(("device", "machine", "threads"), machine, strict=True)),
            "commit": source_commit(),
            "versions": installed_versions(),
        }
        entry |= _outcome(row, known, device.type, budget_seconds, threads, measure)
        results.put(entry, order)
        say(f"{head}: {outcome_in_words(entry)}")


def _outcome(
    row: Row,
    known: Entries,
    device: str,
    budget_seconds: float,
    threads: int | None,
    measure: Callable[..., dict[str, Any]],
) -> dict[str, Any]:
    reason = why_not(row, known, device=device, budget_seconds=budget_seconds)
    if reason is not None:
        return {"status": NOT_RUN, "reason": reason, "measured": {}}
    try:
        return {"status": DONE, "reason": "", "measured": measure(row, device, threads=threads)}
    except UserError as error:
        return {"status": FAILED, "reason": str(error), "measured": {}}


def outcome_in_words(entry: Mapping[str, Any]) -> str:
    """Return a line of what came out of a row."""
    if entry["status"] != DONE:
        return f"{entry['status']}: {entry['reason']}"
    found = entry["measured"]
    if "seconds" not in found:
        return "done"
    times = found["seconds"]
    return f"{median(times):.3g} s ({min(times):.3g} to {max(times):.3g}, n = {len(times)})"


def why_not(row: Row, known: Entries, *, device: str, budget_seconds: float) -> str | None:
    """Return why a row is not worth running on this device, None when it is.

    Args:
        row: to be measured.
        known: entries of this machine by name.
        device: ``cpu`` or ``cuda``.
        budget_seconds: see `run_suite`.
    """
    if row.kind != "model":
        return None
    if row.settings["compiled"] and device == "cpu":
        return "torch.compile is measured on accelerators only"
    if row.settings["precision"] == "bfloat16" and device == "cpu":
        rates = known.get("machine/matmul", {}).get("measured")
        if not rates:
            return "the row machine/matmul has not told yet whether this processor knows bfloat16"
        if rates["bfloat16_is_emulated"]:
            share = rates["gflops"]["bfloat16"] / rates["gflops"]["float32"]
            return f"bfloat16 is emulated on this processor, at {share:.2g} of its float32 rate"
    step = _predicted_step(row, known)
    if step is None:
        return None
    seconds = step * (1 + (1 if step > LONG_STEP_SECONDS else LEAST_STEPS))
    if seconds > budget_seconds:
        return f"would take about {seconds:.0f} s, more than --budget-seconds {budget_seconds:g}"
    return None


def _predicted_step(row: Row, known: Entries) -> float | None:
    """Return the seconds of a step by the rows that this one needs: in proportion to the batch, or along the line
    through two class lists; None when those are not there.
    """
    found = [known[name] for name in row.needs if known.get(name, {}).get("status") == DONE]
    if not found:
        return None
    times = [median(entry["measured"]["seconds"]) for entry in found]
    if row.group == "model":
        return times[0] * row.settings["batch"] / float(found[0]["settings"]["batch"])
    counts = [float(entry["settings"]["classes"]) for entry in found]
    if len(found) == 1:
        return times[0] * max(1.0, row.settings["classes"] / counts[0]) if row.name.endswith("at-once") else None
    slope = max(0.0, (times[1] - times[0]) / (counts[1] - counts[0]))
    return times[1] + slope * (row.settings["classes"] - counts[1])
