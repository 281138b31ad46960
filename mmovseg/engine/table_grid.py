"""Runs of a table as rows and columns, the way papers print models against benchmarks.

Key ``grid`` of a table:

``rows``     ``name``, ``label``; ``config``, ``evaluate``, ``overrides``, ``uses`` as of a run, ``reported`` as
             ``{column: figure}``. A row without ``config`` is not measured and only says what is reported.
``columns``  ``{column: {...}}`` with ``overrides`` that every row gets in this column; ``metric``, the figure in its
             cells, ``mIoU`` if left out; ``weights_of``: another column, whose training this one tests too
``tables``   one printed table each: ``title`` and ``columns``, in this order; the last column printed is their mean

Every row with a config makes a run ``<row>_<column>`` of every column, so that any of them can be measured alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmovseg.config.suggest import did_you_mean
from mmovseg.errors import UserError

_GRID_KEYS = {"rows", "columns", "tables"}
_ROW_KEYS = {"name", "label", "config", "evaluate", "overrides", "uses", "reported"}
_COLUMN_KEYS = {"overrides", "weights_of", "metric"}
_TABLE_KEYS = {"title", "columns"}


def grid_run(row: str, column: str) -> str:
    """Return the name of a cell's run: letters and digits of the column behind the row, ``l_Cr2R``."""
    return f"{row}_{re.sub(r'[^A-Za-z0-9]+', '', column)}"


def with_grid_runs(content: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return a table's content with the runs of its grid behind its own.

    Args:
        content: as read from JSON.
        path: of the file, for messages.

    Raises:
        UserError: the grid has an unknown key or names an unknown column.
    """
    grid = content.get("grid")
    if not grid:
        return dict(content)
    columns = grid["columns"]
    _check_grid(grid, path)
    runs = []
    for row in (row for row in grid["rows"] if "config" in row):
        for column, own in columns.items():
            run = {key: row[key] for key in ("config", "uses") if key in row}
            run |= {"name": grid_run(row["name"], column), "label": f"{row['label']}, {column}"}
            run |= {"evaluate": row.get("evaluate", ["sar"])}
            run["overrides"] = [*row.get("overrides", ()), *own.get("overrides", ())]
            if "weights_of" in own:
                run["weights_of"] = grid_run(row["name"], own["weights_of"])
            if column in row.get("reported", {}):
                run["reported"] = {grid_metric(grid, column): row["reported"][column]}
            runs.append(run)
    metrics = list(dict.fromkeys(grid_metric(grid, column) for column in columns))
    return {**content, "metrics": content.get("metrics", metrics), "runs": [*content.get("runs", ()), *runs]}


def grid_metric(grid: Mapping[str, Any], column: str) -> str:
    """Return what the cells of a column show."""
    return str(grid["columns"][column].get("metric", "mIoU"))


def _check_grid(grid: Mapping[str, Any], path: str) -> None:
    columns = grid["columns"]
    parts = [("the grid", grid, _GRID_KEYS)]
    parts += [(f"row '{row['name']}' of the grid", row, _ROW_KEYS) for row in grid["rows"]]
    parts += [(f"column '{name}' of the grid", column, _COLUMN_KEYS) for name, column in columns.items()]
    parts += [(f"'{table['title']}' of the grid", table, _TABLE_KEYS) for table in grid["tables"]]
    for name, part, known in parts:
        for key in part:
            if key not in known:
                raise UserError(f"table '{path}': {name} has an unknown key '{key}'" + _near(key, known))
    named = [column["weights_of"] for column in columns.values() if "weights_of" in column]
    named += [name for row in grid["rows"] for name in row.get("reported", {})]
    named += [name for table in grid["tables"] for name in table["columns"]]
    for name in named:
        if name not in columns:
            raise UserError(f"table '{path}': the grid has no column '{name}'" + _near(name, set(columns)))


def _near(key: str, known: set[str]) -> str:
    return did_you_mean(key, sorted(known))
