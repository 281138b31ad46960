"""Turn public downloads into the layout of datasets/README.md: resumable, atomic, with a manifest at the end.

A prepare script lists jobs (one output tile each) and hands them to `prepare_dataset`; everything else is here.
"""

from mmovseg.data.prepare.cli import prepare_parser
from mmovseg.data.prepare.cloud import add_clouds
from mmovseg.data.prepare.jobs import TileJob, prepare_dataset
from mmovseg.data.prepare.labels import LabelCode
from mmovseg.data.prepare.opening import open_download
from mmovseg.data.prepare.pairs import (
    CLOUD_GENERATORS,
    PairRecipe,
    choose_split,
    pair_files,
    pair_jobs,
)
from mmovseg.data.prepare.rasters import Layer, read_layer, write_layer
from mmovseg.data.prepare.sources import find_folder, find_optional, index_by_stem, open_sources
from mmovseg.data.prepare.splits import read_split_list, split_stems
from mmovseg.data.prepare.tiling import Tile, tile_grid

__all__ = [
    "CLOUD_GENERATORS",
    "LabelCode",
    "Layer",
    "PairRecipe",
    "Tile",
    "TileJob",
    "add_clouds",
    "choose_split",
    "find_folder",
    "find_optional",
    "index_by_stem",
    "open_download",
    "open_sources",
    "pair_files",
    "pair_jobs",
    "prepare_dataset",
    "prepare_parser",
    "read_layer",
    "read_split_list",
    "split_stems",
    "tile_grid",
    "write_layer",
]
