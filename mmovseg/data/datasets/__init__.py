"""Data sets: the registered ones by name, and one's own from folders or tables."""

from mmovseg.data.datasets.catalog import get_dataset, known_datasets, register_all, register_pairs
from mmovseg.data.datasets.folders import load_pair_csv, load_pair_folder, load_pair_jsonl
from mmovseg.data.datasets.mix import mix_datasets
from mmovseg.data.datasets.settings import choose_sets

__all__ = [
    "choose_sets",
    "get_dataset",
    "known_datasets",
    "load_pair_csv",
    "load_pair_folder",
    "load_pair_jsonl",
    "mix_datasets",
    "register_all",
    "register_pairs",
]
