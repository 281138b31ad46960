r"""Draw how alike the features of a place are in both sensors against how alike its images are (Fig. 4c of the paper).

python -m mmovseg.projects.codemae.analysis.ssim --config-file projects/CoDeMAE/configs/codemae_xs.py \
    --checkpoint MAE=output/mae/model_final.safetensors CoDe-MAE=output/codemae/model_final.safetensors \
    --output output/ssim.png

Alignment is the cosine of a patch's optical and SAR features. How alike the images are is the structural similarity
(SSIM) of the patch in grey and in co-polarised SAR, each from 0 to 1. Patches are cut into ten equal groups by SSIM: a
line that rises aligns what looks alike anyway, one that falls the places that look different. The dotted line of a
model is its cosine of patches that are no partners: features that all point one way are alike without being aligned.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit
from mmovseg.engine.analysis import Findings, load_models, run_analysis, sar_unit_of
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.codemae.analysis.features import (
    PairFeatures,
    all_rows,
    choose_pairs,
    pair_features,
    pair_parser,
    rows_of,
)
from mmovseg.visualization.draw import sar_to_rgb
from mmovseg.visualization.figure import new_figure, save_figure
from mmovseg.visualization.plots import LINE_IN, color_of, legend_below, note_below, plain_axes, style_of

_WIDTH_IN, _HEIGHT_IN, _LEFT_IN, _TOP_IN, _AXIS_IN = 5.6, 3.4, 0.75, 0.45, 0.55
_LUMA = (0.299, 0.587, 0.114)
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al. (2004), for values of 0..1
_GROUPS = 10
_QUARTILES = (0.25, 0.75)


def patch_ssim(first: Tensor, second: Tensor, patch_size: int) -> Tensor:
    """Return the structural similarity of two images patch by patch (Wang et al., 2004).

    The window is the patch, every pixel with the same weight: patches have about the size of the usual window, and a
    sliding one would look into the neighbours, whose features are others. That is why no library's SSIM serves here.

    Args:
        first, second: (H, W) in 0..1; both sides are multiples of `patch_size`.
        patch_size: side of a patch, pixels.

    Returns:
        (H / patch_size, W / patch_size) in -1..1.
    """
    x, y = (
        image.double().unfold(0, patch_size, patch_size).unfold(1, patch_size, patch_size).flatten(2)
        for image in (first, second)
    )
    mean_x, mean_y = x.mean(dim=-1), y.mean(dim=-1)
    deviation_x, deviation_y = x - mean_x[..., None], y - mean_y[..., None]
    covariance = (deviation_x * deviation_y).mean(dim=-1)
    variances = deviation_x.square().mean(dim=-1) + deviation_y.square().mean(dim=-1)
    brightness = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    return (brightness * (2 * covariance + _C2) / (variances + _C2)).float()


def grey_pair(item: ModelInput, *, sar_unit: SarUnit) -> tuple[Tensor, Tensor]:
    """Return a pair as (H, W) grey in 0..1: the brightness of optical, and co-polarised SAR as our pictures show it."""
    optical = item["image"].float()
    grey = optical[0] if len(optical) < 3 else sum(w * band for w, band in zip(_LUMA, optical, strict=False))
    shown = sar_to_rgb(item["sar"][:1].permute(1, 2, 0).numpy(), unit=sar_unit)[..., 0]
    return torch.as_tensor(grey).div(255).clamp(0, 1), torch.from_numpy(shown.astype(np.float32) / 255)


def ssim_rows(items: Sequence[ModelInput], features: Sequence[PairFeatures], *, sar_unit: SarUnit) -> Tensor:
    """Return the SSIM (n,) of the valid patches of all pairs, in the order of `all_rows`."""
    found = []
    for item, pair in zip(items, features, strict=True):
        size, (rows, columns) = pair.patch_size, pair.valid.shape
        images = []
        for image in grey_pair(item, sar_unit=sar_unit):
            pad = (0, columns * size - image.shape[1], 0, rows * size - image.shape[0])  # padding is not valid
            images.append(F.pad(image, pad))
        found.append(rows_of(patch_ssim(*images, size)[None], pair.valid)[:, 0])
    return torch.cat(found)


def alignment_by_ssim(ssim: Tensor, sar: Tensor, optical: Tensor, *, seed: int) -> dict[str, Any]:
    """Return cosines of partners against the SSIM of their patch.

    Args:
        ssim: (n,).
        sar, optical: (n, C), partners in the same row.
        seed: of the permutation that gives patches that are no partners.

    Returns:
        ``groups``: ten of equal size, the least alike first, with ``ssim`` and ``cosine`` (means) and the ``quartiles``
        of the cosine; ``cosine``: mean of all; ``chance``: the same of patches that are no partners; ``rank
        correlation``: Spearman's, of SSIM and cosine, None where one of them does not vary.

    Raises:
        UserError: fewer patches than groups.
    """
    if len(ssim) < _GROUPS:
        raise UserError(f"{len(ssim)} patches cannot make {_GROUPS} groups; look at more pairs with --images")
    cosine = F.cosine_similarity(sar.double(), optical.double())
    order = torch.randperm(len(sar), generator=torch.Generator().manual_seed(seed))
    chance = F.cosine_similarity(sar[order].double(), optical[order.roll(1)].double())
    groups = []
    for index in torch.argsort(ssim, stable=True).tensor_split(_GROUPS):
        quartiles = torch.quantile(cosine[index], torch.tensor(_QUARTILES, dtype=torch.float64))
        means = {"ssim": float(ssim[index].double().mean()), "cosine": float(cosine[index].mean())}
        groups.append({**means, "quartiles": quartiles.tolist(), "patches": len(index)})
    return {
        "groups": groups,
        "cosine": float(cosine.mean()),
        "chance": float(chance.mean()),
        "rank correlation": rank_correlation(ssim.double(), cosine),
    }


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Return Spearman's correlation of (n,) values, ties sharing their mean rank; None if either does not vary."""
    ranks = [_mean_ranks(values) - (len(values) - 1) / 2 for values in (first, second)]
    scale = ranks[0].norm() * ranks[1].norm()
    return float(ranks[0] @ ranks[1] / scale) if float(scale) else None


