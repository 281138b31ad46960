r"""Draw optical and SAR patches in one plane, partners joined by a line (Fig. 6b of the paper).

python -m mmovseg.projects.codemae.analysis.pairs --config-file projects/CoDeMAE/configs/codemae_xs.py \
    --checkpoint MAE=output/mae/model_final.safetensors CoDe-MAE=output/codemae/model_final.safetensors \
    --output output/pairs.png

UMAP by cosine needs the package umap-learn (`pip install umap-learn`); `--method pca` needs nothing: the two main
directions of the features at unit length. UMAP is deterministic for a seed on one machine, and its distances mean
little, so four figures of the features themselves stand in the JSON and below the picture, see `DEFINITION`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.collections import LineCollection
from torch import Tensor

from mmovseg.engine.analysis import Findings, load_models, run_analysis
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.codemae.analysis.features import (
    all_rows,
    choose_pairs,
    pair_features,
    pair_parser,
)
from mmovseg.visualization.figure import FAINT, new_figure, place_axes, save_figure, write
from mmovseg.visualization.plots import OPTICAL, SAR, note_below

Method = Literal["umap", "pca"]

DEFINITION = {
    "features": "patches at unit length; partners are the optical and the SAR features of one patch",
    "cosine": "mean cosine of partners",
    "separation": (
        "percent of patches whose nearest other patch, their partner left out, is of their own sensor; 50 when the "
        "sensors are mixed, 100 when they are apart"
    ),
    "parallelism": (
        "length of the mean of the directions from optical to SAR partners: 1 when all lines are parallel, about "
        "1 / sqrt(pairs) when they point anywhere"
    ),
    "shared neighbours": (
        "percent of the k nearest SAR neighbours of a SAR patch whose partners are among the k nearest optical "
        "neighbours of its partner: how alike both sensors arrange the places"
    ),
    "chance of shared neighbours": "k / (pairs - 1), in percent",
}
NEIGHBOURS = 10

_CELL_IN, _GAP_IN, _TOP_IN, _BOTTOM_IN = 3.6, 0.25, 0.85, 0.75


def structure(sar: Tensor, optical: Tensor, *, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Return the figures of `DEFINITION` of (n, C) features, partners in the same row.

    Raises:
        UserError: there are no more pairs than neighbours.
    """
    if len(sar) <= neighbours + 1:
        raise UserError(
            f"{len(sar)} pairs of patches are too few for {neighbours} neighbours; draw more with --patches"
        )
    units = [F.normalize(rows.double(), dim=1) for rows in (sar, optical)]
    number = len(sar)
    everything = torch.cat(units)
    cosines = everything @ everything.T
    own = torch.arange(2 * number)
    cosines[own, own] = cosines[own, own.roll(number)] = -2.0  # neither itself nor its partner
    nearest = cosines.argmax(dim=1)
    separation = ((nearest >= number) == (own >= number)).double().mean()
    ways = F.normalize(units[0] - units[1], dim=1)
    sides = [cosines[:number, :number], cosines[number:, number:]]
    sets = [side.topk(neighbours, dim=1).indices for side in sides]
    shared = (sets[0][:, :, None] == sets[1][:, None, :]).any(dim=2).double().mean()
    return {
        "cosine": float((units[0] * units[1]).sum(dim=1).mean()),
        "separation": 100 * float(separation),
        "parallelism": float(ways.mean(dim=0).norm()),
        "shared neighbours": 100 * float(shared),
        "chance of shared neighbours": 100 * neighbours / (number - 1),
    }


