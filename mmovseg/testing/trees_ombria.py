"""Small trees of OMBRIA: the repository as it is published, a plain folder of parts, and what prepare_ombria makes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from mmovseg.data.datasets.ombria_facts import PlaceFacts, write_places
from mmovseg.testing.fakes import write_raster

Part = Literal["optical_before", "optical", "sar_before", "sar", "mask"]

_BLOCK_PX = 4
_FIELD, _WATER, _CLOUD = (60, 110, 40), (5, 15, 50), (130, 180, 190)
_OUTSIDE_PX = 2  # columns at the west edge of every third place that lie outside the scene


def fake_place(number: int, *, size: int = 32, seed: int = 0) -> dict[Part, np.ndarray]:
    """Return one place: fields of which some are flooded; every second place is a quarter clouded afterwards.

    Returns:
        optical dates (size, size, 3), SAR dates and mask (size, size), all uint8; mask 255 = flooded.
    """
    rng = np.random.default_rng([seed, number])
    blocks = rng.random((-(-size // _BLOCK_PX),) * 2) < 0.4
    flooded = np.kron(blocks, np.ones((_BLOCK_PX, _BLOCK_PX), dtype=bool))[:size, :size]
    before = np.clip(np.array(_FIELD) + rng.normal(0, 6, (size, size, 3)), 1, 255)
    after = np.where(flooded[..., None], np.array(_WATER) + rng.normal(0, 2, (size, size, 3)), before)
    if number % 2:
        after[: size // 2, : size // 2] = _CLOUD
    sar_before = np.clip(150 + rng.normal(0, 15, (size, size)), 1, 254)
    sar_after = np.where(flooded, sar_before - 70, sar_before)
    place: dict[Part, np.ndarray] = {
        "optical_before": np.clip(before, 1, 255).astype(np.uint8),
        "optical": np.clip(after, 1, 255).astype(np.uint8),
        "sar_before": sar_before.astype(np.uint8),
        "sar": np.clip(sar_after, 1, 254).astype(np.uint8),
        "mask": np.where(flooded, 255, 0).astype(np.uint8),
    }
    if number % 3 == 0:
        for part, value in (("optical_before", 0), ("optical", 0), ("sar_before", 255), ("sar", 255), ("mask", 0)):
            place[part][:, :_OUTSIDE_PX] = value  # type: ignore[index]
    return place


def write_tree(
    root: str | Path,
    *,
    layout: Literal["own", "public", "plain"] = "own",
    count: int = 4,
    size: int = 32,
    seed: int = 0,
) -> Path:
    """Write a tree of OMBRIA.

    Args:
        root: `own`: the folder of all data sets; else what is given to the prepare script as ``--source``.
        layout: `public` is the repository (train, test and one event of 2021), `plain` one folder for each part of
            train, `own` the prepared train and test.
        count: places of train; test and the event have one each.
        size: side of a place, pixels (256 in reality).
        seed: of everything random.

    Returns:
        `root`.
    """
    root = Path(root)
    splits = {"train": range(1, count + 1), "test": range(count + 1, count + 2)}
    rows = []
    for split, numbers in splits.items():
        for number in numbers:
            place = fake_place(number, size=size, seed=seed)
            if layout == "own":
                rows.append(_write_own(root / "ombria" / split, f"{number:04d}", place))
            elif layout == "public":
                _write_public(root, split, number, place)
            elif split == "train":
                _write_plain(root / split, number, place)
    if layout == "public":
        _write_event(root / "2021/ALBANIA", fake_place(90, size=size, seed=seed), 90)
    if layout == "own":
        write_places(root / "ombria", rows)
    return root


def _write_own(folder: Path, stem: str, place: dict[Part, np.ndarray]) -> PlaceFacts:
    missing = ~(place["optical_before"].any(axis=2) | place["optical"].any(axis=2))
    label = np.where(missing, 255, place["mask"] // 255).astype(np.uint8)
    for role in ("optical_before", "optical", "sar_before", "sar"):
        write_raster(folder / role / f"{stem}.png", place[role])  # type: ignore[literal-required,index]
    write_raster(folder / "label" / f"{stem}.png", label)
    clouded = 0.25 if int(stem) % 2 else 0.0
    flood, nodata = float((label == 1).mean()), float((label == 255).mean())
    return PlaceFacts(folder.name, stem, round(flood, 4), 0.0, clouded, round(nodata, 4), stem)


def _write_public(root: Path, split: str, number: int, place: dict[Part, np.ndarray]) -> None:
    parts = {"BEFORE": "before", "AFTER": "after", "MASK": "mask"}
    for sensor, role in (("S1", "sar"), ("S2", "optical")):
        pixels = {"BEFORE": place[f"{role}_before"], "AFTER": place[role], "MASK": place["mask"]}  # type: ignore[index]
        for folder, name in parts.items():
            path = root / f"Ombria{sensor}" / split / folder / f"{sensor}_{name}_{number:04d}.png"
            write_raster(path, pixels[folder])


def _write_event(folder: Path, place: dict[Part, np.ndarray], number: int) -> None:
    for sensor, role in (("Sentinel1", "sar"), ("Sentinel2", "optical")):
        write_raster(folder / sensor / "BEFORE" / f"imbefore_{number}.png", place[f"{role}_before"])  # type: ignore[index]
        write_raster(folder / sensor / "AFTER" / f"imafter_{number}.png", place[role])  # type: ignore[index]
        write_raster(folder / sensor / "MASK" / f"gt_{number}.png", place["mask"])


def _write_plain(folder: Path, number: int, place: dict[Part, np.ndarray]) -> None:
    names = {"s2_before": "optical_before", "s2_after": "optical", "s1_before": "sar_before", "s1_after": "sar"}
    for name, part in {**names, "mask": "mask"}.items():
        write_raster(folder / name / f"{number:04d}.png", place[part])  # type: ignore[index]
