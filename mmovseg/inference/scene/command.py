"""`mmovseg predict`: read the command line, load the model, map one scene or many, alone or under torchrun."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmovseg.errors import UserError, exit_on_user_error, one_line
from mmovseg.inference.scene.arguments import (
    DEFAULT_CONFIG,
    DEFAULT_WEIGHTS,
    argument_parser,
    check_arguments,
    read_prompts,
    require_file,
    scene_inputs,
    scene_jobs,
    scene_options,
)
from mmovseg.inference.scene.failures import plain_errors

if TYPE_CHECKING:
    import argparse

    from mmovseg.inference.predictor import Predictor

STOPPED = 130
"""Exit status after Ctrl-C, as shells expect it."""
_LIBRARIES = ("rasterio", "fiona", "pyogrio", "rio_cogeo")


@exit_on_user_error
def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Run `mmovseg predict`; `argv` None takes that of the process.

    Returns:
        0, or 1 when a scene of a list failed.

    Raises:
        SystemExit: 2 after one line on what to mend, 130 after Ctrl-C.
    """
    args = argument_parser(prog).parse_args(argv)
    check_arguments(args)
    prompts = read_prompts(args.prompts)
    inputs, options = scene_inputs(args), scene_options(args)
    jobs = scene_jobs(args, inputs) if args.list is not None else None
    from mmovseg.engine import launch

    several = launch.under_torchrun()
    if several:
        from mmovseg.inference.scene.processes import PATIENCE

        launch.join_torchrun(args.device, timeout=PATIENCE)
    try:
        with quiet_libraries(), plain_errors():
            predictor = load_predictor(args)
            if jobs is None:
                from mmovseg.inference.scene.run import predict_scene

                predict_scene(predictor, inputs, prompts, args.output, options=options)
                return 0
            from mmovseg.inference.scene.many import predict_scenes

            summary = predict_scenes(predictor, jobs, prompts, options=options)
            return 1 if summary.get("failed") else 0
    except UserError as error:
        if several:
            _stop_all(error)
        raise
    except KeyboardInterrupt:
        _say_stopped(args)
        raise SystemExit(STOPPED) from None
    finally:
        launch.leave()


def load_predictor(args: argparse.Namespace) -> Predictor:
    """Return the model that the command line names.

    Raises:
        UserError: config, weights or device are not usable.
    """
    from mmovseg.config import load_config

    require_device(args.device)
    config = load_config(args.config_file)
    for section in ("model", "train"):
        if section not in config:
            raise UserError(f"config '{args.config_file}' defines no '{section}', so it is not the config of a model")
    weights = args.weights
    if weights is None and args.config_file == DEFAULT_CONFIG:
        weights = DEFAULT_WEIGHTS
    if weights is None and config.train.init_checkpoint and "://" not in str(config.train.init_checkpoint):
        require_file(str(config.train.init_checkpoint), "train.init_checkpoint")
    from mmovseg.inference.predictor import Predictor

    predictor = Predictor(args.config_file, weights, args.device, modality=args.modality)
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    if weights == DEFAULT_WEIGHTS and not args.quiet and _is_first_process():
        print("model: the shipped demonstration; it knows the made-up world MiniEarth and not the real one", flush=True)
    return predictor


def require_device(name: str) -> None:
    """Refuse an unknown or absent device by the name of the option.

    Raises:
        UserError: see above.
    """
    from mmovseg.engine.launch import choose_device

    try:
        choose_device(name)
    except UserError as error:
        raise UserError(str(error).replace("train.device is", "--device is")) from error


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what GDAL and its wrappers say by the way off the terminal; what stops the work is raised anyway."""
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [(logger.propagate, logger.level) for logger in loggers]
    handler = logging.NullHandler()
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(rasterio|pyogrio|rio_cogeo|shapely|torch)(\.|$)")
            warnings.filterwarnings("ignore", message=".*not georeferenced.*|.*has no geotransform.*")
            yield
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate
            logger.setLevel(level)


def _stop_all(error: UserError) -> None:
    """End one of several processes: the first one says why; the others would wait for it."""
    rank = int(os.environ.get("RANK", "0"))
    if rank > 0:
        time.sleep(10)  # most mistakes stop all processes alike; torchrun ends the others after the first
    name = "error" if rank == 0 else f"error (process {rank})"
    print(f"{name}: {one_line(error)}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    raise SystemExit(2) from error


def _say_stopped(args: Any) -> None:
    if not _is_first_process():
        return
    kept = f"the finished maps in '{args.output_dir}' are" if args.list else "the finished parts of the map are"
    print(f"\nstopped: {kept} kept; the same command goes on there, --restart begins anew", file=sys.stderr, flush=True)


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    sys.exit(main())
