"""The command line of `tools/show_config.py`: what a config comes to, and how large its model is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmovseg.config import apply_overrides, config_to_yaml, instantiate, load_config
from mmovseg.engine.parameters import count_parameters, format_parameters
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.engine.seeding import seed_everything
from mmovseg.errors import UserError


def show_main(argv: Sequence[str] | None = None) -> str:
    """Print the resolved config, or the parameter counts, and return what was printed.

    Args:
        argv: arguments without the program's name; None = those of this process.

    Raises:
        UserError: unknown file, key or value.
    """
    parser = argparse.ArgumentParser(description="Print a config as it is after imports, interpolation and overrides.")
    parser.add_argument("--config-file", required=True, metavar="F", help="config file, or a name below configs/")
    parser.add_argument("--parameters", action="store_true", help="build the model with random weights and count it")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    args = parser.parse_intermixed_args(argv)
    config = apply_overrides(load_config(args.config_file), args.overrides)
    if not args.parameters:
        text = config_to_yaml(config)
        print(text, end="")
        return text
    if "model" not in config:
        raise UserError(f"config '{args.config_file}' defines no 'model'")
    forget_foundation_weights(config.model)
    seed_everything(0)
    text = format_parameters(count_parameters(instantiate(config.model)))
    print(text)
    return text
