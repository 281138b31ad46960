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
from mmovseg.data.io import FileReader
from mmovseg.data.sample import MODALITIES, DatasetDict, RawSample
from mmovseg.data.sar import SAR_UNITS, SarUnit, convert_sar
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.evaluation.report import text_table
from mmovseg.inference.predictor import Predictor
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
    parser.add_argument("--optical", metavar="FILE", help="optical image (8/16-bit, float with --optical-range)")
    parser.add_argument("--sar", metavar="FILE", help="SAR image of the same size")
    parser.add_argument("--prompts", required=True, metavar="NAMES", help='what to look for: "water, road"')
    parser.add_argument(
        "--output", default="output/demo_pair.png", metavar="FILE", help="picture (default: %(default)s)"
    )
    parser.add_argument("--config-file", default=DEFAULT_CONFIG, metavar="F", help="model (default: %(default)s)")
    parser.add_argument("--weights", metavar="F", help="checkpoint (default: the one that the config names)")
    parser.add_argument("--modality", choices=MODALITIES, default="both", help="ignore one of two given images")
    parser.add_argument("--opacity", type=float, default=0.5, help="of the colours, 0..1 (default: %(default)s)")
    parser.add_argument("--sar-unit", choices=SAR_UNITS, help="default: amplitude8 for 8-bit files, else db")
    parser.add_argument("--sar-bands", type=int, nargs="+", metavar="N", help="1-based, in the order of the model")
    parser.add_argument("--optical-bands", type=int, nargs="+", metavar="N", help="1-based red, green, blue")
    parser.add_argument(
        "--optical-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of black and white"
    )
    parser.add_argument(
        "--max-size", type=int, default=512, metavar="PX", help="larger images are shrunk for the model"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def read_pair(args: argparse.Namespace, sar_unit: SarUnit = "db") -> RawSample:
    """Read what the command line names, SAR in the unit `sar_unit`, which is the model's.

    Raises:
        UserError: neither image is given, a file is unusable, or the two differ in size.
    """
    paths: DatasetDict = {}
    if args.optical and args.modality != "sar":
        paths["file_name"] = args.optical
    if args.sar and args.modality != "optical":
        paths["sar_file_name"] = args.sar
    if not paths:
        raise UserError(f"no image to segment for modality '{args.modality}': give --optical, --sar or both")
    sample = FileReader(bands=args.optical_bands, optical_range=args.optical_range, sar_bands=args.sar_bands)(paths)
    if sample.sar is not None:
        unit = args.sar_unit or guess_sar_unit(sample.sar, args.sar)
        sample.sar = convert_sar(sample.sar, unit_in=unit, unit_out=sar_unit)
    return sample


def guess_sar_unit(sar: np.ndarray, path: str) -> SarUnit:
    """Return the unit that values suggest and say so: whole numbers 0..255 are amplitude8, values below 0 are dB.

    Raises:
        UserError: the values fit both dB and power.
    """
    values = sar[np.isfinite(sar)]
    if values.size and values.min() >= 0 and values.max() <= 255 and (values == np.rint(values)).all():
        unit: SarUnit = "amplitude8"
    elif values.size == 0 or values.min() < 0:
        unit = "db"
    else:
        raise UserError(f"the unit of '{path}' is unclear (values {values.min():g}..{values.max():g}); give --sar-unit")
    print(f"reading '{path}' as {unit} (--sar-unit changes that)")
    return unit


def fit_polarisations(sar: np.ndarray, wanted: int | None, path: str) -> np.ndarray:
    """Return SAR with as many channels as the model wants: a single (or grey) band stands in for all, with a notice.

    Raises:
        UserError: there are several different bands, and not as many as the model wants.
    """
    count = sar.shape[2]
    if wanted is None or count == wanted:
        return sar
    if not np.array_equal(sar, np.repeat(sar[..., :1], count, axis=2), equal_nan=True):
        raise UserError(f"'{path}' has {count} bands, the model wants {wanted}; choose with --sar-bands")
    print(f"'{path}' has one polarisation, the model wants {wanted}: it is given the same one {wanted} times")
    return np.repeat(sar[..., :1], wanted, axis=2)


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
    weights = args.weights or (DEFAULT_WEIGHTS if args.config_file == DEFAULT_CONFIG else None)
    predictor = Predictor(args.config_file, weights, args.device, modality=args.modality, max_size_px=args.max_size)
    pair = read_pair(args, predictor.sar_unit)
    vocabulary = predictor.ask_for(args.prompts)
    optical, sar = pair.optical, pair.sar
    if optical is not None and pair.optical_valid is not None and not pair.optical_valid.all():
        optical = np.where(pair.optical_valid[..., None], optical, np.nan)
    if sar is not None:
        sar = fit_polarisations(sar, predictor.num_polarisations, args.sar)
    labels = predictor(optical, sar, vocabulary).argmax(dim=0).numpy()
    shown = optical_to_rgb(optical) if optical is not None else sar_to_rgb(np.asarray(sar), unit=predictor.sar_unit)
    picture = draw_segmentation(shown, labels, vocabulary, opacity=args.opacity)
    with atomic_write(output) as temporary:
        Image.fromarray(picture).save(temporary, format=_IMAGE_FORMATS[output.suffix.lower()])
    print(shares_table(labels, vocabulary))
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
