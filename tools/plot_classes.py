"""Draw the IoU of single classes, seen and unseen: plot_classes.py results/table1_classes.csv --output classes.png."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmovseg.engine.table_classes import class_panels, draw_classes, panels_to_markdown
from mmovseg.engine.tables import read_classes, read_table
from mmovseg.errors import UserError, exit_on_user_error

_EXAMPLES = """
examples:
  Figure 3 of the paper:  %(prog)s results/table1_classes.csv --table configs/tables/table1.json --output classes.png
  an ablation:            %(prog)s results/ablation_miniearth_classes.csv --runs none infonce --output classes.png
"""


@exit_on_user_error
def main(argv: list[str] | None = None) -> str:
    """Run the command and return the numbers as Markdown."""
    parser = argparse.ArgumentParser(
        description="Draw the IoU of single classes that run_table.py keeps beside the results of a table.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", help="CSV with the IoU of classes, results/<name>_classes.csv")
    parser.add_argument("--output", required=True, help="PNG to write")
    parser.add_argument("--table", help="definition whose runs are shown, in its order and with its labels")
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="show only these runs")
    parser.add_argument("--modality", help="show only what was tested with this; default: every modality, or with "
                        "--table the run's own")  # fmt: skip
    parser.add_argument("--columns", type=int, default=3, help="panels in a row (default: 3)")
    args = parser.parse_args(argv)
    if not Path(args.results).is_file():
        raise UserError(f"'{args.results}' does not exist; tools/run_table.py writes it beside the results of a table")
    rows = read_classes(args.results)
    panels = class_panels(
        rows, table=read_table(args.table) if args.table else None, only=args.runs, modality=args.modality
    )
    draw_classes(panels, args.output, columns=args.columns)
    text = panels_to_markdown(panels)
    print(f"{text}\n\n{Path(args.output).with_suffix('.png')}")
    return text


if __name__ == "__main__":
    main()
