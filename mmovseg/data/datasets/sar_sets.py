"""Labelled data sets of SAR alone, laid out as ``<set>/{train,test}/{sar,label}/<id>.png``, 8-bit amplitude of 512 px.

They are the six sets behind the 22 benchmarks of CrossEarth-SAR. AIR-PolSAR-Seg-2.0 has several renderings of each tile
beside one label: a *view* is a polarisation and a rendering, ``hh_amp``, ``vv_real``; its folder is ``sar_<view>``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmovseg.data.datasets.folders import load_pair_folder
from mmovseg.data.datasets.layouts import Facts, Layout, find_layout, missing_message
from mmovseg.errors import UserError

SPLITS = ("train", "test")
POLARISATIONS = ("hh", "hv", "vh", "vv")
RENDERINGS = ("amp", "real", "imag")
"""Magnitude, real part and imaginary part of the complex samples, each drawn as 8 bits by the publisher."""

COMPOSITE = "full_amp"
"""View of three bands that stands for all polarisations: red HH, green HV, blue VV."""

AMPLITUDE_VIEWS = (*(f"{name}_amp" for name in POLARISATIONS), COMPOSITE)
COMPLEX_VIEWS = tuple(f"{name}_{part}" for part in RENDERINGS[1:] for name in POLARISATIONS)
_PAPER = "CrossEarth-SAR, Table 1"
_TILE = (512, 512)


@dataclass(frozen=True)
class SarSet:
    """What the catalog knows of a data set of SAR alone (see `mmovseg.data.datasets.catalog.DatasetEntry`).

    gsd_m: metres per pixel as published, None where it varies.
    """

    name: str
    vocabulary: str
    about: str
    layouts: tuple[Layout, ...]
    facts: Facts
    prepare: str
    gsd_m: float | None = None


def _layout(folder: str, views: Sequence[str] = ()) -> Layout:
    names = [f"sar_{view}" for view in views] or ["sar"]
    return Layout("own", {split: {role: f"{folder}/{split}/{role}" for role in (*names, "label")} for split in SPLITS})


def _one(name: str, about: str, counts: tuple[int, int], gsd_m: float | None, **named: str) -> SarSet:
    """Return a set with one SAR raster a tile."""
    vocabulary, script = named.get("vocabulary", name), named.get("script", name)
    facts = Facts(dict(zip(SPLITS, counts, strict=True)), _TILE, source=_PAPER)
    return SarSet(name, vocabulary, about, (_layout(name),), facts, f"datasets/prepare_{script}.py", gsd_m)


SAR_SETS: tuple[SarSet, ...] = (
    SarSet(
        "air_polsar",
        "air_polsar",
        "AIR-PolSAR-Seg-2.0, Gaofen-3 quad-polarised, three Chinese cities",
        # The first folder decides: a copy without real and imaginary parts has the second layout.
        (
            _layout("air_polsar", (*COMPLEX_VIEWS, *AMPLITUDE_VIEWS)),
            _layout("air_polsar", AMPLITUDE_VIEWS),
        ),
        Facts({"train": 1233, "test": 309}, _TILE, source=_PAPER),
        "datasets/prepare_air_polsar.py",
        8.0,
    ),
    _one(
        "ddhr_korea",
        "DDHR-SK, Pohang in South Korea",
        (4916, 1229),
        1.0,
        vocabulary="ddhr_sar",
        script="ddhr_sar",
    ),
    _one(
        "ddhr_shandong",
        "DDHR-SK, Shandong in China",
        (6265, 1566),
        1.0,
        vocabulary="ddhr_sar",
        script="ddhr_sar",
    ),
    _one("fusar_map", "FUSAR-Map, Gaofen-3 ultra-fine strip", (1952, 488), 1.02),
    _one("oem_sar", "OpenEarthMap-SAR, Umbra", (13865, 3467), None, vocabulary="oem"),
    _one("sarbud", "SARBuD, Gaofen-3 fine strip, buildings", (20000, 5000), 10.0),
    _one("whu_opt_sar", "WHU-OPT-SAR, Gaofen-3 over Hubei", (7040, 1760), 5.0),
)


def find_sar_set(name: str) -> SarSet:
    """Return the set of that name.

    Raises:
        UserError: there is none; the message lists the names.
    """
    for known in SAR_SETS:
        if known.name == name:
            return known
    raise UserError(f"unknown SAR data set '{name}'; known: {', '.join(entry.name for entry in SAR_SETS)}")


def load_sar_set(
    name: str,
    split: str,
    *,
    root: str | Path,
    view: str | None = None,
    regions: Sequence[str] | None = None,
    label_map: Mapping[int, int] | None = None,
) -> list[dict[str, Any]]:
    """List the tiles of a split.

    Args:
        name: of `SAR_SETS`.
        split: ``train`` or ``test``.
        root: folder of all data sets.
        view: which rendering of a set that has several, for example ``vv_amp``; None takes ``hh_amp`` there.
        regions: only tiles whose id begins with one of these words and an underscore (AIR-PolSAR-Seg-2.0: ``bj``,
            ``sh``, ``gz``); None = all.
        label_map: stored class id -> class id wanted, or 255; 255 may be mapped too.

    Returns:
        Dataset dicts without optical image, sorted by id, which is the `image_id`.

    Raises:
        UserError: unknown set, split, or view, the set is not there, a partner is missing, or no tile is of a region.
    """
    known = find_sar_set(name)
    if split not in SPLITS:
        raise UserError(f"data set '{name}' has no split '{split}'; it has: {', '.join(SPLITS)}")
    layout = find_layout(known.layouts, split, Path(root))
    if layout is None:
        raise UserError(missing_message(name, known.layouts, split, Path(root), known.prepare))
    folders = layout.folders[split]
    role = _view_role(known, layout, split, view)
    items = load_pair_folder(None, Path(root) / folders[role], Path(root) / folders["label"], label_map=label_map)
    if regions is not None:
        words = tuple(f"{region}_" for region in regions)
        items = [item for item in items if item["image_id"].startswith(words)]
        if not items:
            raise UserError(
                f"data set '{name}_{split}' has no tile of the region {' or '.join(regions)}: its ids begin otherwise "
                f"(see --regions of {known.prepare})"
            )
    facts = {} if known.gsd_m is None else {"gsd_m": known.gsd_m}
    return [item | facts for item in items]


def _view_role(known: SarSet, layout: Layout, split: str, view: str | None) -> str:
    """Return the role of a view; a set with one rendering takes no view."""
    roles = [role for role in layout.folders[split] if role != "label"]
    views = [role.removeprefix("sar_") for role in roles if role != "sar"]
    if not views:
        if view is not None:
            raise UserError(f"data set '{known.name}' has one rendering; it has no view '{view}'")
        return "sar"
    wanted = view or AMPLITUDE_VIEWS[0]
    if wanted not in views:
        raise UserError(f"data set '{known.name}' has no view '{wanted}' here; it has: {', '.join(views)}")
    return f"sar_{wanted}"
