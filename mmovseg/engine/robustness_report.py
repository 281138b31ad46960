"""What a sweep of `mmovseg.engine.robustness` shows: Markdown tables and one picture, both from the CSV's rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmovseg.engine.robustness import ANY
from mmovseg.engine.tables import mean_and_spread
from mmovseg.errors import UserError
from mmovseg.visualization.curves import Curve, CurvePanel, draw_curves


@dataclass(frozen=True)
class Score:
    """What one seed reached, and its interval over scenes if it is known, in percent."""

    value: float
    interval: tuple[float, float] | None


_COLORS = {"both": "#0b57d0", "optical": "#e8710a", "sar": "#188038", "shuffled-sar": "#9334e6"}
_WITHHELD = {
    "both": "tested with both",
    "optical": "SAR withheld",
    "sar": "optical withheld",
    "shuffled-sar": "SAR of another place",
}


def to_markdown(sweep: Mapping[str, Any], rows: Sequence[Mapping[str, str]], *, metric: str = "mIoU") -> str:
    """Return a table of the cover sweep and one of the shift sweep.

    Cells are mean and sample standard deviation over seeds, or, where one seed was measured, its value and a 95 %
    interval over scenes.

    Args:
        sweep: from `read_sweep`.
        rows: from `read_rows`.
        metric: which of the CSV's metrics.
    """
    parts = [_table(sweep, rows, ("cover",), f"cloud cover, {sweep['kind']}", sweep["columns"], "%", metric)]
    if any(run.get("shift") or run.get("margin") for run in sweep["runs"]):
        parts.append(_table(sweep, rows, ("shift", "margin"), "SAR shifted by", sweep["shift_px"], "px", metric))
    return "\n\n".join(parts)


def _table(
    sweep: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    parts: Sequence[str],
    corner: str,
    values: Sequence[int],
    unit: str,
    metric: str,
) -> str:
    lines = [
        f"| {corner} | " + " | ".join(f"{value} {unit}" for value in values) + " | seeds |",
        "|---|" + "---:|" * (len(values) + 1),
    ]
    for run in sweep["runs"]:
        for part in parts:
            for modality in run.get(part, ()):
                found = [_seeds(sweep, rows, run["name"], part, modality, value, metric) for value in values]
                count = min(len(scores) for scores in found)
                cells = " | ".join(_cell(scores) for scores in found)
                lines.append(f"| {series_label(run, part, modality)} | {cells} | {count} |")
    return "\n".join(lines)


def _cell(scores: Sequence[Score]) -> str:
    if len(scores) == 1 and scores[0].interval is not None:
        low, high = scores[0].interval
        return f"{scores[0].value:.1f} ({low:.1f}-{high:.1f})"
    return mean_and_spread([score.value for score in scores])


def series_label(run: Mapping[str, Any], part: str, modality: str) -> str:
    """Say in words which model is tested with what."""
    own = next(iter(run.get("cover") or [modality]))
    label = str(run.get("label", run["name"])) + ("" if modality == own else f", {_WITHHELD[modality]}")
    return f"{label}, only the margin missing" if part == "margin" else label


def draw_sweep(
    sweep: Mapping[str, Any], rows: Sequence[Mapping[str, str]], path: str | Path, *, metric: str = "mIoU"
) -> None:
    """Draw mIoU against cover and against shift; lines are means.

    Bands reach from the worst to the best seed, or, of a single seed, over the 95 % interval of the scenes.

    Raises:
        UserError: no row belongs to the sweep.
    """
    panels = [
        CurvePanel(
            f"cloud cover, kind '{sweep['kind']}'", "pixels under cloud, %", _curves(sweep, rows, "cover", metric)
        ),
        CurvePanel("SAR shifted, clouds as configured", "shift, pixels", _curves(sweep, rows, "shift", metric)),
    ]
    panels = [panel for panel in panels if panel.curves]
    if not panels:
        raise UserError(f"no row of sweep '{sweep['name']}' is measured yet, so there is nothing to draw")
    counts = {len({row["seed"] for row in rows if row["run"] == name}) for name in {row["run"] for row in rows}}
    spread = f"mean of {max(counts)} seeds, bands from the worst to the best" if max(counts) > 1 else ""
    single = "95 % interval over scenes" if min(counts) == 1 else ""
    band = f"{spread}; of one seed: {single}" if spread and single else spread or f"bands: {single}"
    draw_curves(panels, path, y_label=f"{metric}, %", note=f"{sweep['title']}; {band}")


def _curves(sweep: Mapping[str, Any], rows: Sequence[Mapping[str, str]], part: str, metric: str) -> list[Curve]:
    values = sweep["percent"] if part == "cover" else sweep["shift_px"]
    curves = []
    for number, run in enumerate(sweep["runs"]):
        dotted = [("margin", modality) for modality in run.get("margin", ()) if part == "shift"]
        for own_part, modality in [*((part, modality) for modality in run.get(part, ())), *dotted]:
            found = {value: _seeds(sweep, rows, run["name"], own_part, modality, value, metric) for value in values}
            found = {value: scores for value, scores in found.items() if scores}
            if not found:
                continue
            bands = [_band(scores) for scores in found.values()]
            curves.append(
                Curve(
                    label=series_label(run, own_part, modality),
                    x=list(found),
                    mean=[statistics.mean(score.value for score in scores) for scores in found.values()],
                    low=[low for low, _ in bands],
                    high=[high for _, high in bands],
                    color=_COLORS[modality],
                    style=":" if own_part == "margin" else "-" if number == 0 else "--",
                )
            )
    return curves


def _band(scores: Sequence[Score]) -> tuple[float, float]:
    if len(scores) == 1 and scores[0].interval is not None:
        return scores[0].interval
    return min(score.value for score in scores), max(score.value for score in scores)


def _seeds(
    sweep: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    run: str,
    part: str,
    modality: str,
    value: int,
    metric: str,
) -> list[Score]:
    """Return one score a seed; what the sweep cannot change has one row for all values."""
    part = "shift" if (part, value) == ("margin", 0) else part
    kind = sweep["kind"] if part == "cover" else ""
    wanted = {"run": run, "sweep": part, "modality": modality, "kind": kind}
    return [
        Score(float(row[metric]), _interval(row, metric))
        for row in rows
        if row["value"] in (str(value), ANY) and all(row[key] == text for key, text in wanted.items()) and row[metric]
    ]


def _interval(row: Mapping[str, str], metric: str) -> tuple[float, float] | None:
    low, high = row.get(f"{metric} low"), row.get(f"{metric} high")
    return (float(low), float(high)) if low and high else None
