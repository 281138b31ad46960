"""What the rows of a machine say as ratios: to its rate of matrix products, to each other, to what the model needs."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from mmovseg.engine.benchmark.results import DONE
from mmovseg.engine.cost_table import QUIET_CORES

Entries = Mapping[str, Mapping[str, Any]]
BASE_COUNT = 20
"""Class lists are set against one of so many classes."""


def ratios_of(entries: Entries) -> dict[str, dict[str, Any]]:
    """Return figures by name of the row, for rows that were measured.

    Every row has ``seconds`` (median, least, most), ``count`` of them and ``busy``: others used the machine. Beyond
    that, by group:

    model: ``images_per_s``, ``peak_mb``, ``gflop`` of a step, ``of_matmul``: achieved rate over the measured one.
    classes: the same, and ``time`` and ``memory`` over those of 20 classes.
    data: ``images_per_s``, ``mpx_per_s``, ``of_inference`` and ``of_training``: over what the fastest rows of the model
        take in.
    scene: ``of_model``: whole time over that of the model in it; ``mpx_per_s``, ``share`` of the time by kind of work.
    reference: ``tricks``, each with ``ratio`` of the plain time to ours.

    Args:
        entries: of one machine, by name.
    """
    done = {name: entry for name, entry in entries.items() if entry["status"] == DONE}
    work = done.get("machine/operations", {}).get("measured")
    found: dict[str, dict[str, Any]] = {}
    for name, entry in done.items():
        measured = entry["measured"]
        facts: dict[str, Any] = {"busy": (measured.get("other_cores") or 0.0) > QUIET_CORES}
        if "seconds" in measured:
            times = measured["seconds"]
            facts |= {"seconds": (median(times), min(times), max(times)), "count": len(times)}
        if entry["kind"] == "model":
            facts |= _model(entry["settings"], measured, work)
        found[name] = facts
    _compare_classes(done, found)
    need = {
        phase: max(
            (found[name]["images_per_s"] for name in found if name.startswith(f"{group}/")),
            default=None,
        )
        for phase, group in (("infer", "inference"), ("train", "training"))
    }
    for name, entry in done.items():
        if entry["group"] == "data":
            found[name] |= _data(entry["measured"], need)
        elif entry["group"] == "scene":
            found[name] |= _scene(entry["measured"])
        elif entry["group"] == "reference":
            found[name]["tricks"] = [_trick(trick) for trick in entry["measured"]["tricks"]]
    return found


def _model(settings: Mapping[str, Any], measured: Mapping[str, Any], work: Mapping[str, Any] | None) -> dict[str, Any]:
    step = median(measured["seconds"])
    facts: dict[str, Any] = {"images_per_s": settings["batch"] / step, "peak_mb": measured["peak_mb"]}
    if work is None:
        return facts
    counts = work[settings["phase"]]
    more = settings["classes"] - work["classes"]
    if more and "per_class" not in counts:
        return facts
    image = counts["per_image"] + more * counts.get("per_class", 0.0)
    gflop = 2e-9 * (settings["batch"] * image + counts.get("per_step", 0.0))
    return facts | {"gflop": gflop, "of_matmul": gflop / step / measured["matmul_gflops_precision"]}


def _compare_classes(done: Entries, found: dict[str, dict[str, Any]]) -> None:
    lists = [name for name in done if done[name]["group"] == "classes"]
    base = next((name for name in lists if name == f"classes/{BASE_COUNT}"), lists[0] if lists else None)
    for name in lists:
        assert base is not None
        found[name] |= {
            "time": found[name]["seconds"][0] / found[base]["seconds"][0],
            "memory": found[name]["peak_mb"] / found[base]["peak_mb"],
            "base": done[base]["settings"]["classes"],
        }


def _data(measured: Mapping[str, Any], need: Mapping[str, float | None]) -> dict[str, Any]:
    step = median(measured["seconds"])
    images = measured["images"] / step
    return {
        "images_per_s": images,
        "mpx_per_s": measured["pixels"] / step / 1e6,
        "of_inference": images / need["infer"] if need["infer"] else None,
        "of_training": images / need["train"] if need["train"] else None,
    }


def _scene(measured: Mapping[str, Any]) -> dict[str, Any]:
    total, model = median(measured["seconds"]), median(measured["model_seconds"])
    spent = {name: value for name, value in measured["spent"].items() if name != "total"}
    share = {name: value / total for name, value in spent.items()}
    return {
        "of_model": total / model,
        "mpx_per_s": measured["pixels"] / total / 1e6,
        "share": share | {"other": max(0.0, 1.0 - sum(share.values()))},
    }


def _trick(trick: Mapping[str, Any]) -> dict[str, Any]:
    ours, plain = (trick[which]["seconds"] for which in ("ours", "plain"))
    pairs = [slow / fast for slow, fast in zip(plain, ours, strict=True)]
    return {
        "name": trick["name"],
        "part": trick["part"],
        "ours": median(ours),
        "plain": median(plain),
        "ratio": median(pairs),
        "spread": (min(pairs), max(pairs)),
        "count": len(pairs),
        "largest_difference": trick["largest_difference"],
    }
