"""Downloads of labelled SAR: pair the files, cut and enlarge them to one size, split them, write 8-bit tiles.

What the prepare scripts of `mmovseg.data.datasets.sar_sets` share.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image
from rasterio.transform import Affine

from mmovseg.data.prepare.cli import prepare_parser
from mmovseg.data.prepare.jobs import RUN_FILE, TileJob, prepare_dataset
from mmovseg.data.prepare.labels import LabelCode
from mmovseg.data.prepare.rasters import Layer, read_layer, read_size
from mmovseg.data.prepare.splits import read_split_list, split_by_share
from mmovseg.data.prepare.tiling import EdgeRule, Tile, tile_grid
from mmovseg.errors import UserError

SplitUnit = Literal["image", "tile"]
SPLIT_UNITS: tuple[SplitUnit, ...] = get_args(SplitUnit)

SarFiles = Mapping[str, Path]
"""Role -> file of one image; `label`, and `sar` or several ``sar_<view>``."""


@dataclass(frozen=True)
class SarTile:
    """One output tile: its name, the image that it is cut from, its files, and which window of them (None = all)."""

    stem: str
    image: str
    files: SarFiles
    window: Tile | None = None


@dataclass(frozen=True)
class SarRecipe:
    """How tiles are made; picklable, as it travels to workers.

    code: of the label files.
    size: smaller tiles are enlarged to this side, pixels; None leaves them as they are.
    sar_range: stored values that become 0 and 255; None demands 8-bit files and leaves them as they are.
    composites: role to make -> roles that become its bands.
    """

    code: LabelCode
    size: int | None = None
    sar_range: tuple[float, float] | None = None
    composites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def folders(self, files: SarFiles) -> tuple[str, ...]:
        """Return the folders that a tile is written to."""
        made = (role for role, parts in self.composites.items() if all(part in files for part in parts))
        return (*(role for role in files if role != "label"), *made, "label")

    def make(self, tile: SarTile) -> dict[str, Layer]:
        """Return the layers of a tile.

        Raises:
            UserError: a file is damaged, SAR is not of 8 bits and no range was given, a label holds unknown values, or
                a tile that is to be enlarged is no square.
        """
        layers = {
            role: to_amplitude8(read_layer(path, tile=tile.window), str(path), sar_range=self.sar_range)
            for role, path in tile.files.items()
            if role != "label"
        }
        for role in self.folders(tile.files):
            if role in self.composites:
                bands = [layers[part] for part in self.composites[role]]
                if len({band.size for band in bands}) > 1:
                    raise UserError(f"the bands of '{role}' of tile '{tile.stem}' differ in size")
                layers[role] = bands[0].with_array(np.stack([band.array for band in bands], axis=2))
        path = tile.files["label"]
        layers["label"] = self.code.decode(read_layer(path, tile=tile.window), str(path))
        if self.size is None:
            return layers
        return {role: _enlarge(layer, self.size, role == "label", tile.stem) for role, layer in layers.items()}


def to_amplitude8(layer: Layer, source: str, *, sar_range: Sequence[float] | None = None) -> Layer:
    """Return one band of 8 bits.

    Args:
        layer: as read. Three bands are a grey image that was saved as RGB; where a lossy format made them differ, their
            mean is taken.
        source: file name for messages.
        sar_range: see `SarRecipe`; fixed for a data set, so that equal values stay equal in all of its tiles.

    Raises:
        UserError: two or more than four bands, or values that are not of 8 bits without a range.
    """
    array = layer.array
    if array.ndim == 3:
        if array.shape[2] not in (3, 4):
            raise UserError(
                f"SAR raster '{source}' has {array.shape[2]} bands; one, or a grey image of three, is known"
            )
        array = array[:, :, :3]
        grey = array[:, :, 0] if (array == array[:, :, :1]).all() else np.rint(array.mean(axis=2))
        array = grey.astype(array.dtype)
    if sar_range is not None:
        low, high = sar_range
        scaled = (np.nan_to_num(array.astype(np.float64), nan=low) - low) * (255.0 / (high - low))
        return layer.with_array(np.rint(np.clip(scaled, 0.0, 255.0)).astype(np.uint8))
    if array.dtype != np.uint8:
        raise UserError(
            f"SAR raster '{source}' holds {array.dtype} from {array.min()} to {array.max()}, not 8 bits; say which "
            "values are black and white with --sar-range LOW HIGH, the same for the whole data set"
        )
    return layer.with_array(array)


def list_tiles(images: Mapping[str, SarFiles], *, tile_size: int | None, edge: EdgeRule = "shift") -> list[SarTile]:
    """Return the tiles of all images.

    Args:
        images: stem -> files.
        tile_size: larger images are cut into squares of this side, pixels; None never cuts.
        edge: see `tile_grid`.

    Raises:
        UserError: an image is unreadable, or larger than a tile in one direction and smaller in the other.
    """
    tiles = []
    for stem, files in images.items():
        height, width = (0, 0) if tile_size is None else read_size(files["label"])
        if tile_size is None or (height <= tile_size and width <= tile_size):
            tiles.append(SarTile(stem, stem, files))
        else:
            grid = tile_grid(height, width, tile_size, edge=edge)
            tiles += [SarTile(f"{stem}_{window.name}", stem, files, window) for window in grid]
    return tiles


def split_tiles(
    tiles: Sequence[SarTile],
    *,
    unit: SplitUnit = "image",
    train_share: float = 0.8,
    rounding: Literal["up", "down"] = "down",
    seed: int = 0,
    stratum: Callable[[str], str] | None = None,
) -> dict[str, list[SarTile]]:
    """Draw train and test, independent of the order of the tiles and of the machine.

    Args:
        tiles: all.
        unit: ``image`` keeps the tiles of an image together; ``tile`` draws each by itself.
        train_share: of the units, 0..1.
        rounding: of their number.
        seed: of the draw.
        stratum: unit -> its group; every group is drawn from by itself. None = one group.
    """
    names = sorted({tile.stem if unit == "tile" else tile.image for tile in tiles})
    train: set[str] = set()
    for group in sorted({stratum(name) for name in names}) if stratum is not None else [None]:
        members = [name for name in names if stratum is None or stratum(name) == group]
        train |= set(split_by_share(members, train_share=train_share, rounding=rounding, seed=seed)["train"])
    splits: dict[str, list[SarTile]] = {"train": [], "test": []}
    for tile in tiles:
        splits["train" if (tile.stem if unit == "tile" else tile.image) in train else "test"].append(tile)
    return splits


def split_tiles_by_lists(tiles: Sequence[SarTile], lists: Mapping[str, Iterable[str]]) -> dict[str, list[SarTile]]:
    """Split by lists of tiles or of the images that they are cut from; what no list names is left out.

    Raises:
        UserError: a list names what the download lacks, or two lists name the same.
    """
    owner: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if name in owner:
                raise UserError(f"the split lists name '{name}' in {owner[name]} and in {split}")
            owner[name] = split
    known = {name for tile in tiles for name in (tile.stem, tile.image)}
    absent = sorted(set(owner) - known)
    if absent:
        raise UserError(f"the split lists name '{absent[0]}', which the download does not have ({len(absent)} in all)")
    splits: dict[str, list[SarTile]] = {split: [] for split in lists}
    for tile in tiles:
        split = owner.get(tile.stem, owner.get(tile.image, ""))
        if split:
            splits[split].append(tile)
    return splits


def split_by_options(
    tiles: Sequence[SarTile],
    args: argparse.Namespace,
    *,
    unit: SplitUnit = "image",
    rounding: Literal["up", "down"] = "down",
    rename: Callable[[str], str] = str,
) -> dict[str, list[SarTile]]:
    """Split as the options of `sar_parser` ask for: by ``--train-list`` and ``--test-list``, else drawn.

    Args:
        tiles: all.
        args: the options.
        unit: see `split_tiles`.
        rounding: see `split_tiles`.
        rename: name in a list -> name of a tile or an image here.

    Raises:
        UserError: a list is unreadable or does not fit (`split_tiles_by_lists`).
    """
    if args.train_list is None:
        return split_tiles(tiles, unit=unit, train_share=args.train_share, rounding=rounding, seed=args.seed)
    files = {"train": args.train_list, "test": args.test_list}
    lists = {split: [rename(name) for name in read_split_list(path)] for split, path in files.items()}
    return split_tiles_by_lists(tiles, lists)


def sar_parser(description: str | None, *, tile_size: int = 512) -> argparse.ArgumentParser:
    """Return the parser of the scripts that prepare SAR alone; a script adds its own options."""
    parser = prepare_parser(description)
    parser.add_argument(
        "--tile-size",
        type=int,
        default=tile_size,
        metavar="PX",
        help=f"side of all tiles: larger images are cut, smaller ones enlarged (default: {tile_size})",
    )
    parser.add_argument("--native-size", action="store_true", help="do not enlarge images that are smaller than a tile")
    parser.add_argument(
        "--sar-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="stored SAR values that become 0 and 255, for files of more than 8 bits",
    )
    parser.add_argument("--train-list", type=Path, metavar="FILE", help="names of the training images, one a line")
    parser.add_argument("--test-list", type=Path, metavar="FILE", help="the same of the test")
    parser.add_argument(
        "--train-share", type=float, default=0.8, metavar="SHARE", help="without lists, drawn by --seed (default: 0.8)"
    )
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Refuse options of `sar_parser` that make no sense.

    Raises:
        UserError: a tile size below 1, a range whose ends do not ascend, a share outside 0..1, or one list alone.
    """
    if args.tile_size < 1:
        raise UserError(f"--tile-size must be at least 1, got {args.tile_size}")
    if args.sar_range is not None and not args.sar_range[0] < args.sar_range[1]:
        raise UserError("--sar-range must ascend, got {} {}".format(*args.sar_range))
    if not 0.0 < args.train_share < 1.0:
        raise UserError(f"--train-share must lie between 0 and 1, got {args.train_share}")
    if (args.train_list is None) != (args.test_list is None):
        raise UserError("--train-list and --test-list belong together; only one was given")


