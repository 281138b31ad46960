#!/usr/bin/env python
"""Search a folder of images, SAR or optical, by text or by image.

    tools/search_images.py --folder images --text "a river and forest" --text "ships in a harbour" --top 12
    tools/search_images.py --folder images --image like_this.png --captions images/captions.jsonl

The images are embedded once, into an index in the output folder; a second call embeds only what is new or has changed.
An index belongs to one folder, one model and one way of reading, and is refused for another. The output folder is by
default output/search/NAME, NAME being that of the image folder.
Written are results.json and results.csv (ranked pairs of query and image, with the image's captions where a caption
file is given) and sheet.png, which shows the first 20 queries and 240 answers. Images that cannot be read are named,
listed in results.json, and tried again next time. What lies in the output folder is not searched.

Without --config-file the small CLIP that ships with the repository is asked; it knows optical images of the made-up
world MiniEarth. For real images give a model of your own, or open_clip's: --config-file
projects/SARText/configs/clip_sar_l14.py --weights my_weights.safetensors. An image is seen as a whole, shrunk to the
size that the model reads: cut scenes into tiles first.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmovseg.data.sar import SAR_UNITS
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.projects.sartext.modeling.loading import load_image_text_model
from mmovseg.projects.sartext.search.embedding import UpdateReport, update_index
from mmovseg.projects.sartext.search.files import choose_images, list_images, readable
from mmovseg.projects.sartext.search.queries import (
    Query,
    embed_queries,
    find_matches,
    read_image_captions,
    read_texts,
    write_results,
)
from mmovseg.projects.sartext.search.ranking import ENGINES, choose_engine
from mmovseg.projects.sartext.search.reading import reading_for
from mmovseg.projects.sartext.search.sheet import draw_sheet, drawn_part

DEFAULT_CONFIG = "projects/SARText/configs/search_xs.py"
DEFAULT_OUTPUT = Path("output/search")
SHEET = "sheet.png"


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--folder", required=True, metavar="DIR", help="images, also in folders below it")
    parser.add_argument("--pattern", default="*", metavar="GLOB", help="which of them, for example '*_sar.tif'")
    parser.add_argument("--text", action="append", default=[], metavar="WORDS", help="look for this; may be repeated")
    parser.add_argument("--texts", metavar="FILE", help="look for each line of a UTF-8 file")
    parser.add_argument(
        "--image", action="append", default=[], metavar="FILE", help="look for what resembles this image"
    )
    parser.add_argument("--top", type=int, default=12, metavar="N", help="answers a query (default: %(default)s)")
    parser.add_argument(
        "--captions", metavar="FILE", help="caption file (JSONL) about the folder, to show with answers"
    )
    parser.add_argument("--output", metavar="DIR", help=f"default: {DEFAULT_OUTPUT}/NAME, after the image folder")
    parser.add_argument(
        "--index",
        metavar="FILE",
        help="default: index.safetensors in the output folder; one of another folder, or of one that has moved since, "
        "is refused",
    )
    parser.add_argument(
        "--prune", action="store_true", help="drop images from the index that the folder, not --pattern, has no more"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="auto", help="auto: FAISS above a million images, if installed"
    )
    parser.add_argument("--config-file", default=DEFAULT_CONFIG, metavar="F", help="model (default: %(default)s)")
    parser.add_argument("--weights", metavar="F", help="checkpoint (default: what the config names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images a step (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read (default: 0, this one)"
    )
    parser.add_argument("--bands", type=int, nargs="+", metavar="N", help="1-based: red green blue, or the SAR bands")
    parser.add_argument(
        "--optical-range", type=float, nargs=2, metavar=("LOW", "HIGH"), help="values of black and white"
    )
    parser.add_argument("--sar-unit", choices=SAR_UNITS, help="default: amplitude8 for 8-bit files, else db")
    parser.add_argument("--quiet", action="store_true", help="draw no progress bar")
    return parser


def list_queries(args: argparse.Namespace) -> list[Query]:
    """Return what the command line looks for.

    Raises:
        UserError: a text is empty or not UTF-8, or the file of texts is bad.
    """
    texts = [*args.text, *(read_texts(args.texts) if args.texts else [])]
    for text in texts:
        if not text.strip():
            raise UserError("--text is empty")
        if text != readable(text):
            raise UserError(f"--text '{readable(text)}' is not UTF-8")
    return [*(Query(text=text.strip()) for text in texts), *(Query(image=image) for image in args.image)]


def output_folder(output: str | None, folder: str) -> Path:
    """Return where results go: what was asked for, or a folder with the name of the image folder."""
    return Path(output) if output else DEFAULT_OUTPUT / (Path(folder).resolve().name or "root")


def describe_update(report: UpdateReport, index: Path, rows: int) -> str:
    """Return one line a fact: what was embedded, at which cost, what was left out."""
    lines = [f"index {index}: {rows} images, {report.embedded} embedded, {report.kept} were there"]
    if report.embedded:
        each = 1000.0 * report.seconds / report.embedded
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        lines.append(f"embedding took {report.seconds:.1f} s, {each:.1f} ms an image; memory at most {peak:.0f} MiB")
    if report.skipped:
        lines.append(f"{len(report.skipped)} images cannot be read; results.json lists them")
    if report.gone:
        lines.append(f"{len(report.gone)} images of the index are not in the folder and are not looked at (--prune)")
    return "\n".join(lines)


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_args(argv)
    if args.top < 1 or args.batch_size < 1 or args.workers < 0:
        raise UserError("--top and --batch-size must be at least 1, --workers at least 0")
    output = output_folder(args.output, args.folder)
    queries = list_queries(args)
    captions = read_image_captions(args.captions) if args.captions else None
    there = list_images(args.folder, leave_out=(DEFAULT_OUTPUT, output, output / SHEET))
    files = choose_images(there, args.pattern)
    model = load_image_text_model(args.config_file, args.weights, args.device)
    reading = reading_for(
        model.input_contract,
        model.modality,
        bands=args.bands,
        optical_range=args.optical_range,
        sar_unit_in=args.sar_unit,
        picked=model.bands,
    )
    embedded = embed_queries(queries, model, reading) if queries else None  # before the long work: a typing error
    path = Path(args.index) if args.index else output / "index.safetensors"
    index, report = update_index(
        path,
        args.folder,
        files,
        model,
        reading,
        batch_size=args.batch_size,
        workers=args.workers,
        there=there,
        prune=args.prune,
        show_progress=not args.quiet,
    )
    print(readable(describe_update(report, path, len(index))))
    if embedded is None:
        return
    index = index.part({file.path for file in files})
    engine = choose_engine(args.engine, len(index))
    options: dict[str, Any] = {"folder": args.folder, "top": args.top, "engine": engine}
    answers = find_matches(index, queries, embedded, captions=captions, **options)
    facts = {
        "folder": readable(args.folder),
        "images": len(index),
        "model": {"config": args.config_file, "weights": args.weights, "sha256": index.facts.model},
        "engine": engine,
    }
    written = write_results(output, queries, answers, facts=facts, skipped=report.skipped)
    draw_sheet(output / SHEET, queries, answers, folder=args.folder, show=reading.show)
    for query, found in zip(queries, answers, strict=True):
        print(f"{query.label}: " + ", ".join(f"{readable(match.path)} {match.score:.3f}" for match in found[:3]))
    most = max(len(found) for found in answers)
    shown = drawn_part(len(queries), most)
    if shown != (len(queries), most):
        print(f"{SHEET} shows {shown[0]} of {len(queries)} queries, {shown[1]} of {most} answers; the tables hold all")
    print(f"wrote {', '.join(readable(str(file)) for file in (*written, output / SHEET))}")


if __name__ == "__main__":
    main()
