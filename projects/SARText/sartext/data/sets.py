"""The public data sets of images and text, as the prepare scripts lay them out, and their loader.

    <set>/<split>/{optical,sar}/<stem>.<ext>     images, byte by byte as published
    <set>/<split>.json                           sets of boxes: COCO, with `scene` of an image where it is published
    <set>/<split>.jsonl                          sets of captions: one record an image (`captioning.schema`)

Three kinds: ``boxes`` are SAR images with objects, which captions are made from; ``pairs`` are SAR images with an
optical twin, whose caption is rewritten; ``captions`` are optical images that people described.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from mmovseg.data.datasets.catalog import DatasetEntry, datasets_root
from mmovseg.data.datasets.coco_boxes import BadBoxes, load_box_set
from mmovseg.data.datasets.folders import load_pair_folder
from mmovseg.data.datasets.layouts import Facts, Layout, find_layout, missing_message
from mmovseg.data.sample import DatasetDict
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import ImageRole, load_caption_jsonl

_LOGGER = logging.getLogger(__name__)

SetKind = Literal["boxes", "pairs", "captions"]
Shore = Literal["inshore", "offshore"]
SHORES: tuple[Shore, ...] = get_args(Shore)
ROLES: dict[SetKind, tuple[str, ...]] = {"boxes": ("sar",), "pairs": ("optical", "sar"), "captions": ("optical",)}
_PAPER_RSICD = "Lu et al., 'Exploring Models and Data', the split in its JSON"
_HRSID_NAME = re.compile(r"(P\d+)_")


@dataclass(frozen=True)
class TextSet:
    """What is known of a data set.

    name: folder below the data root, and name for `load_text_set`.
    kind: see the module.
    about: one line for listings.
    splits: which there are.
    facts: reported figures, to compare a copy with.
    prepare: the script that makes it from the download.
    own_splits: those of `splits` that nobody publishes; the script draws them where it is asked to.
    categories: of a set of boxes, in the order that models number them.
    gsd_m: metres per pixel as published, None where it varies or is not stated.
    """

    name: str
    kind: SetKind
    about: str
    splits: tuple[str, ...]
    facts: Facts
    prepare: str
    own_splits: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    gsd_m: float | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """Folders of a split."""
        return ROLES[self.kind]

    @property
    def entry(self) -> DatasetEntry:
        """The same as a line of the product's table, which `mmovseg.data.datasets.check` works on."""
        folders = {split: {role: f"{self.name}/{split}/{role}" for role in self.roles} for split in self.splits}
        return DatasetEntry(
            self.name,
            self.splits,
            "",
            self.about,
            (Layout("own", folders),),
            self.facts,
            self.prepare,
            partial(load_text_set, self.name),
        )

    def text_file(self, root: Path, split: str) -> Path | None:
        """The file of boxes or captions of a split; None for pairs, which have neither."""
        suffix = {"boxes": ".json", "captions": ".jsonl", "pairs": ""}[self.kind]
        return root / self.name / f"{split}{suffix}" if suffix else None


_TVT = ("train", "val", "test")
_TT = ("train", "test")


def _counts(splits: Sequence[str], counts: Sequence[int], source: str, tile: tuple[int, int] | None = None) -> Facts:
    return Facts(dict(zip(splits, counts, strict=True)), tile, source=source)


