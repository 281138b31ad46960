#!/usr/bin/env python
"""Measure the pixels of each source of a data set: mean, deviation, percentiles and clip range of every channel.

What is measured is what normalisation sees: valid pixels as the reader gives them, before augmentation. The result is
JSON that configs read; projects/CMU/README.md says how.

    tools/compute_statistics.py --dataset miniearth_train --max-samples 2000 --output output/miniearth.json
    tools/compute_statistics.py --config-file projects/CMU/configs/common/cmu_data.py --workers 8 --output cmu.json
    tools/compute_statistics.py --config-file my_config.py --base ospretrain --output ospretrain_and_mine.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.data.datasets import get_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.sample import Reader
from mmovseg.data.sar import SAR_UNITS
from mmovseg.data.statistics import SourceStatistics, compute_statistics, read_statistics, write_statistics
from mmovseg.errors import UserError, exit_on_user_error


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config-file", help="measure the data of a loader of this config, each source apart")
    source.add_argument("--dataset", help="measure a registered data set by name, for example spacenet6_train")
    parser.add_argument("--loader", default="train", help="with --config-file: train, test or test.NAME")
    parser.add_argument("--sar-unit-in", choices=SAR_UNITS, default="db", help="with --dataset: unit of its SAR files")
    parser.add_argument(
        "--sar-unit", choices=SAR_UNITS, help="with --dataset: unit to measure in (default: of the files)"
    )
    parser.add_argument("--source", help="name of a source that the data do not name (default: that of the data set)")
    parser.add_argument(
        "--max-samples", type=int, metavar="N", help="read at most N pairs of each source, spread evenly"
    )
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="reading processes (default: this one)")
    parser.add_argument("--update", action="store_true", help="keep the other sources of an existing file")
    parser.add_argument("--base", metavar="NAME", help="keep the other sources of this file or shipped statistics")
    parser.add_argument("--quiet", action="store_true", help="draw no progress bar")
    parser.add_argument("--output", required=True, metavar="FILE.json", help="file to write")
    parser.add_argument("overrides", nargs="*", help="with --config-file: key=value")
    return parser.parse_args(arguments)


def from_config(args: argparse.Namespace) -> tuple[Sequence[dict[str, Any]], Reader, str]:
    """Return the dataset dicts of a config's loader, its reader, and a name for a source that has none."""
    config = apply_overrides(load_config(args.config_file), args.overrides)
    node = OmegaConf.select(config, f"dataloader.{args.loader}")
    if not isinstance(node, DictConfig) or "mapper" not in node:
        raise UserError(f"config '{args.config_file}' has no loader 'dataloader.{args.loader}' with a mapper")
    name = node.dataset.get("name") if isinstance(node.dataset, DictConfig) else None
    if isinstance(node.dataset, DictConfig) and "statistics" in node.dataset:
        node.dataset.statistics = None  # a data set that checks them would refuse the source that is to be measured
    reader: Reader = instantiate(node.mapper.reader)
    return instantiate(node.dataset), reader, _source_name(str(name or "data"))


def from_dataset(args: argparse.Namespace) -> tuple[Sequence[dict[str, Any]], Reader, str]:
    """Return the dicts of a registered data set, a reader for it, and its name."""
    dataset = get_dataset(args.dataset)
    if dataset and "world" in dataset[0]:
        return dataset, MiniEarthReader(False), _source_name(args.dataset)
    reader = FileReader(sar_unit_in=args.sar_unit_in, sar_unit=args.sar_unit or args.sar_unit_in)
    return dataset, reader, _source_name(args.dataset)


def _source_name(name: str) -> str:
    stem, _, split = name.rpartition("_")
    return stem if stem and split in ("train", "val", "test") else name


def show(sources: Mapping[str, SourceStatistics]) -> None:
    """Print a line a channel."""
    print(f"{'source':<14} {'modality':<8} {'band':<8} {'mean':>9} {'std':>8} {'0.1 %':>9} {'50 %':>9} {'99.9 %':>9}")
    for name, source in sources.items():
        for modality, found in (("optical", source.optical), ("sar", source.sar)):
            if found is None:
                continue
            for index, band in enumerate(found.bands):
                figures = [found.mean[index], found.std[index]]
                figures += [(found.percentiles or {})[key][index] for key in ("0.1", "50", "99.9")]
                numbers = " ".join(
                    f"{figure:>{width}.2f}" for figure, width in zip(figures, (9, 8, 9, 9, 9), strict=True)
                )
                print(f"{name:<14} {modality:<8} {band:<8} {numbers}  {found.unit}")
        print(f"{name}: {source.origin}")


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    args = parse_args(arguments)
    if args.dataset and args.overrides:
        raise UserError(f"overrides such as '{args.overrides[0]}' need --config-file")
    if not args.output.endswith(".json"):
        raise UserError(f"statistics are written as .json, but --output is '{args.output}'")
    if args.update and args.base:
        raise UserError(f"--update keeps what is in --output, --base what is in '{args.base}'; give one of them")
    kept = args.base or (args.output if args.update and Path(args.output).exists() else None)
    before = read_statistics(kept) if kept else {}
    dataset, reader, name = from_config(args) if args.config_file else from_dataset(args)
    found = compute_statistics(
        dataset,
        reader,
        default_source=args.source or name,
        max_samples=args.max_samples,
        num_workers=args.workers,
        show_progress=not args.quiet,
    )
    write_statistics(args.output, {**before, **found})
    show(found)
    print(args.output)


if __name__ == "__main__":
    main()
