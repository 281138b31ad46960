"""What a table of runs may say: read from JSON, and checked before anything is trained.

A table is a JSON file below ``configs/tables``. Its keys:

``title``, ``seeds``, ``runs``; optional:
    ``reported``  where the figures to set beside the measured ones are from
    ``means``     rows with the mean of several runs: ``label``, ``runs``, ``reported``
    ``parts``     trainings that runs build on, see below
    ``metrics``   columns of the Markdown. Segmentation: of `METRICS`, or ``IoU-<class>``; others: keys under
                  ``metrics`` of their report, which are then the columns of the CSV too
    ``decimals``  digits after the point of a metric, 1 for those not named
    ``unit``      said in the heading, "percent" if left out
    ``report``    which report of an evaluation is read: one of `REPORTS`, ``segmentation`` if left out
    ``reports``   ``{loader: report}`` for loaders whose report is another one; not with segmentation
    ``loaders``   names of the config's test loaders, whose reports make one row; each metric then begins with the name
                  of its loader and a space. For segmentation: names of their evaluators' data sets; a metric is one of
                  `METRICS`, ``IoU-<class>``, or a key under ``metrics`` of the report
    ``averages``  ``{name: [metric, ...]}``, columns with the mean of others, told from the CSV and not kept in it
    ``grid``      runs as rows and columns of tables of their own: `mmovseg.engine.table_grid`
    ``results``   name of the CSV below ``results``, so that tables share the rows of runs that they have in common
    ``output``    name of the folder below ``output/tables``, so that tables share trainings

A run has ``name``, ``label``, ``config``, ``evaluate`` (modalities; the first is the run's own; a label only, which may
be left out, if the report is not of segmentation); optional:
    ``overrides``   ``key=value`` for the config
    ``uses``        ``{key: part}``: the file of a part becomes the value of a key of the config
    ``train``       false: evaluate the model as built, without training
    ``weights_of``  a run whose weights it tests instead of training its own
    ``checkpoint``  a file of the folder of given checkpoints, which the run only evaluates
    ``reported``    ``{metric: figure}`` to set beside the measured ones

A part is trained once a seed, before the runs that use it, and exported. It has ``name``, ``config`` and ``part`` (the
module of the trained model that is kept, "" for all of it); optional ``overrides`` and ``uses`` (parts above it).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmovseg.config.suggest import did_you_mean
from mmovseg.engine.table_grid import with_grid_runs
from mmovseg.errors import UserError

METRICS = ("mIoU", "mIoU-seen", "mIoU-unseen", "hIoU")
CLASS_METRIC = "IoU-"
REPORTS = ("segmentation", "encoder", "classification", "detection", "retrieval", "captioning", "vqa")

_TABLE_KEYS = {
    *("title", "seeds", "runs", "reported", "means", "parts"),
    *("metrics", "decimals", "unit", "report", "reports", "loaders", "averages", "grid", "results", "output"),
}
_RUN_KEYS = {
    *("name", "label", "config", "evaluate", "overrides"),
    *("uses", "train", "weights_of", "checkpoint", "reported"),
}
_PART_KEYS = {"name", "config", "part", "overrides", "uses"}


def read_table(path: str | Path) -> dict[str, Any]:
    """Read a table's definition.

    Args:
        path: JSON file, see above.

    Returns:
        The table, every optional key of a table filled in; ``name`` is that of the file.

    Raises:
        UserError: it is missing or not JSON, lacks a key or has one too many, or names an unknown run or part.
    """
    path = Path(path)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content = with_grid_runs(content, str(path))
        table = {
            "name": path.stem,
            "title": content["title"],
            "seeds": list(content["seeds"]),
            "runs": [_with_modalities(run, content) for run in content["runs"]],
            "parts": [dict(part) for part in content.get("parts", ())],
            "means": [dict(mean) for mean in content.get("means", ())],
            "reported": str(content.get("reported", "")),
            "metrics": list(content.get("metrics", METRICS)),
            "decimals": dict(content.get("decimals", {})),
            "unit": str(content.get("unit", "percent")),
            "report": str(content.get("report", "segmentation")),
            "reports": {loader: str(kind) for loader, kind in content.get("reports", {}).items()},
            "loaders": list(content.get("loaders", ())),
            "averages": {name: list(metrics) for name, metrics in content.get("averages", {}).items()},
            "grid": dict(content.get("grid", {})),
            "results": str(content.get("results", path.stem)),
        }
        table["output"] = str(content.get("output", table["results"]))
        _check_keys(content, _TABLE_KEYS, f"table '{path}'")
        _check_names(table, str(path))
        _check_metrics(table, content, str(path))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"table '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"table '{path}' needs JSON with title, seeds and runs: {error}") from error
    return table


def _with_modalities(run: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Give a run its label for the column of modalities where no command line needs one."""
    report = content.get("report", "segmentation")
    if report == "segmentation":
        return dict(run)
    label = "+".join(content.get("loaders", ())) or ("sar" if report == "encoder" else "both")
    return {"evaluate": [label], **run}


