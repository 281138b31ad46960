"""Weights on disk: safe to load, atomic to save."""

from mmovseg.checkpoint.load import LoadReport, file_sha256, load_weights, read_metadata, read_state
from mmovseg.checkpoint.save import atomic_write, save_weights

__all__ = ["LoadReport", "atomic_write", "file_sha256", "load_weights", "read_metadata", "read_state", "save_weights"]
