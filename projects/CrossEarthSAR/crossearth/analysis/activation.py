r"""Draw how often each expert is chosen in each layer, one panel a domain (Fig. 5 and 7 of the paper).

python -m mmovseg.projects.crossearth.analysis.activation --config-file projects/CrossEarthSAR/configs/gaps_moe_xs.py \
    --checkpoint output/crossearth/gaps_moe_xs/model_final.safetensors --output output/activation.png

A domain is a test loader of the config. The area of a dot is the share of the layer's choices that fall on the expert;
the ring is what it would be if all experts were chosen alike. The note says how far domains differ in a layer: the
share of choices that would have to move for a domain to be like the mean of all, mean over domains. Those tokens count
that the layers count in training.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from mmovseg.data.sample import ModelInput
from mmovseg.engine.analysis import Findings, choose_items, load_models, model_parser, run_analysis
from mmovseg.engine.evaluation import test_nodes
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.crossearth.modeling.moe import SparseMoE
from mmovseg.visualization.figure import FAINT, FONT, INK, new_figure, save_figure, write
from mmovseg.visualization.plots import COLORS, note_below

_BATCH = 16
_WIDEST_IN, _MANY_LAYERS = 11.0, 12
_LEFT_IN, _GAP_IN, _TOP_IN, _TITLE_IN, _AXIS_IN, _BOTTOM_IN, _LETTER_IN = 0.55, 0.3, 0.46, 0.3, 0.26, 0.5, 0.078
_LARGEST = 0.94  # of a cell: the diameter of the largest dot

DEFINITION = {
    "share": "of the choices of a layer, in percent; an image token makes k choices",
    "largest": "largest share of an expert in the layer; 100 / experts = all alike",
    "difference": "total variation of a domain's shares from the mean of all domains, in percent, mean over domains",
}


def expert_layers(model: nn.Module) -> dict[str, SparseMoE]:
    """Return the layers with experts in their order.

    Raises:
        UserError: there is none.
    """
    found = {name: part for name, part in model.named_modules() if isinstance(part, SparseMoE)}
    if not found:
        raise UserError(f"a {type(model).__name__} without a mixture of experts has no expert activation to draw")
    return found


@torch.no_grad()
def count_choices(model: nn.Module, items: Sequence[ModelInput]) -> np.ndarray:
    """Return the choices (layers, experts) int64 that a model makes for some images, windows of them included."""
    layers = expert_layers(model)
    counts = {name: np.zeros(layer.num_experts, dtype=np.int64) for name, layer in layers.items()}
    with ExitStack() as hooks:
        for name, layer in layers.items():

            def add(part: nn.Module, _: Any, __: Any, name: str = name) -> None:
                last = part.last
                assert last is not None
                counts[name] += last.counts.cpu().numpy()  # type: ignore[union-attr]

            handle = layer.register_forward_hook(add)
            hooks.callback(handle.remove)
        for start in range(0, len(items), _BATCH):
            model(list(items[start : start + _BATCH]))
    if len({len(row) for row in counts.values()}) > 1:
        raise UserError("the layers have different numbers of experts, which this picture cannot show")
    return np.stack(list(counts.values()))


def layer_figures(counts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return ``shares`` by domain, and by layer the ``largest`` share over domains and the ``difference`` of domains.

    Args:
        counts: domain -> (layers, experts).
    """
    shares = {name: 100 * rows / np.maximum(rows.sum(axis=1, keepdims=True), 1) for name, rows in counts.items()}
    every = np.stack(list(shares.values()))
    mean = every.mean(axis=0)
    return {
        "shares": {name: rows.tolist() for name, rows in shares.items()},
        "largest": every.max(axis=(0, 2)).tolist(),
        "largest over all domains together": mean.max(axis=1).tolist(),
        "difference": (np.abs(every - mean).sum(axis=2) / 2).mean(axis=0).tolist(),
    }


