r"""Draw the losses of trainings, such as a mixture of experts beside its dense baseline (Fig. 6 of the paper).

python -m mmovseg.projects.crossearth.analysis.curves --run region:dense=output/crossearth/dense_region \
    region:MoE=output/crossearth/moe_region polarization:dense=output/crossearth/dense_polarization \
    polarization:MoE=output/crossearth/moe_polarization --output output/curves.png

A run is a folder with the ``metrics.json`` that training writes; PANEL:LABEL=FOLDER puts it into a panel. Folders of
one panel and label are seeds of one line: their mean, with a band from the least to the greatest.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmovseg.engine.analysis import Findings, picture_parser, run_analysis
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.visualization.figure import new_figure, save_figure
from mmovseg.visualization.plots import LINE_IN, color_of, legend_below, note_below, plain_axes, style_of

_PANEL_IN, _HEIGHT_IN, _LEFT_IN, _GAP_IN, _TOP_IN, _AXIS_IN = 3.6, 2.7, 0.75, 0.65, 0.45, 0.55
_PER_ROW = 4
_EDGE = 0.1  # share of the training that counts as its start and as its end

Line = dict[str, np.ndarray]

DEFINITION = {
    "start, end": "mean over the first and the last tenth of the iterations, before smoothing",
    "reaches the first line's end at": "first iteration from which the smoothed line is never above the end of the "
    "panel's first line; null = not reached",
}


def parse_runs(texts: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Return panel -> label -> folders of ``[PANEL:]LABEL=FOLDER``; a run without a panel is in the panel "".

    Raises:
        UserError: a text is not of this form.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        panel, colon, label = name.rpartition(":")
        if not (equals and folder and label) or (colon and not panel):
            raise UserError(f"--run '{text}' must be LABEL=FOLDER or PANEL:LABEL=FOLDER")
        found.setdefault(panel, {}).setdefault(label, []).append(folder)
    return found


def read_metric(folder: str | Path, metric: str) -> dict[int, float]:
    """Return iteration -> value of one run.

    Raises:
        UserError: there are no metrics, or not this one.
    """
    path = Path(folder) / "metrics.json"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"metrics '{path}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"metrics '{path}' hold a line that is not valid JSON: {error}") from error
    found = {int(line["iteration"]): float(line[metric]) for line in lines if metric in line and "iteration" in line}
    if not found:
        known = sorted({key for line in lines for key in line if "loss" in key})
        raise UserError(f"metrics '{path}' have no '{metric}'; losses there: {', '.join(known) or 'none'}")
    return found


def merge_seeds(runs: Sequence[Mapping[int, float]], *, source: str) -> Line:
    """Return ``x`` (n,) iterations that all runs have and ``values`` (runs, n).

    Raises:
        UserError: they have none in common.
    """
    x = sorted(set(runs[0]).intersection(*runs[1:]))
    if not x:
        raise UserError(f"the runs of {source} recorded no iteration in common, so they have no mean")
    return {"x": np.array(x), "values": np.array([[run[i] for i in x] for run in runs])}


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return the running mean over `window` values of the last axis, over fewer towards both ends."""
    half = window // 2
    total = np.cumsum(np.concatenate([np.zeros((*values.shape[:-1], 1)), values], axis=-1), axis=-1)
    index = np.arange(values.shape[-1])
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, values.shape[-1])
    return (total[..., high] - total[..., low]) / (high - low)


def line_figures(line: Line, smoothed: np.ndarray, goal: float | None) -> dict[str, Any]:
    """Return what the JSON says of a line.

    Args:
        line: of `merge_seeds`.
        smoothed: mean over seeds, smoothed.
        goal: end of the panel's first line, None for that line itself.
    """
    mean, count = line["values"].mean(axis=0), max(1, round(_EDGE * len(line["x"])))
    found: dict[str, Any] = {
        "seeds": len(line["values"]),
        "start": float(mean[:count].mean()),
        "end": float(mean[-count:].mean()),
        "ends of the seeds": line["values"][:, -count:].mean(axis=1).tolist(),
    }
    if goal is not None:
        above = np.flatnonzero(smoothed > goal)
        first = 0 if not len(above) else int(above[-1]) + 1
        found["reaches the first line's end at"] = int(line["x"][first]) if first < len(smoothed) else None
    return found


