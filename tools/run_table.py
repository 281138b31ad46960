"""Measure a table of runs, or print it: run_table.py configs/tables/miniearth.json [--print] [key=value ...]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmovseg.engine.tables import fill_table, read_table, table_rows, to_markdown, write_summary
from mmovseg.errors import exit_on_user_error

_EXAMPLES = """
examples:
  the paper's settings:        %(prog)s configs/tables/table1.json --runs pie_cloud_vitb16 ddhr_sk_vitb16
  the authors' checkpoints:    %(prog)s configs/tables/table1_released.json --checkpoints output/converted
  an ablation, one seed:       %(prog)s configs/tables/table4.json --seeds 0
  what is measured so far:     %(prog)s configs/tables/table1.json --print
"""


@exit_on_user_error
def main(argv: list[str] | None = None) -> str:
    """Run the command and return the Markdown."""
    args = _parser().parse_intermixed_args(argv)
    table = read_table(args.table)
    results = Path(args.results or f"results/{table['results']}.csv")
    output = Path(args.output or f"output/tables/{table['output']}")
    if not args.print:
        fill_table(
            table,
            results,
            output,
            overrides=args.overrides,
            only=args.runs,
            seeds=args.seeds,
            checkpoints=args.checkpoints,
            skip=_tell if args.keep_going or args.checkpoints else None,
        )
    rows = table_rows(results)
    if not args.print:
        write_summary(table, rows, output)
    text = to_markdown(table, rows)
    print(f"{table['title']}, {table['unit']}, mean and standard deviation over seeds\n\n{text}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure a table of runs; rows that exist are kept.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", help="definition, for example configs/tables/miniearth.json")
    parser.add_argument("--results", help="CSV with the rows; default: results/<table>.csv, or what the table names")
    parser.add_argument(
        "--output",
        help="folder for the runs, their parts, table.md and table.csv; default: output/tables/<table>, or what the "
        "table names",
    )
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="measure only these runs")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="measure only with these seeds")
    parser.add_argument(
        "--checkpoints",
        metavar="DIR",
        help="evaluate weights of this folder and train nothing: <run>.safetensors, or the names in the table; "
        "runs without a file stay 'not run'",
    )
    parser.add_argument("--keep-going", action="store_true", help="go on with the next run when one cannot be done")
    parser.add_argument("--print", action="store_true", help="only print the table from the CSV")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to every config, those of parts too")
    return parser


def _tell(run: str, reason: str) -> None:
    print(f"not run: {run}: {reason}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
