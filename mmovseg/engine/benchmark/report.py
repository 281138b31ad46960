"""The results of a benchmark as Markdown: one section a machine, every figure beside the ratio that it stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.engine.benchmark.ratios import Entries, ratios_of
from mmovseg.engine.benchmark.results import DONE, Results

_REPORTED = (
    "*Reported in the project's notes*, measured on the authors' code (B/16, batch 1, 384 px, float32, torch 2.14.1, 2 "
    "cores of an AMD EPYC, rate of matrix products not recorded): 22.2 s (22.0 to 24.0) for 6 classes."
)
_BESIDE = (
    "A scene is read while the model works, on the same cores: the model's time, by which the whole time is divided, "
    "contains what that reading took from it, and read % is only what the model waited for."
)
_WHAT = {
    "loader/png": "training loader, PNG pairs",
    "loader/geotiff": "training loader, GeoTIFF pairs",
    "loader/aligned": "windows of a scene, SAR on the same grid",
    "loader/warped": "windows of a scene, SAR warped",
    "evaluation/confusion": "evaluator",
}
_SPENT = ("read", "model", "blend", "write", "finish", "other")


def to_markdown(results: Results) -> str:
    """Return the tables of all machines in the results, one after the other."""
    return "\n\n".join(_section(machine, results.of(machine)) for machine in results.machines())


def _section(machine: tuple[str, str, int], entries: Entries) -> str:
    _, name, threads = machine
    found = ratios_of(entries)
    tables = [
        _model_table(entries, found),
        _class_table(entries, found),
        _data_table(entries, found),
        _scene_table(entries, found),
        _trick_table(entries, found),
    ]
    heading = f"**{name}, {threads} thread{'s' if threads != 1 else ''}**{_rates(entries)}"
    return "\n\n".join([heading, *(table for table in tables if table), _footnote(entries, found)])


def _rates(entries: Entries) -> str:
    entry = entries.get("machine/matmul")
    if entry is None or entry["status"] != DONE:
        return ""
    rates = entry["measured"]["gflops"]
    words = ", ".join(f"{_figure(rate)} GFLOP/s in {name}" for name, rate in rates.items())
    emulated = " (emulated)" if entry["measured"]["bfloat16_is_emulated"] else ""
    return f": matrix products run at {words}{emulated}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int) -> str:
    rows = list(rows)
    if not rows:
        return ""
    rule = ["---"] * text_columns + ["---:"] * (len(head) - text_columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def _model_table(entries: Entries, found: Mapping[str, Mapping[str, Any]]) -> str:
    figures = ["images/s", "ms a step", "peak MiB", "GFLOP a step", "of matmul rate"]
    head = [_config(entries, "model"), "batch", "precision", "mode", *figures]
    rows: list[list[str]] = []
    left: dict[tuple[str, str], list[str]] = {}
    for name, entry in entries.items():
        if entry["group"] != "model":
            continue
        settings = entry["settings"]
        mode = "compiled" if settings["compiled"] else "eager"
        what = "inference" if settings["phase"] == "infer" else "training step"
        start = [what, str(settings["batch"]), settings["precision"], mode]
        if name not in found:
            left.setdefault((entry["status"], entry["reason"]), []).append(
                ", ".join([what, f"batch {settings['batch']}", *start[2:]])
            )
            continue
        facts = found[name]
        work = [_figure(facts["gflop"]), f"{facts['of_matmul']:.2f}"] if "gflop" in facts else ["", ""]
        rows.append([*start, _figure(facts["images_per_s"]), _times(facts), f"{facts['peak_mb']:,.0f}", *work])
    lines = [f"{status.capitalize()}: {'; '.join(names)} ({why})." for (status, why), names in left.items()]
    return "\n\n".join(part for part in [_table(head, rows, text_columns=4), *lines] if part)


def _class_table(entries: Entries, found: Mapping[str, Mapping[str, Any]]) -> str:
    names = [name for name, entry in entries.items() if entry["group"] == "classes"]
    base = next((found[name]["base"] for name in names if name in found), 0)
    head = ["classes (inference, float32)", "ms an image", f"time over {base}", "peak MiB", f"memory over {base}",
            "of matmul rate"]  # fmt: skip
    rows = []
    for name in names:
        settings = entries[name]["settings"]
        label = f"{settings['classes']}{', decoded all at once' if name.endswith('at-once') else ''}"
        if name not in found:
            rows.append([label, _why(entries[name]), *[""] * 4])
            continue
        facts = found[name]
        rows.append(
            [
                label,
                _times(facts),
                f"{facts['time']:.2f}",
                f"{facts['peak_mb']:,.0f}",
                f"{facts['memory']:.2f}",
                f"{facts['of_matmul']:.2f}" if "of_matmul" in facts else "",
            ]
        )
    return _table(head, rows, text_columns=1)


def _data_table(entries: Entries, found: Mapping[str, Mapping[str, Any]]) -> str:
    head = ["data", "processes", "images/s", "Mpx/s", "over what inference takes", "over what training takes"]
    rows = []
    for name, entry in entries.items():
        if entry["group"] != "data":
            continue
        label = next(text for start, text in _WHAT.items() if name.startswith(start))
        workers = entry["settings"].get("workers")
        start = [label, "" if workers is None else "in the trainer's" if workers == 0 else f"{workers} workers"]
        if name not in found:
            rows.append([*start, _why(entry), *[""] * 3])
            continue
        facts = found[name]
        # training does not read scenes, nor does it count answers
        needs = [facts["of_inference"], facts["of_training"] if entry["kind"] == "loader" else None]
        ratios = [_figure(value) if value is not None else "" for value in needs]
        busy = " (busy machine)" if facts["busy"] else ""
        rows.append([*start, f"{_figure(facts['images_per_s'])}{busy}", _figure(facts["mpx_per_s"]), *ratios])
    return _table(head, rows, text_columns=2)


def _scene_table(entries: Entries, found: Mapping[str, Mapping[str, Any]]) -> str:
    head = ["scene, XS", "whole time over the model's", "s", "Mpx/s", *(f"{name} %" for name in _SPENT)]
    rows = []
    for name, entry in entries.items():
        if entry["group"] != "scene":
            continue
        side = entry["settings"]["scene_pixels"]
        label = f"{side} x {side} px, SAR warped"
        if name not in found:
            rows.append([label, _why(entry), *[""] * (len(head) - 2)])
            continue
        facts = found[name]
        median, least, most = facts["seconds"]
        busy = " (busy machine)" if facts["busy"] else ""
        seconds = f"{_figure(median)} ({_figure(least)} to {_figure(most)}, n = {facts['count']}){busy}"
        shares = [f"{100 * facts['share'].get(part, 0.0):.0f}" for part in _SPENT]
        rows.append([label, f"{facts['of_model']:.2f}", seconds, f"{facts['mpx_per_s']:.2f}", *shares])
    return _table(head, rows, text_columns=1)


def _trick_table(entries: Entries, found: Mapping[str, Mapping[str, Any]]) -> str:
    head = [f"{_config(entries, 'reference')} without", "measured on", "time without / with", "with, ms", "without, ms",
            "largest difference"]  # fmt: skip
    rows = []
    for name, entry in entries.items():
        if entry["group"] != "reference":
            continue
        if name not in found:
            rows.append([_why(entry), *[""] * 5])
            continue
        for trick in found[name]["tricks"]:
            least, most = trick["spread"]
            ratio = f"{trick['ratio']:.2f} ({least:.2f} to {most:.2f}, n = {trick['count']})"
            busy = " (busy machine)" if found[name]["busy"] else ""
            part = f"`{trick['part']}` alone" if trick["part"] else "whole forward pass"
            times = [_figure(1000 * trick[key]) for key in ("ours", "plain")]
            rows.append([trick["name"], part, ratio + busy, *times, f"{trick['largest_difference']:.1e}"])
    return _table(head, rows, text_columns=2)


def _footnote(entries: Entries, found: Mapping[str, Mapping[str, Any]]) -> str:
    done = [entry for entry in entries.values() if entry["status"] == DONE]
    lines = [
        "Times are medians (least to greatest, number of repeats) without data loading; peak memory is that of the "
        "process while stepping, weights included (CUDA: allocated)."
    ]
    if "machine/operations" in found:
        left = sorted(entries["machine/operations"]["measured"]["left_out"])
        lines.append(
            "FLOPs are two a multiply-add of convolutions, linear layers, matrix products and attention, counted by "
            "fvcore; a training step is 3 times the forward pass of layers that train, 2 times that of layers that "
            f"pass a gradient on, once that of frozen encoders. Not counted: {', '.join(left)}."
        )
    if any(entry["group"] == "scene" for entry in done):
        lines.append(_BESIDE)
    if any(_is_reported(entry) for entry in done):
        lines.append(_REPORTED)
    busy = [name for name in found if found[name]["busy"]]
    if busy:
        lines.append(f"Others used the machine during: {', '.join(busy)}.")
    commits = sorted({_commit(entry["commit"]) for entry in done})
    versions = sorted({f"torch {entry['versions'].get('torch', '?')}" for entry in done})
    lines.append(f"Commit {', '.join(commits)}; {', '.join(versions)}.")
    return "\n".join(lines)


def _config(entries: Entries, group: str) -> str:
    files = {entry["settings"]["config_file"]: None for entry in entries.values() if entry["group"] == group}
    return ", ".join(f"`{Path(file).stem}`" for file in files)


def _is_reported(entry: Mapping[str, Any]) -> bool:
    """Whether a row measured what `_REPORTED` says of the authors' code."""
    settings = entry["settings"]
    return (
        entry["group"] == "reference"
        and entry["device"] == "cpu"
        and Path(settings["config_file"]).stem == "released_vitb16"
        and settings["pixels"] == 384
    )


def _commit(commit: str | None) -> str:
    if commit is None:
        return "unknown"
    return commit[:12] + (" with changes" if commit.endswith("-dirty") else "")


def _why(entry: Mapping[str, Any]) -> str:
    return f"{entry['status']}: {entry['reason']}"


def _times(facts: Mapping[str, Any]) -> str:
    median, least, most = (_figure(1000 * value) for value in facts["seconds"])
    busy = " (busy machine)" if facts["busy"] else ""
    return f"{median} ({least} to {most}, n = {facts['count']}){busy}"


def _figure(value: float) -> str:
    """Return three digits, no power of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
