"""Embed the images of a folder, new and changed ones only, and keep what was done when a run is stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError, one_line
from mmovseg.projects.sartext.search.files import ImageFile
from mmovseg.projects.sartext.search.index import (
    IndexFacts,
    SearchIndex,
    empty_index,
    merge_rows,
    read_index,
    write_index,
)
from mmovseg.projects.sartext.search.reading import ImageReading, read_batches

_SAVE_EVERY = 4096  # images; and never before a tenth of the index is new, as all of it is written anew


@dataclass
class UpdateReport:
    """What an update of an index did.

    embedded: images that were new or had changed.
    kept: images whose embedding was there.
    skipped: path -> why it could not be read; such images are tried again next time.
    gone: images of the index that the folder does not have now.
    seconds: of the embedding, reading included.
    """

    embedded: int = 0
    kept: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    seconds: float = 0.0


def weights_sha256(model: nn.Module) -> str:
    """Return a hash of the weights and of the buffers that are kept with them."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        _add_tensor(digest, name, value)
    return digest.hexdigest()


def model_sha256(model: Any) -> str:
    """Return a hash of all that decides the embeddings of a model.

    These are its weights and buffers and, of what an image passes through, also what a state dict does not hold: the
    constants of the norm, and the settings of the layers (clip range, percentiles, image size, heads, activations).

    Args:
        model: an `ImageTextModel`; of another module all parts count, unless it has `image_parts`.
    """
    digest = hashlib.sha256(weights_sha256(model).encode())
    for name in ("modality", "bands"):
        digest.update(f"{name} {getattr(model, name, None)}\n".encode())
    parts: Mapping[str, nn.Module] = model.image_parts() if hasattr(model, "image_parts") else {"model": model}
    for place, part in sorted(parts.items()):
        for name, module in part.named_modules():
            digest.update(f"{place} {name} {type(module).__qualname__} {_settings(module)}\n".encode())
        for name, value in sorted(part.named_buffers()):
            _add_tensor(digest, f"{place} {name}", value)
    return digest.hexdigest()


def _add_tensor(digest: Any, name: str, value: Tensor) -> None:
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
    digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _settings(module: nn.Module) -> list[str]:
    """Return the plain values of a layer; what begins with an underscore is its working state."""
    return [
        f"{name}={value!r}"
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name != "training" and _is_plain(value)
    ]


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str)


def index_facts(model: Any, reading: ImageReading, folder: str | Path) -> IndexFacts:
    """Return what an index of this model, reading and folder is made of."""
    return IndexFacts(model_sha256(model), str(reading), int(model.embed_dim), str(Path(folder).resolve()))


def update_index(
    path: str | Path,
    folder: str | Path,
    files: Sequence[ImageFile],
    model: Any,
    reading: ImageReading,
    *,
    batch_size: int = 64,
    workers: int = 0,
    there: Sequence[ImageFile] | None = None,
    prune: bool = False,
    show_progress: bool = True,
    tell: Callable[[str], None] = tqdm.write,
) -> tuple[SearchIndex, UpdateReport]:
    """Bring an index up to date with a folder and write it.

    Args:
        path: of the index; made if it is not there.
        folder: of the images.
        files: its images that are to be in the index (`list_images`, `choose_images`).
        model: an `ImageTextModel` or anything with `encode_images` and `embed_dim`.
        reading: how files become samples.
        batch_size: images a step.
        workers: processes that read; 0 reads in this one.
        there: all images of the folder, of which `files` are some; None = `files`.
        prune: drop images that the folder does not have from the index. Kept by default: a folder may be unmounted.
        show_progress: draw a progress bar on stderr.
        tell: called with one sentence for each image that cannot be read.

    Returns:
        The index, and what was done. Stopped by an exception, what was embedded is written.

    Raises:
        UserError: the index is damaged, or was made by another model or reading, or of another folder.
    """
    facts = index_facts(model, reading, folder)
    index = read_index(path, facts=facts) if Path(path).exists() else empty_index(facts)
    known = {file.path: file for file in index.files}
    todo = [file for file in files if known.get(file.path) != file]
    present = {file.path for file in (files if there is None else there)}
    report = UpdateReport(kept=len(files) - len(todo), gone=[name for name in known if name not in present])
    writer = _IndexWriter(path, index)
    if report.gone and prune:
        writer.drop(set(report.gone))
    start = time.perf_counter()  # the bar counts no time when it is not drawn
    with tqdm(total=len(files), initial=report.kept, unit="image", disable=not show_progress) as bar, writer:
        for file, row in embed_files(folder, todo, model, reading, batch_size=batch_size, workers=workers):
            if isinstance(row, str):
                report.skipped[file.path] = row
                tell(f"skipped: {row}")
            else:
                writer.add(file, row)
                report.embedded += 1
            bar.update()
        report.seconds = time.perf_counter() - start
    # A file that has become unreadable must not be found by what it was.
    stale = {name for name in report.skipped if name in known}
    if stale:
        writer.drop(stale)
        writer.save()
    return writer.index, report


