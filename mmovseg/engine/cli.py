"""The command line of `tools/train_net.py`: read, check, start one process or several."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from omegaconf import DictConfig

from mmovseg.atomic import is_disk_full
from mmovseg.config import apply_overrides, find_config, load_config
from mmovseg.config.overrides import failed_override
from mmovseg.data.sample import EVALUATION_MODALITIES
from mmovseg.engine import launch
from mmovseg.engine.evaluation import choose_evaluation
from mmovseg.engine.log import close_logging, setup_logging
from mmovseg.engine.run import prepare, run_evaluation, run_training
from mmovseg.errors import UserError

_EXAMPLES = """
examples:
  train:            %(prog)s --config-file configs/miniearth/NAME.py
  change a value:   %(prog)s --config-file F train.max_iter=500 optimizer.base_lr=1e-4
  evaluate:         %(prog)s --config-file F --eval-only --classes "water, road" train.init_checkpoint=W.safetensors
  go on:            %(prog)s --config-file F --resume
  two processes:    %(prog)s --config-file F --num-gpus 2      or      torchrun --nproc-per-node 2 %(prog)s ...
"""


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description="Train and evaluate any model of this repository.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", required=True, metavar="F", help="config file, or a name below configs/")
    parser.add_argument("--eval-only", action="store_true", help="evaluate train.init_checkpoint and stop")
    parser.add_argument("--resume", action="store_true", help="go on from the state in train.output_dir")
    parser.add_argument("--vocabulary", metavar="V", help="class names to ask for: clean, released, or a .json file")
    parser.add_argument("--classes", metavar="NAMES", help='class names to ask for: "water, road"')
    parser.add_argument(
        "--modality",
        choices=EVALUATION_MODALITIES,
        help="what the model sees in evaluation; shuffled-sar is a control: both, with the SAR of another sample",
    )
    parser.add_argument(
        "--num-gpus", type=int, default=1, help="processes on this machine (CPU processes without CUDA)"
    )
    parser.add_argument("--num-machines", type=int, default=1, help="machines in all")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="address of machine 0: tcp://HOST:PORT")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser


def train_main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train or evaluate as the command line says.

    Args:
        argv: arguments without the program's name; None = those of this process.

    Returns:
        Training: see `run_training`. Evaluation: ``results`` and ``seconds``. With ``--num-gpus`` above 1: ``{}``, as
        the work is done in other processes.

    Raises:
        UserError: one sentence on what to mend.
    """
    args = argument_parser().parse_intermixed_args(argv)
    config = read_config(args)  # in the first process already, so that a mistake is told once and at once
    if min(args.num_gpus, args.num_machines) < 1:
        raise UserError(f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}: both must be at least 1")
    if launch.under_torchrun():
        if args.num_gpus > 1 or args.num_machines > 1:
            raise UserError(
                "under torchrun --num-gpus and --num-machines must be left out: torchrun starts the processes"
            )
        launch.join_torchrun(config.train.device)
        try:
            return _work(args)
        except UserError as error:
            _stop_with(error)
        finally:
            launch.leave()
    if args.num_gpus * args.num_machines == 1:
        return _work(args)
    launch.spawn(
        _spawned,
        (args,),
        num_gpus=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        device=config.train.device,
    )
    return {}


def read_config(args: argparse.Namespace) -> DictConfig:
    """Return the config that the command line describes.

    Raises:
        UserError: unknown file, key, value or class names; or a section that every run needs is missing.
    """
    config = load_config(args.config_file)
    apply_overrides(config, args.overrides)
    for section in ("model", "train"):
        if config.get(section) is None:
            raise UserError(f"config '{args.config_file}' defines no '{section}'")
    choose_evaluation(config, vocabulary=args.vocabulary, classes=args.classes, modality=args.modality)
    for section in () if args.eval_only else ("dataloader", "optimizer", "lr_multiplier"):
        if config.get(section) is None:
            raise UserError(f"config '{args.config_file}' defines no '{section}', which training needs")
    return config


def _work(args: argparse.Namespace) -> dict[str, Any]:
    """Do the run in this process."""
    config = read_config(args)
    output_dir = Path(config.train.output_dir)
    start = time.perf_counter()
    try:
        setup_logging(output_dir, rank=comm.get_rank())
        context = prepare(config, _shown_name(args.config_file))
        if args.eval_only:
            results = run_evaluation(context, resume=args.resume)
            return {"results": results, "seconds": time.perf_counter() - start}
        return run_training(context, resume=args.resume)
    except UserError as error:
        sentence = sentence_of(error)
        if sentence == str(error):
            raise
        raise UserError(sentence) from error
    except OSError as error:
        full = is_disk_full(error)
        if error.filename is None and not full:
            raise
        advice = "; make room and give the command again" if full else ""
        raise UserError(f"'{error.filename or output_dir}': {error.strerror}{advice}") from error
    except (TypeError, ValueError) as error:
        told = failed_override(error, config, args.overrides)
        if told is None:
            raise
        raise UserError(told) from error
    finally:
        close_logging()


def sentence_of(error: UserError) -> str:
    """Return the sentence of an error, also when a loader's process wrapped it into its traceback."""
    last = str(error).strip().splitlines()[-1]
    return last.removeprefix(f"{UserError.__module__}.{UserError.__qualname__}: ")


def _shown_name(config_file: str) -> str:
    """Return a config's path from the repository's root if it lies below it: the same wherever the checkout lies."""
    path = find_config(config_file)
    root = Path(__file__).resolve().parents[2]
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _spawned(args: argparse.Namespace) -> None:
    """Work in a process that `launch.spawn` started: a user's mistake ends it with one line."""
    try:
        _work(args)
    except UserError as error:
        _stop_with(error)


def _stop_with(error: UserError) -> None:
    rank = comm.get_rank()
    if rank > 0:
        time.sleep(3)  # most mistakes stop all processes alike: let the first one say it
    print(f"error: {error}" if rank == 0 else f"error (process {rank}): {error}", file=sys.stderr, flush=True)
    raise SystemExit(launch.USER_ERROR_STATUS)