def draw_activation(figures: Mapping[str, Any], path: str | Path, *, title: str, note: str) -> None:
    """Draw one panel of dots a domain.

    Args:
        figures: of `layer_figures`.
        path: PNG file; the same figures give the same bytes.
        title: above everything.
        note: one line at the bottom.
    """
    shares = {name.replace("_", " "): np.asarray(rows) for name, rows in figures["shares"].items()}
    layers, experts = next(iter(shares.values())).shape
    full = max(float(values.max()) for values in shares.values())
    cell = 0.4 if layers <= 6 else 0.3 if layers <= _MANY_LAYERS else 0.21
    across, down = layers * cell, experts * min(cell, 0.3)
    step_x = _LEFT_IN + _GAP_IN + max(across, _LETTER_IN * max(map(len, shares)))
    step_y = _TITLE_IN + down + _AXIS_IN
    columns = max(1, min(len(shares), int((_WIDEST_IN + _GAP_IN) / step_x)))
    rows = -(-len(shares) // columns)
    columns = -(-len(shares) // rows)  # as even as the number of rows allows
    width = max(columns * step_x - _GAP_IN + 0.25, 6.4)
    height = _TOP_IN + rows * step_y + _BOTTOM_IN
    figure = new_figure(width, height)
    write(figure, 0.2, height - 0.22, title, size=11, bold=True, align="left")
    for number, (name, values) in enumerate(shares.items()):
        left = _LEFT_IN + (number % columns) * step_x
        bottom = height - _TOP_IN - (number // columns) * step_y - _TITLE_IN - down
        write(figure, left, bottom + down + 0.13, name, size=9, bold=True, align="left")
        axes = figure.add_axes((left / width, bottom / height, across / width, down / height))
        _dots(axes, values, full=full, cell=min(cell, 0.3))
        if number % columns == 0:
            axes.set_ylabel("expert", fontsize=8.5, color=INK, family=FONT)
        if number + columns >= len(shares):  # the last one of its column
            axes.set_xlabel("layer", fontsize=8.5, color=INK, family=FONT, labelpad=3)
    note_below(figure, f"{note}; largest dot: {full:.0f}%")
    save_figure(figure, path)


def _dots(axes: Axes, values: np.ndarray, *, full: float, cell: float) -> None:
    layers, experts = values.shape
    x, y = np.meshgrid(np.arange(1, layers + 1), np.arange(1, experts + 1), indexing="ij")
    largest = (72 * cell * _LARGEST) ** 2  # points squared: of the square around a dot
    colors = [COLORS[(int(row) - 1) % len(COLORS)] for row in y.ravel()]
    axes.scatter(x.ravel(), y.ravel(), s=largest * values.ravel() / full, c=colors, linewidths=0)
    alike = largest * (100 / experts) / full
    axes.scatter(x.ravel(), y.ravel(), s=alike, facecolors="none", edgecolors="#8e8e93", linewidths=0.5)
    axes.set_xlim(0.5, layers + 0.5)
    axes.set_ylim(experts + 0.5, 0.5)
    axes.set_xticks(range(1, layers + 1) if layers <= _MANY_LAYERS else [1, *range(4, layers + 1, 4)])
    axes.set_yticks(range(1, experts + 1))
    axes.tick_params(length=0, labelsize=7.5, labelcolor=FAINT, pad=3)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, color="#c7c7cc")


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = model_parser(
        __doc__, several=False, output="output/activation.png", images=100, what="images of each domain"
    )
    parser.add_argument("--loaders", nargs="+", metavar="NAME", help="test loaders to draw (default: all)")
    return parser


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    (analysed,) = load_models(args)
    expert_layers(analysed.model)  # told before images are read
    names = args.loaders or list(test_nodes(analysed.config))
    counts = {
        name: count_choices(
            analysed.model, choose_items(analysed.config, loader=name, images=args.images, seed=args.seed)
        )
        for name in names
    }
    figures = layer_figures(counts)
    differences = ", ".join(f"{value:.0f}%" for value in figures["difference"])
    note = "area: share of the layer's choices; ring: all experts alike"
    if len(counts) > 1:
        most = int(np.argmax(figures["difference"]))
        low, high = min(figures["difference"]), figures["difference"][most]
        note += f"; domains differ in {low:.0f} to {high:.0f}% of the choices, most in layer {most + 1}"
    draw_activation(figures, args.output, title=f"Experts by layer and domain ({analysed.label})", note=note)
    content = {
        "definition": DEFINITION,
        "model": analysed.facts(),
        "layers": list(expert_layers(analysed.model)),
        "counts": {name: rows.tolist() for name, rows in counts.items()},
        **figures,
    }
    largest = ", ".join(f"{value:.0f}%" for value in figures["largest over all domains together"])
    return Findings(content, [f"largest expert by layer: {largest}", f"difference of domains by layer: {differences}"])


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("activation", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
