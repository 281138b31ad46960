"""What the prepare scripts of `data.sets` share: boxes, pairs and captions of a download, copied into one layout."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmovseg.atomic import atomic_write
from mmovseg.data.datasets.coco_boxes import load_coco_boxes, read_coco
from mmovseg.data.prepare import find_folder, find_optional, index_by_stem, prepare_parser
from mmovseg.data.prepare.images import ImageCopy, copy_images, describe_copies
from mmovseg.data.prepare.splits import split_by_share
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.exchange import import_rsicd
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, write_captions
from mmovseg.projects.sartext.data.precomp import has_precomp, import_precomp
from mmovseg.projects.sartext.data.sets import Shore, TextSet, find_text_set, source_scene

SCENE_TRAIN_SHARE = 0.65
"""As many as the published split of HRSID has."""

PairFiles = Mapping[str, Path]
"""``optical`` and ``sar`` -> file of one pair."""


@dataclass(frozen=True)
class BoxFiles:
    """Where the boxes and the images of a split are in a download."""

    json_file: Path
    images: Path


def text_set_parser(description: str | None, *, draws_val: bool = True) -> argparse.ArgumentParser:
    """Return the parser of these scripts; a script adds its own options."""
    parser = prepare_parser(description)
    if draws_val:
        parser.add_argument(
            "--val-share",
            type=float,
            default=0.0,
            metavar="SHARE",
            help="draw this share of train as val where the publishers have none, by --seed; whole source scenes where "
            "they are known (default: 0)",
        )
    return parser


def caption_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of the scripts that prepare captions."""
    parser = text_set_parser(description)
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="PATH",
        help="the JSON file, or a folder with <split>_caps.txt and <split>_filename.txt (default: in the download)",
    )
    parser.add_argument(
        "--drop-empty", action="store_true", help="leave empty captions out, and images that have no other"
    )
    parser.add_argument(
        "--skip-missing", action="store_true", help="leave out captioned images that the download does not have"
    )
    return parser


def check_val_share(args: argparse.Namespace) -> None:
    """Refuse a share outside 0..1."""
    if not 0.0 <= args.val_share < 1.0:
        raise UserError(f"--val-share must be at least 0 and less than 1, got {args.val_share}")


def prepare_boxes(
    name: str,
    args: argparse.Namespace,
    root: Path,
    files: Mapping[str, BoxFiles],
    *,
    shores: Mapping[str, Shore] | None = None,
    by_scene: bool = False,
) -> str:
    """Copy the images of COCO files and write the boxes of each split.

    Args:
        name: of the data set.
        args: of `text_set_parser`.
        root: folder of the data set.
        files: split -> its files, as published.
        shores: stem of an image -> whether it shows a shore; kept as `scene` of the image.
        by_scene: draw train (`SCENE_TRAIN_SHARE` of the source scenes) and test instead of taking the published split.

    Returns:
        One line that says what was done.

    Raises:
        UserError: a file is no COCO file, names an image that is missing or a category that the data set has not, or
            `copy_images` fails.
    """
    known = find_text_set(name)
    contents = {split: _normal_coco(part, known, shores or {}) for split, part in files.items()}
    if by_scene:
        contents = _draw(_merge(contents), known, ("train", "test"), 1.0 - SCENE_TRAIN_SHARE, args.seed)
    share = getattr(args, "val_share", 0.0)
    if share and "val" not in contents:
        contents |= _draw(contents["train"], known, ("train", "val"), share, args.seed)
    folder_of = {"val": files["train"].images} | {split: part.images for split, part in files.items()}
    indexed = {split: index_by_stem(folder) for split, folder in folder_of.items() if split in contents}
    copies = []
    for split in sorted(contents, key=known.splits.index):
        present, images = indexed[split], contents[split]["images"]
        stems = [Path(image["file_name"]).stem for image in images]
        _refuse_missing(stems, present, f"the boxes of {split}", folder_of[split])
        for image, stem in zip(images, stems, strict=True):
            copies.append(ImageCopy(split, "sar", stem, present[stem]))
            image["file_name"] = copies[-1].target.name
    unused = len({path for found in indexed.values() for path in found.values()} - {copy.source for copy in copies})
    made_by = {"seed": args.seed, "val_share": share, "split": "scene" if by_scene else "published"}
    write = partial(_write_boxes, root, contents, known)
    counts = copy_images(copies, root, made_by=made_by, write_texts=write, workers=args.workers)
    rest = f"; {unused} images that no boxes name are left out" if unused else ""
    return describe_copies(root, copies, counts) + rest


