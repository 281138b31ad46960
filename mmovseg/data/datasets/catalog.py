"""The registered data sets: one table, registered with detectron2 on first use, never at import.

Folders lie under `DETECTRON2_DATASETS` (default: ``datasets``), laid out as datasets/README.md says.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from detectron2.data import DatasetCatalog, MetadataCatalog

from mmovseg.data.datasets.folders import load_pair_folder
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
    load: ``load(split, **options) -> list[dict]``.
    about: one line for `datasets/README.md` and listings.
    """

    name: str
    splits: tuple[str, ...]
    vocabulary: str
    load: Callable[..., DatasetDicts]
    about: str


def _load_miniearth(split: str, **options: Any) -> DatasetDicts:
    from mmovseg.data.miniearth import load_miniearth  # the generator is needed by this data set only

    return cast(DatasetDicts, load_miniearth(split, **options))


def _load_folders(split: str, *, folder: str, optical: str, pattern: str = "*") -> DatasetDicts:
    base = datasets_root() / folder / split
    if not base.is_dir():
        raise UserError(f"folder '{base}' does not exist; set DETECTRON2_DATASETS or see datasets/README.md")
    return load_pair_folder(base / optical, base / "sar", base / "label", pattern=pattern)


def _folders(folder: str, optical: str) -> Callable[..., DatasetDicts]:
    return partial(_load_folders, folder=folder, optical=optical)


_TRAIN_VAL = ("train", "val")
TABLE: tuple[DatasetEntry, ...] = (
    DatasetEntry("miniearth", ("train", "val", "test"), "miniearth", _load_miniearth, "generated, nothing to download"),
    DatasetEntry("pie_cloud", _TRAIN_VAL, "pie", _folders("pie", "optical_cloud"), "PIE-RGB-SAR, synthetic clouds"),
    DatasetEntry("pie_clean", _TRAIN_VAL, "pie", _folders("pie", "optical"), "PIE-RGB-SAR, cloud-free"),
    DatasetEntry("ddhr_sk", _TRAIN_VAL, "ddhr_sk", _folders("ddhr_sk", "optical_cloud"), "DDHR South Korea, clouds"),
    DatasetEntry("ddhr_ch", ("val",), "ddhr_ch", _folders("ddhr_ch", "optical_cloud"), "DDHR China, clouds, test only"),
    DatasetEntry("oem_thick", _TRAIN_VAL, "oem", _folders("oem", "optical_thick"), "OpenEarthMap-SAR, thick clouds"),
    DatasetEntry("oem_thin", _TRAIN_VAL, "oem", _folders("oem", "optical_thin"), "OpenEarthMap-SAR, thin clouds"),
)


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
    for entry in TABLE:
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


def known_datasets() -> list[str]:
    """Return the names of the table in its order."""
    return [f"{entry.name}_{split}" for entry in TABLE for split in entry.splits]


def get_dataset(name: str, **options: Any) -> DatasetDicts:
    """Load a data set by name.

    Args:
        name: of the table (`known_datasets`) or registered with detectron2.
        options: passed to the loader of the table: `num_scenes`, `size`, `domain`, `seed` for MiniEarth, `pattern` for
            folders.

    Raises:
        UserError: unknown name, an option that the loader does not take, or missing files.
    """
    register_all()
    if name not in DatasetCatalog:
        raise UserError(f"unknown data set '{name}'; known: {', '.join(known_datasets())}")
    if not options:
        return DatasetCatalog.get(name)
    for entry in TABLE:
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
