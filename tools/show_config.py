#!/usr/bin/env python
"""Print a resolved config or the size of its model: `python tools/show_config.py --help`."""

from mmovseg.engine.show import show_main
from mmovseg.errors import exit_on_user_error


def main() -> None:
    """Run the command line."""
    exit_on_user_error(show_main)()


if __name__ == "__main__":
    main()
