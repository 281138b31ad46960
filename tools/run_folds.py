"""Cross-validate a table of runs, or print it: run_folds.py configs/tables/ombria.json [--print] [key=value ...]."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmovseg.engine.folds import fill_fold_table, read_counts, read_fold_table, to_markdown
from mmovseg.errors import exit_on_user_error


@exit_on_user_error
def main(argv: list[str] | None = None) -> str:
    """Run the command and return the Markdown."""
    parser = argparse.ArgumentParser(description="Cross-validate runs on OMBRIA; rows that exist are kept.")
    parser.add_argument("table", help="definition, for example configs/tables/ombria.json")
    parser.add_argument("--results", help="CSV with the rows; default: results/<table>.csv")
    parser.add_argument("--output", help="folder for the runs; default: output/tables/<table>")
    parser.add_argument("--folds", nargs="+", type=int, metavar="N", help="measure only these folds")
    parser.add_argument("--print", action="store_true", help="only print the table from the CSV")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to every config")
    args = parser.parse_intermixed_args(argv)
    table = read_fold_table(args.table)
    results = Path(args.results or f"results/{table['name']}.csv")
    if not args.print:
        output = Path(args.output or f"output/tables/{table['name']}")
        fill_fold_table(table, results, output, overrides=args.overrides, only_folds=args.folds)
    text = to_markdown(table, read_counts(results))
    print(f"{table['title']}, percent, brackets: 95 % of redrawn groups of places\n\n{text}")
    return text


if __name__ == "__main__":
    main()
