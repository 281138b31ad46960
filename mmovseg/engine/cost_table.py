"""Rows and tables of measured costs, beside figures that a paper reports (MM-OVSeg: Table A2).

A table is a JSON file below ``configs/tables``: ``title``, ``rows``, and optionally ``reported`` (where the reported
figures are from) and ``notes``. A row has ``name`` and ``label``, and optionally ``config``, without which it is only
reported; ``overrides``; ``part``, what is measured alone; ``steps``, ``warmup``, ``batch`` and ``pixels`` as in `Job`;
and ``reported`` with any of `REPORTED`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from mmovseg.config import apply_overrides, config_hash, load_config
from mmovseg.engine.cost import PHASES, Job, Phase, measure
from mmovseg.engine.stopwatch import spread
from mmovseg.engine.table_rows import append_row, read_rows
from mmovseg.errors import UserError

REPORTED = ("train_ms", "infer_ms", "train_kg", "infer_kg", "parameters_m")
FIELDS = (
    "table", "name", "config", "part", "device", "machine", "threads", "precision", "batch", "input", "parameters",
    "trainable", "train_ms", "train_ms_least", "train_ms_most", "train_cpu_ms", "train_steps", "frozen_share",
    "forward_share", "backward_share", "optimizer_share", "forward_parts", "train_peak_mb", "infer_ms",
    "infer_ms_least", "infer_ms_most", "infer_cpu_ms", "infer_images", "infer_input", "infer_peak_mb", "start_mb",
    "other_cores", "matmul_gflops", "max_iter", "train_kwh", "train_kg", "infer_kwh_1000", "infer_kg_1000",
    "energy_source", "torch", "config_sha256", "commit",
)  # fmt: skip
QUIET_CORES = 0.25
"""More than so many cores in use by others while measuring, and a row is marked as measured on a busy machine."""

_ROW_KEYS = {"name", "label", "config", "overrides", "part", "steps", "warmup", "batch", "pixels", "reported"}


@dataclass(frozen=True)
class Request:
    """What is to be measured for one row; `steps` and `warmup` None = the defaults of `Job`."""

    name: str
    config: str
    table: str = ""
    part: str | None = None
    overrides: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = PHASES
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    images: int | None = None

    def jobs(self) -> dict[Phase, Job]:
        """Return the job of each phase."""
        options = {key: value for key, value in self.options.items() if value is not None}
        sizes: dict[Phase, int | None] = {"train": self.batch, "infer": self.images}
        return {
            phase: Job(self.config, phase, overrides=self.overrides, part=self.part, batch=sizes[phase], **options)
            for phase in self.phases
        }


def measure_row(
    request: Request, *, run: Callable[[Job], dict[str, Any]] = measure
) -> tuple[dict[str, Any], dict[Phase, dict[str, Any]]]:
    """Measure both phases, each in its own process.

    Returns:
        The row, and all that was measured by phase.
    """
    found = {phase: run(job) for phase, job in request.jobs().items()}
    return cost_row(request, found), found


def cost_row(request: Request, found: Mapping[Phase, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one row of the CSV from what was measured by phase."""
    first = next(iter(found.values()))
    every, trainable = first["parameters"]["total"]
    row: dict[str, Any] = {
        "table": request.table,
        "name": request.name,
        "config": request.config,
        "part": request.part or "",
        **{key: first[key] for key in ("device", "machine", "threads", "precision", "max_iter", "config_sha256")},
        "config_sha256": first["config_sha256"][:12],
        "commit": str(first["commit"] or "")[:12],
        "torch": first["versions"].get("torch", ""),
        "parameters": every,
        "trainable": trainable,
        "start_mb": _number(first["start_mb"], 0),
        "other_cores": _number(_greatest(facts["other_cores"] for facts in found.values()), 2),
        "matmul_gflops": _number(median(facts["matmul_gflops"] for facts in found.values()), 1),
    }
    if "train" in found:
        row |= _train_cells(found["train"])
    if "infer" in found:
        row |= _infer_cells(found["infer"])
    energies = [facts["energy"]["source"] for facts in found.values() if facts["energy"]]
    return row | {"energy_source": energies[0] if energies else ""}


