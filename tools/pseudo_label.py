#!/usr/bin/env python
r"""Label SAR images by what models see in their optical twins, as CrossEarth-SAR-200K was labelled.

    tools/pseudo_label.py --miniearth train --num-scenes 200 --output output/pseudo_labels
    tools/pseudo_label.py --optical data/mine/rgb --sar data/mine/sar --vocabulary loveda --class-map map.json \
        --config-file mmovseg/mmovseg_vitb16.py --weights model.safetensors --output data/mine_labelled
    tools/pseudo_label.py --pairs pairs.jsonl --classes "water, road, forest" --config-file a=first.py b=second.py \
        --weights a.safetensors b.safetensors --agreement-images 1000 --output output/labelled

The first model labels; the others say on how many pixels all agree. Any segmentor of this repository can do it: those
that are asked by name, and those with a class list of their own. The same command goes on when it was stopped. Without
--config-file and --weights the small model that ships with the repository is used, which knows the made-up world
MiniEarth and not the real one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from mmovseg.data.io import FileReader
from mmovseg.data.miniearth import DOMAINS
from mmovseg.data.miniearth.dataset import SPLITS
from mmovseg.data.vocabulary import Vocabulary, get_vocabulary, vocabulary_from_names
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.crossearth.data.labellers import build_labellers
from mmovseg.projects.crossearth.data.pair_sources import PairSource, folder_pairs, miniearth_pairs, table_pairs
from mmovseg.projects.crossearth.data.pseudo_labels import LABEL_BY, SUMMARY_FILE, LabelRule, make_pseudo_labels

DEFAULT_CONFIG = "miniearth/mmovseg_xs.py"
DEFAULT_WEIGHTS = "shipped://mmovseg_xs"


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    pairs = parser.add_argument_group("pairs: --optical and --sar, or --pairs, or --miniearth")
    pairs.add_argument("--optical", metavar="DIR", help="folder of optical images")
    pairs.add_argument("--sar", metavar="DIR", help="folder of SAR images with the same file names")
    pairs.add_argument("--pairs", metavar="FILE", help="table of paths, .csv or .jsonl")
    pairs.add_argument("--miniearth", choices=SPLITS, help="scenes of the made-up world, written with their labels")
    pairs.add_argument("--truth", metavar="DIR", help="true labels, which the made ones are compared with")
    pairs.add_argument("--truth-vocabulary", metavar="V", help="classes of the true labels (default: those wanted)")
    pairs.add_argument("--num-scenes", type=int, metavar="N", help="of MiniEarth (default: all of the split)")
    pairs.add_argument("--size", type=int, default=64, metavar="PX", help="of MiniEarth scenes (default: 64)")
    pairs.add_argument("--domain", default="default", metavar="NAME", help=f"of MiniEarth: {', '.join(DOMAINS)}")
    pairs.add_argument("--optical-bands", type=int, nargs="+", metavar="N", help="1-based red, green, blue")
    pairs.add_argument(
        "--optical-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of black and white"
    )
    pairs.add_argument("--sar-nodata", type=float, metavar="V", help="value that means no data, if files declare none")
    models = parser.add_argument_group("models and classes")
    models.add_argument(
        "--config-file", nargs="+", default=[DEFAULT_CONFIG], metavar="F", help="[LABEL=]FILE; the first one labels"
    )
    models.add_argument("--weights", nargs="+", default=[], metavar="W", help="one for each config, in their order")
    models.add_argument(
        "--vocabulary", metavar="V", help="wanted classes: SET, SET/FLAVOUR (loveda/clean) or FILE.json"
    )
    models.add_argument("--classes", metavar="NAMES", help='wanted classes: "water, road"')
    models.add_argument(
        "--class-map",
        nargs="+",
        default=[],
        metavar="F",
        help="[LABEL=]FILE.json: wanted class -> classes of the model",
    )
    rule = parser.add_argument_group("labels")
    rule.add_argument(
        "--label-by", choices=LABEL_BY, default="first", help="which models decide (default: %(default)s)"
    )
    rule.add_argument("--min-confidence", type=float, default=0.0, metavar="P", help="below: no label (default: 0)")
    rule.add_argument("--min-agreement", type=int, default=1, metavar="N", help="fewer models: no label (default: 1)")
    rule.add_argument(
        "--agreement-images", type=int, metavar="N", help="show all models N images only, drawn by --seed"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to fill")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="images at once (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of MiniEarth and of what is drawn (default: 0)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--quiet", action="store_true", help="draw no progress bar")
    return parser


def wanted_classes(args: argparse.Namespace) -> Vocabulary:
    """Return the classes that labels shall number. Raises `UserError` when none or two lists are given."""
    if args.vocabulary is not None and args.classes is not None:
        raise UserError(f"--vocabulary {args.vocabulary} and --classes '{args.classes}' exclude each other; give one")
    if args.classes is not None:
        return vocabulary_from_names(args.classes)
    if args.vocabulary is not None:
        return named_vocabulary(args.vocabulary)
    if args.miniearth:
        return get_vocabulary("miniearth")
    raise UserError('say which classes are wanted: --vocabulary loveda, or --classes "water, road"')


def named_vocabulary(text: str) -> Vocabulary:
    """Return the vocabulary ``SET``, ``SET/FLAVOUR`` or ``FILE.json``."""
    dataset, _, flavour = (text, "", "") if text.endswith(".json") else text.partition("/")
    return get_vocabulary(dataset, flavour or "clean")


def chosen_pairs(args: argparse.Namespace, classes: Vocabulary) -> PairSource:
    """Return the pairs that the command line names. Raises `UserError` unless it names one kind."""
    kinds = {
        "--optical and --sar": args.optical or args.sar,
        "--pairs": args.pairs,
        "--miniearth": args.miniearth,
    }
    given = [name for name, value in kinds.items() if value]
    if len(given) != 1:
        what = f"{given[0]} and {given[1]} exclude each other" if given else "there is nothing to label"
        raise UserError(f"{what}; give --optical and --sar, or --pairs, or --miniearth")
    if args.truth and not args.optical:
        raise UserError("--truth goes with --optical and --sar; a table names true labels itself, MiniEarth has them")
    if args.miniearth:
        return miniearth_pairs(
            args.miniearth, num_scenes=args.num_scenes, size=args.size, domain=args.domain, seed=args.seed
        )
    truth = named_vocabulary(args.truth_vocabulary) if args.truth_vocabulary else classes
    if args.pairs:
        return table_pairs(args.pairs, truth=truth)
    if not (args.optical and args.sar):
        raise UserError("--optical and --sar go together: labels are made for SAR images from their optical twins")
    return folder_pairs(args.optical, args.sar, args.truth, truth=truth)


def told(content: dict[str, Any]) -> list[str]:
    """Return the main figures as lines."""
    figures = content["figures"]
    lines = [f"{figures['images']} images, {_percent(figures['labelled'])} of the valid pixels labelled"]
    shares = figures["class share"].items()
    lines.append("classes: " + ", ".join(f"{name} {_percent(share)}" for name, share in shares if share))
    lines.append(f"mean confidence {_percent(figures['mean confidence'])}")
    if "agreement" in figures:
        found = figures["agreement"]
        lines.append(
            f"mean agreement {_percent(found['mean agreement'])} (+- {_percent(found['deviation over images'])} over "
            f"{found['images']} images)"
        )
    if "quality" in figures:
        found = figures["quality"]["labels as written"]
        lines.append(f"against true labels: mIoU {_percent(found['mIoU'])}, right {_percent(found['pACC'])}")
    return lines


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.1f}%"


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_args(argv)
    classes = wanted_classes(args)
    source = chosen_pairs(args, classes)
    rule = LabelRule(args.label_by, args.min_confidence, args.min_agreement, args.agreement_images, args.seed)
    rule.check(len(args.config_file))
    weights = args.weights or ([DEFAULT_WEIGHTS] if args.config_file == [DEFAULT_CONFIG] else [])
    labellers = build_labellers(
        args.config_file, weights, classes=classes, class_maps=args.class_map, device=args.device
    )
    reading: dict[str, Any] = {
        "bands": args.optical_bands,
        "optical_range": args.optical_range,
        "sar_nodata": args.sar_nodata,
    }
    content = make_pseudo_labels(
        source,
        labellers,
        args.output,
        rule=rule,
        batch_size=args.batch_size,
        reader=FileReader(**reading),
        reader_facts=reading,
        show_progress=not args.quiet,
    )
    print("\n".join(told(content)))
    print(f"wrote {args.output} ({SUMMARY_FILE} says how it was made)")


if __name__ == "__main__":
    main()
