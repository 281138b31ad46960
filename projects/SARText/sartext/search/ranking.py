"""The nearest images of a query: exactly, block by block; or by FAISS where an index is too large for that."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np

from mmovseg.errors import UserError

Engine = Literal["auto", "exact", "faiss"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

_SCORES_AT_ONCE = 2**22  # 16 MiB, and some copies of them while they are sorted

FAISS_ABOVE = 1_000_000
"""Rows above which `auto` takes FAISS where it is installed; below, comparing all is quicker than sorting."""

_LISTS_VISITED = 32  # of 4 sqrt(N): the usual compromise of FAISS's own guide
_ROWS_A_LIST = 64  # that train its centres


def choose_engine(engine: Engine, rows: int) -> Literal["exact", "faiss"]:
    """Return what compares `rows` embeddings.

    Raises:
        UserError: an unknown engine, or FAISS was asked for and is not installed.
    """
    if engine not in ENGINES:
        raise UserError(f"engine is '{engine}', expected one of {', '.join(ENGINES)}")
    there = importlib.util.find_spec("faiss") is not None
    if engine == "faiss" and not there:
        raise UserError("FAISS is not installed: pip install faiss-cpu, or leave the engine to 'exact'")
    if engine == "auto":
        return "faiss" if there and rows > FAISS_ABOVE else "exact"
    return engine


def block_rows(queries: int) -> int:
    """Return how many rows to compare at once with so many queries, so that memory does not grow with either."""
    return max(1, min(65536, _SCORES_AT_ONCE // max(1, queries)))


def rank_exact(blocks: Iterable[np.ndarray], queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Compare each query with every row.

    Memory: one block, its scores, and the best `top` of each query, whatever the number of rows.

    Args:
        blocks: (n, D) float32 each, unit length, the rows in order.
        queries: (Q, D) float32, unit length.
        top: how many to return; fewer where there are fewer rows.

    Returns:
        Scores (Q, K) float32, cosines, descending; row numbers (Q, K) int64. Equal scores are in the order of the rows.
    """
    scores = np.zeros((len(queries), 0), dtype=np.float32)
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    start = 0
    for block in blocks:
        found = queries @ block.T
        numbers = np.broadcast_to(np.arange(start, start + len(block)), found.shape)
        start += len(block)
        scores = np.concatenate([scores, found], axis=1)
        rows = np.concatenate([rows, numbers], axis=1)
        # Rows come in order and the sort is stable, so of equal scores the first row stays.
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
    return scores, rows


def rank_faiss(blocks: Iterable[np.ndarray], queries: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Compare each query with the rows near it: approximate, some of the best may be missed.

    Rows are sorted into 4 sqrt(N) lists, of which each query visits 32. All rows lie in memory.

    Args:
        blocks: see `rank_exact`.
        queries: see `rank_exact`.
        top: see `rank_exact`.

    Returns:
        As `rank_exact`; -1 stands for a row that was not found.

    Raises:
        UserError: FAISS is not installed.
    """
    choose_engine("faiss", 0)
    faiss: Any = importlib.import_module("faiss")
    rows = np.ascontiguousarray(np.concatenate(list(blocks)), dtype=np.float32)
    lists = max(1, min(int(4 * math.sqrt(len(rows))), len(rows) // _ROWS_A_LIST))
    quantizer = faiss.IndexFlatIP(rows.shape[1])
    index = faiss.IndexIVFFlat(quantizer, rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).permutation(len(rows))[: lists * _ROWS_A_LIST]
    index.train(rows[np.sort(sample)])
    index.add(rows)
    index.nprobe = min(_LISTS_VISITED, lists)
    scores, numbers = index.search(np.ascontiguousarray(queries, dtype=np.float32), min(top, len(rows)))
    return scores, numbers.astype(np.int64)
