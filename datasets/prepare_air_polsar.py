#!/usr/bin/env python
"""AIR-PolSAR-Seg-2.0 -> <output>/air_polsar/{train,test}/{sar_<view>,label}: land cover, quad-polarised, 512 px.

The download is the publishers' (DOI 10.57760/sciencedb.radars.00041). Two forms are read:

    <city>/modified/{bj,sh,gz}_{hh,hv,vh,vv}_{amp,real,imgy}.tiff    scenes: 8-bit renderings of complex samples
    <city>/modified/*_gt_modify.tiff, else *_gt.tiff                 RGB labels
    {train,val}/{hh,hv,vh,vv}/<id>_<polarisation>_<rendering>.tiff   tiles of 512 px, with a split
    {train,val}/gt/<id>.tiff

Views are written as ``sar_hh_amp`` ... ``sar_vv_imag``; ``sar_full_amp`` has the bands HH, HV, VV. Ids begin with the
scene: ``bj_`` Beijing, ``sh_`` Shanghai, ``gz_`` Guangzhou. That is how benchmarks tell north from south.

Facts and where they are from:
- three Gaofen-3 scenes, 8 m, four polarisations, six classes, 24,672 slices of 512 px: the publishers' article (Wang et
  al., Journal of Radars 14 (2), 2025, DOI 10.12000/JR24237). These are 1,542 places x 4 polarisations x 4 renderings.
- folders, names of scenes and labels, colours, that labels carry artefacts of compression (Shanghai has thousands of
  colours), that mountains occur in Beijing only: public code that reads the download. Colours are therefore matched to
  the nearest within 30 (`--tolerance`); the rest, white and black are ignored. The tiled form: an mmseg config of
  SARATR-X-v2.
- which colour is which class: the legend of Figure 4 of the CrossEarth-SAR paper. Version 1.0 of the data set gives the
  same colours other meanings and is not read.
- not verified: the exact names of the renderings; whether labels of the tiled form are colours or numbers. Numbers need
  `--label-order`.
- the split: that of the tiled form; of scenes 80 % of the tiles of north (Beijing) and of south (Shanghai, Guangzhou)
  are drawn, rounded down, which gives the paper's 600 + 633 and 150 + 159 if there are 750 and 792. Tiles do not
  overlap, so that train and test share no pixel; what is left at the edges of a scene is dropped.

    datasets/prepare_air_polsar.py --source AIR-PolSAR-Seg-2.0.zip --workers 8
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from mmovseg.data.datasets.sar_sets import COMPOSITE, POLARISATIONS
from mmovseg.data.prepare import LabelCode, find_optional, index_by_stem, open_download
from mmovseg.data.prepare.sar_tiles import (
    SarTile,
    check_options,
    list_tiles,
    make_recipe,
    sar_parser,
    split_by_options,
    split_tiles,
    write_splits,
)
from mmovseg.data.text import read_text
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError, exit_on_user_error

RENDERINGS = {"amp": "amp", "real": "real", "imgy": "imag", "imag": "imag"}
NORTH = ("bj",)
SCENES = (*NORTH, "sh", "gz")
UNKNOWN_SCENE = "xx"
_VOCABULARY = get_vocabulary("air_polsar")
_FILE = re.compile(rf"^(.+?)_({'|'.join(POLARISATIONS)})_({'|'.join(RENDERINGS)})(?:_modify)?$", re.IGNORECASE)
_SCENE = re.compile(rf"^({'|'.join(SCENES)})(?![a-z])", re.IGNORECASE)
_COMPOSITES = {f"sar_{COMPOSITE}": ("sar_hh_amp", "sar_hv_amp", "sar_vv_amp")}
_TILED_SPLITS = {"train": ("train",), "test": ("val", "test")}


def label_code(order: str | None, tolerance: int) -> LabelCode:
    """Return the code of the labels: colours, and numbers if their order is given.

    Raises:
        UserError: a name of `order` is no class.
    """
    colors = {color: id_ for id_, color in enumerate(_VOCABULARY.colors)} | {(0, 0, 0): 255, (255, 255, 255): 255}
    ids = {255: 255}
    for number, name in enumerate(order.split(",") if order else ()):
        word = name.strip()
        if word and word not in _VOCABULARY.names:
            raise UserError(f"--label-order names '{word}'; the classes are: {', '.join(_VOCABULARY.names)}")
        ids[number] = _VOCABULARY.names.index(word) if word else 255
    return LabelCode(ids=ids if order else {}, colors=colors, tolerance=tolerance)


def find_scenes(roots: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Return scene -> role -> file of whole scenes; empty if the source has none.

    Raises:
        UserError: a scene has no label, or that of two scenes, or lacks an amplitude.
    """
    files = sorted(path for root in roots for path in root.rglob("*.tif*") if "__MACOSX" not in path.parts)
    scenes: dict[str, dict[str, Path]] = {}
    for path in files:
        found = _FILE.match(path.stem)
        if found and found[1].lower() in SCENES:
            scenes.setdefault(found[1].lower(), {})[_role(found)] = path
    for name, roles in scenes.items():
        folder = next(iter(roles.values())).parent
        labels = [path for end in ("_gt_modify", "_gt") for path in files if path.stem.lower().endswith(end)]
        here = [path for path in labels if path.parent == folder]
        known = {path: _SCENE.match(path.stem) for path in here}
        own = [path for path in here if (found := known[path]) and found[1].lower() == name]
        unnamed = [path for path in here if not known[path]]
        if not own + unnamed:
            raise UserError(f"folder '{folder}' has renderings of the scene '{name}' but no label *_gt_modify.tiff")
        roles["label"] = (own + unnamed)[0]
        twice = [other for other in scenes if other != name and scenes[other].get("label") == roles["label"]]
        if twice:
            raise UserError(f"'{roles['label']}' could be the label of '{twice[0]}' and of '{name}'; name it after one")
        _check_amplitudes(roles, f"scene '{name}' in '{folder}'")
    return scenes


