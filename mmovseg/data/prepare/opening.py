"""How every prepare script begins: parse, check the options, open the download."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from mmovseg.data.prepare.sources import open_sources


def open_download(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    folder: str,
    *,
    check: Callable[[argparse.Namespace], None] | None = None,
    unpacked: str = ".unpacked",
) -> tuple[argparse.Namespace, Path, list[Path]]:
    """Parse a command line of a `prepare_parser` and open the download that it names.

    Args:
        parser: of the script.
        argv: None takes the command line of the process.
        folder: of the data set below ``--output``; empty where a script makes several sets.
        unpacked: folder below that of the data set which archives are unpacked to; scripts of one download share it.
        check: called with the options before anything is unpacked, to refuse what makes no sense.

    Returns:
        The options; the folder of the data set; a folder for each ``--source``, where archives were unpacked to.

    Raises:
        UserError: from `check`, or a source cannot be opened (see `open_sources`).
    """
    args = parser.parse_args(argv)
    if check is not None:
        check(args)
    root = args.output / folder
    return args, root, open_sources(args.source, root / unpacked)
