#!/usr/bin/env python
"""Run the frozen teacher of an alignment config once over all images and views, and keep its features on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmovseg.config import apply_overrides, load_config
from mmovseg.engine.feature_gain import measure_gain
from mmovseg.engine.features import features_folder, precompute
from mmovseg.errors import UserError, exit_on_user_error

_EXAMPLES = """
examples:
  a config made for it:    %(prog)s --config-file projects/CMU/configs/cmu_xs_features.py
  eight views an image:    %(prog)s --config-file projects/CMU/configs/cmu_xs.py --output output/features/xs \\
                               dataloader.train.mapper.views=8
  is it worth it:          %(prog)s --config-file projects/CMU/configs/cmu_xs_features.py --measure 20

The same command goes on when it was stopped. It says first how much it will write.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="F", help="alignment config with a teacher")
    parser.add_argument("--output", metavar="DIR", help="folder to fill; default: that of the config's FeatureMapper")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the stored values")
    parser.add_argument("--batch-size", type=int, default=16, help="views a forward pass")
    parser.add_argument("--workers", type=int, default=0, help="reading processes")
    parser.add_argument(
        "--measure",
        type=int,
        metavar="STEPS",
        help="write nothing; time so many training steps with the teacher running and as many with its features",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the number of views that it computed, or of steps that it timed."""
    args = _parser().parse_intermixed_args(arguments)
    config = load_config(args.config_file)
    for section in ("model", "train", "dataloader"):
        if section not in config:
            raise UserError(f"config '{args.config_file}' defines no '{section}'")
    apply_overrides(config, args.overrides)
    if args.measure is not None:
        print(measure_gain(config, steps=args.measure))
        return int(args.measure)
    weights = config.model.get("teacher", {}) or {}
    if "weights" in weights and weights.weights is None:
        raise UserError(
            f"config '{args.config_file}': model.teacher.weights is null, and a random teacher is of no use"
        )
    output = args.output or features_folder(config)
    if output is None:
        raise UserError(f"config '{args.config_file}' has no FeatureMapper that says where features lie; give --output")
    return precompute(config, output, dtype=args.dtype, batch_size=args.batch_size, num_workers=args.workers)


if __name__ == "__main__":
    main()
