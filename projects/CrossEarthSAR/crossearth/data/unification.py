"""Class unification: what a class of a data set is called in a benchmark.

The table `unification.json` is data: benchmark vocabulary -> class list of a data set -> class -> class of the
benchmark, or null for "ignore". The paper does not write its own down; ours follows the names of the classes, their
colours and the legends of the paper's figures. A file of the same form replaces parts of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.data.text import read_text
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError

TABLE_FILE = Path(__file__).with_name("unification.json")
UNLABELLED = "unlabelled"
"""Stands for pixels without a label in a table; where it is not named they are ignored."""

ClassTable = Mapping[str, str | None]
Unification = dict[str, dict[str, ClassTable]]


def read_unification(path: str | Path | None = None) -> Unification:
    """Read the table, with the parts of `path` in place of ours.

    Args:
        path: a JSON file of the same form; of each benchmark vocabulary it may hold any of the class lists.

    Raises:
        UserError: the file cannot be read, is not such JSON, or names a vocabulary or class list that ours lacks.
    """
    table = {classes: dict(parts) for classes, parts in _own().items()}
    if path is None:
        return table
    for classes, parts in _read(Path(path)).items():
        if classes not in table:
            raise UserError(
                f"class table '{path}' has the unknown benchmark vocabulary '{classes}'; known: {', '.join(table)}"
            )
        for name, names in parts.items():
            if name not in table[classes]:
                raise UserError(
                    f"class table '{path}' has the unknown class list '{name}' under '{classes}'; known: "
                    f"{', '.join(table[classes])}"
                )
            table[classes][name] = names
    return table


def label_map(classes: str, vocabulary: str, *, path: str | Path | None = None) -> dict[int, int]:
    """Return stored class id -> class id of a benchmark, or 255.

    Args:
        classes: vocabulary of the benchmark, for example ``crossearth_cover6``.
        vocabulary: that of the data set, for example ``oem``.
        path: see `read_unification`.

    Returns:
        One entry for each class of `vocabulary`, and one for 255.

    Raises:
        UserError: there is no such table, it lacks a class of the data set, or it names an unknown class.
    """
    table = read_unification(path)
    where = f"class table '{path or TABLE_FILE.name}' ({classes}, {vocabulary})"
    if vocabulary not in table.get(classes, {}):
        raise UserError(f"{where} does not exist: no benchmark unifies these classes")
    names, stored, wanted = table[classes][vocabulary], get_vocabulary(vocabulary).names, get_vocabulary(classes).names
    for name in stored:
        if name not in names:
            raise UserError(f"{where} lacks the class '{name}'; give null for a class that shall be ignored")
    for name, target in names.items():
        if name not in (*stored, UNLABELLED):
            raise UserError(f"{where} names the class '{name}'; the data set has: {', '.join(stored)}")
        if target is not None and target not in wanted:
            raise UserError(f"{where} maps '{name}' to '{target}'; the benchmark has: {', '.join(wanted)}")
    ids = {name: IGNORE_LABEL if target is None else wanted.index(target) for name, target in names.items()}
    return {number: ids[name] for number, name in enumerate(stored)} | {IGNORE_LABEL: ids.get(UNLABELLED, IGNORE_LABEL)}


@cache
def _own() -> Unification:
    return _read(TABLE_FILE)


def _read(path: Path) -> Unification:
    text = read_text(path, "class table")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"class table '{path}' is not valid JSON: {error}") from error
    if not _is_table(content):
        raise UserError(
            f"class table '{path}' must be JSON of the form "
            '{"crossearth_cover6": {"oem": {"tree": "greenery", "road": null, ...}}}'
        )
    return dict(content)


def _is_table(content: object) -> bool:
    parts = [part for part in content.values()] if isinstance(content, dict) else [None]
    tables = [table for part in parts for table in (part.values() if isinstance(part, dict) else [None])]
    return all(
        isinstance(table, dict) and all(target is None or isinstance(target, str) for target in table.values())
        for table in tables
    )
