"""Downloads of equal-named optical, SAR and label files: pair them, split them, cut them, cloud them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mmovseg.data.clouds import CloudKindName, Clouds, CloudSynthesizer
from mmovseg.data.clouds_package import PackageClouds
from mmovseg.data.prepare.cloud import add_clouds
from mmovseg.data.prepare.jobs import TileJob
from mmovseg.data.prepare.labels import LabelCode
from mmovseg.data.prepare.rasters import Layer, read_layer, read_size
from mmovseg.data.prepare.sources import index_by_stem
from mmovseg.data.prepare.splits import read_split_list, split_stems
from mmovseg.data.prepare.tiling import Tile, tile_grid
from mmovseg.errors import UserError

CloudGenerator = Literal["own", "satellite-cloud-generator"]
CLOUD_GENERATORS: tuple[CloudGenerator, ...] = get_args(CloudGenerator)

PairFiles = dict[str, Path]
"""Role -> file of one pair; roles are `optical`, `sar`, `label` and, for an image with clouds in it, `clouded`."""


@dataclass(frozen=True)
class PairRecipe:
    """How the tiles of a data set are made; picklable, as it travels to workers.

    code: of the label files.
    clouded_folder: where an image goes that comes with clouds (role `clouded`).
    cloud_folders: kind of cloud to synthesise over the role `optical` -> (folder of the image, of the opacity, of the
        shadow). A tile that has the role `clouded` is not clouded again.
    cloud_generator: which clouds.
    seed: of the clouds.
    """

    code: LabelCode
    clouded_folder: str = "optical_cloud"
    cloud_folders: Mapping[CloudKindName, tuple[str, str, str]] | None = None
    cloud_generator: CloudGenerator = "own"
    seed: int = 0

    def folders(self, files: PairFiles) -> tuple[str, ...]:
        """Return the folders that a pair's tiles are written to."""
        folders: list[str] = [role for role in ("optical", "sar", "label") if role in files]
        if "clouded" in files:
            folders.append(self.clouded_folder)
        else:
            folders += [folder for names in (self.cloud_folders or {}).values() for folder in names]
        return tuple(folders)

    def make(self, files: PairFiles, stem: str, tile: Tile | None) -> dict[str, Layer]:
        """Return the layers of a tile.

        Raises:
            UserError: a file is damaged, an optical raster is not 8-bit RGB, or a label holds unknown values.
        """
        label = read_layer(files["label"], tile=tile)
        layers = {
            "sar": drop_equal_bands(read_layer(files["sar"], tile=tile)),
            "label": self.code.decode(label, str(files["label"])),
        }
        if "optical" in files:
            layers["optical"] = as_rgb8(read_layer(files["optical"], tile=tile), files["optical"])
        if "clouded" in files:
            layers[self.clouded_folder] = as_rgb8(read_layer(files["clouded"], tile=tile), files["clouded"])
            return layers
        for kind, names in (self.cloud_folders or {}).items():
            clouds = cloud_maker(self.cloud_generator, kind)
            made = add_clouds(layers["optical"], clouds, stem=stem, kind=kind, seed=self.seed)
            layers |= dict(zip(names, made.values(), strict=True))
        return layers


def cloud_maker(generator: CloudGenerator, kind: CloudKindName) -> Clouds:
    """Return what lays clouds of a kind over images.

    Raises:
        UserError: unknown generator, its package is missing, or it has no such clouds.
    """
    if generator == "own":
        return CloudSynthesizer(kind=kind)
    if generator != "satellite-cloud-generator":
        raise UserError(f"unknown cloud generator '{generator}'; known: {', '.join(CLOUD_GENERATORS)}")
    if kind == "clear":
        raise UserError("satellite-cloud-generator makes no clouds of kind 'clear'")
    return PackageClouds(kind=kind)


