r"""Draw the singular values of the features of several checkpoints, with their effective rank (Fig. 2d of the paper).

python -m mmovseg.projects.codemae.analysis.spectrum --config-file projects/CoDeMAE/configs/codemae_xs.py \
    --checkpoint MAE=output/mae/model_final.safetensors CoDe-MAE=output/codemae/model_final.safetensors \
    --output output/spectrum.png

The features of all valid patches of the drawn pairs, less their mean, as in the encoder's evaluation; one panel a
sensor. The faster a line falls, the fewer directions the features use.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmovseg.engine.analysis import Findings, load_models, run_analysis
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.evaluation.encoder_report import DEFINITION
from mmovseg.evaluation.spectrum import Moments, rank_of_values, singular_values
from mmovseg.projects.codemae.analysis.features import (
    SIDES,
    all_rows,
    choose_pairs,
    pair_features,
    pair_parser,
)
from mmovseg.visualization.figure import new_figure, save_figure
from mmovseg.visualization.plots import LINE_IN, color_of, legend_below, note_below, plain_axes, style_of

_PANEL_IN, _HEIGHT_IN, _LEFT_IN, _GAP_IN, _TOP_IN, _AXIS_IN = 3.7, 2.9, 0.75, 0.65, 0.45, 0.55
_FLOOR = 1e-4  # of the largest: what is smaller is not drawn


def spectrum_of(rows: Tensor) -> dict[str, Any]:
    """Return ``effective rank`` and ``singular values`` (largest first, the largest being 1) of (n, C) features.

    Raises:
        UserError: the features are all alike.
    """
    values = singular_values(Moments.of(rows))
    if values is None:
        raise UserError("the features of these pairs are all alike, so they have no spectrum")
    return {"effective rank": rank_of_values(values), "singular values": (values / values[0]).tolist()}


def draw_spectra(
    spectra: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]], path: str | Path, *, note: str
) -> None:
    """Draw one panel a sensor and one line a model.

    Args:
        spectra: label and, by sensor, what `spectrum_of` gives.
        path: PNG file; the same figures give the same bytes.
        note: one line at the bottom.
    """
    labels = [
        f"{label}: effective rank {found['sar']['effective rank']:.1f} SAR, "
        f"{found['optical']['effective rank']:.1f} optical"
        for label, found in spectra
    ]
    legend_in = LINE_IN * len(labels) + 0.35
    width = _LEFT_IN + len(SIDES) * _PANEL_IN + (len(SIDES) - 1) * _GAP_IN + 0.2
    figure = new_figure(width, _TOP_IN + _HEIGHT_IN + _AXIS_IN + legend_in)
    for number, (side, title) in enumerate(zip(SIDES, ("SAR", "optical"), strict=True)):
        left = _LEFT_IN + number * (_PANEL_IN + _GAP_IN)
        axes = plain_axes(
            figure,
            (left, legend_in + _AXIS_IN, _PANEL_IN, _HEIGHT_IN),
            title=title,
            x_label="direction, the strongest first",
            y_label="" if number else "singular value / largest",
        )
        for index, (_, found) in enumerate(spectra):
            values = np.asarray(found[side]["singular values"])
            kept = values >= _FLOOR
            axes.plot(
                np.arange(1, len(values) + 1)[kept],
                values[kept],
                color=color_of(index),
                linestyle=style_of(index),
                linewidth=1.8,
            )
        axes.set_yscale("log")
        axes.set_ylim(_FLOOR, 1.3)
    legend_below(figure, labels, y_in=0.28, columns=1)
    note_below(figure, note)
    save_figure(figure, path)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    return pair_parser(__doc__, output="output/spectrum.png", images=200)


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    models = load_models(args, encoder_only=True)
    items = choose_pairs(models[0].config, loader=args.loader, images=args.images, seed=args.seed)
    spectra = []
    for analysed in models:
        sides = zip(SIDES, all_rows(pair_features(analysed.model, items, level=args.level)), strict=True)
        spectra.append((analysed.label, {side: spectrum_of(rows) for side, rows in sides}))
    draw_spectra(spectra, args.output, note=f"patches of {len(items)} test pairs, less their mean")
    content = {
        "pairs": [item["image_id"] for item in items],
        "definition": DEFINITION["effective rank"],
        "models": [{**model.facts(), **found} for model, (_, found) in zip(models, spectra, strict=True)],
    }
    lines = []
    for label, found in spectra:
        ranks = ", ".join(f"{side} {found[side]['effective rank']:.2f}" for side in SIDES)
        lines.append(f"{label}: effective rank {ranks}")
    return Findings(content, lines)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("spectrum", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