def _train_cells(facts: Mapping[str, Any]) -> dict[str, Any]:
    middle, least, most = spread(facts["seconds"])
    shares, parts = facts["shares"], facts["parts"]
    cells = {
        "batch": facts["batch"],
        "input": facts["input"],
        "train_ms": _number(middle, 1),
        "train_ms_least": _number(least, 1),
        "train_ms_most": _number(most, 1),
        "train_cpu_ms": _number(1000 * median(facts["cpu_seconds"]), 1),
        "train_steps": len(facts["seconds"]),
        # without parts to watch (one part alone, a compiled model) nobody knows
        "frozen_share": _percent(sum(parts[name] for name in facts["frozen"])) if parts else "",
        **{f"{name}_share": _percent(share) for name, share in shares.items()},
        "forward_parts": ", ".join(f"{name} {_percent(share)}" for name, share in parts.items()),
        "train_peak_mb": _number(facts["peak_mb"], 0),
    }
    if facts["energy"]:
        runs = facts["max_iter"] / len(facts["seconds"])
        cells |= {
            "train_kwh": f"{facts['energy']['kwh'] * runs:.4g}",
            "train_kg": f"{facts['energy']['kg_co2'] * runs:.4g}",
        }
    return cells


def _infer_cells(facts: Mapping[str, Any]) -> dict[str, Any]:
    images = facts["batch"]
    middle, least, most = (value / images for value in spread(facts["seconds"]))
    cells = {
        "infer_images": images,
        "infer_input": facts["input"],
        "infer_ms": _number(middle, 1),
        "infer_ms_least": _number(least, 1),
        "infer_ms_most": _number(most, 1),
        "infer_cpu_ms": _number(1000 * median(facts["cpu_seconds"]) / images, 1),
        "infer_peak_mb": _number(facts["peak_mb"], 0),
    }
    if facts["energy"]:
        runs = 1000 / (images * len(facts["seconds"]))
        cells |= {
            "infer_kwh_1000": f"{facts['energy']['kwh'] * runs:.4g}",
            "infer_kg_1000": f"{facts['energy']['kg_co2'] * runs:.4g}",
        }
    return cells


