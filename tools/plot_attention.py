#!/usr/bin/env python
"""Draw where each stage of MM-OVSeg looks for a prompt, as Figure 5 of the paper: CLIP, optical + SAR, fused, score.

    tools/plot_attention.py --samples 2 --output output/attention.png
    tools/plot_attention.py --dataset miniearth_val --prompts "water, road, forest" --samples 1
    tools/plot_attention.py --optical x.tif --sar y.tif --prompts "water, road, forest"

Scenes are test scenes of the config, chosen by their labels and clouds, or those named by --image-ids, or one pair of
files. Without --config-file and --weights the small model that ships with the repository is used, which knows the
made-up world MiniEarth and not the real one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmovseg.config import apply_overrides, load_config
from mmovseg.data.sample import ModelInput
from mmovseg.data.vocabulary import Vocabulary, vocabulary_from_names
from mmovseg.engine.attention import ask_with, explain_scenes, scenes_of
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.inference.pair import add_pair_arguments, read_pair
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.disk import check_target
from mmovseg.visualization.heatmaps import draw_heatmaps

DEFAULT_CONFIG = "miniearth/mmovseg_xs.py"
DEFAULT_WEIGHTS = "shipped://mmovseg_xs"


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config-file", default=DEFAULT_CONFIG, metavar="F", help="model (default: %(default)s)")
    parser.add_argument("--weights", metavar="F", help="checkpoint (default: the one that the config names)")
    parser.add_argument("--dataset", metavar="NAME", help="registered data set (default: the config's test set)")
    parser.add_argument("--samples", type=int, metavar="N", help="how many scenes (default: 1)")
    parser.add_argument("--image-ids", nargs="+", metavar="ID", help="these scenes instead")
    parser.add_argument(
        "--prompts",
        metavar="NAMES",
        help='what to look for: "water, road"; default: the largest seen and the unseen classes of each scene',
    )
    add_pair_arguments(parser)
    parser.add_argument("--output", default="output/attention.png", metavar="F", help="PNG (default: %(default)s)")
    parser.add_argument(
        "--raw", action="store_true", help="the responses as they are, not against those of all prompts"
    )
    parser.add_argument("--max-size", type=int, default=512, metavar="PX", help="larger files are shrunk for the model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    return parser


def choose_inputs(
    args: argparse.Namespace, predictor: Predictor
) -> tuple[Vocabulary, list[ModelInput], list[int] | None]:
    """Return what to ask for, the scenes, and the prompts to draw (None: each scene chooses)."""
    if args.optical or args.sar:
        optical, sar = read_pair(args, predictor)
        asked = predictor.ask_for(args.prompts)
        return asked, [predictor.model_input(optical, sar, asked)], list(range(len(asked)))
    known, items = scenes_of(
        predictor.config,
        dataset=args.dataset,
        image_ids=args.image_ids,
        samples=args.samples or 1,
        modality=args.modality,
    )
    asked, drawn = ask_with(known, args.prompts)
    return asked, items, drawn


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse what excludes each other or makes no sense. Raises `UserError`."""
    if Path(args.output).suffix.lower() != ".png":
        raise UserError(f"--output '{args.output}' must end in .png")
    # A picture called X.PNG is written as X.png.
    check_target(Path(args.output).with_suffix(".png"), [file for file in (args.optical, args.sar) if file])
    if args.samples is not None and args.samples < 1:
        raise UserError(f"--samples must be at least 1, got {args.samples}")
    if args.samples is not None and args.image_ids:
        raise UserError("--samples and --image-ids exclude each other; give one")
    chosen = [f"--{name.replace('_', '-')}" for name in ("dataset", "samples", "image_ids") if getattr(args, name)]
    if (args.optical or args.sar) and chosen:
        raise UserError(f"{chosen[0]} chooses test scenes and excludes --optical and --sar")
    if args.prompts is not None:
        vocabulary_from_names(args.prompts, source="--prompts")  # wrong names are told before anything is loaded
    elif args.optical or args.sar:
        raise UserError('a pair of files needs --prompts, for example "water, road"')


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_intermixed_args(argv)
    check_arguments(args)
    config = apply_overrides(load_config(args.config_file), args.overrides)
    weights = args.weights or (DEFAULT_WEIGHTS if args.config_file == DEFAULT_CONFIG else None)
    predictor = Predictor(config, weights, args.device, modality=args.modality, max_size_px=args.max_size)
    vocabulary, items, drawn = choose_inputs(args, predictor)
    scenes = explain_scenes(predictor.model, items, vocabulary=vocabulary, drawn=drawn, sar_unit=predictor.sar_unit)
    draw_heatmaps(
        scenes,
        args.output,
        vocabulary=vocabulary,
        title="Where each stage of the fusion looks",
        against_others=not args.raw,
    )
    if not (args.optical or args.sar):
        print("scenes: " + ", ".join(item["image_id"] for item in items))
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
