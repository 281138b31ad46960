#!/usr/bin/env python
r"""Let a trained CoCa describe images that have no captions: a folder, or a prepared set of images and text.

    tools/write_captions.py --dataset qxs_saropt --split train val test --output output/qxs_optical.jsonl \
        --config-file projects/SARText/configs/coca_optical_l14.py --weights coca_optical.safetensors
    tools/make_captions.py rewrite --captions output/qxs_optical.jsonl --output output/qxs.jsonl
    tools/write_captions.py --folder images --config-file projects/SARText/configs/coca_sar_l14.py \
        --weights coca_sar.safetensors --output output/images.jsonl

The first two commands caption SAR images through their optical twins: a model of optical images describes the twin, the
rules make the sentence one about SAR. The third describes SAR images directly. One caption an image, by beam search;
the file appears when it is complete. Images that cannot be read are told and left out. Nothing confirms what a model
writes: have a sample judged (tools/audit_captions.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmovseg.data.sar import SAR_UNITS
from mmovseg.errors import OneLineParser, UserError, exit_on_user_error
from mmovseg.projects.sartext.captioning.generated import describe_images, images_of_folder, images_of_set
from mmovseg.projects.sartext.captioning.schema import write_captions
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel
from mmovseg.projects.sartext.modeling.loading import load_image_text_model
from mmovseg.projects.sartext.search.embedding import weights_sha256
from mmovseg.projects.sartext.search.reading import reading_for


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--folder", metavar="DIR", help="images, also in folders below it")
    what.add_argument("--dataset", metavar="NAME", help="a prepared set, for example qxs_saropt")
    parser.add_argument("--pattern", default="*", metavar="GLOB", help="of --folder: which images")
    parser.add_argument("--source", metavar="NAME", help="of --folder, for the records (default: name of the folder)")
    parser.add_argument(
        "--split", nargs="+", metavar="NAME", help="of --dataset: which; of --folder: for the records (default: train)"
    )
    parser.add_argument("--root", metavar="DIR", help="of --dataset: folder of all data sets (default: registered one)")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSONL file to write; appears when complete")
    parser.add_argument("--config-file", required=True, metavar="F", help="a CoCa")
    parser.add_argument("--weights", metavar="F", help="checkpoint (default: what the config names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images a step (default: 32)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read (default: 0)")
    parser.add_argument("--bands", type=int, nargs="+", metavar="N", help="1-based: red green blue, or the SAR bands")
    parser.add_argument(
        "--optical-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of black and white"
    )
    parser.add_argument("--sar-unit", choices=SAR_UNITS, help="default: amplitude8 for 8-bit files, else db")
    parser.add_argument("--quiet", action="store_true", help="draw no progress bar")
    return parser


def _images(args: argparse.Namespace, model: ImageTextModel) -> list[Any]:
    if args.dataset is not None:
        if not args.split:
            raise UserError("--dataset needs --split")
        return images_of_set(args.dataset, args.split, model.modality, root=args.root)
    splits = args.split or ["train"]
    if len(splits) > 1:
        raise UserError(f"a folder is one split, got {len(splits)}: {', '.join(splits)}")
    source = args.source or Path(args.folder).resolve().name
    return images_of_folder(args.folder, pattern=args.pattern, source=source, split=splits[0])


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_args(argv)
    if args.batch_size < 1 or args.workers < 0:
        raise UserError("--batch-size must be at least 1, --workers at least 0")
    model = load_image_text_model(args.config_file, args.weights, args.device)
    if model.kind != "coca":
        raise UserError(f"'{args.config_file}' builds a CLIP, which writes nothing; give a CoCa")
    images = _images(args, model)
    reading = reading_for(
        model.input_contract,
        model.modality,
        bands=args.bands,
        optical_range=args.optical_range,
        sar_unit_in=args.sar_unit,
        picked=model.bands,
    )
    facts = {
        "model": args.config_file,
        "weights_sha256": weights_sha256(model),
        "described": model.modality,
        "beams": model.beams,
    }
    records = describe_images(
        images,
        model,
        reading,
        provenance=facts,
        batch_size=args.batch_size,
        workers=args.workers,
        show_progress=not args.quiet,
    )
    written = write_captions(args.output, records)
    print(f"wrote {args.output}: {written} of {len(images)} images described")


if __name__ == "__main__":
    main()