def prepare_pairs(
    name: str,
    args: argparse.Namespace,
    root: Path,
    splits: Mapping[str, Mapping[str, PairFiles]],
    *,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Copy the images of pairs, SAR and optical.

    Args:
        name: of the data set.
        args: of `text_set_parser`.
        root: folder of the data set.
        splits: split -> stem -> files.
        facts: see `prepare_boxes`.

    Raises:
        UserError: see `copy_images`.
    """
    known = find_text_set(name)
    copies = [
        ImageCopy(split, role, stem, files[role])
        for split in sorted(splits, key=known.splits.index)
        for stem, files in splits[split].items()
        for role in known.roles
    ]
    made_by = {"seed": args.seed, **(facts or {})}
    counts = copy_images(copies, root, made_by=made_by, workers=args.workers)
    return describe_copies(root, copies, counts)


def prepare_captions(
    name: str,
    args: argparse.Namespace,
    root: Path,
    roots: Sequence[Path],
    *,
    json_names: Sequence[str],
    image_folders: Sequence[str],
) -> str:
    """Copy described images and write their captions as records.

    Args:
        name: of the data set.
        args: of `caption_parser`.
        root: folder of the data set.
        roots: of the download.
        json_names: what the JSON file may be called.
        image_folders: what the folder of the images may be called.

    Raises:
        UserError: captions or images are not found or bad, an image is missing, or `copy_images` fails.
    """
    known = find_text_set(name)
    records, form = _read_captions(known, args, roots, json_names)
    strange = sorted({record.split for record in records} - set(known.splits))
    if strange:
        raise UserError(f"the captions of {name} name the split '{strange[0]}'; known: {', '.join(known.splits)}")
    if args.val_share and all(record.split != "val" for record in records):
        stems = [_stem(record) for record in records if record.split == "train"]
        val = set(split_by_share(stems, train_share=1.0 - args.val_share, seed=args.seed)["test"])
        records = [replace(r, split="val") if r.split == "train" and _stem(r) in val else r for r in records]
    folder = find_folder(roots, *image_folders, what=f"the images of {name}")
    present = index_by_stem(folder)
    kept = [record for record in records if _stem(record) in present]
    if not args.skip_missing:
        _refuse_missing([_stem(record) for record in records], present, "the captions", folder, "; see --skip-missing")
    copies, placed = [], []
    for record in sorted(kept, key=lambda record: known.splits.index(record.split)):
        copy = ImageCopy(record.split, "optical", _stem(record), present[_stem(record)])
        copies.append(copy)
        placed.append(replace(record, image=copy.target.as_posix(), image_id=copy.stem, source=name))
    made_by = {"seed": args.seed, "val_share": args.val_share, "captions": form, "drop_empty": args.drop_empty}
    made_by["skip_missing"] = args.skip_missing
    write = partial(_write_records, root, placed)
    counts = copy_images(copies, root, made_by=made_by, write_texts=write, workers=args.workers)
    sentences = sum(len(record.captions) for record in placed)
    line = f"{describe_copies(root, copies, counts)}; {sentences} captions"
    missing, unused = len(records) - len(kept), len(set(present.values()) - {copy.source for copy in copies})
    line += f"; {missing} captioned images are missing" if missing else ""
    return line + (f"; {unused} images without captions are left out" if unused else "")


def _read_captions(
    known: TextSet, args: argparse.Namespace, roots: Sequence[Path], json_names: Sequence[str]
) -> tuple[list[CaptionRecord], str]:
    """Return the records as published, and in which form they were."""
    given: Path | None = args.captions
    if given is None:
        given = find_optional(roots, *json_names, what=f"the captions of {known.name}", file=True)
    if given is None:
        given = find_optional(roots, "test_caps.txt", what=f"the captions of {known.name}", file=True)
        given = None if given is None else given.parent
    if given is None:
        where = ", ".join(f"'{root}'" for root in roots)
        raise UserError(
            f"the captions of {known.name}: neither {' nor '.join(json_names)} nor test_caps.txt in {where}; name them "
            "with --captions"
        )
    if not given.is_dir():
        return import_rsicd(given, source=known.name, drop_empty=args.drop_empty), "json"
    splits = [split for split in known.splits if has_precomp(given, split)]
    if not splits:
        raise UserError(f"folder '{given}' has no <split>_caps.txt with <split>_filename.txt")
    return [
        record
        for split in splits
        for record in import_precomp(given, split, source=known.name, drop_empty=args.drop_empty)
    ], "text"


def _stem(record: CaptionRecord) -> str:
    return Path(record.image).stem


def _normal_coco(part: BoxFiles, known: TextSet, shores: Mapping[str, Shore]) -> dict[str, list[Any]]:
    """Return the three lists of a COCO file; file names without folders, category names in lower case."""
    content = read_coco(part.json_file)
    try:
        images = [
            {**image, "file_name": Path(image["file_name"].replace("\\", "/")).name} for image in content["images"]
        ]
        categories = [{**entry, "name": entry["name"].strip().lower()} for entry in content["categories"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"COCO file '{part.json_file}' has an image or a category without its name") from error
    unknown = [entry["name"] for entry in categories if entry["name"] not in known.categories]
    if unknown:
        raise UserError(
            f"COCO file '{part.json_file}' has the category '{unknown[0]}'; {known.name} has: "
            f"{', '.join(known.categories)}"
        )
    for image in images:
        shore = shores.get(Path(image["file_name"]).stem)
        if shore is not None:
            image["scene"] = shore
    return {"images": images, "annotations": content["annotations"], "categories": categories}


def _draw(
    content: Mapping[str, list[Any]], known: TextSet, names: tuple[str, str], share: float, seed: int
) -> dict[str, dict[str, list[Any]]]:
    """Move whole source scenes, `share` of them, into the second of two splits."""

    def scene(image: Mapping[str, Any]) -> str:
        return source_scene(known.name, image["file_name"])

    scenes = sorted({scene(image) for image in content["images"]})
    moved = set(split_by_share(scenes, train_share=1.0 - share, rounding="up", seed=seed)["test"])
    return {
        names[0]: _only(content, lambda image: scene(image) not in moved),
        names[1]: _only(content, lambda image: scene(image) in moved),
    }


def _merge(contents: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, list[Any]]:
    """Return all splits as one, with images numbered anew: files may use a number twice."""
    images: list[Any] = []
    annotations: list[Any] = []
    for content in contents.values():
        new = {image.get("id"): len(images) + number for number, image in enumerate(content["images"], start=1)}
        images += [{**image, "id": new[image.get("id")]} for image in content["images"]]
        annotations += [
            {**entry, "id": len(annotations) + number, "image_id": new.get(entry.get("image_id"))}
            for number, entry in enumerate(content["annotations"], start=1)
        ]
    return {"images": images, "annotations": annotations, "categories": next(iter(contents.values()))["categories"]}


def _only(content: Mapping[str, list[Any]], wanted: Callable[[Mapping[str, Any]], bool]) -> dict[str, list[Any]]:
    images = [image for image in content["images"] if wanted(image)]
    ids = {image.get("id") for image in images}
    annotations = [entry for entry in content["annotations"] if entry.get("image_id") in ids]
    return {"images": images, "annotations": annotations, "categories": content["categories"]}


def _refuse_missing(stems: Iterable[str], present: Mapping[str, Path], what: str, folder: Path, hint: str = "") -> None:
    wanted = list(stems)
    missing = [stem for stem in wanted if stem not in present]
    if missing:
        raise UserError(
            f"{what} name the image '{missing[0]}', which is not in '{folder}' ({len(missing)} of {len(wanted)} are "
            f"missing{hint})"
        )


def _write_boxes(root: Path, contents: Mapping[str, Mapping[str, Any]], known: TextSet) -> None:
    """Write the boxes, then read them as a training would, so that a fault shows now."""
    for split, content in contents.items():
        path = root / f"{split}.json"
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        load_coco_boxes(path, categories=known.categories, sar_dir=root / split / "sar", bad_boxes="drop")


def _write_records(root: Path, records: Sequence[CaptionRecord]) -> None:
    for split in dict.fromkeys(record.split for record in records):
        write_captions(root / f"{split}.jsonl", [record for record in records if record.split == split])
