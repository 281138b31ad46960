"""Rows of results that are there already: what they may stand for, and a line that says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mmovseg.engine.table_rows import SETUP, read_header
from mmovseg.errors import UserError


class KeptRows:
    """The rows of one CSV that are taken as they are instead of being measured.

    Args:
        results: CSV.
        changed: the command line says how runs are made (overrides, given weights), so that a row without a hash, which
            does not tell how it was made, cannot stand for one of them.

    Raises:
        UserError: `changed`, but the rows of the CSV have no hash.
    """

    def __init__(self, results: str | Path, *, changed: bool) -> None:
        header = read_header(results)
        if changed and header and SETUP not in header:
            raise UserError(
                f"'{results}' does not tell how its rows were made (it has no column '{SETUP}'), so it can neither "
                "give nor take rows with overrides or given weights; name another file with --results"
            )
        self._results = results
        self._changed = changed
        self._taken: list[Mapping[str, str]] = []

    def take(self, row: Mapping[str, str], setup: Callable[[], str], what: str) -> None:
        """Let a row stand for what is asked for.

        Args:
            row: of the CSV.
            setup: returns the hash of all that would make this row now.
            what: names the row in messages.

        Raises:
            UserError: it was made in another way, or cannot tell.
        """
        found = row.get(SETUP)
        if found and found != setup():
            raise UserError(
                f"'{self._results}' holds {what}, measured with another config, overrides, parts or weights; remove "
                "that row or name another file with --results"
            )
        if self._changed and not found:
            raise UserError(
                f"'{self._results}' holds {what}, without the hash of how it was made, so that it cannot stand for one "
                "with overrides or given weights; name another file with --results"
            )
        self._taken.append(row)

    def tell(self) -> None:
        """Print how many rows were taken, and from which commits."""
        commits = ", ".join(dict.fromkeys(row["commit"] for row in self._taken if row.get("commit")))
        if self._taken:
            rows = "1 row" if len(self._taken) == 1 else f"{len(self._taken)} rows"
            measured = f", measured at commit {commits}" if commits else ""
            print(f"{rows} taken from '{self._results}'{measured}", flush=True)
