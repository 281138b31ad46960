#!/usr/bin/env python
"""Segment one image pair by free text and draw the result.

    tools/demo.py --optical x.png --sar y.png --prompts "water, road"

Either image may be left out. Without --config-file and --weights the small model that ships with the repository is
used; it knows the made-up world MiniEarth (2.5 m pixels, SAR in dB) and not the real one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmovseg.checkpoint.save import atomic_write
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.evaluation.report import text_table
from mmovseg.inference.pair import add_pair_arguments, read_pair
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.disk import check_target
from mmovseg.visualization.draw import optical_to_rgb, sar_to_rgb
from mmovseg.visualization.segmentation import draw_segmentation

DEFAULT_CONFIG = "miniearth/mmovseg_xs.py"
DEFAULT_WEIGHTS = "shipped://mmovseg_xs"
_IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".webp": "WEBP"}


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_pair_arguments(parser)
    parser.add_argument("--prompts", required=True, metavar="NAMES", help='what to look for: "water, road"')
    parser.add_argument(
        "--output", default="output/demo_pair.png", metavar="FILE", help="picture (default: %(default)s)"
    )
    parser.add_argument("--config-file", default=DEFAULT_CONFIG, metavar="F", help="model (default: %(default)s)")
    parser.add_argument("--weights", metavar="F", help="checkpoint (default: the one that the config names)")
    parser.add_argument("--opacity", type=float, default=0.5, help="of the colours, 0..1 (default: %(default)s)")
    parser.add_argument(
        "--max-size", type=int, default=512, metavar="PX", help="larger images are shrunk for the model"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def shares_table(labels: np.ndarray, vocabulary: Vocabulary) -> str:
    """Return how much of the image each prompt got, as text."""
    shares = 100 * np.bincount(labels.ravel(), minlength=len(vocabulary)) / labels.size
    rows = [[name, f"{share:.1f}%"] for name, share in zip(vocabulary.names, shares, strict=True)]
    return text_table(rows, ["prompt", "of the image"], text_columns=1)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_args(argv)
    output = Path(args.output)
    if output.suffix.lower() not in _IMAGE_FORMATS:
        raise UserError(f"--output '{output}' must end in one of {', '.join(_IMAGE_FORMATS)}")
    if not 0 <= args.opacity <= 1:
        raise UserError(f"--opacity must lie in 0..1, got {args.opacity:g}")
    check_target(output, [file for file in (args.optical, args.sar) if file])
    weights = args.weights or (DEFAULT_WEIGHTS if args.config_file == DEFAULT_CONFIG else None)
    predictor = Predictor(args.config_file, weights, args.device, modality=args.modality, max_size_px=args.max_size)
    vocabulary = predictor.ask_for(args.prompts)
    optical, sar = read_pair(args, predictor)
    labels = predictor(optical, sar, vocabulary).argmax(dim=0).numpy()
    shown = optical_to_rgb(optical) if optical is not None else sar_to_rgb(np.asarray(sar), unit=predictor.sar_unit)
    picture = draw_segmentation(shown, labels, vocabulary, opacity=args.opacity)
    with atomic_write(output) as temporary:
        Image.fromarray(picture).save(temporary, format=_IMAGE_FORMATS[output.suffix.lower()])
    print(shares_table(labels, vocabulary))
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