def draw_losses(panels: Mapping[str, Mapping[str, Line]], path: str | Path, *, y_label: str, window: int) -> None:
    """Draw panels of lines; a label has one colour everywhere.

    Args:
        panels: panel -> label -> line.
        path: PNG file; the same lines give the same bytes.
        y_label: of the vertical axis.
        window: values that are averaged.
    """
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    columns = min(_PER_ROW, len(panels))
    rows = -(-len(panels) // columns)
    legend_in = LINE_IN + 0.35
    step_x, step_y = _PANEL_IN + _GAP_IN, _HEIGHT_IN + _AXIS_IN + _TOP_IN
    figure = new_figure(_LEFT_IN + columns * step_x - _GAP_IN + 0.2, rows * step_y + legend_in)
    for number, (title, lines) in enumerate(panels.items()):
        left = _LEFT_IN + (number % columns) * step_x
        bottom = legend_in + (rows - 1 - number // columns) * step_y + _AXIS_IN
        axes = plain_axes(
            figure,
            (left, bottom, _PANEL_IN, _HEIGHT_IN),
            title=title.replace("_", " "),
            x_label="iteration",
            y_label=y_label if number % columns == 0 else "",
        )
        for label, line in lines.items():
            index, values = labels.index(label), smooth(line["values"], window)
            color = color_of(index)
            if len(values) > 1:
                axes.fill_between(line["x"], values.min(axis=0), values.max(axis=0), color=color, alpha=0.13, lw=0)
            else:
                axes.plot(line["x"], line["values"][0], color=color, alpha=0.22, linewidth=0.8)
            axes.plot(line["x"], values.mean(axis=0), color=color, linestyle=style_of(index), linewidth=1.8)
        low, high = _limits(list(lines.values()), window)
        axes.set_ylim(low, high)
        axes.margins(x=0.01)
    legend_below(figure, labels, y_in=0.28, columns=min(len(labels), 4 * columns))
    note_below(figure, f"running mean of {window} recorded values" + _band(panels))
    save_figure(figure, path)


def _limits(lines: Sequence[Line], window: int) -> tuple[float, float]:
    """Return the range of the smoothed lines with a margin: single values of small batches would fill the panel."""
    values = np.concatenate([smooth(line["values"], window).ravel() for line in lines])
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.5
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _band(panels: Mapping[str, Mapping[str, Line]]) -> str:
    seeds = max(len(line["values"]) for lines in panels.values() for line in lines.values())
    return "; band: from the least to the greatest seed" if seeds > 1 else ""


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = picture_parser(__doc__, output="output/curves.png")
    parser.add_argument(
        "--run", nargs="+", required=True, metavar="R", help="[PANEL:]LABEL=FOLDER; the first label is the baseline"
    )
    parser.add_argument("--metric", default="total_loss", metavar="NAME", help="what to draw (default: %(default)s)")
    parser.add_argument(
        "--smooth", type=int, default=9, metavar="N", help="recorded values that are averaged (default: %(default)s)"
    )
    return parser


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    if args.smooth < 1:
        raise UserError(f"--smooth must be at least 1, got {args.smooth}")
    panels = {
        panel: {
            label: merge_seeds([read_metric(folder, args.metric) for folder in folders], source=f"'{label}'")
            for label, folders in lines.items()
        }
        for panel, lines in parse_runs(args.run).items()
    }
    content: dict[str, Any] = {}
    told = []
    for panel, lines in panels.items():
        goal = None
        for label, line in lines.items():
            found = line_figures(line, smooth(line["values"].mean(axis=0), args.smooth), goal)
            goal = found["end"] if goal is None else goal
            content.setdefault(panel, {})[label] = found
            told.append(f"{panel + ': ' if panel else ''}{label}: from {found['start']:.3g} to {found['end']:.3g}")
    draw_losses(panels, args.output, y_label=args.metric.replace("_", " "), window=args.smooth)
    return Findings({"definition": DEFINITION, "panels": content}, told)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("curves", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