def _mean_ranks(values: Tensor) -> Tensor:
    """(n,) -> ranks from 0, float64."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() + 1) / 2)[inverse]


def draw_alignment(found: Sequence[tuple[str, Mapping[str, Any]]], path: str | Path, *, note: str) -> None:
    """Draw one line a model with its quartiles as a band.

    Args:
        found: label, and what `alignment_by_ssim` gives.
        path: PNG file; the same figures give the same bytes.
        note: one line at the bottom.
    """
    labels = [f"{label} ({_sign(content['rank correlation'])})" for label, content in found]
    legend_in = LINE_IN * len(labels) + 0.35
    figure = new_figure(_LEFT_IN + _WIDTH_IN + 0.2, _TOP_IN + _HEIGHT_IN + _AXIS_IN + legend_in)
    axes = plain_axes(
        figure,
        (_LEFT_IN, legend_in + _AXIS_IN, _WIDTH_IN, _HEIGHT_IN),
        title="Alignment against likeness of the images",
        x_label="SSIM of the patch, optical and SAR (mean of its tenth)",
        y_label="cosine of the patch's features",
    )
    for index, (_, content) in enumerate(found):
        groups, color = content["groups"], color_of(index)
        x = [group["ssim"] for group in groups]
        low, high = zip(*(group["quartiles"] for group in groups), strict=True)
        axes.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(
            x,
            [group["cosine"] for group in groups],
            color=color,
            linestyle=style_of(index),
            linewidth=1.8,
            marker="o",
            markersize=3.5,
        )
        axes.axhline(content["chance"], color=color, linestyle=":", linewidth=1.0)
    legend_below(figure, labels, y_in=0.28, columns=1)
    note_below(figure, note)
    save_figure(figure, path)


def _sign(correlation: float | None) -> str:
    return "rank correlation -" if correlation is None else f"rank correlation {correlation:+.2f}"


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    return pair_parser(__doc__, output="output/ssim.png", images=200)


def analyse(args: argparse.Namespace) -> Findings:
    """Draw the picture that the options describe."""
    models = load_models(args, encoder_only=True)
    items = choose_pairs(models[0].config, loader=args.loader, images=args.images, seed=args.seed)
    found = []
    for analysed in models:
        features = pair_features(analysed.model, items, level=args.level)
        sar, optical = all_rows(features)
        ssim = ssim_rows(items, features, sar_unit=sar_unit_of(analysed.model))
        found.append((analysed.label, alignment_by_ssim(ssim, sar, optical, seed=args.seed)))
    note = f"patches of {len(items)} test pairs; band: middle half; dotted: patches that are no partners"
    draw_alignment(found, args.output, note=note)
    content = {
        "pairs": [item["image_id"] for item in items],
        "models": [{**model.facts(), **figures} for model, (_, figures) in zip(models, found, strict=True)],
    }
    lines = []
    for label, values in found:
        means = f"cosine {values['cosine']:.3f} (chance {values['chance']:.3f})"
        lines.append(f"{label}: {means}, {_sign(values['rank correlation'])}")
    return Findings(content, lines)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    run_analysis("ssim", argument_parser(), analyse, argv)


if __name__ == "__main__":
    main()
