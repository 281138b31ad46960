r"""Draw SAR, truth and what each model makes of it: one row an image, the domains below each other.

python -m mmovseg.projects.crossearth.analysis.panels --config-file projects/CrossEarthSAR/configs/gaps_dense_xs.py \
    projects/CrossEarthSAR/configs/gaps_moe_xs.py --checkpoint dense=output/dense/model_final.safetensors \
    MoE=output/moe/model_final.safetensors --images 1 --output output/panels.png

A domain is a test loader of the first config. Images are drawn by the seed, not chosen by result.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit, convert_sar
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.engine.analysis import (
    Analysed,
    Findings,
    choose_items,
    load_models,
    model_parser,
    run_analysis,
    sar_unit_of,
)
from mmovseg.engine.evaluation import test_nodes
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.visualization.draw import optical_to_rgb, sar_to_rgb
from mmovseg.visualization.panels import PanelRow, draw_panels, share_right


def show_sar(sar: Tensor, unit: SarUnit) -> np.ndarray:
    """Return display colours (H, W, 3) uint8 of (P, H, W).

    One channel, or one that is repeated, is grey by fixed limits in dB; three different ones of 8 bits are a picture
    already (red, green, blue).
    """
    values = sar.permute(1, 2, 0).float().numpy()
    if (values == values[..., :1]).all():
        values = values[..., :1]
    if unit == "amplitude8" and values.shape[2] == 3:
        return optical_to_rgb(values)
    return sar_to_rgb(convert_sar(values, unit_in=unit, unit_out="db"))


@torch.no_grad()
def predict(model: nn.Module, item: ModelInput) -> np.ndarray:
    """Return the classes (H, W) that a model gives an image.

    Raises:
        UserError: it segments nothing.
    """
    answer = model([item])[0]
    if not isinstance(answer, dict) or "sem_seg" not in answer:
        raise UserError(f"a {type(model).__name__} segments nothing; give a config of a segmentor")
    return answer["sem_seg"].argmax(dim=0).cpu().numpy().astype(np.uint8)


def row_of(item: ModelInput, models: Sequence[Analysed], *, title: str) -> tuple[PanelRow, dict[str, Any]]:
    """Return the row of one image and its figures."""
    truth = item["sem_seg"].numpy() if "sem_seg" in item else None
    row = PanelRow(truth=truth, title=title)
    if "image" in item:
        row.optical = item["image"].permute(1, 2, 0).numpy()
    if "sar" in item:
        row.sar_rgb = show_sar(item["sar"], sar_unit_of(models[0].model))
    row.predictions = {analysed.label: predict(analysed.model, item) for analysed in models}
    right = {
        label: None if truth is None else share_right(classes, truth) for label, classes in row.predictions.items()
    }
    return row, {"image_id": item["image_id"], "domain": title, "right": right}


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = model_parser(__doc__, several=True, output="output/panels.png", images=1, what="images of each domain")
    parser.add_argument("--loaders", nargs="+", metavar="NAME", help="test loaders to draw (default: all)")
    return parser


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    models = load_models(args)
    labels = [analysed.label for analysed in models]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UserError(f"two models are called '{twice}'; name them: --checkpoint first=FILE second=FILE")
    config = models[0].config
    rows, figures = [], []
    vocabulary: Vocabulary | None = None
    for name in args.loaders or test_nodes(config):
        for item in choose_items(config, loader=name, images=args.images, seed=args.seed):
            if "vocabulary" not in item:
                raise UserError(f"test loader '{name}' has no class list, so there is nothing to draw")
            if vocabulary is not None and item["vocabulary"].names != vocabulary.names:
                raise UserError(f"test loader '{name}' has other classes than those before it; choose with --loaders")
            vocabulary = item["vocabulary"]
            row, found = row_of(item, models, title=name.replace("_", " "))
            rows.append(row)
            figures.append(found)
    assert vocabulary is not None
    draw_panels(rows, args.output, vocabulary=vocabulary)
    content = {"models": [analysed.facts() for analysed in models], "images": figures}
    return Findings(content, ["images: " + ", ".join(found["image_id"] for found in figures)])


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("panels", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