def _check_keys(content: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise UserError(f"{where} has an unknown key '{key}'{did_you_mean(key, sorted(known))}")


def _check_names(table: Mapping[str, Any], path: str) -> None:
    runs, parts = table["runs"], table["parts"]
    for kind, entries, keys, needed in (
        ("run", runs, _RUN_KEYS, ("name", "label", "config", "evaluate")),
        ("part", parts, _PART_KEYS, ("name", "config", "part")),
    ):
        for entry in entries:
            _check_keys(entry, keys, f"table '{path}': {kind} '{entry.get('name', '?')}'")
            for key in needed:
                if key not in entry:
                    raise UserError(f"table '{path}': {kind} '{entry.get('name', '?')}' lacks '{key}'")
    names = [run["name"] for run in runs]
    every = [*names, *(part["name"] for part in parts)]
    doubled = sorted({name for name in every if every.count(name) > 1})
    if doubled:  # runs and parts have one folder each, named after them
        raise UserError(f"table '{path}' has more than one run or part '{doubled[0]}'")
    named = [run["weights_of"] for run in runs if "weights_of" in run]
    named += [name for mean in table["means"] for name in mean["runs"]]
    unknown = sorted(set(named) - set(names))
    if unknown:
        raise UserError(f"table '{path}' has no run '{unknown[0]}'; it has: {', '.join(names)}")
    _check_uses(runs, parts, path)
    for run in runs:
        if not run.get("train", True) and {"weights_of", "checkpoint"} & set(run):
            raise UserError(f"table '{path}': run '{run['name']}' has train false, so it takes no other weights")


def _check_uses(runs: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]], path: str) -> None:
    above: list[str] = []
    for part in parts:
        for name in part.get("uses", {}).values():
            if name not in above:
                raise UserError(f"table '{path}': part '{part['name']}' uses '{name}', which is no part above it")
        above.append(part["name"])
    for run in runs:
        for name in run.get("uses", {}).values():
            if name not in above:
                has = ", ".join(above) or "none"
                raise UserError(f"table '{path}': run '{run['name']}' uses the part '{name}'; the table has: {has}")


def _check_metrics(table: Mapping[str, Any], content: Mapping[str, Any], path: str) -> None:
    if table["report"] not in REPORTS:
        raise UserError(f"table '{path}': report '{table['report']}' must be one of {', '.join(REPORTS)}")
    if table["report"] != "segmentation" and not content.get("metrics"):
        raise UserError(f"table '{path}' reads reports of kind '{table['report']}' and has to name its 'metrics'")
    if table["loaders"] or table["reports"]:
        _check_loaders(table, path)
    of_one_report = table["report"] == "segmentation" and not table["loaders"]
    for metric in table["metrics"] if of_one_report else ():
        if metric not in METRICS and not metric.startswith(CLASS_METRIC):
            raise UserError(
                f"table '{path}': metric '{metric}' must be one of {', '.join(METRICS)} or {CLASS_METRIC}<class>"
            )
    given = [*table["decimals"]] + [key for row in (*table["runs"], *table["means"]) for key in row.get("reported", {})]
    _check_averages(table, path)
    for metric in given:
        if metric not in (*table["metrics"], *table["averages"]):
            raise UserError(f"table '{path}' gives a figure or digits for '{metric}', which is none of its metrics")
    for name in (table["results"], table["output"]):
        if not name or Path(name).name != name:
            raise UserError(f"table '{path}': '{name}' must be a plain name, without folders")


def _check_averages(table: Mapping[str, Any], path: str) -> None:
    for name, metrics in table["averages"].items():
        wrong = [metric for metric in metrics if metric not in table["metrics"]]
        if wrong or not metrics or name in table["metrics"]:
            what = f"'{wrong[0]}', which is none of its metrics" if wrong else "nothing, or has the name of a metric"
            raise UserError(f"table '{path}': average '{name}' is of {what}")


def _check_loaders(table: Mapping[str, Any], path: str) -> None:
    for name in table["loaders"]:
        if not name or " " in name or table["loaders"].count(name) > 1:
            raise UserError(f"table '{path}': loader '{name}' must be one word, named once")
    for name, kind in table["reports"].items():
        if name not in table["loaders"] or "segmentation" in (kind, table["report"]) or kind not in REPORTS:
            raise UserError(
                f"table '{path}': report '{kind}' of '{name}' must be one of {', '.join(REPORTS[1:])}, of one of its "
                "loaders, in a table that is not of segmentation"
            )
    for metric in table["metrics"]:
        if metric.split(" ")[0] not in table["loaders"]:
            raise UserError(
                f"table '{path}': metric '{metric}' must begin with the name of a loader: {', '.join(table['loaders'])}"
            )