def pair_files(folders: Mapping[str, Path]) -> dict[str, PairFiles]:
    """Pair the rasters of folders by stem.

    Args:
        folders: role -> folder.

    Returns:
        Stem -> role -> file, sorted by stem.

    Raises:
        UserError: a folder is empty, or a stem is not in all of them; the message names the first.
    """
    files = {role: index_by_stem(folder) for role, folder in folders.items()}
    stems = sorted(set().union(*files.values()))
    for role, found in files.items():
        missing = [stem for stem in stems if stem not in found]
        if missing:
            other = next(paths[missing[0]] for paths in files.values() if missing[0] in paths)
            raise UserError(
                f"'{other}' has no partner named '{missing[0]}.*' in '{folders[role]}' "
                f"({len(missing)} of {len(stems)} are missing there)"
            )
    return {stem: {role: found[stem] for role, found in files.items()} for stem in stems}


def split_by_lists(stems: Iterable[str], lists: Mapping[str, Path]) -> dict[str, list[str]]:
    """Return the stems of each split as published.

    Args:
        stems: that the download has.
        lists: split -> list file (`read_split_list`).

    Raises:
        UserError: a list is unreadable, names a stem that the download lacks, or one that another list names.
    """
    present, splits = set(stems), {}
    owner: dict[str, str] = {}
    for split, path in lists.items():
        names = read_split_list(path)
        for name in names:
            if name not in present:
                raise UserError(f"split list '{path}' names '{name}', which the download does not have")
            if name in owner:
                raise UserError(f"split lists name '{name}' in {owner[name]} and in {split}")
            owner[name] = split
        splits[split] = sorted(names)
    return splits


def choose_split(
    stems: Iterable[str], lists: Mapping[str, Path | None], *, random_split: bool, seed: int, hint: str
) -> dict[str, list[str]]:
    """Split by published lists, or at random where that was asked for.

    Args:
        stems: that the download has.
        lists: split -> list file, None where none was found.
        random_split: draw two halves instead of using lists.
        seed: of the draw.
        hint: for the message, where the lists are published.

    Raises:
        UserError: lists are missing and no random split was asked for, or a list does not fit (`split_by_lists`).
    """
    if random_split:
        return split_stems(stems, seed=seed)
    found = {split: path for split, path in lists.items() if path is not None}
    if len(found) < len(lists):
        missing = ", ".join(split for split in lists if split not in found)
        raise UserError(
            f"no split list was found for: {missing}; name them with --train-list and --val-list ({hint}), or draw "
            "a split of your own with --random-split, whose results do not compare with published ones"
        )
    return split_by_lists(stems, found)


def pair_jobs(
    pairs: Mapping[str, PairFiles], split: str, recipe: PairRecipe, *, tile_size: int | None = None
) -> list[TileJob]:
    """Return the jobs of a split.

    Args:
        pairs: stem -> files.
        split: of all of them.
        recipe: how to make tiles.
        tile_size: cut rasters that are larger into squares of this size, pixels; smaller ones stay whole. None = never.
    """
    jobs = []
    for stem, files in pairs.items():
        for name, tile in _cut(stem, files, tile_size):
            jobs.append(TileJob(split, name, recipe.folders(files), partial(recipe.make, files, name, tile)))
    return jobs


def as_rgb8(layer: Layer, source: str | Path) -> Layer:
    """Return the first three of three or four 8-bit bands.

    Raises:
        UserError: another type or number of bands.
    """
    array = layer.array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        bands = 1 if array.ndim == 2 else array.shape[2]
        raise UserError(f"optical raster '{source}' has {bands} bands of {array.dtype}; RGB of 8 bit was expected")
    return layer.with_array(array[:, :, :3])


def drop_equal_bands(layer: Layer) -> Layer:
    """Return one band if all bands hold the same, as in SAR images that were saved as RGB; else the layer as it is."""
    array = layer.array
    if array.ndim == 3 and all(np.array_equal(array[:, :, 0], array[:, :, band]) for band in range(1, array.shape[2])):
        return layer.with_array(array[:, :, 0])
    return layer


def _cut(stem: str, files: PairFiles, tile_size: int | None) -> list[tuple[str, Tile | None]]:
    if tile_size is None:
        return [(stem, None)]
    height, width = read_size(files["label"])
    if height <= tile_size and width <= tile_size:
        return [(stem, None)]
    return [(f"{stem}_{tile.name}", tile) for tile in tile_grid(height, width, tile_size)]
