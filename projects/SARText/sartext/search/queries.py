"""Ask an index: texts or images in, ranked images with what is said of them out."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmovseg.atomic import atomic_write
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import read_captions, read_lines
from mmovseg.projects.sartext.search.embedding import encode
from mmovseg.projects.sartext.search.files import readable
from mmovseg.projects.sartext.search.index import SearchIndex
from mmovseg.projects.sartext.search.ranking import Engine, block_rows, choose_engine, rank_exact, rank_faiss
from mmovseg.projects.sartext.search.reading import ImageReading


@dataclass(frozen=True)
class Query:
    """What is looked for: a text, or an image file."""

    text: str = ""
    image: str = ""

    @property
    def label(self) -> str:
        """The text, or the name of the image, printable."""
        return self.text or readable(Path(self.image).name)

    def to_dict(self) -> dict[str, str]:
        return {"text": self.text} if self.text else {"image": readable(self.image)}


@dataclass(frozen=True)
class Match:
    """One found image. path: below the folder; score: cosine, -1..1; captions: what a caption file says of it."""

    rank: int
    score: float
    path: str
    captions: tuple[str, ...] = ()


def embed_queries(queries: Sequence[Query], model: Any, reading: ImageReading) -> np.ndarray:
    """Return (Q, D) float32 of unit length.

    Raises:
        UserError: there is no query, a text is empty, or an image cannot be read.
    """
    if not queries:
        raise UserError("there is nothing to look for: give a text or an image")
    texts = [query.text for query in queries if query.text]
    with torch.inference_mode():
        rows = iter(model.encode_texts(texts).float().cpu().numpy())
    return np.stack([next(rows) if query.text else encode(model, [reading.read(query.image)])[0] for query in queries])


def find_matches(
    index: SearchIndex,
    queries: Sequence[Query],
    embedded: np.ndarray,
    *,
    folder: str | Path,
    top: int = 10,
    engine: Engine = "auto",
    captions: Mapping[str, tuple[str, ...]] | None = None,
) -> list[list[Match]]:
    """Return the best images of each query, the best first.

    Args:
        index: what to look in; `SearchIndex.part` of one leaves out images.
        queries: Q of them.
        embedded: (Q, D), see `embed_queries`.
        folder: of the images; an image of it that is itself the query is not among its answers.
        top: how many; fewer where there are fewer images.
        engine: see `ranking.choose_engine`.
        captions: path -> captions, see `read_image_captions`.

    Raises:
        UserError: `top` below 1, no image to look in, or the engine is not there.
    """
    if top < 1:
        raise UserError(f"the number of answers must be at least 1, got {top}")
    if not len(index):
        raise UserError("the index holds no image")
    rank = rank_faiss if choose_engine(engine, len(index)) == "faiss" else rank_exact
    scores, rows = rank(index.blocks(block_rows(len(queries))), embedded, top + 1)
    answers = []
    for number, query in enumerate(queries):
        own = _own_path(query, Path(folder))
        found = [
            (index.files[row].path, float(score))
            for row, score in zip(rows[number].tolist(), scores[number].tolist(), strict=True)
            if row >= 0 and index.files[row].path != own
        ]
        answers.append(
            [
                Match(place, score, path, (captions or {}).get(path, ()))
                for place, (path, score) in enumerate(found[:top], start=1)
            ]
        )
    return answers


def _own_path(query: Query, folder: Path) -> str | None:
    """Return the path below the folder of a query that is one of its images."""
    if not query.image:
        return None
    try:
        return Path(query.image).resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return None


def read_image_captions(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Return path -> captions of a caption file, of both images of a pair.

    Raises:
        UserError: the file is bad, see `captioning.schema.read_captions`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for record in read_captions(path):
        for image in (record.image, record.optical_image):
            if image is not None:
                found[image] = record.captions
    return found


def read_texts(path: str | Path) -> list[str]:
    """Return the lines of a UTF-8 file that hold something.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or is empty.
    """
    texts = [text.strip() for _, text in read_lines(path)]
    if not texts:
        raise UserError(f"'{path}' holds no text to look for")
    return texts


def write_results(
    folder: str | Path,
    queries: Sequence[Query],
    answers: Sequence[Sequence[Match]],
    *,
    facts: Mapping[str, Any],
    skipped: Mapping[str, str],
) -> tuple[Path, Path]:
    """Write ``results.json`` and ``results.csv`` in UTF-8; return their paths.

    Of names that are not UTF-8 the odd bytes are written as escapes.

    Args:
        folder: made if it is not there.
        queries: Q of them.
        answers: theirs.
        facts: more for the JSON file, json-able.
        skipped: path -> why it was not looked in.

    Raises:
        UserError: a file cannot be written.
    """
    json_file, csv_file = Path(folder) / "results.json", Path(folder) / "results.csv"
    found = [
        {**query.to_dict(), "matches": [_match_dict(match) for match in matches]}
        for query, matches in zip(queries, answers, strict=True)
    ]
    content = {**facts, "skipped": {readable(path): why for path, why in skipped.items()}, "queries": found}
    with atomic_write(json_file) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    with (
        atomic_write(csv_file) as temporary,
        temporary.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("query", "rank", "score", "image", "caption"))
        for query, matches in zip(queries, answers, strict=True):
            for match in matches:
                caption = match.captions[0] if match.captions else ""
                writer.writerow((query.text or query.image, match.rank, f"{match.score:.6f}", match.path, caption))
    return json_file, csv_file


def _match_dict(match: Match) -> dict[str, Any]:
    content: dict[str, Any] = {"rank": match.rank, "score": round(match.score, 6), "image": readable(match.path)}
    return {**content, "captions": list(match.captions)} if match.captions else content