def make_recipe(args: argparse.Namespace, code: LabelCode, **options: Any) -> SarRecipe:
    """Return the recipe that the options of `sar_parser` ask for."""
    sar_range = None if args.sar_range is None else (args.sar_range[0], args.sar_range[1])
    return SarRecipe(code, None if args.native_size else args.tile_size, sar_range, **options)


def write_splits(
    splits: Mapping[str, Sequence[SarTile]],
    root: Path,
    recipe: SarRecipe,
    args: argparse.Namespace,
    *,
    made_by: Mapping[str, Any],
) -> str:
    """Make the tiles, write ``train.txt`` and ``test.txt`` beside them, and return one line that says what was done.

    Raises:
        UserError: see `prepare_dataset`, or the folder is another data set's, with lists of its own.
    """
    foreign = [path for path in (root / f"{split}.txt" for split in splits) if path.is_file()]
    if foreign and not (root / RUN_FILE).is_file():
        raise UserError(f"'{foreign[0]}' is not of this script and would be lost; choose another --output")
    jobs = [
        TileJob(split, tile.stem, recipe.folders(tile.files), partial(recipe.make, tile))
        for split, tiles in splits.items()
        for tile in tiles
    ]
    lists = args.train_list is not None
    facts = {
        "seed": args.seed,
        "tile_size": args.tile_size,
        "enlarged": not args.native_size,
        "sar_range": args.sar_range,
        "train_share": None if lists else args.train_share,
        **made_by,
    }
    counts = prepare_dataset(jobs, root, made_by=facts, workers=args.workers)
    for split, tiles in splits.items():
        names = sorted(tile.stem for tile in tiles)
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    numbers = ", ".join(f"{split} {len(tiles)}" for split, tiles in splits.items())
    return f"{root}: {numbers}; {counts.written} tiles written, {counts.finished_before} were there"


def _enlarge(layer: Layer, size: int, is_label: bool, stem: str) -> Layer:
    """Enlarge a square tile to `size`; labels take the nearest pixel, SAR is interpolated linearly."""
    height, width = layer.size
    if height == width == size:
        return layer
    if height != width or height > size:
        raise UserError(
            f"tile '{stem}' is {height}x{width} pixels; squares of at most {size} can be made {size}x{size}"
        )
    how = Image.Resampling.NEAREST if is_label else Image.Resampling.BILINEAR
    array = np.asarray(Image.fromarray(layer.array).resize((size, size), how))
    transform = None if layer.transform is None else layer.transform * Affine.scale(width / size, height / size)
    return Layer(array, layer.crs, transform)