TEXT_SETS: tuple[TextSet, ...] = (
    TextSet(
        "hrsid",
        "boxes",
        "HRSID, ships in Sentinel-1B, TerraSAR-X and TanDEM-X images",
        _TVT,
        _counts(_TT, (3642, 1962), "Wei et al., IEEE Access 8, 2020", (800, 800)),
        "datasets/prepare_hrsid.py",
        ("val",),
        categories=("ship",),
    ),
    TextSet(
        "ssdd",
        "boxes",
        "SSDD, ships in RadarSat-2, TerraSAR-X and Sentinel-1 images",
        _TVT,
        _counts(_TT, (928, 232), "Zhang et al., Remote Sensing 13, 2021"),
        "datasets/prepare_ssdd.py",
        ("val",),
        categories=("ship",),
    ),
    TextSet(
        "sardet100k",
        "boxes",
        "SARDet-100K, six categories out of ten SAR data sets",
        _TVT,
        _counts(_TVT, (94493, 10492, 11613), "Li et al., NeurIPS 2024"),
        "datasets/prepare_sardet100k.py",
        categories=("ship", "aircraft", "car", "tank", "bridge", "harbor"),
    ),
    TextSet(
        "osdataset256",
        "pairs",
        "OSdataset, Gaofen-3 and optical, 256 px",
        _TVT,
        Facts({}, (256, 256), source="Xiang et al., IEEE JSTARS 13, 2020"),
        "datasets/prepare_osdataset.py",
        gsd_m=1.0,
    ),
    TextSet(
        "osdataset512",
        "pairs",
        "OSdataset, Gaofen-3 and optical, 512 px",
        _TVT,
        Facts({}, (512, 512), source="Xiang et al., IEEE JSTARS 13, 2020"),
        "datasets/prepare_osdataset.py",
        gsd_m=1.0,
    ),
    TextSet(
        "qxs_saropt",
        "pairs",
        "QXS-SAROPT, Gaofen-3 and optical of three ports",
        _TVT,
        Facts({}, (256, 256), source="Huang et al., arXiv 2103.08259"),
        "datasets/prepare_qxs_saropt.py",
        _TVT,
        gsd_m=1.0,
    ),
    TextSet(
        "rsicd",
        "captions",
        "RSICD, optical images of 30 scene types",
        _TVT,
        _counts(_TVT, (8734, 1094, 1093), _PAPER_RSICD, (224, 224)),
        "datasets/prepare_rsicd.py",
    ),
    TextSet(
        "rsitmd",
        "captions",
        "RSITMD, optical images with finer captions",
        _TVT,
        _counts(_TT, (4291, 452), "Yuan et al., IEEE TGRS 60, 2022, the split in its JSON"),
        "datasets/prepare_rsitmd.py",
        ("val",),
    ),
    TextSet(
        "ucm",
        "captions",
        "UCM captions, aerial images of 21 scene types",
        _TVT,
        _counts(_TVT, (1680, 210, 210), "Qu et al., CITS 2016, the split in its JSON"),
        "datasets/prepare_ucm.py",
        gsd_m=0.3,
    ),
    TextSet(
        "sydney",
        "captions",
        "Sydney captions, optical images of 7 scene types",
        _TVT,
        _counts(_TVT, (497, 58, 58), "Qu et al., CITS 2016, the split in its JSON"),
        "datasets/prepare_sydney.py",
        gsd_m=0.5,
    ),
)


def find_text_set(name: str) -> TextSet:
    """Return the set of that name.

    Raises:
        UserError: there is none; the message lists the names.
    """
    for known in TEXT_SETS:
        if known.name == name:
            return known
    raise UserError(f"unknown data set '{name}'; sets of images and text: {', '.join(e.name for e in TEXT_SETS)}")


def text_sets_made_by(name: str) -> list[TextSet]:
    """Return the set of that name, or all that ``datasets/prepare_<name>.py`` makes; empty if there is neither."""
    exact = [known for known in TEXT_SETS if known.name == name]
    return exact or [known for known in TEXT_SETS if known.prepare == f"datasets/prepare_{name}.py"]


def load_text_set(
    name: str,
    split: str,
    *,
    root: str | Path | None = None,
    captions: str | Path | None = None,
    keep_empty: bool = True,
    bad_boxes: BadBoxes = "drop",
) -> list[DatasetDict]:
    """List the images of a split.

    Args:
        name: of `TEXT_SETS`.
        split: one of its splits.
        root: folder of all data sets; None = the registered one.
        captions: a caption file about this set, as ``tools/make_captions.py`` writes it, instead of the set's own
            captions. Its paths start from `root`, or, as in the set's own files, from the folder of the set. Images
            that it does not name are left out; how many is logged.
        keep_empty: of sets of boxes, keep images without an object.
        bad_boxes: boxes outside their image, see `load_coco_boxes`. Cut or dropped by default: the files are others'.

    Returns:
        Dataset dicts with `sar_file_name`, `file_name` or, for pairs, both; `captions` where there are any;
        `annotations` of sets of boxes; `gsd_m` where it is known; `image_id` unique in the split.

    Raises:
        UserError: unknown set or split, the set is not there, an image or a partner is missing, its texts or boxes are
            bad, or the caption file names an image that the split does not have.
    """
    known, base = find_text_set(name), datasets_root() if root is None else Path(root)
    if split not in known.splits:
        raise UserError(f"data set '{name}' has no split '{split}'; it has: {', '.join(known.splits)}")
    layouts = known.entry.layouts
    if find_layout(layouts, split, base) is None:
        raise UserError(missing_message(name, layouts, split, base, known.prepare))
    items = _load(known, split, base, keep_empty, bad_boxes)
    if captions is not None:
        items = _with_captions(items, known, split, base, Path(captions))
    return [{**item, "gsd_m": known.gsd_m} for item in items] if known.gsd_m is not None else items