def _greatest(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


# ---------------------------------------------------------------- tables


def read_cost_table(path: str | Path) -> dict[str, Any]:
    """Read a table's definition.

    Raises:
        UserError: the file is missing, lacks a key or has an unknown one, or two rows share a name.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        table = {"name": path.stem, "title": str(content["title"]), "rows": list(content["rows"])}
        table |= {"reported": str(content.get("reported", "")), "notes": list(content.get("notes", ()))}
        names = [row["name"] for row in table["rows"]]
        for row in table["rows"]:
            row.setdefault("label", row["name"])
    except OSError as error:
        raise UserError(f"table '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"table '{path}' needs JSON with title, and rows with names: {error}") from error
    unknown = {key for row in table["rows"] for key in set(row) - _ROW_KEYS}
    unknown |= {key for row in table["rows"] for key in set(row.get("reported", {})) - set(REPORTED)}
    if unknown:
        raise UserError(f"table '{path}': a row has no key '{sorted(unknown)[0]}'")
    if len(set(names)) < len(names):
        raise UserError(f"table '{path}' has two rows named '{max(names, key=names.count)}'")
    return table


def fill_cost_table(
    table: Mapping[str, Any],
    results: str | Path,
    *,
    options: Mapping[str, Any],
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
    again: bool = False,
    skip: Callable[[str, str], None] | None = None,
    run: Callable[[Job], dict[str, Any]] = measure,
) -> list[dict[str, str]]:
    """Measure the rows that the CSV does not hold yet, each appended as it is done, and return all rows.

    Args:
        table: from `read_cost_table`.
        results: CSV to append to.
        options: fields of `Job` that go before those of the rows, None where the row or the default decides.
        overrides: ``key=value`` for every row.
        only: names of the rows to measure, None = all.
        again: measure also what the CSV holds; the newest row then counts.
        skip: called with name and reason of a row that cannot be measured, and the table goes on; None stops it.
        run: does a job.

    Raises:
        UserError: `only` names a row that is not there or only reported, a row was measured with another config, or
            one cannot be measured.
    """
    measurable = {row["name"]: row for row in table["rows"] if "config" in row}
    for name in only or ():
        if name not in measurable:
            raise UserError(f"table '{table['name']}' measures no row '{name}'; it has: {', '.join(measurable)}")
    known = {row["name"]: row for row in read_rows(results) if row["table"] == table["name"]}  # the newest wins
    for name, row in measurable.items():
        if only is not None and name not in only:
            continue
        settings = (*row.get("overrides", ()), *overrides)
        if name in known and not again and _still_stands(known[name], row["config"], settings, options):
            continue
        chosen = {key: row.get(key) for key in ("steps", "warmup", "pixels")}
        chosen |= {key: value for key, value in options.items() if value is not None}
        request = Request(
            name=name,
            config=row["config"],
            table=table["name"],
            part=row.get("part"),
            overrides=settings,
            options=chosen,
            batch=row.get("batch"),
        )
        try:
            append_row(results, measure_row(request, run=run)[0], FIELDS)
        except UserError as error:
            if skip is None:
                raise
            skip(name, str(error))
    return read_rows(results)


def _still_stands(
    row: Mapping[str, str], config_file: str, overrides: Sequence[str], options: Mapping[str, Any]
) -> bool:
    """Whether a row needs no new measurement: it holds all that is asked for. Raises when its config has changed."""
    now = _config_digest(config_file, overrides)[: len(row["config_sha256"])]
    if row["config_sha256"] != now:
        raise UserError(
            f"the row '{row['name']}' was measured with another config than '{config_file}' is now "
            f"({row['config_sha256']}, now {now}); --again measures it anew"
        )
    return bool(row["energy_source"]) or not options.get("energy")


def _config_digest(config_file: str, overrides: Sequence[str]) -> str:
    return config_hash(apply_overrides(load_config(config_file), overrides))


def cost_markdown(table: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> str:
    """Return the newest row of each name as Markdown, with the reported figures beside it; "not run" without a row."""
    head = [
        "module", "batch and input", "train, ms a step", "frozen / forward / backward / optimiser, %",
        "inference, ms an image", "peak MiB, train / inference", "parameters (trained)", "training, kWh / kg CO2",
        "1,000 images, kWh / kg CO2",
    ]  # fmt: skip
    beside = any(row.get("reported") for row in table["rows"])
    if beside:
        head += ["*reported* ms, train / inference", "*reported* kg CO2, train / inference", "*reported* parameters"]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---", "---", *["---:"] * (len(head) - 2)]) + "|"]
    newest = {row["name"]: row for row in rows if row["table"] == table["name"]}
    for entry in table["rows"]:
        row = newest.get(entry["name"])
        cells = [entry["label"], *(_cells(row) if row is not None else ["not run", *[""] * 7])]
        if "config" not in entry:
            cells[1] = "not ours"
        if beside:
            cells += _reported_cells(entry.get("reported", {}))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: Mapping[str, str]) -> list[str]:
    busy = float(row["other_cores"] or 0) > QUIET_CORES
    size = f"{row['batch']} x ({row['input']})" if row["train_ms"] else row["infer_input"]
    forward = ""
    if row["train_ms"]:
        frozen = row["frozen_share"] or "?"
        rest = float(row["forward_share"]) - float(row["frozen_share"] or 0)
        forward = " / ".join([frozen, f"{rest:.1f}", row["backward_share"], row["optimizer_share"]])
    return [
        size,
        _time(row, "train", busy),
        forward,
        _time(row, "infer", busy),
        _pair(row["train_peak_mb"], row["infer_peak_mb"]),
        f"{int(row['parameters']) / 1e6:.2f}M ({int(row['trainable']) / 1e6:.2f}M)",
        _pair(row["train_kwh"], row["train_kg"]),
        _pair(row["infer_kwh_1000"], row["infer_kg_1000"]),
    ]


def _time(row: Mapping[str, str], phase: str, busy: bool) -> str:
    if not row[f"{phase}_ms"]:
        return ""
    times = [_short(row[f"{phase}_ms{which}"]) for which in ("", "_least", "_most")]
    return f"{times[0]} ({times[1]} to {times[2]})" + (" (busy machine)" if busy else "")


def _short(text: str) -> str:
    value = float(text)
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _pair(first: str, second: str) -> str:
    return f"{first or '-'} / {second or '-'}" if first or second else ""


def _reported_cells(figures: Mapping[str, float]) -> list[str]:
    def pair(*keys: str) -> str:
        return " / ".join(f"*{figures[key]:g}*" if key in figures else "-" for key in keys) if figures else ""

    parameters = f"*{figures['parameters_m']:g}M*" if "parameters_m" in figures else ""
    return [pair("train_ms", "infer_ms"), pair("train_kg", "infer_kg"), parameters]


def footnote(rows: Sequence[Mapping[str, str]], table: Mapping[str, Any]) -> str:
    """Say on which machines the rows of a table were measured, how energy was had, and the table's own notes."""
    own = [row for row in rows if row["table"] == table["name"]]
    machines = sorted({f"{row['machine']}, {row['threads']} thread(s), torch {row['torch']}" for row in own})
    lines = [f"Measured here on {'; '.join(machines)}."] if machines else []
    lines += [f"Energy: {source}." for source in sorted({row["energy_source"] for row in own} - {""})]
    return "\n".join([*lines, *([f"Reported: {table['reported']}."] if table["reported"] else []), *table["notes"]])
