#!/usr/bin/env python
"""Train and evaluate any model of this repository: `python tools/train_net.py --help`."""

from mmovseg.engine.cli import train_main
from mmovseg.errors import exit_on_user_error


def main() -> None:
    """Run the command line."""
    exit_on_user_error(train_main)()


if __name__ == "__main__":
    main()
