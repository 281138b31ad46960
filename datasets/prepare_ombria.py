#!/usr/bin/env python
"""OMBRIA -> <DETECTRON2_DATASETS>/ombria/<split>/{optical_before,optical,sar_before,sar,label} and places.csv.

The download is the repository https://github.com/geodrak/OMBRIA (MIT licence, 844 places, PNG, no georeference):

    OmbriaS1/{train,test}/{BEFORE,AFTER,MASK}/S1_{before,after,mask}_<number>.png
    OmbriaS2/{train,test}/{BEFORE,AFTER,MASK}/S2_{before,after,mask}_<number>.png
    2021/<EVENT>/Sentinel{1,2}/{BEFORE,AFTER,MASK}/{imbefore,imafter,gt}_<number>.png

Pixels are copied as they are; masks become labels 0 dry, 1 flooded, 255 outside the scene. `optical` and `sar` show the
date after the flood. The four floods of 2021 become the split test2021. A plain folder of parts is taken as well:

    train/{s1_before,s1_after,s2_before,s2_after,mask}/<number>.png

`places.csv` then holds, for each place, the share of flood, of clouds on both dates and of missing data, and which
places are neighbours and must not be torn apart by a split.

    python datasets/prepare_ombria.py --source OMBRIA --workers 4
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mmovseg.data.datasets.ombria_facts import (
    LAYERS,
    PlaceFacts,
    group_neighbours,
    measure_place,
    missing_mask,
    write_places,
)
from mmovseg.data.prepare import LabelCode, Layer, TileJob, open_download, prepare_dataset, prepare_parser, read_layer
from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError, exit_on_user_error

_CODE = LabelCode(ids={0: 0, 255: 1})
_PARTS = LAYERS

Files = dict[str, Path]
"""Part -> file of one place."""


def make_tile(files: Files) -> dict[str, Layer]:
    """Read one place and mark what lies outside the scene."""
    layers = {part: read_layer(files[part]) for part in _PARTS}
    for part, bands in (("optical_before", 3), ("optical", 3), ("sar_before", 1), ("sar", 1)):
        found = 1 if layers[part].array.ndim == 2 else layers[part].array.shape[2]
        if layers[part].array.dtype != np.uint8 or found != bands:
            raise UserError(
                f"'{files[part]}' has {found} bands of {layers[part].array.dtype}, expected {bands} of uint8"
            )
    label = _CODE.decode(layers["label"], str(files["label"]))
    missing = missing_mask(layers["optical_before"].array, layers["optical"].array)
    return layers | {"label": label.with_array(np.where(missing, IGNORE_LABEL, label.array).astype(np.uint8))}


def list_places(roots: Sequence[Path]) -> dict[str, dict[str, Files]]:
    """Find the places of a download.

    Returns:
        split -> place -> part -> file. Places of 2021 are called ``<event>_<number>``.

    Raises:
        UserError: there is no layout that is known here, or a part of a place is missing.
    """
    found: dict[str, dict[str, Files]] = {}
    for root in roots:
        for base in [root, *sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))]:
            for split in ("train", "test"):
                found.setdefault(split, {}).update(_public(base, split) | _plain(base / split))
            found.setdefault("test2021", {}).update(_events(base / "2021"))
    found = {split: dict(sorted(places.items())) for split, places in found.items() if places}
    if not found:
        where = ", ".join(f"'{root}'" for root in roots)
        raise UserError(f"{where} holds neither OmbriaS1 and OmbriaS2, nor train/s1_after and its like")
    for split, places in found.items():
        for place, files in places.items():
            missing = [part for part in _PARTS if part not in files]
            if missing:
                raise UserError(f"place '{place}' of {split} has no {missing[0]}; {_holder(files)}")
    return found


def _holder(files: Files) -> str:
    part, path = next(iter(files.items()))
    return f"its {part} is '{path}'"


def _public(base: Path, split: str) -> dict[str, Files]:
    places: dict[str, Files] = {}
    for sensor, role in (("S1", "sar"), ("S2", "optical")):
        folder = base / f"Ombria{sensor}" / split
        _add(places, folder / "BEFORE", f"{sensor}_before_", f"{role}_before")
        _add(places, folder / "AFTER", f"{sensor}_after_", role)
        _add(places, folder / "MASK", f"{sensor}_mask_", "label")  # the same mask lies with both sensors
    return places


def _plain(folder: Path) -> dict[str, Files]:
    places: dict[str, Files] = {}
    names = {"s2_before": "optical_before", "s2_after": "optical", "s1_before": "sar_before", "s1_after": "sar"}
    for name, part in {**names, "mask": "label"}.items():
        _add(places, folder / name, "", part)
    return places


def _events(folder: Path) -> dict[str, Files]:
    places: dict[str, Files] = {}
    for event in sorted(path for path in folder.glob("*") if path.is_dir()):
        own: dict[str, Files] = {}
        for sensor, role in (("Sentinel1", "sar"), ("Sentinel2", "optical")):
            _add(own, event / sensor / "BEFORE", "imbefore_", f"{role}_before")
            _add(own, event / sensor / "AFTER", "imafter_", role)
            _add(own, event / sensor / "MASK", "gt_", "label")
        places |= {f"{event.name.lower()}_{int(number):04d}": files for number, files in own.items()}
    return places


def _add(places: dict[str, Files], folder: Path, prefix: str, part: str) -> None:
    for path in sorted(folder.glob(f"{prefix}*.png")):
        if not path.name.startswith("."):
            places.setdefault(path.stem.removeprefix(prefix), {}).setdefault(part, path)


def measure(root: Path) -> list[PlaceFacts]:
    """Measure every place of a prepared set and group neighbours, split by split."""
    rows: list[PlaceFacts] = []
    for folder in sorted(path for path in root.iterdir() if (path / "label").is_dir()):
        places = sorted(path.stem for path in (folder / "label").glob("*.png"))
        groups = group_neighbours(folder, places)
        rows += [replace(measure_place(folder, folder.name, place), group=groups[place]) for place in places]
    return rows


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(prepare_parser(__doc__), argv, "ombria")
    splits = list_places(roots)
    jobs = [
        TileJob(split, place, _PARTS, partial(make_tile, files))
        for split, places in splits.items()
        for place, files in places.items()
    ]
    counts = prepare_dataset(jobs, root, made_by={"script": "prepare_ombria"}, workers=args.workers)
    rows = measure(root)
    write_places(root, rows)
    print(f"{counts.written} places written, {counts.finished_before} were there; {root}")
    for split in splits:
        own = [row for row in rows if row.split == split]
        cloudy, groups = sum(row.is_cloudy for row in own), len({row.group for row in own})
        print(f"{split}: {len(own)} places in {groups} groups of neighbours, {cloudy} of them cloudy")


if __name__ == "__main__":
    main()