def find_tiles(roots: Sequence[Path], regions: Path | None) -> dict[str, list[SarTile]]:
    """Return split -> tiles of the tiled form; empty if the source is not of it.

    Raises:
        UserError: a split is missing, or a tile lacks its label or an amplitude.
    """
    splits: dict[str, list[SarTile]] = {}
    scene_of = {} if regions is None else read_regions(regions)
    for split, names in _TILED_SPLITS.items():
        folder = find_optional(roots, *(f"{name}/gt" for name in names), what=f"the labels of {split}")
        if folder is not None:
            splits[split] = _tiles_of(folder, scene_of)
    if splits and len(splits) < len(_TILED_SPLITS):
        missing = next(split for split in _TILED_SPLITS if split not in splits)
        raise UserError(f"the source has no folder {' or '.join(f'{name}/gt' for name in _TILED_SPLITS[missing])}")
    return splits


def read_regions(path: Path) -> dict[str, str]:
    """Read a table of two columns without a header, id and scene.

    Raises:
        UserError: it cannot be read, or a line has other columns or an unknown scene.
    """
    rows = list(csv.reader(read_text(path, "table").splitlines()))
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or row[1].strip() not in SCENES:
            raise UserError(
                f"table '{path}' line {number} is {','.join(row)!r}; an id and one of {SCENES} was expected"
            )
    return {row[0].strip(): row[1].strip() for row in rows}


def _tiles_of(label_folder: Path, scene_of: dict[str, str]) -> list[SarTile]:
    roles: dict[str, dict[str, Path]] = {}
    for name in POLARISATIONS:
        folder = label_folder.parent / name
        for stem, path in index_by_stem(folder).items() if folder.is_dir() else ():
            found = _FILE.match(stem)
            if found:
                roles.setdefault(found[1], {})[_role(found)] = path
    tiles = []
    for stem, label in index_by_stem(label_folder).items():
        files = {**roles.get(stem, {}), "label": label}
        _check_amplitudes(files, f"tile '{stem}' in '{label_folder.parent}'")
        known = _SCENE.match(stem)
        scene = scene_of.get(stem) or (known[1].lower() if known else UNKNOWN_SCENE)
        tiles.append(SarTile(stem if known else f"{scene}_{stem}", stem, files))
    return tiles


def _role(found: re.Match[str]) -> str:
    return f"sar_{found[2].lower()}_{RENDERINGS[found[3].lower()]}"


def _check_amplitudes(roles: dict[str, Path], what: str) -> None:
    for name in POLARISATIONS:
        if f"sar_{name}_amp" not in roles:
            raise UserError(f"{what} has no amplitude of {name.upper()} (*_{name}_amp.tiff)")


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = sar_parser(__doc__)
    parser.add_argument(
        "--tolerance", type=int, default=30, metavar="N", help="largest summed difference of a colour (default: 30)"
    )
    parser.add_argument("--label-order", metavar="NAMES", help="classes of the label numbers 0, 1, ..., by commas")
    parser.add_argument(
        "--regions", type=Path, metavar="FILE", help="id,scene of the tiled form whose ids do not begin with a scene"
    )
    return parser


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args, root, roots = open_download(argument_parser(), argv, "air_polsar", check=check_options)
    recipe = make_recipe(args, label_code(args.label_order, args.tolerance), composites=_COMPOSITES)
    splits, how = find_tiles(roots, args.regions), "as published"
    if not splits:
        scenes = find_scenes(roots)
        if not scenes:
            raise UserError(
                "the source has neither scenes ({bj,sh,gz}_hh_amp.tiff ... in a folder 'modified') nor train/gt and "
                "val/gt; see --help"
            )
        tiles, how = list_tiles(scenes, tile_size=args.tile_size, edge="drop"), "drawn"
        stratum = {tile.stem: "north" if tile.image in NORTH else "south" for tile in tiles}
        splits = split_tiles(
            tiles, unit="tile", train_share=args.train_share, seed=args.seed, stratum=stratum.__getitem__
        )
    if args.train_list is not None:
        splits, how = split_by_options([tile for part in splits.values() for tile in part], args), "lists"
    facts = {"script": "prepare_air_polsar", "split": how, "tolerance": args.tolerance, "order": args.label_order}
    print(write_splits(splits, root, recipe, args, made_by=facts))
    if any(tile.stem.startswith(f"{UNKNOWN_SCENE}_") for part in splits.values() for tile in part):
        print("some ids do not say their scene: N2S and S2N leave them out; name the scenes with --regions")


if __name__ == "__main__":
    main()