def load_captioned(
    path: str | Path | Sequence[str | Path],
    split: str,
    *,
    root: str | Path | None = None,
    role: ImageRole = "sar",
) -> list[DatasetDict]:
    """List the images of a split in caption files about prepared sets, as ``tools/make_captions.py`` writes them.

    Args:
        path: JSONL file, or several.
        split: of the records.
        root: what image paths start from; None = the registered folder of all data sets.
        role: what the images are.

    Raises:
        UserError: see `load_caption_jsonl`.
    """
    base = datasets_root() if root is None else root
    return load_caption_jsonl(path, root=base, role=role, split=split)


def source_scene(name: str, image: str) -> str:
    """Return the scene that an image was cut from, or its own name where that is not known.

    Images of one scene in two splits leak. HRSID writes the scene into the file name (``P0001_0_800_7200_8000``);
    nobody else does.

    Args:
        name: of the data set.
        image: file name or path.
    """
    return known_scene(name, image) or Path(image).stem


def known_scene(name: str, image: str) -> str | None:
    """Return the scene that an image was cut from, None where its name does not say it; see `source_scene`.

    Unlike the image's own name this can be compared across splits: several sets number the images of each split anew.
    """
    found = _HRSID_NAME.match(Path(image).stem) if name == "hrsid" else None
    return found[1] if found else None


def read_shores(path: str | Path) -> dict[str, Shore]:
    """Return image id -> ``inshore`` or ``offshore`` of a prepared set of boxes; empty where it is not published.

    Raises:
        UserError: the file cannot be read or is no COCO file.
    """
    try:
        images = json.loads(Path(path).read_bytes())["images"]
        return {str(image["id"]): image["scene"] for image in images if image.get("scene") in SHORES}
    except OSError as error:
        raise UserError(f"COCO file '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"'{path}' is no COCO file: {error!r:.80}") from error


def _load(known: TextSet, split: str, base: Path, keep_empty: bool, bad_boxes: BadBoxes) -> list[Any]:
    folders = {role: base / known.name / split / role for role in known.roles}
    texts = known.text_file(base, split)
    if texts is None:
        return load_pair_folder(folders["optical"], folders["sar"])
    if known.kind == "captions":
        return load_caption_jsonl(texts, role="optical", split=split)
    return load_box_set(
        known.name, split, categories=known.categories, root=base, keep_empty=keep_empty, bad_boxes=bad_boxes
    )


def _with_captions(
    items: Iterable[DatasetDict], known: TextSet, split: str, base: Path, captions: Path
) -> list[DatasetDict]:
    """Give the images the captions of a file; its paths start from the folder of all sets or from that of the set."""
    role: Literal["optical", "sar"] = "optical" if known.kind == "captions" else "sar"
    key = "file_name" if role == "optical" else "sar_file_name"
    given = load_caption_jsonl(captions, root="", role=role, split=split, check_images=False)
    inside = PurePosixPath(known.name)
    of_file: dict[str, DatasetDict] = {}
    for record in given:
        path = PurePosixPath(record[key])  # type: ignore[literal-required]
        of_file[str(base / (path if path.is_relative_to(inside) else inside / path))] = record
    found: list[DatasetDict] = []
    total = 0
    for item in items:
        total += 1
        record = of_file.pop(str(item[key]), None)  # type: ignore[literal-required]
        if record is not None:
            found.append({**item, "captions": record["captions"]})
    if of_file:
        raise UserError(f"caption file '{captions}' names '{next(iter(of_file))}', which {known.name}_{split} has not")
    if len(found) < total:
        _LOGGER.warning("'%s': %d of %d images of %s have no caption", captions, total - len(found), total, known.name)
    return found
