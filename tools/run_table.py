"""Measure a table of runs, or print it: run_table.py configs/tables/miniearth.json [--print] [key=value ...]."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmovseg.engine.tables import fill_table, read_rows, read_table, to_markdown
from mmovseg.errors import exit_on_user_error


@exit_on_user_error
def main(argv: list[str] | None = None) -> str:
    """Run the command and return the Markdown."""
    parser = argparse.ArgumentParser(description="Measure a table of runs; rows that exist are kept.")
    parser.add_argument("table", help="definition, for example configs/tables/miniearth.json")
    parser.add_argument("--results", help="CSV with the rows; default: results/<table>.csv")
    parser.add_argument("--output", help="folder for the runs; default: output/tables/<table>")
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="measure only these runs")
    parser.add_argument("--print", action="store_true", help="only print the table from the CSV")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to every config")
    args = parser.parse_intermixed_args(argv)
    table = read_table(args.table)
    results = Path(args.results or f"results/{table['name']}.csv")
    output = Path(args.output or f"output/tables/{table['name']}")
    if args.print:
        rows = read_rows(results)
    else:
        rows = fill_table(table, results, output, overrides=args.overrides, only=args.runs)
    text = to_markdown(table, rows)
    print(f"{table['title']}, percent, mean and standard deviation over seeds\n\n{text}")
    return text


if __name__ == "__main__":
    main()