def in_a_plane(sar: Tensor, optical: Tensor, *, method: Method, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 2) places of SAR and of optical features (n, C).

    Args:
        sar, optical: features, partners in the same row.
        method: ``umap``, or ``pca``: the two main directions, by their strength.
        seed: of UMAP.

    Raises:
        UserError: UMAP is not installed.
    """
    together = F.normalize(torch.cat([sar, optical]).double(), dim=1)
    if method == "pca":
        centred = together - together.mean(dim=0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        largest = directions[:2].gather(1, directions[:2].abs().argmax(dim=1, keepdim=True))
        places = (centred @ (directions[:2] * largest.sign()).T).numpy()  # the sign of a direction is arbitrary
    else:
        places = _umap(together.float().numpy(), seed)
    return places[: len(sar)], places[len(sar) :]


def _umap(rows: np.ndarray, seed: int) -> np.ndarray:
    try:
        from umap import UMAP  # optional, and slow to import
    except ImportError as error:
        raise UserError(
            "UMAP needs the package umap-learn, which is not installed: pip install umap-learn, or take --method pca"
        ) from error
    embedded = UMAP(metric="cosine", random_state=seed, n_jobs=1).fit_transform(rows)
    return np.asarray(embedded, dtype=np.float64)


def draw_pairs(
    panels: Sequence[tuple[str, tuple[np.ndarray, np.ndarray], Mapping[str, float]]],
    path: str | Path,
    *,
    title: str,
    note: str,
) -> None:
    """Draw one panel a model: SAR and optical patches as dots, partners joined.

    Args:
        panels: label, places of SAR and optical (n, 2), and what `structure` gives.
        path: PNG file; the same places give the same bytes.
        title: above everything.
        note: one line at the bottom.
    """
    width = 0.2 + len(panels) * (_CELL_IN + _GAP_IN)
    height = _TOP_IN + _CELL_IN + _BOTTOM_IN
    figure = new_figure(width, height)
    write(figure, 0.2, height - 0.22, title, size=11, bold=True, align="left")
    for number, (label, (sar, optical), found) in enumerate(panels):
        left = 0.2 + number * (_CELL_IN + _GAP_IN)
        axes = place_axes(figure, left, _BOTTOM_IN, _CELL_IN, _CELL_IN)
        lines = LineCollection(list(np.stack([optical, sar], axis=1)), colors="#8e8e93", linewidths=0.35, alpha=0.55)
        axes.add_collection(lines)
        axes.scatter(*optical.T, s=9, color=OPTICAL, linewidths=0, label="optical")
        axes.scatter(*sar.T, s=9, color=SAR, linewidths=0, label="SAR")
        axes.margins(0.04)
        write(figure, left, height - _TOP_IN + 0.14, label, size=10, bold=True, align="left")
        texts = (
            f"separation {found['separation']:.0f}%, parallelism {found['parallelism']:.2f}",
            f"shared neighbours {found['shared neighbours']:.0f}%, cosine {found['cosine']:.2f}",
        )
        for line, text in enumerate(texts):
            write(figure, left, _BOTTOM_IN - 0.17 - 0.16 * line, text, size=8, color=FAINT, align="left")
    write(figure, 0.2, height - 0.42, "● optical", size=9, color=OPTICAL, align="left")
    write(figure, 0.95, height - 0.42, "● SAR", size=9, color=SAR, align="left")
    note_below(figure, note)
    save_figure(figure, path)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = pair_parser(__doc__, output="output/pairs.png", images=60)
    parser.add_argument("--patches", type=int, default=400, metavar="N", help="patches to draw (default: %(default)s)")
    parser.add_argument(
        "--method",
        choices=get_args(Method),
        default="umap",
        help="of bringing features into a plane (default: %(default)s)",
    )
    return parser


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    if args.patches < 1:
        raise UserError(f"--patches must be at least 1, got {args.patches}")
    models = load_models(args, encoder_only=True)
    items = choose_pairs(models[0].config, loader=args.loader, images=args.images, seed=args.seed)
    panels = []
    for analysed in models:
        sar, optical = all_rows(pair_features(analysed.model, items, level=args.level))
        drawn = torch.randperm(len(sar), generator=torch.Generator().manual_seed(args.seed))[: args.patches]
        sar, optical = sar[drawn], optical[drawn]
        places = in_a_plane(sar, optical, method=args.method, seed=args.seed)
        panels.append((analysed.label, places, structure(sar, optical)))
    count = len(panels[0][1][0])
    name = "UMAP" if args.method == "umap" else "Main directions"
    draw_pairs(
        panels,
        args.output,
        title=f"{name} of optical and SAR patches",
        note=f"{count} patches of {len(items)} test pairs, partners joined",
    )
    content = {
        "pairs": [item["image_id"] for item in items],
        "definition": DEFINITION,
        "models": [
            {**model.facts(), **found, "places": {"sar": sar.tolist(), "optical": optical.tolist()}}
            for model, (_, (sar, optical), found) in zip(models, panels, strict=True)
        ],
    }
    lines = [
        f"{label}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items()) for label, _, found in panels
    ]
    return Findings(content, lines)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("pairs", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
