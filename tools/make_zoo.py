"""Train the shipped XS weights again, from nothing, on two CPU cores: make_zoo.py [--only clip_xs ...] [--print]."""

from __future__ import annotations

import argparse

from mmovseg.engine.zoo import STEPS, contract_markdown, make_zoo, zoo_markdown, zoo_records
from mmovseg.errors import UserError, exit_on_user_error


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description="Make the shipped XS weights.")
    parser.add_argument("--output", default="output/zoo", help="folder for the runs")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of the steps: {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="only print the tables of MODEL_ZOO.md")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.only or ()) - set(names))
    if unknown:
        raise UserError(f"--only names '{unknown[0]}'; there are: {', '.join(names)}")
    if not args.print:
        make_zoo(args.output, steps=[step for step in STEPS if not args.only or step.name in args.only], seed=args.seed)
    records = zoo_records()
    print(zoo_markdown(records))
    if records:
        print(f"\nInput contract:\n\n{contract_markdown(records[-1])}")


if __name__ == "__main__":
    main()
