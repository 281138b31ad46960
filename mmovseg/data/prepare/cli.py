"""The options that all prepare scripts share."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmovseg.data.datasets.catalog import datasets_root


def prepare_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--source --output --workers --seed``; a script adds its own options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--source",
        nargs="+",
        required=True,
        metavar="PATH",
        help="the download: folders, or zip or tar archives, which are unpacked into a folder .unpacked of the output; "
        "it may be removed afterwards",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=datasets_root(),
        metavar="DIR",
        help="folder of all data sets, the set gets its own in it (default: $DETECTRON2_DATASETS, else datasets)",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything drawn (default: 0)")
    return parser
