"""What the commands that look at pairs share: their options, the pairs, and features of both images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmovseg.data.sample import ModelInput
from mmovseg.engine.analysis import choose_items, model_parser
from mmovseg.errors import UserError

SIDES = ("sar", "optical")
_BATCH = 16


@dataclass(frozen=True)
class PairFeatures:
    """Features of both images of a pair: (C, h, w) float32 each; `valid` (h, w) bool; `patch_size` in pixels."""

    sar: Tensor
    optical: Tensor
    valid: Tensor
    patch_size: int


def pair_parser(description: str | None, *, output: str, images: int) -> argparse.ArgumentParser:
    """Return a parser of a command that compares the features of pairs; arguments as `model_parser`."""
    parser = model_parser(description, several=True, output=output, images=images, what="pairs")
    add_loader(parser)
    parser.add_argument("--level", default="last", metavar="NAME", help="level of the features (default: the last)")
    return parser


def add_loader(parser: argparse.ArgumentParser) -> None:
    """Add ``--loader``."""
    parser.add_argument(
        "--loader", metavar="NAME", help="test loader whose pairs are taken (default: 'sar' or the first)"
    )


def choose_pairs(config: DictConfig, *, loader: str | None, images: int, seed: int) -> list[ModelInput]:
    """Return pairs of the test part of a loader, drawn without replacement, in the order of the data set.

    Args:
        config: with test loaders.
        loader: name; None = ``sar`` if there is one, else the first.
        images: how many; all if there are not as many.
        seed: of the draw.

    Raises:
        UserError: there is no such loader, or its samples are no pairs.
    """
    items = choose_items(config, loader=loader, images=images, seed=seed, prefer="sar")
    for item in items:
        if "image" not in item or "sar" not in item:
            which = "the test loader" if loader is None else f"test loader '{loader}'"
            name = item.get("file_name", "?")
            raise UserError(f"{which} gives no pairs: '{name}' has only one of optical and SAR")
    return items


@torch.no_grad()
def pair_features(model: nn.Module, items: Sequence[ModelInput], *, level: str = "last") -> list[PairFeatures]:
    """Return the features of both images of every pair, on the CPU.

    Args:
        model: that answers a pair with ``student`` (SAR) and ``teacher`` (optical), as for `EncoderEvaluator`.
        items: pairs.
        level: name of a level, or ``last``.

    Raises:
        UserError: the model does not answer so, has no such level, or gives features that are not finite.
    """
    found = []
    for start in range(0, len(items), _BATCH):
        for output in model(list(items[start : start + _BATCH])):
            if not isinstance(output, Mapping) or not {"student", "teacher"} <= set(output):
                raise UserError(
                    f"a {type(model).__name__} gives no features of both sensors; give a pretraining config"
                )
            levels = list(output["student"])
            name = levels[-1] if level == "last" else level
            if name not in levels:
                raise UserError(f"the model has no level '{level}'; it has: last, {', '.join(levels)}")
            sar, optical = (output[side][name].float().cpu() for side in ("student", "teacher"))
            if not (bool(torch.isfinite(sar).all()) and bool(torch.isfinite(optical).all())):
                raise UserError("the features hold a value that is not finite; look at the training of this checkpoint")
            found.append(PairFeatures(sar, optical, output["patch_valid"].cpu(), int(output["patch_size"])))
    return found


def rows_of(maps: Tensor, valid: Tensor) -> Tensor:
    """(C, h, w) -> (n, C): the valid patches, row by row."""
    return maps.permute(1, 2, 0)[valid]


def all_rows(features: Sequence[PairFeatures]) -> tuple[Tensor, Tensor]:
    """Return the valid patches of all pairs: (n, C) of SAR and (n, C) of optical, partners in the same row.

    Raises:
        UserError: there is none.
    """
    sar, optical = (torch.cat([rows_of(getattr(pair, side), pair.valid) for pair in features]) for side in SIDES)
    if not len(sar):
        raise UserError("no patch of these pairs holds data in both sensors; choose others with --seed or --images")
    return sar, optical
