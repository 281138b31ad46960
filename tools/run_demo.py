#!/usr/bin/env python
"""`make demo`: optical + SAR against each alone, seen and unseen classes, under clouds; table, pictures, summary."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmovseg.engine.demo import DemoSettings, run_demo
from mmovseg.errors import UserError, exit_on_user_error


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/demo", metavar="DIR", help="folder (default: %(default)s)")
    parser.add_argument("--max-iter", type=int, metavar="N", help="steps of each training (default: as configured)")
    parser.add_argument("--num-scenes", type=int, metavar="N", help="test scenes (default: as configured)")
    parser.add_argument("--seed", type=int, default=0, help="of training (default: %(default)s)")
    args = parser.parse_args(argv)
    for option in ("max_iter", "num_scenes"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} must be at least 1, got {value}")
    if Path(args.output).exists() and not Path(args.output).is_dir():
        raise UserError(f"--output '{args.output}' is a file; give a folder")
    run_demo(DemoSettings(Path(args.output), args.max_iter, args.num_scenes, args.seed))


if __name__ == "__main__":
    main()
