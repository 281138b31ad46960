"""The registered data sets: two tables, registered with detectron2 on first use, never at import.

Folders lie under `DETECTRON2_DATASETS` (default: ``datasets``), laid out as datasets/README.md says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from detectron2.data import DatasetCatalog, MetadataCatalog

from mmovseg.data.datasets.layouts import (
    Facts,
    LabelIds,
    Layout,
    find_layout,
    load_layout,
    missing_message,
    own_layout,
)
from mmovseg.data.datasets.sar_sets import SAR_SETS, SPLITS, load_sar_set
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.vocabulary import Vocabulary, get_vocabulary
from mmovseg.errors import UserError

DatasetDicts = list[dict[str, Any]]

_chosen_root: Path | None = None


@dataclass(frozen=True)
class DatasetEntry:
    """A line of the table.

    name: registered as ``<name>_<split>``.
    splits: which there are.
    vocabulary: key of the class list (`mmovseg.data.vocabulary.get_vocabulary`).
    about: one line for `datasets/README.md` and listings.
    layouts: where the files may lie, the first that exists is taken; empty for generated data.
    facts: reported figures, to compare a copy with.
    prepare: the script that makes it from the public download.
    loader: ``loader(split, **options) -> list[dict]``; None loads pairs of the layouts.
    """

    name: str
    splits: tuple[str, ...]
    vocabulary: str
    about: str
    layouts: tuple[Layout, ...] = ()
    facts: Facts = Facts()
    prepare: str = ""
    loader: Callable[..., DatasetDicts] | None = None

    def load(self, split: str, **options: Any) -> DatasetDicts:
        """Return the dataset dicts of a split; options of folder data sets: `pattern`, `labels` (see `load_layout`)."""
        if self.loader is not None:
            return self.loader(split, **options)
        return self._load_pairs(split, **options)

    def _load_pairs(self, split: str, *, pattern: str = "*", labels: LabelIds = "auto") -> DatasetDicts:
        root = datasets_root()
        layout = find_layout(self.layouts, split, root)
        if layout is None:
            raise UserError(missing_message(self.name, self.layouts, split, root, self.prepare))
        vocabulary = get_vocabulary(self.vocabulary)
        return load_layout(layout, split, root, vocabulary=vocabulary, pattern=pattern, labels=labels)


def _load_miniearth(split: str, **options: Any) -> DatasetDicts:
    from mmovseg.data.miniearth import load_miniearth  # the generator is needed by this data set only

    return cast(DatasetDicts, load_miniearth(split, **options))


def _load_ombria(split: str, **options: Any) -> DatasetDicts:
    from mmovseg.data.datasets.ombria import load_ombria  # it splits by place, which no other data set needs

    return cast(DatasetDicts, load_ombria(split, **options))


def _load_sar(name: str, split: str, **options: Any) -> DatasetDicts:
    return load_sar_set(name, split, root=datasets_root(), **options)


def _released(folder: str, optical: str, *, sar: str = "sar", train_label: str, splits: Sequence[str]) -> Layout:
    """The layout of the MM-OVSeg authors' own download: training labels number the seen classes alone."""
    labels = {"train": train_label, "val": "D2masks" if train_label != "D2masks6" else train_label}
    names = {split: {"optical": optical, "sar": sar, "label": labels[split]} for split in splits}
    folders = {
        split: {role: f"{folder}/{split}/{name}" for role, name in roles.items()} for split, roles in names.items()
    }
    return Layout("MM-OVSeg release", folders, seen_only=("train",))


def _ombria_layout() -> Layout:
    """Two dates; the split ``val`` is a fold of the places of ``train`` and has no folder."""
    roles = ("optical", "optical_before", "sar", "sar_before", "label")
    return Layout(
        "own",
        {split: {role: f"ombria/{split}/{role}" for role in roles} for split in ("train", "test", "test2021")},
    )


def _released_thin_val() -> Layout:
    """The release registers the validation of OEM-thin without the folder `val` for optical and label."""
    folders = {"optical": "OEM/rgb_cloud_thin", "sar": "OEM/val/imgs", "label": "OEM/D2masks"}
    return Layout("MM-OVSeg release, as registered", {"val": folders})


