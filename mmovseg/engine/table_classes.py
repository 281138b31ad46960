"""The IoU of single classes of measured runs as a picture: one panel a run, mean and spread over seeds (Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.errors import UserError
from mmovseg.visualization.bars import BarPanel, ClassBar, draw_class_bars


def class_panels(
    rows: Sequence[Mapping[str, str]],
    *,
    table: Mapping[str, Any] | None = None,
    only: Sequence[str] | None = None,
    modality: str | None = None,
) -> list[BarPanel]:
    """Return a panel for every run, modality and test set; seen classes stand first.

    Args:
        rows: from `read_classes`.
        table: whose runs are shown, in its order and with its labels; None = all, by name, as they were measured.
        only: names of the runs to show.
        modality: show what was tested with this alone; None = every modality a run was tested with, or with a table
            the first that its run names.

    Raises:
        UserError: no row is of these runs and this modality, or a run of `only` is unknown.
    """
    names = [str(run["name"]) for run in table["runs"]] if table else list(dict.fromkeys(row["run"] for row in rows))
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise UserError(f"there is no run '{unknown[0]}'; there are: {', '.join(names) or 'none'}")
    labels = {run["name"]: run["label"] for run in table["runs"]} if table else {}
    first = {run["name"]: run["evaluate"][0] for run in table["runs"]} if table else {}
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for name in (name for name in names if only is None or name in only):
        for row in (row for row in rows if row["run"] == name):
            if row["modality"] == (modality or first.get(name, row["modality"])):
                groups.setdefault((name, row["modality"], row["dataset"]), []).append(row)
    if not groups:
        raise UserError("no class was measured yet for these runs" + (f" with modality {modality}" if modality else ""))
    several = len({(name, dataset) for name, _, dataset in groups}) < len(groups)
    panels = []
    for (name, tested_with, _), found in groups.items():
        title = str(labels.get(name, name)) + (f", {tested_with}" if several else "")
        panels.append(BarPanel(title, _bars(found)))
    return panels


def _bars(rows: Sequence[Mapping[str, str]]) -> list[ClassBar]:
    values: dict[tuple[str, bool], list[float]] = {}
    for row in rows:
        mine = values.setdefault((row["class"], row["seen"] == "1"), [])
        if row["IoU"]:
            mine.append(float(row["IoU"]))
    bars = [ClassBar(name, seen, found) for (name, seen), found in values.items()]
    return sorted(bars, key=lambda bar: not bar.seen)


def draw_classes(panels: Sequence[BarPanel], path: str | Path, *, columns: int = 3) -> None:
    """Draw the panels, with a line that says what the marks on the bars are."""
    counts = {len(bar.values) for panel in panels for bar in panel.bars if bar.values}
    note = f"lines: standard deviation over {_seeds(counts)} trainings" if max(counts, default=0) > 1 else ""
    draw_class_bars(panels, path, columns=columns, note=note)


def _seeds(counts: set[int]) -> str:
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def panels_to_markdown(panels: Sequence[BarPanel]) -> str:
    """Return the numbers of the picture as a table, one row a class and panel."""
    lines = ["| setting | class | | IoU | seeds |", "|---|---|---|---:|---:|"]
    for panel in panels:
        for bar in panel.bars:
            spread = f" ± {bar.spread:.1f}" if len(bar.values) > 1 else ""
            value = f"{bar.mean:.1f}{spread}" if bar.values else ""
            lines.append(
                f"| {panel.title} | {bar.name} | {'seen' if bar.seen else 'unseen'} | {value} | {len(bar.values)} |"
            )
    return "\n".join(lines)