class _IndexWriter:
    """Collect rows and write them now and then; a context manager that writes what is left, also after an exception."""

    def __init__(self, path: str | Path, index: SearchIndex) -> None:
        self.path, self.index = path, index
        self.rows: list[np.ndarray] = []
        self.files: list[ImageFile] = []
        self.changed = not Path(path).exists()

    def __enter__(self) -> _IndexWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self.rows or self.changed:
            self.save()

    def add(self, file: ImageFile, row: np.ndarray) -> None:
        self.rows.append(row)
        self.files.append(file)
        if len(self.rows) >= max(_SAVE_EVERY, len(self.index) // 10):
            self.save()

    def drop(self, names: set[str]) -> None:
        stay = [number for number, file in enumerate(self.index.files) if file.path not in names]
        files = [self.index.files[number] for number in stay]
        self.index = SearchIndex(self.index.facts, self.index.embeddings[stay], files)
        self.changed = True

    def save(self) -> None:
        self.index = merge_rows(self.index.facts, self.index, self.rows, self.files)
        self.rows, self.files, self.changed = [], [], False
        write_index(self.path, self.index)


def embed_files(
    folder: str | Path,
    files: Sequence[ImageFile],
    model: Any,
    reading: ImageReading,
    *,
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[tuple[ImageFile, np.ndarray | str]]:
    """Yield each file with its embedding (D,) float32 of unit length, or with the sentence that says what is wrong."""
    paths = [str(Path(folder) / file.path) for file in files]
    start = 0
    for batch in read_batches(paths, reading, batch_size=batch_size, workers=workers):
        chosen = files[start : start + len(batch)]
        start += len(batch)
        yield from zip(chosen, _embed(model, batch), strict=True)


def _embed(model: Any, batch: Sequence[ModelInput | str]) -> list[np.ndarray | str]:
    """Embed what could be read; a sample that the model refuses is refused by itself."""
    found: list[np.ndarray | str] = [item if isinstance(item, str) else "" for item in batch]
    places = [place for place, item in enumerate(batch) if not isinstance(item, str)]
    items = [item for item in batch if not isinstance(item, str)]
    try:
        rows = encode(model, items)
    except UserError:
        rows = [_encode_one(model, item) for item in items]
    for place, row in zip(places, rows, strict=True):
        found[place] = row
    return found


def _encode_one(model: Any, item: ModelInput) -> np.ndarray | str:
    try:
        return encode(model, [item])[0]
    except UserError as error:
        return one_line(error)


def encode(model: Any, items: Sequence[ModelInput]) -> list[np.ndarray]:
    """Return one embedding (D,) float32 an image.

    Raises:
        UserError: from the model; or an embedding holds NaN, as images with NaN or weights of a failed training give.
    """
    if not items:
        return []
    with torch.inference_mode():
        rows = model.encode_images(items).float().cpu().numpy()
    if not np.isfinite(rows).all():
        names = [
            str(item.get("file_name", "?")) for item, row in zip(items, rows, strict=True) if not np.isfinite(row).all()
        ]
        raise UserError(f"image '{names[0]}' has no embedding: the model gives NaN")
    return list(rows)
