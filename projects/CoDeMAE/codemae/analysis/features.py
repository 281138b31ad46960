"""What the analysis commands share: their options, models with the encoders of checkpoints, and features of pairs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mmovseg.checkpoint.load import file_sha256, load_weights
from mmovseg.checkpoint.save import atomic_write
from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.data.sample import ModelInput
from mmovseg.data.sar import SarUnit
from mmovseg.engine.evaluation import test_nodes
from mmovseg.engine.run import build_model, prepare
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit

RANDOM = "random"  # takes the place of a checkpoint: the model as built
SIDES = ("sar", "optical")
_BATCH = 16


@dataclass(frozen=True)
class Analysed:
    """A model to be looked at. `checkpoint` is None for the model as built."""

    label: str
    checkpoint: str | None
    config: DictConfig
    model: nn.Module

    def facts(self) -> dict[str, Any]:
        """Return what the JSON says of it."""
        digest = None if self.checkpoint is None else file_sha256(self.checkpoint)
        return {"label": self.label, "checkpoint": self.checkpoint, "checkpoint_sha256": digest}


@dataclass(frozen=True)
class PairFeatures:
    """Features of both images of a pair: (C, h, w) float32 each; `valid` (h, w) bool; `patch_size` in pixels."""

    sar: Tensor
    optical: Tensor
    valid: Tensor
    patch_size: int


def add_arguments(parser: argparse.ArgumentParser, *, several: bool, output: str, images: int) -> None:
    """Add the options that all commands have.

    Args:
        parser: is changed.
        several: whether a picture compares checkpoints.
        output: default of ``--output``.
        images: default of ``--images``.
    """
    parser.add_argument(
        "--config-file",
        required=True,
        nargs="+" if several else None,
        metavar="F",
        help="config of the pretraining" + (", one for all checkpoints or one for each" if several else ""),
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+" if several else None,
        metavar="W",
        help=f"weights, or '{RANDOM}' for the model as built" + ("; LABEL=FILE names it in the picture" * several),
    )
    parser.add_argument("--output", default=output, metavar="F", help="PNG; the figures go beside it as .json")
    parser.add_argument(
        "--images", type=int, default=images, metavar="N", help="pairs to look at (default: %(default)s)"
    )
    parser.add_argument(
        "--loader", metavar="NAME", help="test loader whose pairs are taken (default: 'sar' or the first)"
    )
    parser.add_argument("--level", default="last", metavar="NAME", help="level of the features (default: the last)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what cannot be before anything is loaded. Raises `UserError`."""
    if Path(args.output).suffix.lower() != ".png":
        raise UserError(f"--output '{args.output}' must end in .png")
    if args.images < 1:
        raise UserError(f"--images must be at least 1, got {args.images}")


def load_models(args: argparse.Namespace, *, encoder_only: bool = True) -> list[Analysed]:
    """Build a model for every checkpoint.

    Args:
        args: of `add_arguments`.
        encoder_only: read nothing but the encoder: models that were trained with other objectives, and files that hold
            an encoder alone, then fit one config. False = everything has to fit.

    Raises:
        UserError: a file is missing or does not fit, or there are neither one nor as many configs as checkpoints.
    """
    files = [args.config_file] if isinstance(args.config_file, str) else list(args.config_file)
    named = [args.checkpoint] if isinstance(args.checkpoint, str) else list(args.checkpoint)
    if len(files) not in (1, len(named)):
        raise UserError(
            f"--config-file names {len(files)} configs for {len(named)} checkpoints; give one, or one for each"
        )
    found = []
    for text, file in zip(named, files * len(named) if len(files) == 1 else files, strict=True):
        label, checkpoint = split_label(text)
        config = apply_overrides(load_config(file), args.overrides)
        config.train.device, config.train.seed = args.device, args.seed
        context = prepare(config, file)
        model = build_model(
            context, checkpoint=None, resumed=True
        ).eval()  # no foundation weights: a checkpoint follows
        if checkpoint is not None:
            _load(model, checkpoint, encoder_only=encoder_only)
        found.append(Analysed(label, checkpoint, config, model))
    return found


def _load(model: nn.Module, checkpoint: str, *, encoder_only: bool) -> None:
    encoder = getattr(model, "encoder", None)
    if encoder_only and isinstance(encoder, nn.Module):
        load_weights(encoder, checkpoint, part="encoder")
    else:
        load_weights(model, checkpoint)


def split_label(text: str) -> tuple[str, str | None]:
    """Return label and file of ``LABEL=FILE`` or ``FILE``, which is labelled by its name or, of a run, its folder's."""
    label, equals, file = text.partition("=")
    if not equals or Path(text).exists():
        label, file = "", text
    if file == RANDOM:
        return label or "as built", None
    path = Path(file)
    return label or (path.parent.name if path.stem == "model_final" and path.parent.name else path.stem), file


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
    nodes = test_nodes(config)
    if not nodes:
        raise UserError("the config has no dataloader.test, so there are no pairs to look at")
    name = loader or ("sar" if "sar" in nodes else next(iter(nodes)))
    if name not in nodes:
        raise UserError(f"the config has no test loader '{name}'; it has: {', '.join(nodes)}")
    node, evaluator = nodes[name]
    fit_node = evaluator.get("fit_dataset")
    fit = {str(item["image_id"]) for item in (instantiate(fit_node) if fit_node is not None else ())}
    dicts = [item for item in instantiate(node.dataset) if str(item["image_id"]) not in fit]
    drawn = np.random.default_rng(seed).permutation(len(dicts))[:images]
    mapper = instantiate(node.mapper)
    items: list[ModelInput] = [mapper(dict(dicts[index])) for index in sorted(drawn.tolist())]
    for item in items:
        if "image" not in item or "sar" not in item:
            raise UserError(
                f"test loader '{name}' gives no pairs: '{item.get('file_name', '?')}' has only one of optical and SAR"
            )
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


def sar_unit_of(model: nn.Module) -> SarUnit:
    """Return the unit of the SAR rasters that a model reads, dB if it does not say."""
    contract = getattr(model, "input_contract", None) or {}
    return cast(SarUnit, contract["sar"]["unit"]) if contract.get("sar") else "db"


def write_figures(path: str | Path, command: str, args: argparse.Namespace, content: Mapping[str, Any]) -> Path:
    """Write the figures of a picture beside it, ``<picture>.json``, and return that path."""
    options = {key: value for key, value in sorted(vars(args).items()) if key not in ("output", "device")}
    facts = {"command": command, "options": options, "git_commit": source_commit(), "versions": installed_versions()}
    target = Path(path).with_suffix(".json")
    with atomic_write(target) as temporary:
        text = json.dumps({**facts, **content}, indent=1, allow_nan=False, default=float)
        temporary.write_text(text + "\n", encoding="utf-8")
    return target
