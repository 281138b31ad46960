"""The command line of `tools/show_config.py`: what a config comes to, and how large its model is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from torch import nn

from mmovseg.config import apply_overrides, config_to_yaml, instantiate, load_config
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.engine.seeding import seed_everything
from mmovseg.errors import UserError


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (all, trainable) parameters by part: the model's own counting if it has one, else its direct children.

    A tied parameter counts where it comes first. The last entry is ``total``.
    """
    if hasattr(model, "count_parameters"):
        return dict(model.count_parameters())
    seen: set[int] = set()
    table: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            part = name.split(".")[0]
            every, trainable = table.get(part, (0, 0))
            table[part] = (every + parameter.numel(), trainable + parameter.numel() * parameter.requires_grad)
    table["total"] = (sum(pair[0] for pair in table.values()), sum(pair[1] for pair in table.values()))
    return table


def format_parameters(table: Mapping[str, tuple[int, int]]) -> str:
    """Return the table as text, in numbers and millions."""
    width = max(len(part) for part in table)
    lines = [f"{'part':{width}}  {'parameters':>13}  {'trainable':>13}  {'frozen':>13}  {'M':>8}  {'M trainable':>11}"]
    for part, (every, trainable) in table.items():
        millions = f"{every / 1e6:>8.2f}  {trainable / 1e6:>11.2f}"
        lines.append(f"{part:{width}}  {every:>13,}  {trainable:>13,}  {every - trainable:>13,}  {millions}")
    return "\n".join(lines)


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
