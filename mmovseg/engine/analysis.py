"""What commands that draw a picture of trained models share: options, opening models, test samples, the JSON beside it.

A command gives its parser and a function from options to `Findings`; `run_analysis` does the rest. The same command
gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig
from torch import nn

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
class Findings:
    """What an analysis found: `content` goes into the JSON, `lines` are printed."""

    content: Mapping[str, Any]
    lines: Sequence[str] = ()


def picture_parser(description: str | None, *, output: str) -> argparse.ArgumentParser:
    """Return a parser of a command that draws one picture, with ``--output``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", default=output, metavar="F", help="PNG; the figures go beside it as .json")
    return parser


def model_parser(
    description: str | None, *, several: bool, output: str, images: int, what: str = "images"
) -> argparse.ArgumentParser:
    """Return a parser with the options of all commands that look at models.

    Args:
        description: of the command.
        several: whether a picture compares checkpoints.
        output: default of ``--output``.
        images: default of ``--images``.
        what: is looked at, in the help.
    """
    parser = picture_parser(description, output=output)
    parser.add_argument(
        "--config-file",
        required=True,
        nargs="+" if several else None,
        metavar="F",
        help="config of the training" + (", one for all checkpoints or one for each" if several else ""),
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+" if several else None,
        metavar="W",
        help=f"weights, or '{RANDOM}' for the model as built" + ("; LABEL=FILE names it in the picture" * several),
    )
    parser.add_argument(
        "--images", type=int, default=images, metavar="N", help=f"{what} to look at (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser


def run_analysis(
    command: str,
    parser: argparse.ArgumentParser,
    analyse: Callable[[argparse.Namespace], Findings],
    argv: Sequence[str] | None = None,
) -> None:
    """Read the command line, draw, write ``<picture>.json`` and say so.

    Args:
        command: its name, for the JSON.
        parser: of `picture_parser` or `model_parser`.
        analyse: draws the picture to ``args.output`` and returns what it found.
        argv: None = that of the process.

    Raises:
        UserError: the picture is no PNG, there are no images, or from `analyse`.
    """
    args = parser.parse_intermixed_args(argv)
    if Path(args.output).suffix.lower() != ".png":
        raise UserError(f"--output '{args.output}' must end in .png")
    if getattr(args, "images", 1) < 1:
        raise UserError(f"--images must be at least 1, got {args.images}")
    found = analyse(args)
    path = write_figures(args.output, command, args, found.content)
    for line in found.lines:
        print(line)
    print(f"wrote {args.output} and {path}")


def write_figures(path: str | Path, command: str, args: argparse.Namespace, content: Mapping[str, Any]) -> Path:
    """Write the figures of a picture beside it, ``<picture>.json``, and return that path."""
    options = {key: value for key, value in sorted(vars(args).items()) if key not in ("output", "device")}
    facts = {"command": command, "options": options, "git_commit": source_commit(), "versions": installed_versions()}
    target = Path(path).with_suffix(".json")
    with atomic_write(target) as temporary:
        text = json.dumps({**facts, **content}, indent=1, allow_nan=False, default=float)
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


def load_models(args: argparse.Namespace, *, encoder_only: bool = False) -> list[Analysed]:
    """Build a model for every checkpoint.

    Args:
        args: of `model_parser`.
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
        # no foundation weights: a checkpoint follows
        model = build_model(context, checkpoint=None, resumed=True).eval()
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


def choose_items(
    config: DictConfig, *, loader: str | None, images: int, seed: int, prefer: str | None = None
) -> list[ModelInput]:
    """Return samples of a test loader, drawn without replacement, in the order of the data set.

    Samples that an evaluator fits something to (its `fit_dataset`) are left out.

    Args:
        config: with test loaders.
        loader: name; None = `prefer` if there is one of that name, else the first.
        images: how many; all if there are not as many.
        seed: of the draw.
        prefer: see `loader`.

    Raises:
        UserError: there is no such loader.
    """
    nodes = test_nodes(config)
    if not nodes:
        raise UserError("the config has no dataloader.test, so there are no images to look at")
    name = loader or (prefer if prefer in nodes else next(iter(nodes)))
    if name not in nodes:
        raise UserError(f"the config has no test loader '{name}'; it has: {', '.join(nodes)}")
    node, evaluator = nodes[name]
    fit_node = evaluator.get("fit_dataset")
    fit = {str(item["image_id"]) for item in (instantiate(fit_node) if fit_node is not None else ())}
    dicts = [item for item in instantiate(node.dataset) if str(item["image_id"]) not in fit]
    drawn = np.random.default_rng(seed).permutation(len(dicts))[:images]
    mapper = instantiate(node.mapper)
    return [mapper(dict(dicts[index])) for index in sorted(drawn.tolist())]


def sar_unit_of(model: nn.Module) -> SarUnit:
    """Return the unit of the SAR rasters that a model reads, dB if it does not say."""
    contract = getattr(model, "input_contract", None) or {}
    return cast(SarUnit, contract["sar"]["unit"]) if contract.get("sar") else "db"
