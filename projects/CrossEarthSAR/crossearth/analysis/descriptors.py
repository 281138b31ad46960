r"""Measure the constants of the physical descriptors on the training images of a config.

python -m mmovseg.projects.crossearth.analysis.descriptors --config-file projects/CrossEarthSAR/configs/gaps_xs.py

Prints the two overrides that give them to the encoder. Measure them once, on the data of continued pretraining, and
leave them alone afterwards: the routers have learned their scale.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice

from omegaconf import DictConfig
from torch import Tensor

from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.data.sample import ModelInput
from mmovseg.engine.seeding import seed_everything
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.crossearth.modeling.descriptors import SARDescriptors, estimate_statistics


def find_descriptors(config: DictConfig) -> tuple[str, SARDescriptors]:
    """Return where the config has its descriptors, and these.

    Raises:
        UserError: no encoder of the model has any.
    """
    for name in ("encoder", "sar_encoder", "student"):
        node = config.model.get(name)
        if node is not None and node.get("descriptors") is not None:
            return f"model.{name}.descriptors", instantiate(node.descriptors)
    raise UserError("the model of the config has no encoder with descriptors; its encoder must be one with experts")


def read_images(items: Iterator[ModelInput], count: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield rasters and where they hold data. Raises `UserError` for an input without SAR."""
    for item in islice(items, count):
        if "sar" not in item:
            raise UserError(f"input '{item.get('file_name', '?')}' has no 'sar', which the descriptors are of")
        yield item["sar"].float(), item.get("sar_valid")


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="F", help="config of a training")
    parser.add_argument("--images", type=int, default=400, metavar="N", help="training images (default: 400)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_intermixed_args(argv)
    config = apply_overrides(load_config(args.config_file), args.overrides)
    seed_everything(int(config.train.seed))
    place, descriptors = find_descriptors(config)
    loader = instantiate(config.dataloader.train)
    mean, std = estimate_statistics(descriptors, read_images((item for batch in loader for item in batch), args.images))
    for name, values in (("mean", mean), ("std", std)):
        print(f"{place}.{name}=[{', '.join(f'{value:.4g}' for value in values)}]")


if __name__ == "__main__":
    main()
