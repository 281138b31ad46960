"""How the files of a data set may lie, and what is known of it: layouts, reported figures, the common loader."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmovseg.data.datasets.folders import load_pair_folder
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError

_LOGGER = logging.getLogger(__name__)

LabelIds = Literal["auto", "full", "seen"]


@dataclass(frozen=True)
class Layout:
    """One way the files may lie.

    name: ``own`` or whose it is.
    folders: split -> role -> folder below the data root. The roles ``optical``, ``sar`` and ``label`` are loaded;
        others (``optical_before``) are checked only.
    seen_only: splits whose labels number the seen classes alone, in the order of the vocabulary, everything else 255.
    """

    name: str
    folders: Mapping[str, Mapping[str, str]]
    seen_only: tuple[str, ...] = ()

    def set_folder(self, split: str) -> str:
        """Return the folder of the whole data set: where `manifest.json` lies."""
        return next(iter(self.folders[split].values())).split("/")[0]


@dataclass(frozen=True)
class Facts:
    """What is reported of a data set, to compare a copy with.

    pairs: split -> number of pairs.
    tile: height and width of every raster, pixels, or None if they vary.
    georeferenced: whether rasters carry a CRS; None if it is not known.
    source: where these figures are from.
    """

    pairs: Mapping[str, int] = field(default_factory=dict)
    tile: tuple[int, int] | None = None
    georeferenced: bool | None = None
    source: str = ""


def own_layout(folder: str, splits: Sequence[str], *, optical: str = "optical") -> Layout:
    """Return the layout of datasets/README.md: ``<folder>/<split>/{<optical>,sar,label}``."""
    names = {"optical": optical, "sar": "sar", "label": "label"}
    return Layout(
        "own", {split: {role: f"{folder}/{split}/{name}" for role, name in names.items()} for split in splits}
    )


def find_layout(layouts: Sequence[Layout], split: str, root: Path) -> Layout | None:
    """Return the first layout whose optical (else first) folder for this split exists below `root`."""
    for layout in layouts:
        if split in layout.folders:
            folders = layout.folders[split]
            if (root / folders.get("optical", next(iter(folders.values())))).is_dir():
                return layout
    return None


def missing_message(name: str, layouts: Sequence[Layout], split: str, root: Path, prepare: str) -> str:
    """Return one sentence that says where a split was looked for and which command makes it."""
    places = [layout.folders[split] for layout in layouts if split in layout.folders]
    looked = " or ".join(f"'{root / folders.get('optical', next(iter(folders.values())))}'" for folders in places)
    return (
        f"data set '{name}_{split}' is not there: no folder {looked}; set DETECTRON2_DATASETS, or make it with "
        f"'python {prepare} --source <download>' (see datasets/README.md)"
    )


def seen_label_map(vocabulary: Vocabulary) -> dict[int, int]:
    """Return position among the seen classes -> label id, for labels that number the seen classes alone."""
    return dict(enumerate(vocabulary.seen_ids))


def load_layout(
    layout: Layout, split: str, root: Path, *, vocabulary: Vocabulary, pattern: str = "*", labels: LabelIds = "auto"
) -> list[dict[str, Any]]:
    """Return the dataset dicts of a split.

    Args:
        layout: as `find_layout` returned it.
        split: one of its splits.
        root: data root.
        vocabulary: of the data set.
        pattern: which files, see `load_pair_folder`.
        labels: how label files number the classes: ``full`` by their position in the vocabulary, ``seen`` by their
            position among the seen classes; ``auto`` is what the layout says. With ``seen`` every dict gets a
            `label_map`, so that the reader returns the same ids for every layout.

    Raises:
        UserError: a folder or a partner is missing, or `labels` is none of these words.
    """
    if labels not in ("auto", "full", "seen"):
        raise UserError(f"labels must be auto, full or seen, got '{labels}'")
    numbering = labels if labels != "auto" else ("seen" if split in layout.seen_only else "full")
    folders = {role: root / folder for role, folder in layout.folders[split].items()}
    _LOGGER.info("split '%s' is read from '%s' (layout '%s')", split, folders["optical"], layout.name)
    return load_pair_folder(
        folders["optical"],
        folders["sar"],
        folders["label"],
        pattern=pattern,
        label_map=seen_label_map(vocabulary) if numbering == "seen" else None,
    )
