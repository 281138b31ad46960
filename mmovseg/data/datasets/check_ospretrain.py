"""Look for faults in a tree laid out as OSPretrain-1M: lists, partners, sizes, files that cannot be read, counts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rasterio.errors import NotGeoreferencedWarning
from tqdm import tqdm

from mmovseg.data.datasets.check import CheckReport, Fault
from mmovseg.data.datasets.examine import RasterFacts, examine_raster
from mmovseg.data.datasets.ospretrain import (
    EXCLUDED,
    EXCLUDED_LISTS,
    UNPAIRED,
    OSPretrainPart,
    chosen_names,
    list_rasters,
    ospretrain_root,
    source_names,
    unpaired_folder,
)
from mmovseg.data.statistics import read_statistics
from mmovseg.errors import UserError

_ROLES = {"RGB": "missing_optical", "SAR": "missing_sar"}


def inspect_ospretrain(
    root: str | Path | None = None,
    *,
    fast: bool = False,
    workers: int = 1,
    statistics: str = "ospretrain",
    show_progress: bool = False,
) -> CheckReport:
    """Check every source of a tree, those that pretraining leaves out by default too.

    Args:
        root: the tree; None = ``OSPretrain-1M`` below the folder of the data sets.
        fast: look at names, headers and sizes only.
        workers: threads that read files.
        statistics: file or shipped name; a note names the sources that have no figures there.
        show_progress: draw a progress bar on stderr.

    Returns:
        Faults of the kinds of `mmovseg.data.datasets.check.FAULT_KINDS`; `pairs` counts whole pairs, and for folders
        below ``Unpaired`` images.

    Raises:
        UserError: the tree is missing, or a folder of a source is.
    """
    base = ospretrain_root(root)
    names = source_names(base)
    report, table = CheckReport(), read_statistics(statistics)
    if not any(names.values()):
        report.faults.append(Fault("empty_split", str(base), "no folder here has RGB and SAR, nor is there Unpaired"))
    with ThreadPoolExecutor(max(1, workers)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # here, as the filter is shared by all threads
        look = _Look(pool, fast, show_progress)
        for name in names["paired"]:
            _check_source(base / name, report, look)
        images: dict[OSPretrainPart, int] = {"unpaired_optical": 0, "unpaired_sar": 0}
        for part in images:
            for name in names[part]:
                folder = unpaired_folder(base, part, name)
                report.pairs[str(folder.relative_to(base))] = count = _check_images(folder, name, report, look)
                images[part] += count
    if len(set(images.values())) > 1:
        message = f"{images['unpaired_optical']} optical but {images['unpaired_sar']} SAR images; as many are expected"
        report.faults.append(Fault("wrong_count", str(base / UNPAIRED), message))
    for name in sorted({name for part in names.values() for name in part}):
        if name not in table:
            report.notes.append(f"source '{name}' has no figures in '{statistics}': tools/compute_statistics.py")
        if name in EXCLUDED or name in EXCLUDED_LISTS:
            what = "it" if name in EXCLUDED else f"its list {', '.join(EXCLUDED_LISTS[name])}"
            report.notes.append(f"source '{name}': pretraining leaves {what} out by default")
    return report


class _Look:
    """Examine files in threads."""

    def __init__(self, pool: ThreadPoolExecutor, fast: bool, show_progress: bool) -> None:
        self.pool, self.fast, self.show_progress = pool, fast, show_progress

    def __call__(self, paths: Sequence[Path], name: str) -> list[RasterFacts]:
        found = self.pool.map(lambda path: examine_raster(path, is_label=False, fast=self.fast), paths)
        return list(tqdm(found, total=len(paths), desc=name, unit="file", disable=not self.show_progress))


def _check_source(folder: Path, report: CheckReport, look: _Look) -> None:
    """Check the pairs of one source."""
    try:
        files = {role: list_rasters(folder / role) for role in _ROLES}
        listed = chosen_names(folder, ())
    except UserError as error:
        report.faults.append(Fault("empty_split", str(folder), str(error)))
        return
    there = set(files["RGB"]) | set(files["SAR"])
    wanted = sorted(there if listed is None else listed)
    if not wanted:
        report.faults.append(Fault("empty_split", str(folder), "the source has no raster"))
    for role, kind in _ROLES.items():
        for name in (name for name in wanted if name not in files[role]):
            of = "the partner has no such name here" if listed is None else "a list names it, but it is not here"
            report.faults.append(Fault(kind, str(folder / role / name), of))
    if listed is not None and (unused := len(there.difference(listed))):
        report.notes.append(f"source '{folder.name}': {unused} names are in no list and are not used")
    whole = [name for name in wanted if all(name in found for found in files.values())]
    report.pairs[folder.name] = len(whole)
    paths = [files[role][name] for name in whole for role in _ROLES]
    facts = look(paths, folder.name)
    report.faults += [Fault("truncated", str(fact.path), fact.problem) for fact in facts if fact.problem]
    for optical, sar in zip(facts[::2], facts[1::2], strict=True):
        if not optical.problem and not sar.problem and optical.size != sar.size:
            sizes = "{}x{} pixels, but its optical image is {}x{}".format(*sar.size, *optical.size)
            report.faults.append(Fault("wrong_size", str(sar.path), sizes))


def _check_images(folder: Path, source: str, report: CheckReport, look: _Look) -> int:
    """Check the unpaired images of one modality and source; return their number."""
    files = list_rasters(folder, nested=source != UNPAIRED)
    facts = look(list(files.values()), folder.name)
    report.faults += [Fault("truncated", str(fact.path), fact.problem) for fact in facts if fact.problem]
    return len(files)