_TV = ("train", "val")
_PAPER = "MM-OVSeg, section 4.1.1"
_PIE_FACTS = Facts({"train": 2433, "val": 2432}, (256, 256), source=_PAPER)
_OEM_FACTS = Facts({"train": 4333, "val": 490}, (1024, 1024), source=_PAPER)
_PIE, _DDHR, _OEM, _DFC = (f"datasets/prepare_{name}.py" for name in ("pie", "ddhr", "oem", "dfc2023"))

TABLE: tuple[DatasetEntry, ...] = (
    DatasetEntry(
        "miniearth",
        ("train", "val", "test"),
        "miniearth",
        "generated, nothing to download",
        loader=_load_miniearth,
    ),
    DatasetEntry(
        "pie_cloud",
        _TV,
        "pie",
        "PIE-RGB-SAR, synthetic clouds",
        (
            own_layout("pie", _TV, optical="optical_cloud"),
            _released("PIE_RGBSAR", "rgb_clouds", train_label="D2masks6", splits=_TV),
        ),
        _PIE_FACTS,
        _PIE,
    ),
    DatasetEntry(
        "pie_clean",
        _TV,
        "pie",
        "PIE-RGB-SAR, cloud-free",
        (own_layout("pie", _TV), _released("PIE_RGBSAR", "rgb", train_label="D2masks6", splits=_TV)),
        _PIE_FACTS,
        _PIE,
    ),
    DatasetEntry(
        "ddhr_sk",
        _TV,
        "ddhr_sk",
        "DDHR South Korea, clouds",
        (
            own_layout("ddhr_sk", _TV, optical="optical_cloud"),
            _released("DDSK", "rgb_clouds", train_label="D2masks3class", splits=_TV),
        ),
        Facts({"train": 3087, "val": 3086}, (256, 256), source=_PAPER),
        _DDHR,
    ),
    DatasetEntry(
        "ddhr_ch",
        ("val",),
        "ddhr_ch",
        "DDHR China, clouds, test only",
        (
            own_layout("ddhr_ch", ("val",), optical="optical_cloud"),
            _released("DDCH", "rgb_clouds", train_label="D2masks", splits=("val",)),
        ),
        Facts({}, (256, 256), source=_PAPER),
        _DDHR,
    ),
    DatasetEntry(
        "oem_thick",
        _TV,
        "oem",
        "OpenEarthMap-SAR, thick clouds",
        (
            own_layout("oem", _TV, optical="optical_thick"),
            _released("OEM", "rgb_cloud", sar="imgs", train_label="D2masks5class", splits=_TV),
        ),
        _OEM_FACTS,
        _OEM,
    ),
    DatasetEntry(
        "oem_thin",
        _TV,
        "oem",
        "OpenEarthMap-SAR, thin clouds",
        (
            own_layout("oem", _TV, optical="optical_thin"),
            _released("OEM", "rgb_cloud_thin", sar="imgs", train_label="D2masks5class", splits=_TV),
            _released_thin_val(),
        ),
        _OEM_FACTS,
        _OEM,
    ),
    DatasetEntry(
        "spacenet6",
        _TV,
        "spacenet6",
        "SpaceNet 6 Rotterdam, buildings",
        (own_layout("spacenet6", _TV),),
        Facts({}, (900, 900), georeferenced=True, source="SpaceNet 6 challenge; the split is our own"),
        "datasets/prepare_spacenet6.py",
    ),
    DatasetEntry(
        "dfc2023",
        _TV,
        "dfc2023",
        "DFC2023 track 1, roof types",
        (own_layout("dfc2023", _TV),),
        Facts({}, (512, 512), source="2023 IEEE GRSS Data Fusion Contest; the split is our own"),
        _DFC,
    ),
    DatasetEntry(
        "dfc2023_building",
        _TV,
        "dfc2023_building",
        "DFC2023 track 2, buildings",
        (own_layout("dfc2023_building", _TV),),
        Facts({}, (512, 512), source="2023 IEEE GRSS Data Fusion Contest; the split is our own"),
        _DFC,
    ),
    DatasetEntry(
        "ombria",
        ("train", "val", "test", "test2021"),
        "ombria",
        "OMBRIA, real floods, Sentinel-1 and -2 before and after",
        (_ombria_layout(),),
        Facts({"train": 624, "test": 70, "test2021": 150}, (256, 256), source="files of the repository geodrak/OMBRIA"),
        "datasets/prepare_ombria.py",
        _load_ombria,
    ),
)

