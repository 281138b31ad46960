#!/usr/bin/env python
"""Make captions for SAR images from what exists: boxes and masks, label maps, MiniEarth; and exchange caption files.

    tools/make_captions.py annotations --dataset hrsid --split train test --output output/hrsid.jsonl
    tools/make_captions.py annotations --coco train=boxes.json --root mine --source mine --output output/mine.jsonl
    tools/make_captions.py segmentation --dataset ddhr_korea --split train --output output/ddhr_korea.jsonl
    tools/make_captions.py miniearth --route annotation --split test --output output/miniearth.jsonl
    tools/make_captions.py rewrite --captions rsicd=RSICD/test_caps.txt --output output/rsicd.jsonl
    tools/make_captions.py check --captions output/rsicd.jsonl --fix output/rsicd_fixed.jsonl
    tools/make_captions.py export --captions output/hrsid.jsonl --layout rsicd --output output/hrsid.json

With --verify, a command that makes captions reads those in --output back instead and compares them with the
annotation. Captions follow from seed, data set and image id alone: the same command gives the same bytes, whatever
--workers is. Image paths of prepared sets start from the folder of all sets, whichever command writes them. Methods,
words and options: projects/SARText/README.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from mmovseg.data.miniearth.regions import CLASS_NAMES, TARGET_CATEGORIES
from mmovseg.data.vocabulary import Vocabulary, get_vocabulary
from mmovseg.errors import OneLineParser, UserError, exit_on_user_error
from mmovseg.projects.sartext.captioning.box_parts import Part, coco_parts, prepared_parts, split_pair
from mmovseg.projects.sartext.captioning.checks.command import add_check
from mmovseg.projects.sartext.captioning.cover import CoverRules
from mmovseg.projects.sartext.captioning.cover_captions import caption_labels
from mmovseg.projects.sartext.captioning.exchange import TABLE_LAYOUTS, export_csv, export_rsicd
from mmovseg.projects.sartext.captioning.lexicon import Lexicon, load_lexicon
from mmovseg.projects.sartext.captioning.object_captions import EMPTY_IMAGES, WritingOptions, caption_objects
from mmovseg.projects.sartext.captioning.objects import ObjectImage, ObjectRules, fit_size_limits
from mmovseg.projects.sartext.captioning.rewriting.command import add_rewrite
from mmovseg.projects.sartext.captioning.schema import IMAGE_ROLES, CaptionRecord, read_captions, write_captions
from mmovseg.projects.sartext.captioning.shards import ImageRendering, export_webdataset
from mmovseg.projects.sartext.captioning.sources import (
    SCENES,
    LabelJob,
    MiniEarthScenes,
    SceneLists,
    label_jobs,
    read_coco_images,
    run_in_order,
)
from mmovseg.projects.sartext.captioning.verify import verify_captions

OBJECT_DEFAULTS = {"empty": "describe", "min_side": 0.0, "drop_truncated": False}
COVER_DEFAULTS = {"min_share": 0.05, "min_labelled": 0.5}
LAYOUTS = (*TABLE_LAYOUTS, "rsicd", "webdataset")


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_annotations(commands.add_parser("annotations", help="from boxes or masks in COCO files", allow_abbrev=False))
    _add_segmentation(commands.add_parser("segmentation", help="from label maps", allow_abbrev=False))
    _add_miniearth(commands.add_parser("miniearth", help="from the targets or labels of MiniEarth", allow_abbrev=False))
    add_rewrite(commands.add_parser("rewrite", help="from captions of optical images, by rules", allow_abbrev=False))
    add_check(commands.add_parser("check", help="length, words, statements, duplicates, leakage", allow_abbrev=False))
    _add_export(commands.add_parser("export", help="into the layouts of others", allow_abbrev=False))
    return parser


def _add_writing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, metavar="FILE", help="JSONL file to write; appears when complete")
    parser.add_argument("--num-captions", type=int, default=5, metavar="N", help="an image (default: 5)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the choice of words (default: 0)")
    parser.add_argument("--lexicon", metavar="JSON", help="sections that replace those of the shipped lexicon")
    parser.add_argument(
        "--verify", action="store_true", help="write nothing; read the captions in --output back and compare them"
    )


def _add_object_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--empty",
        choices=EMPTY_IMAGES,
        default=OBJECT_DEFAULTS["empty"],
        help="images without objects (default: describe)",
    )
    parser.add_argument(
        "--min-side",
        type=float,
        default=OBJECT_DEFAULTS["min_side"],
        metavar="PX",
        help="leave out objects with a shorter side (default: 0)",
    )
    parser.add_argument("--drop-truncated", action="store_true", help="leave out objects that touch the image's edge")


def _add_annotations(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=make_from_annotations)
    parser.add_argument("--dataset", metavar="NAME", help="a prepared set of boxes: hrsid, ssdd or sardet100k")
    parser.add_argument(
        "--split",
        nargs="+",
        metavar="NAME",
        help="of --dataset (default: all)",
    )
    parser.add_argument("--coco", nargs="+", metavar="SPLIT=JSON", help="COCO files instead of --dataset")
    parser.add_argument(
        "--root", metavar="DIR", help="image paths in the output start here (--dataset: the folder of all data sets)"
    )
    parser.add_argument(
        "--images",
        default=".",
        metavar="DIR",
        help="folder of the images below --root; {split} is replaced (default: .)",
    )
    parser.add_argument("--source", metavar="NAME", help="of the data set (default: --dataset)")
    parser.add_argument("--gsd", type=float, metavar="M", help="metres per pixel, if one for all (default: not known)")
    parser.add_argument(
        "--scene",
        nargs="+",
        default=[],
        metavar="WORD=FILE",
        help=f"lists of images (text or COCO JSON), any number a word, whose scene is one of: {', '.join(SCENES)}",
    )
    parser.add_argument(
        "--bad-boxes", choices=("refuse", "drop"), default="drop", help="boxes outside their image (default: drop)"
    )
    parser.add_argument(
        "--sizes-from",
        metavar="SPLIT[=JSON]",
        help="whose objects say what is small and what large (default: train where there is one, else all)",
    )
    _add_object_rules(parser)
    _add_writing(parser)


def _add_segmentation(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=make_from_labels)
    parser.add_argument("--dataset", metavar="NAME", help="a data set of datasets/README.md, for example ddhr_korea")
    parser.add_argument("--split", required=True, metavar="NAME", help="of the data set")
    parser.add_argument("--labels", metavar="DIR", help="folder of label maps, instead of --dataset")
    parser.add_argument("--sar", metavar="DIR", help="folder of SAR images with the same file stems")
    parser.add_argument("--optical", metavar="DIR", help="folder of optical images with the same file stems")
    parser.add_argument("--root", metavar="DIR", help="of the folders; image paths in the output start here")
    parser.add_argument("--source", metavar="NAME", help="of the data set (default: --dataset)")
    parser.add_argument(
        "--vocabulary", metavar="NAME", help="shipped vocabulary or JSON file (default: the data set's)"
    )
    parser.add_argument(
        "--label-map", nargs="+", default=[], metavar="STORED=ID", help="label values of --labels that are no class ids"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    _add_cover_rules(parser)
    _add_writing(parser)


def _add_cover_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-share",
        type=float,
        default=COVER_DEFAULTS["min_share"],
        metavar="SHARE",
        help="classes with less go unnamed (default: 0.05)",
    )
    parser.add_argument(
        "--min-labelled",
        type=float,
        default=COVER_DEFAULTS["min_labelled"],
        metavar="SHARE",
        help="of an image, to be captioned (default: 0.5)",
    )


def _add_miniearth(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=make_from_miniearth)
    parser.add_argument("--route", choices=("annotation", "segmentation"), required=True, help="from targets or labels")
    parser.add_argument("--split", nargs="+", choices=("train", "val", "test"), default=["train", "val", "test"])
    parser.add_argument("--num-scenes", type=int, metavar="N", help="per split (default: 4000, 500, 500)")
    parser.add_argument("--size", type=int, default=64, metavar="PX", help="pixels per side (default: 64)")
    parser.add_argument("--domain", default="default", metavar="NAME", help="see tools/make_miniearth.py --help")
    parser.add_argument("--world-seed", type=int, default=0, metavar="N", help="which world (default: 0)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    _add_object_rules(parser)
    _add_cover_rules(parser)
    _add_writing(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=export)
    parser.add_argument("--captions", required=True, nargs="+", metavar="JSONL", help="caption files, put together")
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="of the output")
    parser.add_argument("--output", required=True, metavar="PATH", help="file to write; a folder for webdataset")
    parser.add_argument("--split", metavar="NAME", help="only this split (default: all)")
    parser.add_argument("--root", metavar="DIR", help="of the images (webdataset)")
    parser.add_argument("--shard-size", type=int, default=1000, metavar="N", help="samples an archive (default: 1000)")
    parser.add_argument("--per-caption", action="store_true", help="a sample a caption, not an image (webdataset)")
    parser.add_argument("--role", choices=IMAGE_ROLES, default="sar", help="what the images are (default: sar)")
    parser.add_argument(
        "--sar-unit", choices=("amplitude8", "db", "linear"), default="amplitude8", help="default: amplitude8"
    )


def make_from_annotations(args: argparse.Namespace) -> None:
    """Route 1 over COCO files."""
    lists = SceneLists.read(map(split_pair, args.scene))
    parts, sizing = _named_boxes(args) if args.dataset else _coco_files(args)
    read = partial(read_coco_images, scenes=lists.names(), bad_boxes=args.bad_boxes)
    found = [read(**part) for part in parts]
    images = [image for group, _ in found for image in group]
    classes = dict.fromkeys(name for _, names in found for name in names)
    sized = [image for part in sizing for image in (found[parts.index(part)] if part in parts else read(**part))[0]]
    lists.check_used([*images, *sized])
    if not sizing:
        print("there is no training split: small and large follow from the captioned images; see --sizes-from")
    _write_objects(args, images, sized or images, load_lexicon(args.lexicon).for_classes(classes))


def _named_boxes(args: argparse.Namespace) -> tuple[list[Part], list[Part]]:
    return prepared_parts(
        args.dataset,
        splits=args.split,
        root=args.root,
        source=args.source,
        gsd_m=args.gsd,
        sizes_from=args.sizes_from,
    )


def _coco_files(args: argparse.Namespace) -> tuple[list[Part], list[Part]]:
    missing = [name for name in ("coco", "root", "source") if getattr(args, name) is None]
    if missing or args.split:
        raise UserError(f"without --dataset, --{missing[0]} must be given" if missing else "--split needs --dataset")
    return coco_parts(
        args.coco,
        root=args.root,
        images=args.images,
        source=args.source,
        gsd_m=args.gsd,
        sizes_from=args.sizes_from,
    )


def _write_objects(
    args: argparse.Namespace, images: Sequence[ObjectImage], sized: Sequence[ObjectImage], lexicon: Lexicon
) -> None:
    rules = ObjectRules(min_side_px=args.min_side, drop_truncated=args.drop_truncated)
    options = WritingOptions(num_captions=args.num_captions, seed=args.seed, empty=args.empty)
    limits = fit_size_limits(sized, rules)
    work = partial(_caption_image, lexicon=lexicon, limits=limits, rules=rules, options=options)
    _finish(args, run_in_order(work, images, show_progress=True), len(images), lexicon)


def _caption_image(image: ObjectImage, **settings) -> CaptionRecord | None:  # noqa: ANN003 - those of caption_objects
    return next(caption_objects([image], **settings), None)


def make_from_labels(args: argparse.Namespace) -> None:
    """Route 2 over a data set by name, or over folders."""
    jobs, vocabulary = _named_labels(args) if args.dataset else _folder_labels(args)
    lexicon = load_lexicon(args.lexicon).for_classes(vocabulary.names)
    work = partial(_caption_job, vocabulary=vocabulary, lexicon=lexicon, **_cover_settings(args))
    _finish(args, run_in_order(work, jobs, workers=args.workers, show_progress=True), len(jobs), lexicon)


def _named_labels(args: argparse.Namespace) -> tuple[list[LabelJob], Vocabulary]:
    from mmovseg.data.datasets.catalog import dataset_entry, datasets_root, get_dataset  # imports detectron2

    if args.dataset == "miniearth":
        raise UserError("--dataset miniearth has no files: use the subcommand miniearth --route segmentation")
    entry = dataset_entry(args.dataset)
    dicts = get_dataset(f"{args.dataset}_{args.split}")
    vocabulary = get_vocabulary(args.vocabulary or entry.vocabulary)
    root = args.root or datasets_root()
    return label_jobs(dicts, root=root, source=args.source or args.dataset, split=args.split), vocabulary


def _folder_labels(args: argparse.Namespace) -> tuple[list[LabelJob], Vocabulary]:
    needed = {"labels": args.labels, "root": args.root, "source": args.source, "vocabulary": args.vocabulary}
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise UserError(f"without --dataset the captions of label maps need --{missing[0]}")
    from mmovseg.data.datasets.folders import load_pair_folder  # its package imports detectron2: seconds

    pairs = [split_pair(text) for text in args.label_map]
    if not all(stored.isdecimal() and class_id.isdecimal() for stored, class_id in pairs):
        raise UserError(f"--label-map needs whole numbers such as 255=1, got: {' '.join(args.label_map)}")
    label_map = {int(stored): int(class_id) for stored, class_id in pairs} or None
    dicts = load_pair_folder(args.optical, args.sar, args.labels, label_map=label_map)
    jobs = label_jobs(dicts, root=args.root, source=args.source, split=args.split)  # type: ignore[arg-type]
    return jobs, get_vocabulary(args.vocabulary)


def _cover_settings(args: argparse.Namespace) -> dict:
    return {
        "rules": CoverRules(some=args.min_share, min_labelled=args.min_labelled),
        "options": WritingOptions(num_captions=args.num_captions, seed=args.seed),
    }


def _caption_job(job: LabelJob, **settings) -> CaptionRecord | None:  # noqa: ANN003 - those of caption_labels
    try:
        return caption_labels(job.image, job.read(), **settings)
    except UserError as error:
        raise UserError(f"label map '{job.label_file}': {error}") from error


def make_from_miniearth(args: argparse.Namespace) -> None:
    """Both routes over MiniEarth; scenes are rendered on the fly."""
    parts = [
        MiniEarthScenes(split, args.num_scenes, args.size, args.domain, args.world_seed)
        for split in dict.fromkeys(args.split)
    ]
    if args.num_scenes is not None and args.num_scenes < 1:
        raise UserError(f"--num-scenes must be at least 1, got {args.num_scenes}")
    _refuse_options_of_the_other_route(args)
    lexicon = load_lexicon(args.lexicon)
    if args.route == "annotation":
        sized, *found = [
            list(run_in_order(part.read_objects, part.jobs(), workers=args.workers, show_progress=True))
            for part in (parts[0].sizing(), *parts)
        ]
        images = [image for group in found for image in group]
        _write_objects(args, images, sized, lexicon.for_classes(TARGET_CATEGORIES))
        return
    lexicon = lexicon.for_classes(CLASS_NAMES)
    settings = {"vocabulary": get_vocabulary("miniearth"), "lexicon": lexicon}
    total = sum(len(part.jobs()) for part in parts)
    records = (
        record
        for part in parts
        for record in run_in_order(
            partial(_caption_scene, part=part, **settings, **_cover_settings(args)),
            part.jobs(),
            workers=args.workers,
            show_progress=True,
        )
    )
    _finish(args, records, total, lexicon)


def _refuse_options_of_the_other_route(args: argparse.Namespace) -> None:
    options = {"segmentation": OBJECT_DEFAULTS, "annotation": COVER_DEFAULTS}[args.route]
    given = [name for name, default in options.items() if getattr(args, name) != default]
    if given:
        raise UserError(f"--{given[0].replace('_', '-')} means nothing to --route {args.route}")


def _caption_scene(scene: dict, *, part: MiniEarthScenes, **settings) -> CaptionRecord | None:  # noqa: ANN003 - as above
    image, labels = part.read_labels(scene)  # type: ignore[arg-type]
    return caption_labels(image, labels, **settings)


def _finish(
    args: argparse.Namespace, records: Iterable[CaptionRecord | None], num_images: int, lexicon: Lexicon
) -> None:
    """Write the records that came out, and say how many of which length; or verify what was written before."""
    if args.verify:
        found = verify_captions(args.output, records, lexicon)
        print(found.summary())
        if found.faults:
            raise UserError(f"'{args.output}', {found.first_fault()}")
        return
    counts: Counter[str] = Counter()

    def kept() -> Iterator[CaptionRecord]:
        for record in records:
            if record is not None:
                counts.update(captions=len(record.captions), words=sum(len(text.split()) for text in record.captions))
                yield record

    written = write_captions(args.output, kept())
    print(
        f"{written} images with {counts['captions']} captions of {counts['words'] / counts['captions']:.1f} words, "
        f"{num_images - written} images without a caption; wrote {args.output}"
    )


def export(args: argparse.Namespace) -> None:
    """Write caption files in the layout of others."""
    records = [record for path in args.captions for record in read_captions(path)]
    images = Counter(record.image for record in records)
    if images and images.most_common(1)[0][1] > 1:
        raise UserError(f"the image '{images.most_common(1)[0][0]}' is in more than one of the caption files")
    kept = [record for record in records if args.split in (None, record.split)]
    if not kept:
        known = ", ".join(sorted({record.split for record in records}))
        raise UserError(f"no caption record is of the split '{args.split}'; the files have: {known}")
    output = Path(args.output)
    if args.layout == "webdataset":
        if args.root is None:
            raise UserError("the layout 'webdataset' holds the images: say with --root where their paths start")
        names = export_webdataset(
            output,
            kept,
            root=args.root,
            shard_size=args.shard_size,
            per_caption=args.per_caption,
            rendering=ImageRendering(args.role, args.sar_unit),
            show_progress=True,
        )
        print(f"{len(kept)} images in {len(names)} archives; wrote {output}")
        return
    count = (
        export_rsicd(output, kept)
        if args.layout == "rsicd"
        else export_csv(output, kept, layout=TABLE_LAYOUTS[args.layout])
    )
    print(f"{count} captions of {len(kept)} images; wrote {output}")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    main()
