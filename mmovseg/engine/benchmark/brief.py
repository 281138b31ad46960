"""The results of a benchmark in a few lines: what a step costs, and each thing beside it as a ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmovseg.engine.benchmark.ratios import Entries, ratios_of
from mmovseg.engine.benchmark.results import Results

Facts = Mapping[str, Mapping[str, Any]]


def to_brief_markdown(results: Results) -> str:
    """Return one table with a line a kind of measurement and a column a machine; what was not measured stays empty."""
    machines = results.machines()
    columns = [_lines(results.of(machine)) for machine in machines]
    head = ["", *(f"{name}, {threads} thread{'s' if threads != 1 else ''}" for _, name, threads in machines)]
    labels = list(dict.fromkeys(label for column in columns for label in column))
    rows = [head, ["---"] * len(head)] + [[label, *(column.get(label, "") for column in columns)] for label in labels]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _lines(entries: Entries) -> dict[str, str]:
    """Return label -> figure of one machine."""
    facts = ratios_of(entries)
    lines = {}
    for label, phase, group in (
        ("inference, one image of 384 px", "infer", "inference"),
        ("training step, one image", "train", "training"),
    ):
        text = _fastest(entries, facts, phase, group)
        if text:
            lines[label] = text
    for name, count in (("classes/150", 150), ("classes/847", 847)):
        if name in facts and "time" in facts[name]:
            fact = facts[name]
            lines[f"{count} classes instead of {fact['base']}"] = (
                f"{fact['time']:.2f} x the time, {fact['memory']:.2f} x the memory"
            )
    for label, start, need in (
        ("loaders of training pairs", ("loader/png", "loader/geotiff"), "training"),
        ("reading a scene", ("loader/aligned", "loader/warped"), "inference"),
        ("evaluator", ("evaluation/",), "inference"),
    ):
        values = [fact.get(f"of_{need}") for name, fact in facts.items() if name.startswith(start)]
        known = [value for value in values if value]
        if known:
            least = "at least " if len(known) > 1 else ""
            lines[label] = f"{least}{min(known):.0f} x the images that {need} takes in"
    scenes = [fact for fact in facts.values() if "of_model" in fact]
    if scenes:
        lines["a scene, SAR warped"] = f"{scenes[0]['of_model']:.2f} x the model's time in it"
    return lines


def _fastest(entries: Entries, facts: Facts, phase: str, group: str) -> str:
    """Say what one image takes in the fastest row of batch 1."""
    rows = [
        fact
        for name, fact in facts.items()
        if name.startswith(f"{group}/")
        and entries[name]["settings"]["batch"] == 1
        and entries[name]["settings"]["phase"] == phase
    ]
    if not rows:
        return ""
    best = min(rows, key=lambda fact: fact["seconds"][0])
    rate = f", {best['of_matmul']:.2f} of the rate of matrix products" if "of_matmul" in best else ""
    return f"{best['seconds'][0]:.2g} s, {best['peak_mb']:,.0f} MiB{rate}"