SAR_TABLE: tuple[DatasetEntry, ...] = tuple(
    DatasetEntry(
        known.name,
        SPLITS,
        known.vocabulary,
        known.about,
        known.layouts,
        known.facts,
        known.prepare,
        partial(_load_sar, known.name),
    )
    for known in SAR_SETS
)
"""Data sets without optical images, for models that read SAR alone."""

ALL_SETS = TABLE + SAR_TABLE


def datasets_root() -> Path:
    """Return the folder that the registered data sets lie in: that of `register_all`, else `DETECTRON2_DATASETS`."""
    return _chosen_root or Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_all(root: str | Path | None = None) -> None:
    """Register the table with detectron2's catalogs; calling it again changes nothing but the root.

    Args:
        root: folder of the data sets; None leaves it to `DETECTRON2_DATASETS`, read when a data set is loaded.
    """
    global _chosen_root
    if root is not None:
        _chosen_root = Path(root)
    for entry in ALL_SETS:
        for split in entry.splits:
            name = f"{entry.name}_{split}"
            if name not in DatasetCatalog:
                DatasetCatalog.register(name, partial(entry.load, split))
                _describe(name, get_vocabulary(entry.vocabulary), entry.vocabulary)


def register_pairs(name: str, load: Callable[[], DatasetDicts], *, vocabulary: Vocabulary) -> None:
    """Register one's own data set under a name.

    Args:
        name: not taken yet.
        load: returns the dataset dicts, for example ``partial(load_pair_folder, "optical", "sar", "label")``.
        vocabulary: its class list; label id = position.

    Raises:
        UserError: the name is taken.
    """
    register_all()
    if name in DatasetCatalog:
        raise UserError(f"a data set named '{name}' is registered already")
    DatasetCatalog.register(name, load)
    _describe(name, vocabulary, vocabulary.name)


def dataset_entry(name: str) -> DatasetEntry:
    """Return the line of the table for a data set, named without its split.

    Raises:
        UserError: there is none; the message lists the names.
    """
    for entry in ALL_SETS:
        if entry.name == name:
            return entry
    raise UserError(f"unknown data set '{name}'; known: {', '.join(entry.name for entry in ALL_SETS)}")


def entries_made_by(name: str) -> list[DatasetEntry]:
    """Return the line of the table of that name, or all lines that ``datasets/prepare_<name>.py`` makes.

    Raises:
        UserError: there is neither; the message lists the names.
    """
    made = [entry for entry in ALL_SETS if entry.prepare == f"datasets/prepare_{name}.py"]
    return made if made and all(entry.name != name for entry in ALL_SETS) else [dataset_entry(name)]


def known_datasets() -> list[str]:
    """Return the names of the table in its order."""
    return [f"{entry.name}_{split}" for entry in ALL_SETS for split in entry.splits]


def get_dataset(name: str, **options: Any) -> DatasetDicts:
    """Load a data set by name.

    Args:
        name: of the table (`known_datasets`) or registered with detectron2.
        options: passed to the loader of the table: `num_scenes`, `size`, `domain`, `seed` for MiniEarth, `pattern` and
            `labels` for folders (`mmovseg.data.datasets.layouts.load_layout`), `view`, `regions` and `label_map` for
            SAR alone (`mmovseg.data.datasets.sar_sets.load_sar_set`).

    Raises:
        UserError: unknown name, an option that the loader does not take, or missing files.
    """
    register_all()
    if name not in DatasetCatalog:
        raise UserError(f"unknown data set '{name}'; known: {', '.join(known_datasets())}")
    if not options:
        return DatasetCatalog.get(name)
    for entry in ALL_SETS:
        for split in entry.splits:
            if name == f"{entry.name}_{split}":
                try:
                    return entry.load(split, **options)
                except TypeError as error:
                    if "unexpected keyword argument" not in str(error):
                        raise
                    raise UserError(f"data set '{name}' does not take these options: {options}") from error
    raise UserError(f"data set '{name}' takes no options, got {options}")


def _describe(name: str, vocabulary: Vocabulary, key: str) -> None:
    MetadataCatalog.get(name).set(
        stuff_classes=vocabulary.names,
        stuff_colors=[list(color) for color in vocabulary.colors],
        ignore_label=IGNORE_LABEL,
        evaluator_type="sem_seg",
        vocabulary=key,
    )
