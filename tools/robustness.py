"""Draw mIoU against cloud cover and SAR shift: robustness.py configs/tables/robustness_miniearth.json [--print]."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmovseg.engine.robustness import fill_sweep, read_sweep
from mmovseg.engine.robustness_report import draw_sweep, to_markdown
from mmovseg.engine.tables import METRICS, read_rows
from mmovseg.errors import exit_on_user_error


@exit_on_user_error
def main(argv: list[str] | None = None) -> str:
    """Run the command and return the Markdown."""
    parser = argparse.ArgumentParser(
        description="Evaluate models under growing cloud cover and with shifted SAR; rows that exist are kept."
    )
    parser.add_argument("sweep", help="definition, for example configs/tables/robustness_miniearth.json")
    parser.add_argument("--results", help="CSV with the rows; default: results/<sweep>.csv")
    parser.add_argument("--output", help="folder for trained runs; default: output/tables/<sweep>")
    parser.add_argument("--picture", help="PNG to draw; default: <output>/robustness.png")
    parser.add_argument("--kind", help="cloud kind (thin, thick, varied) instead of that of the definition")
    parser.add_argument("--metric", choices=METRICS, default="mIoU", help="what table and picture show")
    parser.add_argument("--runs", nargs="+", metavar="NAME", help="measure only these runs")
    parser.add_argument("--print", action="store_true", help="only print and draw what the CSV holds")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to every config")
    args = parser.parse_intermixed_args(argv)
    sweep = read_sweep(args.sweep, kind=args.kind)
    results = Path(args.results or f"results/{sweep['name']}.csv")
    output = Path(args.output or f"output/tables/{sweep['name']}")
    picture = Path(args.picture or output / "robustness.png")
    if args.print:
        rows = read_rows(results)
    else:
        rows = fill_sweep(sweep, results, output, overrides=args.overrides, only=args.runs)
    draw_sweep(sweep, rows, picture, metric=args.metric)
    text = to_markdown(sweep, rows, metric=args.metric)
    print(f"{sweep['title']}, {args.metric} in percent\n\n{text}\n\n{picture}")
    return text


if __name__ == "__main__":
    main()
