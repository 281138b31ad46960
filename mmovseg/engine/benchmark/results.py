"""The file of results: one entry a row and machine, written anew after every row, so that a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmovseg.checkpoint.save import atomic_write
from mmovseg.errors import UserError

DONE, NOT_RUN, FAILED = "done", "not run", "failed"
_KEYS = ("name", "group", "kind", "status", "machine", "device", "threads", "digest", "measured")


class Results:
    """Entries of a results file.

    An entry has ``name``, ``group`` and ``kind`` of its row; ``settings``; ``digest`` of what was measured; ``status``
    (``done``, ``not run`` or ``failed``, both with a ``reason``); ``machine``, ``device``, ``threads``; ``commit`` and
    ``versions``; and ``measured``, what the row's kind gives.

    Args:
        path: JSON; need not exist.

    Raises:
        UserError: the file holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.entries: list[dict[str, Any]] = []
        if not self.path.is_file():
            return
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.entries = list(content["rows"])
            missing = [key for entry in self.entries for key in _KEYS if key not in entry]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{self.path}' is no file of benchmark results: {error}") from error
        if missing:
            raise UserError(f"'{self.path}' is no file of benchmark results: a row lacks '{missing[0]}'")

    def machines(self) -> list[tuple[str, str, int]]:
        """Return (device, machine, threads) of all machines, in the order of their first rows."""
        return list(dict.fromkeys((row["device"], row["machine"], row["threads"]) for row in self.entries))

    def of(self, machine: tuple[str, str, int]) -> dict[str, dict[str, Any]]:
        """Return the entries of one machine by name."""
        return {row["name"]: row for row in self.entries if (row["device"], row["machine"], row["threads"]) == machine}

    def put(self, entry: Mapping[str, Any], order: Iterable[str] = ()) -> None:
        """Add an entry, or replace that of the same row and machine, and write the file.

        Args:
            entry: see the class.
            order: names of rows in the order in which the file is to list those of a machine.

        Raises:
            UserError: the file cannot be written.
        """
        key = ("name", "device", "machine", "threads")
        self.entries = [row for row in self.entries if any(row[name] != entry[name] for name in key)]
        self.entries.append(dict(entry))
        place = {name: index for index, name in enumerate(order)}
        machines = self.machines()
        self.entries.sort(
            key=lambda row: (
                machines.index((row["device"], row["machine"], row["threads"])),
                place.get(row["name"], len(place)),
            )
        )
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps({"rows": _rounded(self.entries)}, indent=1) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Cut figures to six digits: a clock knows no more."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
