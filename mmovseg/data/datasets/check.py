"""Compare a data set on disk with itself, with its class list, with its manifest and with what is reported of it.

Every fault has a kind (`FAULT_KINDS`); a file that has a fault of its own is not reported again for its hash.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasterio.errors import NotGeoreferencedWarning
from tqdm import tqdm

from mmovseg.data.datasets.catalog import DatasetEntry, dataset_entry, datasets_root
from mmovseg.data.datasets.examine import RasterFacts, examine_raster
from mmovseg.data.datasets.folders import RASTER_SUFFIXES
from mmovseg.data.datasets.layouts import Layout, find_layout, missing_message, seen_label_map
from mmovseg.data.datasets.manifest import read_manifest
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError

FAULT_KINDS: dict[str, str] = {
    "missing_optical": "a pair lacks its optical raster",
    "missing_sar": "a pair lacks its SAR raster",
    "missing_label": "a pair lacks its label",
    "swapped_pair": "a raster holds, or shows the place of, another pair's raster",
    "wrong_size": "a raster differs in size from its pair, its split or the manifest",
    "truncated": "a raster cannot be read to the end",
    "unknown_label": "a label holds a value outside the class list",
    "duplicate_id": "two rasters of a folder share a stem, or two pairs the same content",
    "crs_mismatch": "the rasters of a pair differ in CRS or place, or a CRS differs from the manifest",
    "empty_split": "a split has no raster",
    "extra_file": "a file that belongs to no pair, or that the manifest does not know",
    "manifest_hash": "the bytes differ from those the manifest describes",
    "wrong_texts": "the captions or boxes of a split cannot be read, or name an image that is not there",
    "wrong_count": "the number of pairs is not the reported one (only without a manifest)",
}
_SIDECAR_SUFFIXES = (".xml", ".tfw", ".pgw", ".jgw", ".wld")


@dataclass(frozen=True)
class Fault:
    """Something wrong. kind: of `FAULT_KINDS`; path: file or folder; message: one sentence without the path."""

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.message}"


@dataclass
class CheckReport:
    """What a check found.

    faults: in the order of splits and files.
    notes: what could not be seen, and differences that need not be faults.
    pairs: split -> number of whole pairs.
    """

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pairs: dict[str, int] = field(default_factory=dict)


def check_dataset(name: str, **options: Any) -> list[Fault]:
    """Return the faults of a data set; options as for `inspect_dataset`."""
    return inspect_dataset(name, **options).faults


def inspect_dataset(
    name: str | DatasetEntry,
    *,
    splits: Sequence[str] | None = None,
    root: str | Path | None = None,
    fast: bool = False,
    use_manifest: bool = True,
    workers: int = 1,
    show_progress: bool = False,
) -> CheckReport:
    """Check a data set of the table.

    Args:
        name: without a split, for example ``pie_cloud``; or a line that is in no table of the catalog.
        splits: which to check; None = all that have folders.
        root: data root; None = `datasets_root`.
        fast: look at names, headers and sizes only: no hashes, no label values, no duplicates by content.
        use_manifest: False does as if there were none.
        workers: threads that read files.
        show_progress: draw a progress bar on stderr.

    Raises:
        UserError: the data set is unknown or generated, has no such split, is not there at all, or its manifest is
            damaged.
    """
    entry = dataset_entry(name) if isinstance(name, str) else name
    base = datasets_root() if root is None else Path(root)
    known = [split for split in entry.splits + _more_splits(entry) if any(split in y.folders for y in entry.layouts)]
    if not known:
        raise UserError(f"data set '{entry.name}' is generated; there are no files to check")
    for split in splits or ():
        if split not in known:
            raise UserError(f"data set '{entry.name}' has no split '{split}' on disk; it has: {', '.join(known)}")
    chosen = list(splits or known)
    layouts = {split: find_layout(entry.layouts, split, base) for split in chosen}
    if not any(layouts.values()):
        raise UserError(missing_message(entry.name, entry.layouts, chosen[0], base, entry.prepare))
    report, checked = CheckReport(), []
    for split, layout in layouts.items():
        if layout is None:
            report.faults.append(_no_folder(entry, split, layouts, base))
            continue
        part = SplitCheck(entry, layout, split, base, use_manifest=use_manifest, fast=fast)
        part.run(workers, show_progress)
        checked.append(part)
        report.faults += part.faults
        report.notes += part.notes
        report.pairs[split] = part.num_pairs
    if not fast:
        report.faults += _find_leaks(checked)
    report.notes = list(dict.fromkeys(report.notes))
    return report


class SplitCheck:
    """The check of one split; call `run`, then read `faults`, `notes`, `num_pairs`."""

    def __init__(
        self, entry: DatasetEntry, layout: Layout, split: str, root: Path, *, use_manifest: bool, fast: bool
    ) -> None:
        self.entry, self.layout, self.split, self.fast = entry, layout, split, fast
        self.set_root = root / layout.set_folder(split)
        self.folders = {role: root / folder for role, folder in layout.folders[split].items()}
        manifest = read_manifest(self.set_root) if use_manifest else None
        self.manifest: Mapping[str, Mapping[str, Any]] | None = None if manifest is None else manifest["files"]
        self.faults: list[Fault] = []
        self.notes: list[str] = []
        self.facts: dict[str, dict[str, RasterFacts]] = {}
        self.marked: set[Path] = set()
        self._expected = {role: self._stems_in_manifest(role) for role in self.folders}

    @property
    def num_pairs(self) -> int:
        """Stems that every role has."""
        return len(set.intersection(*(set(files) for files in self.facts.values()))) if self.facts else 0

    def run(self, workers: int, show_progress: bool) -> None:
        """Look at all files of the split."""
        files = {role: self._list(folder) for role, folder in self.folders.items()}
        files = self._check_partners(files)
        work = [(role, stem, path) for role, paths in files.items() for stem, path in paths.items()]
        with ThreadPoolExecutor(max(1, workers)) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # here, as the filter is shared by all threads
            results = pool.map(lambda item: examine_raster(item[2], is_label=item[0] == "label", fast=self.fast), work)
            bar = tqdm(results, total=len(work), desc=self.split, unit="file", disable=not show_progress)
            for (role, stem, _), facts in zip(work, bar, strict=True):
                self.facts.setdefault(role, {})[stem] = facts
        for role in self.folders:
            self.facts.setdefault(role, {})
        self._check_readable()
        self._check_sizes()
        self._check_labels()
        self._check_places()
        self._check_hashes()
        self._check_count()

    def add(self, kind: str, path: Path, message: str) -> None:
        """Keep a fault."""
        self.marked.add(path)
        self.faults.append(Fault(kind, str(path), message))

    def _list(self, folder: Path) -> dict[str, Path]:
        """Return stem -> file; twins and strange files become faults."""
        if not folder.is_dir():
            self.add("empty_split", folder, f"the folder of split '{self.split}' does not exist")
            return {}
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            suffix = path.suffix.lower()
            if path.name.startswith(".") or (path.is_file() and suffix in _SIDECAR_SUFFIXES):
                continue
            if path.is_dir() or suffix not in RASTER_SUFFIXES:
                what = "a folder" if path.is_dir() else "not a raster"
                self.add("extra_file", path, f"{what} does not belong here")
            elif path.stem in files:
                kept, other = files[path.stem], path
                if self._listed(other) and not self._listed(kept):
                    kept, other = other, kept
                files[path.stem] = kept
                self.add("duplicate_id", other, f"'{kept.name}' has the same stem; one of them is too much")
            else:
                files[path.stem] = path
        if not files:
            self.add("empty_split", folder, f"split '{self.split}' has no raster here")
        return files

    def _check_partners(self, files: dict[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
        """Report missing and surplus files; return the files of stems that belong to the data set."""
        if any(not paths for paths in files.values()):
            return files  # an empty folder is one fault, not one for every pair
        stems = sorted(set().union(*files.values(), *self._expected.values()))
        kept: dict[str, dict[str, Path]] = {role: {} for role in files}
        for stem in stems:
            present = [role for role in files if stem in files[role]]
            surplus = self._surplus(stem, present, len(files))
            for role in present:
                if role in surplus:
                    reason = (
                        "no other folder has this stem" if self.manifest is None else "the manifest does not list it"
                    )
                    self.add("extra_file", files[role][stem], reason)
                else:
                    kept[role][stem] = files[role][stem]
            if len(surplus) < len(present) or not present:
                for role in (role for role in files if role not in present):
                    kind = f"missing_{role.split('_')[0]}"
                    self.add(kind, self.folders[role] / f"{stem}.*", f"the pair '{stem}' has no {role} raster")
        return kept

    def _stems_in_manifest(self, role: str) -> set[str]:
        if self.manifest is None:
            return set()
        prefix = self.folders[role].relative_to(self.set_root).as_posix() + "/"
        names = (name.removeprefix(prefix) for name in self.manifest if name.startswith(prefix))
        return {Path(name).stem for name in names if "/" not in name}

    def _surplus(self, stem: str, present: Sequence[str], num_roles: int) -> list[str]:
        """Roles whose file of this stem belongs to no pair."""
        if self.manifest is not None:
            return [role for role in present if stem not in self._expected[role]]
        return list(present) if len(present) == 1 and num_roles > 2 else []

    def _check_readable(self) -> None:
        for facts in self._all():
            if facts.problem:
                self.add("truncated", facts.path, facts.problem)

    def _check_sizes(self) -> None:
        sizes = Counter(facts.size for facts in self._all() if not facts.problem)
        if not sizes:
            return
        usual, tile = sizes.most_common(1)[0][0], self.entry.facts.tile
        if tile is not None and tile not in sizes:
            self.notes.append(
                f"rasters of '{self.entry.name}' are {_text(usual)} pixels here, {_text(tile)} as reported "
                f"({self.entry.facts.source})"
            )
        for facts in self._all():
            listed = self._listed(facts.path)
            wanted = (
                (listed["height"], listed["width"]) if listed else usual if tile is not None else self._partner(facts)
            )
            if not facts.problem and facts.size != wanted:
                of = "the manifest" if listed else "the split" if tile is not None else "its pair"
                self.add(
                    "wrong_size",
                    facts.path,
                    f"{_text(facts.size)} pixels (height x width), but {of} has {_text(wanted)}",
                )

    def _partner(self, facts: RasterFacts) -> tuple[int, int]:
        sizes = Counter(
            files[facts.path.stem].size
            for files in self.facts.values()
            if facts.path.stem in files and not files[facts.path.stem].problem
        )
        return sizes.most_common(1)[0][0]

    def _check_labels(self) -> None:
        if "label" not in self.folders:
            return
        vocabulary = get_vocabulary(self.entry.vocabulary)
        seen_only = self.split in self.layout.seen_only
        allowed = set(seen_label_map(vocabulary)) if seen_only else set(range(len(vocabulary)))
        hint = "; these labels number the seen classes alone" if seen_only else ""
        for facts in self.facts.get("label", {}).values():
            unknown = sorted(set(facts.values or ()) - allowed - {IGNORE_LABEL})
            if unknown:
                known = f"0..{len(allowed) - 1} and 255"
                self.add("unknown_label", facts.path, f"holds the value {unknown[0]}; known are {known}{hint}")

    def _check_places(self) -> None:
        """Compare CRS and place within pairs and with the manifest."""
        places: dict[tuple[str, Any], str] = {}
        for role, files in self.facts.items():
            places |= {(role, facts.bounds): stem for stem, facts in files.items() if facts.bounds is not None}
        seen_place = False
        for stem, facts in self.facts.get("optical", next(iter(self.facts.values()))).items():
            seen_place = seen_place or facts.bounds is not None
            for role, files in self.facts.items():
                other = files.get(stem)
                if other is None or other is facts or other.problem or facts.problem:
                    continue
                self._compare_places(facts, other, role, places)
        for facts in self._all():
            listed = self._listed(facts.path)
            if listed and not facts.problem and facts.path not in self.marked and facts.crs != listed.get("crs"):
                self.add("crs_mismatch", facts.path, f"its CRS is {facts.crs}, the manifest says {listed.get('crs')}")
        if not seen_place and len(self.facts) > 1 and (self.manifest is None or self.fast):
            why = "without hashes" if self.manifest is not None else "without a manifest"
            self.notes.append(f"rasters have no georeference: {why} a swapped pair cannot be seen")

    def _compare_places(
        self, facts: RasterFacts, other: RasterFacts, role: str, places: Mapping[tuple[str, Any], str]
    ) -> None:
        optical = "the optical raster"
        if facts.crs is not None and other.crs is not None and facts.crs != other.crs:
            self.add("crs_mismatch", other.path, f"its CRS is {other.crs}, that of {optical} {facts.crs}")
        elif facts.bounds is not None and other.bounds is not None and not _same_place(facts, other):
            owner = next(
                (stem for (kind, bounds), stem in places.items() if kind != role and bounds == other.bounds), None
            )
            if owner is not None and owner != other.path.stem:
                self.add("swapped_pair", other.path, f"shows the place of '{owner}', not that of '{other.path.stem}'")
            else:
                self.add(
                    "crs_mismatch", other.path, f"lies elsewhere than {optical}: {other.bounds} and {facts.bounds}"
                )
        elif (facts.bounds is None) != (other.bounds is None) and self.entry.facts.georeferenced:
            has = other.path if facts.bounds is None else facts.path
            self.add("crs_mismatch", other.path, f"of this pair only '{has}' has a georeference")

    def _check_hashes(self) -> None:
        if self.manifest is None or self.fast:
            return
        owners = {listed["sha256"]: name for name, listed in self.manifest.items()}
        for facts in self._all():
            listed = self._listed(facts.path)
            if facts.path in self.marked or (listed and facts.sha256 == listed["sha256"]):
                continue
            if listed is None:
                self.add("extra_file", facts.path, "the manifest lists this stem with another extension")
                continue
            owner = owners.get(str(facts.sha256))
            if owner is not None:
                self.add("swapped_pair", facts.path, f"holds what the manifest lists as '{owner}'")
            else:
                self.add("manifest_hash", facts.path, "its bytes are not those that the manifest describes")

    def _check_count(self) -> None:
        reported = self.entry.facts.pairs.get(self.split)
        if reported is None or reported == self.num_pairs or not self.num_pairs:
            return
        text = f"{self.num_pairs} pairs, {reported} as reported ({self.entry.facts.source})"
        if self.manifest is None:
            self.add("wrong_count", next(iter(self.folders.values())), text)
        else:
            self.notes.append(f"split '{self.split}' of '{self.entry.name}' has {text}")

    def _all(self) -> list[RasterFacts]:
        return [facts for files in self.facts.values() for facts in files.values()]

    def _listed(self, path: Path) -> Mapping[str, Any] | None:
        return None if self.manifest is None else self.manifest.get(path.relative_to(self.set_root).as_posix())


def _find_leaks(checked: Sequence[SplitCheck]) -> list[Fault]:
    """Find optical or SAR rasters with the same bytes in two pairs; empty tiles may be equal."""
    faults: list[Fault] = []
    first: dict[tuple[str, str | None], tuple[str, str]] = {}
    for part in checked:
        for role in (role for role in part.facts if role in ("optical", "sar") or role.endswith("_amp")):
            for stem, facts in part.facts[role].items():
                if facts.problem or facts.constant or facts.path in part.marked:
                    continue
                where = first.setdefault((role, facts.sha256), (part.split, stem))
                if where != (part.split, stem):
                    other = f"'{where[1]}' of split '{where[0]}'"
                    faults.append(Fault("duplicate_id", str(facts.path), f"has the same content as {other}"))
    return faults


def _more_splits(entry: DatasetEntry) -> tuple[str, ...]:
    """Splits that layouts have beside those of the table."""
    return tuple(
        dict.fromkeys(split for layout in entry.layouts for split in layout.folders if split not in entry.splits)
    )


def _no_folder(entry: DatasetEntry, split: str, layouts: Mapping[str, Layout | None], root: Path) -> Fault:
    used = next(layout for layout in layouts.values() if layout is not None)
    layout = used if split in used.folders else next(y for y in entry.layouts if split in y.folders)
    folder = root / next(iter(layout.folders[split].values()))
    return Fault("empty_split", str(folder), f"the folder of split '{split}' does not exist")


def _same_place(one: RasterFacts, other: RasterFacts) -> bool:
    """Whether two rasters cover the same ground within half a pixel of the finer one."""
    assert one.bounds is not None and other.bounds is not None
    tolerance = 0.5 * min(*one.pixel, *other.pixel)
    return all(abs(a - b) <= tolerance for a, b in zip(one.bounds, other.bounds, strict=True))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
