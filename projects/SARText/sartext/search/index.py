"""The index of a folder: one embedding an image, in a safetensors file that belongs to one model and one folder.

Tensors: ``embeddings`` (N, D) float32 of unit length; ``paths`` (B,) uint8, UTF-8 texts with a zero byte after each;
``sizes`` and ``changed`` (N,) int64. The metadata name the model, how images were read for it, and the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmovseg.atomic import atomic_write
from mmovseg.errors import UserError
from mmovseg.projects.sartext.search.files import ImageFile

VERSION = "2"
_FORMAT = "mmovseg image index"


@dataclass(frozen=True)
class IndexFacts:
    """What the embeddings of an index have in common.

    model: hash of the model that made them, its normalisation and layers included.
    reading: what images were read as: modality, bands, ranges, units.
    dim: length of an embedding.
    folder: in full, where the images lie: their paths start from it.
    """

    model: str
    reading: str
    dim: int
    folder: str


@dataclass
class SearchIndex:
    """The rows of an index in memory. embeddings: (N, D) float32; files: N."""

    facts: IndexFacts
    embeddings: np.ndarray
    files: list[ImageFile]

    def __post_init__(self) -> None:
        if self.embeddings.shape != (len(self.files), self.facts.dim):
            raise ValueError(f"{len(self.files)} files, {self.facts.dim} values, embeddings {self.embeddings.shape}")

    def __len__(self) -> int:
        return len(self.files)

    def part(self, paths: Set[str]) -> SearchIndex:
        """Return the rows of these paths; itself where that is all of them."""
        stay = [number for number, file in enumerate(self.files) if file.path in paths]
        if len(stay) == len(self.files):
            return self
        return SearchIndex(self.facts, self.embeddings[stay], [self.files[number] for number in stay])

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield the embeddings in order, `rows` at a time."""
        for start in range(0, len(self.files), rows):
            yield self.embeddings[start : start + rows]


def write_index(path: str | Path, index: SearchIndex) -> None:
    """Write an index; it appears under its name only when it is complete.

    Raises:
        UserError: the file cannot be written.
    """
    blob = b"".join(file.path.encode("utf-8", "surrogateescape") + b"\0" for file in index.files)
    tensors = {
        "embeddings": np.ascontiguousarray(index.embeddings, dtype=np.float32),
        "paths": np.frombuffer(blob, dtype=np.uint8),
        "sizes": np.array([file.size for file in index.files], dtype=np.int64),
        "changed": np.array([file.changed_ns for file in index.files], dtype=np.int64),
    }
    # ASCII alone, as the name of a folder may be no UTF-8 and metadata must be
    metadata = {"format": _FORMAT, "version": VERSION, "facts": json.dumps(asdict(index.facts), sort_keys=True)}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_index(path: str | Path, *, facts: IndexFacts | None = None) -> SearchIndex:
    """Read an index.

    Args:
        path: of `write_index`.
        facts: what the model at hand says; None takes any index.

    Raises:
        UserError: the file is missing, damaged or no index, was made by another model or by reading otherwise, or is of
            another folder.
    """
    with _opened(path) as file:
        found = _facts(path, file.metadata() or {})
        if facts is not None:
            _check_facts(path, found, facts)
        try:
            embeddings = file.get_tensor("embeddings")
            texts = file.get_tensor("paths").tobytes().split(b"\0")[:-1]
            sizes, changed = file.get_tensor("sizes").tolist(), file.get_tensor("changed").tolist()
            files = [
                ImageFile(text.decode("utf-8", "surrogateescape"), size, time)
                for text, size, time in zip(texts, sizes, changed, strict=True)
            ]
            return SearchIndex(found, embeddings, files)
        except (SafetensorError, ValueError) as error:
            raise UserError(f"index '{path}' is damaged: {error}") from error


def merge_rows(
    facts: IndexFacts, kept: SearchIndex, rows: Sequence[np.ndarray], files: Sequence[ImageFile]
) -> SearchIndex:
    """Return an index of old rows and new ones, sorted by path; a new row of a path takes the place of the old one."""
    fresh = {file.path for file in files}
    stay = [number for number, file in enumerate(kept.files) if file.path not in fresh]
    embeddings = (
        np.concatenate([kept.embeddings[stay], *(row[None] for row in rows)]) if rows else kept.embeddings[stay]
    )
    listed = [*(kept.files[number] for number in stay), *files]
    order = sorted(range(len(listed)), key=lambda number: listed[number].path)
    return SearchIndex(facts, embeddings[order], [listed[number] for number in order])


def empty_index(facts: IndexFacts) -> SearchIndex:
    """Return an index without rows."""
    return SearchIndex(facts, np.zeros((0, facts.dim), dtype=np.float32), [])


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    if not Path(path).is_file():
        raise UserError(f"index '{path}' does not exist")
    try:
        opened = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(f"index '{path}' is damaged or no index: {error}") from error
    with opened as file:
        yield file


def _facts(path: str | Path, metadata: dict[str, str]) -> IndexFacts:
    if metadata.get("format") != _FORMAT:
        raise UserError(f"'{path}' is no index of images: its metadata do not say so")
    if metadata.get("version") != VERSION:
        raise UserError(
            f"index '{path}' has version {metadata.get('version')}, this program reads {VERSION}; remove it or name "
            "another with --index"
        )
    try:
        facts = json.loads(metadata["facts"])
        return IndexFacts(str(facts["model"]), str(facts["reading"]), int(facts["dim"]), str(facts["folder"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"index '{path}' is damaged: its metadata lack the facts of its model") from error


def _check_facts(path: str | Path, found: IndexFacts, wanted: IndexFacts) -> None:
    if found.folder != wanted.folder:
        raise UserError(
            f"index '{path}' is of the folder '{found.folder}', not of '{wanted.folder}'; remove it or name another "
            "with --index"
        )
    if found.model != wanted.model or found.dim != wanted.dim:
        raise UserError(
            f"index '{path}' was made by another model ({found.model[:12]}, now {wanted.model[:12]}; weights, "
            "normalisation and layers count); remove it or name another with --index"
        )
    if found.reading != wanted.reading:
        raise UserError(
            f"index '{path}' was made from images read as {found.reading}, now as {wanted.reading}; remove it or name "
            "another with --index"
        )
