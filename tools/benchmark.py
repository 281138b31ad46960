"""Measure what models cost: benchmark.py cost --config-file F, or a whole table: benchmark.py cost --table T."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mmovseg.checkpoint.save import atomic_write
from mmovseg.engine.cost import PHASES
from mmovseg.engine.cost_table import (
    FIELDS,
    Request,
    cost_markdown,
    fill_cost_table,
    footnote,
    measure_row,
    read_cost_table,
)
from mmovseg.engine.table_rows import append_row, read_rows
from mmovseg.errors import UserError, exit_on_user_error

_EXAMPLES = """
examples:
  one config:            %(prog)s --config-file configs/miniearth/sar_xs.py
  one part of a model:   %(prog)s --config-file configs/miniearth/mmovseg_xs.py --part head
  without its data:      %(prog)s --config-file configs/mmovseg/ddhr_sk_vitb16.py --pixels 256 --batch 2 --steps 3
  the paper's Table A2:  %(prog)s --table configs/tables/table_a2.json --energy
"""


@exit_on_user_error
def main(argv: list[str] | None = None) -> str:
    """Run the command and return what it printed."""
    parser = argparse.ArgumentParser(description="Measure what models cost.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_cost(commands.add_parser(
        "cost",
        help="time, memory, parameters and energy of training and inference",
        description="Measure a training step and inference of a config, or fill a table of them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    args, overrides = parser.parse_known_args(argv)
    _check_overrides(parser, overrides)
    args.overrides = overrides
    text = _fill_table(args) if args.table else _measure_config(args)
    print(text)
    return text


def _add_cost(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", metavar="F", help="config file, or a name below configs/")
    what.add_argument("--table", metavar="T", help="table of costs, for example configs/tables/table_a2.json")
    parser.add_argument("--part", metavar="NAME", help="measure this part of the model alone, for example head")
    parser.add_argument("--phase", choices=PHASES, help="measure only training steps or only inference")
    parser.add_argument("--steps", type=int, help="measured steps; default: 20, or what the table says")
    parser.add_argument("--warmup", type=int, help="steps before them; default: 3, or what the table says")
    parser.add_argument("--batch", type=int, help="samples a training step; default: the config's")
    parser.add_argument("--images", type=int, help="images a call of inference; default: 1")
    parser.add_argument("--pixels", type=int, help="made-up rasters of this side instead of the config's data")
    parser.add_argument("--energy", action="store_true", help="energy and CO2 by codecarbon (extra 'energy')")
    parser.add_argument("--country", metavar="ISO3", help="whose electricity, for example DEU; default: world average")
    parser.add_argument("--name", help="name of the row; default: that of the config and the part")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="measure only these rows of the table")
    parser.add_argument("--again", action="store_true", help="measure also rows that the results hold")
    parser.add_argument("--keep-going", action="store_true", help="go on with the next row when one cannot be done")
    parser.add_argument("--print", action="store_true", help="only print the table from the results")
    parser.add_argument(
        "--results", help="CSV to append to; default: results/cost.csv for a table, output/cost/cost.csv for a config"
    )


def _check_overrides(parser: argparse.ArgumentParser, rest: list[str]) -> None:
    wrong = [word for word in rest if word.startswith("-") or "=" not in word]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")


def _options(args: argparse.Namespace) -> dict[str, object]:
    """Fields of `Job` that hold for every row."""
    chosen = {key: getattr(args, key) for key in ("steps", "warmup", "pixels", "country")}
    return chosen | {"energy": True if args.energy else None}


def _measure_config(args: argparse.Namespace) -> str:
    for name in ("rows", "print", "again", "keep_going"):
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} needs --table")
    results = Path(args.results or "output/cost/cost.csv")
    name = args.name or "_".join([Path(args.config_file).stem, *filter(None, [args.part])])
    request = Request(
        name=name,
        config=args.config_file,
        part=args.part,
        overrides=tuple(args.overrides),
        phases=(args.phase,) if args.phase else PHASES,
        options=_options(args),
        batch=args.batch,
        images=args.images,
    )
    row, found = measure_row(request)
    append_row(results, row, FIELDS)
    raw = results.with_name(f"{name}.json")
    with atomic_write(raw) as temporary:
        temporary.write_text(json.dumps({"row": row, **found}, indent=1) + "\n", encoding="utf-8")
    width = max(map(len, FIELDS))
    lines = [f"{key:{width}}  {row[key]}" for key in FIELDS if row.get(key) not in ("", None)]
    return "\n".join([*lines, f"\nadded to {results}; every step: {raw}"])


def _fill_table(args: argparse.Namespace) -> str:
    table = read_cost_table(args.table)
    for name in ("part", "phase", "name", "batch", "images"):
        if getattr(args, name):
            raise UserError(f"--{name} is for --config-file; a table says it itself")
    results = Path(args.results or "results/cost.csv")
    if args.print:
        rows = read_rows(results)
    else:
        rows = fill_cost_table(
            table,
            results,
            options=_options(args),
            overrides=args.overrides,
            only=args.rows,
            again=args.again,
            skip=_tell if args.keep_going else None,
        )
    return f"{table['title']}\n\n{cost_markdown(table, rows)}\n\n{footnote(rows, table)}"


def _tell(row: str, reason: str) -> None:
    print(f"not run: {row}: {reason}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
