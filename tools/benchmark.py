"""Measure speed: of everything (benchmark.py suite), of configs (benchmark.py cost), of experts (benchmark.py moe)."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from mmovseg.checkpoint.save import atomic_write
from mmovseg.engine.benchmark.report import to_markdown
from mmovseg.engine.benchmark.results import Results
from mmovseg.engine.benchmark.rows import Scope, rows_of
from mmovseg.engine.benchmark.suite import run_suite
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
from mmovseg.engine.launch import choose_device, set_threads
from mmovseg.engine.table_rows import append_row, read_rows
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.crossearth.analysis import moe_speed

_RESULTS = "results/benchmark.json"
_SUITE_EXAMPLES = """
examples:
  everything:            %(prog)s
  some rows, anew:       %(prog)s --rows 'inference/*' classes/150 --again
  what rows there are:   %(prog)s --list
"""
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
    parser = argparse.ArgumentParser(description="Measure how fast everything is, and what models cost.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_suite(commands.add_parser(
        "suite",
        help="speed of MM-OVSeg B, of loaders, scenes and evaluation, as ratios in one run: JSON and Markdown",
        description="Measure the speed of everything, row by row. A stopped run goes on where it was.",
        epilog=_SUITE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    table = commands.add_parser("table", help="print the Markdown of measured results")
    table.add_argument("--results", default=_RESULTS, metavar="FILE", help=f"default: {_RESULTS}")
    _add_cost(commands.add_parser(
        "cost",
        help="time, memory, parameters and energy of training and inference",
        description="Measure a training step and inference of a config, or fill a table of them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ))  # fmt: skip
    _add_moe(commands.add_parser(
        "moe",
        help="a mixture of experts against the dense MLP and against a masked loop",
        description="Measure a sparse mixture of experts beside the dense MLP that it replaces, in one run.",
    ))  # fmt: skip
    args, overrides = parser.parse_known_args(argv)
    _check_overrides(parser, overrides)
    args.overrides = overrides
    text = _COMMANDS[args.command](args)
    print(text)
    return text


def _add_suite(parser: argparse.ArgumentParser) -> None:
    scope = Scope()
    parser.add_argument("--results", default=_RESULTS, metavar="FILE", help=f"default: {_RESULTS}; .md beside it")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows; * stands for anything")
    parser.add_argument("--again", action="store_true", help="measure also rows that the results hold")
    parser.add_argument("--list", action="store_true", help="only print the names of the rows")
    parser.add_argument("--device", default=scope.device, help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch (default: its own choice)")
    parser.add_argument("--config-file", default=scope.config_file, metavar="F", help=f"default: {scope.config_file}")
    parser.add_argument("--released-config", default=scope.released_config, metavar="F", help="for the reference rows")
    parser.add_argument("--pixels", type=int, default=scope.pixels, metavar="N", help="side of the images")
    parser.add_argument("--batch", type=int, nargs="+", default=scope.batches, metavar="N", help="sizes of a batch")
    parser.add_argument("--classes", type=int, nargs="+", default=scope.classes, metavar="N", help="sizes of lists")
    parser.add_argument("--scene-pixels", type=int, default=scope.scene_pixels, metavar="N", help="side of the scene")
    parser.add_argument("--workers", type=int, default=scope.workers, metavar="N", help="reading processes of loaders")
    parser.add_argument("--seconds", type=float, default=scope.seconds, help="a row is measured about so long")
    parser.add_argument(
        "--budget-seconds", type=float, default=300.0, help="do not run rows that would take longer (default: 300)"
    )


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


def _add_moe(parser: argparse.ArgumentParser) -> None:
    case = moe_speed.SpeedCase(0)
    parser.add_argument("--widths", type=int, nargs="+", default=[384, 768, 1024], metavar="C", help="default: S, B, L")
    parser.add_argument("--images", type=int, default=case.images, metavar="N", help="of a batch (default: 2)")
    parser.add_argument("--tokens", type=int, default=case.tokens, metavar="N", help="of an image (default: 1025)")
    parser.add_argument("--experts", type=int, default=case.experts, metavar="N", help="default: 6")
    parser.add_argument("--top-k", type=int, default=case.top_k, metavar="K", help="default: 1")
    parser.add_argument("--phases", nargs="+", choices=moe_speed.PHASES, default=list(moe_speed.PHASES))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=case.precision)
    parser.add_argument("--clock", choices=("wall", "cpu"), default=case.clock, help="cpu: on a machine in use")
    parser.add_argument("--seconds", type=float, default=case.seconds, help="a row is measured about so long")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of torch (default: its own choice)")
    parser.add_argument("--results", default="results/moe_speed.csv", metavar="FILE", help="CSV to append to")


def _check_overrides(parser: argparse.ArgumentParser, rest: list[str]) -> None:
    wrong = [word for word in rest if word.startswith("-") or "=" not in word]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")


def _run_suite(args: argparse.Namespace) -> str:
    scope = Scope(
        config_file=args.config_file,
        released_config=args.released_config,
        overrides=tuple(args.overrides),
        pixels=args.pixels,
        batches=tuple(sorted(set(args.batch))),
        classes=tuple(sorted(set(args.classes))),
        seconds=args.seconds,
        scene_pixels=args.scene_pixels,
        workers=args.workers,
        device=args.device,
    )
    if args.list:
        return "\n".join(row.name for row in rows_of(scope))
    results = Results(args.results)
    run_suite(
        scope,
        results,
        only=args.rows,
        again=args.again,
        budget_seconds=args.budget_seconds,
        threads=args.threads,
        say=partial(print, file=sys.stderr, flush=True),
    )
    text = to_markdown(results)
    page = results.path.with_suffix(".md")
    with atomic_write(page) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
    return f"{text}\n\nwrote {results.path} and {page}"


def _print_table(args: argparse.Namespace) -> str:
    if args.overrides:
        raise UserError(f"table takes no override '{args.overrides[0]}'")
    if not Path(args.results).is_file():
        raise UserError(f"there are no results in '{args.results}'; measure them first: benchmark.py suite")
    return to_markdown(Results(args.results))


def _cost(args: argparse.Namespace) -> str:
    return _fill_table(args) if args.table else _measure_config(args)


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


def _measure_experts(args: argparse.Namespace) -> str:
    if args.overrides:
        raise UserError(f"moe takes no override '{args.overrides[0]}'")
    device = choose_device(args.device)
    set_threads(args.threads, device)
    rows = []
    for width in args.widths:
        for phase in args.phases:
            case = moe_speed.SpeedCase(
                width=width,
                images=args.images,
                tokens=args.tokens,
                experts=args.experts,
                top_k=args.top_k,
                phase=phase,
                precision=args.precision,
                clock=args.clock,
                seconds=args.seconds,
            )
            rows.append(moe_speed.measure_speed(case, device))
            append_row(args.results, rows[-1], moe_speed.FIELDS)
    return f"{moe_speed.speed_text(rows)}\n\nadded to {args.results}"


_COMMANDS = {"suite": _run_suite, "table": _print_table, "cost": _cost, "moe": _measure_experts}


if __name__ == "__main__":
    main()
