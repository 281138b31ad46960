"""Cross-validation of a table of runs: train on all folds but one, count every place of the one left out.

A table is a JSON file below ``configs/tables``: ``title``, ``dataset`` (keyword arguments of `load_ombria` that hold
for all), ``num_folds``, ``folds`` (which of them are held out), ``seed``, ``cloudy_from`` and ``overcast_from`` (cloud
cover of the later date from which a place counts as that; overcast places are cloudy ones too), ``runs`` (``name``,
``label``, ``config``, perhaps ``overrides``, and ``compared_with``, a run whose lead over this one is stated) and
``baselines`` (``name``, ``label``, perhaps ``minor``). Results are two CSV files: one row a run and fold, one row a run
and place. Every figure is computed from the second. Rows that are there are kept, unless their hash says that they were
made otherwise.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mmovseg.data.datasets.ombria import OmbriaReader, load_ombria
from mmovseg.data.datasets.ombria_facts import PlaceFacts, read_places
from mmovseg.engine.cli import train_main
from mmovseg.engine.table_reuse import KeptRows
from mmovseg.engine.table_rows import SETUP, append_rows, read_rows
from mmovseg.engine.table_trainings import describe_config, digest
from mmovseg.errors import UserError
from mmovseg.evaluation.flood_baselines import BASELINES, run_baseline
from mmovseg.evaluation.per_image import PER_IMAGE_FILE, read_per_image
from mmovseg.evaluation.provenance import source_commit

RUN_FIELDS = (
    "run", "fold", "seed", "places", "cloudy places", "IoU", "mIoU", "IoU cloudy", "IoU clear", "config",
    "config_sha256", "iterations", "seconds", "commit", "weights_sha256", "machine", SETUP,
)  # fmt: skip
PLACE_FIELDS = ("run", "fold", "seed", "place", "group", "cloud_after", "tn", "fp", "fn", "tp")

_RESAMPLES = 2000


@dataclass(frozen=True)
class PlaceCount:
    """What a run made of one held-out place: (2, 2) counts, rows truth, columns predicted, flooded second."""

    run: str
    fold: int
    place: str
    group: str
    cloud_after: float
    counts: np.ndarray


def read_fold_table(path: str | Path) -> dict[str, Any]:
    """Read a table's definition. Raises `UserError` when it is missing or lacks a key."""
    path = Path(path)
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        keys = ("title", "dataset", "num_folds", "folds", "seed", "cloudy_from", "overcast_from", "runs", "baselines")
        return {"name": path.stem, **{key: table[key] for key in keys}}
    except OSError as error:
        raise UserError(f"table '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"table '{path}' is not a table of folds: {error}") from error


def fill_fold_table(
    table: Mapping[str, Any],
    results: str | Path,
    output: str | Path,
    *,
    root: str | Path | None = None,
    overrides: Sequence[str] = (),
    only_folds: Sequence[int] | None = None,
) -> None:
    """Run what the CSV files do not hold yet, fold by fold.

    Args:
        table: from `read_fold_table`.
        results: CSV with a row a run and fold; the places go into ``<stem>_places.csv`` beside it.
        output: folder for the runs.
        root: folder of all data sets, None = `DETECTRON2_DATASETS`.
        overrides: ``key=value`` for every run.
        only_folds: measure only these of the table's folds; several processes may so share the work, each with its own
            `results`.

    Raises:
        UserError: a baseline that does not exist, a row that was measured in another way or, with `overrides`, does not
            tell how, or whatever a run raises.
    """
    results = Path(results)
    folds = [int(fold) for fold in table["folds"] if only_folds is None or fold in only_folds]
    for entry in table["runs"] if overrides and folds else ():
        _setup(table, entry, folds[0], overrides)  # a slip in the last one is told before hours of the first
    kept = KeptRows(results, changed=bool(overrides))
    reader = OmbriaReader()  # one for all baselines, which all look at the same places
    done = {(row["run"], row["fold"]): row for row in read_rows(results)}
    for fold, entry in product(folds, _entries(table)):
        row = done.get((entry["name"], str(fold)))
        if row is None:
            _measure(table, entry, fold, results, Path(output), root, overrides, reader)
        else:
            setup = partial(_setup, table, entry, fold, overrides)
            kept.take(row, setup, f"run '{entry['name']}', fold {fold}")
    kept.tell()


def places_path(results: str | Path) -> Path:
    """Return where the rows of single places lie, given the CSV of the runs."""
    return Path(results).with_name(f"{Path(results).stem}_places.csv")


def read_counts(results: str | Path) -> list[PlaceCount]:
    """Read the rows of single places."""
    return [
        PlaceCount(
            run=row["run"],
            fold=int(row["fold"]),
            place=row["place"],
            group=row["group"],
            cloud_after=float(row["cloud_after"]),
            counts=np.array([[row["tn"], row["fp"]], [row["fn"], row["tp"]]], dtype=np.int64),
        )
        for row in read_rows(places_path(results))
    ]


def flood_iou(counts: np.ndarray) -> float:
    """Return the IoU of the second class in percent from (2, 2) or (N, 2, 2) counts; NaN without such pixels."""
    total = counts.reshape(-1, 2, 2).sum(axis=0)
    union = int(total.sum() - total[0, 0])
    return 100.0 * float(total[1, 1]) / union if union else float("nan")


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean of both IoUs in percent."""
    total = counts.reshape(-1, 2, 2).sum(axis=0)
    return (flood_iou(total) + flood_iou(total[::-1, ::-1])) / 2


def bootstrap(rows: Sequence[PlaceCount], other: Sequence[PlaceCount] = (), *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the pooled IoU over redrawn groups of neighbouring places.

    Args:
        rows: of one run.
        other: of another run on the same places: the interval is then that of the difference, with the same draws.
        seed: of the draws.
    """
    groups = sorted({row.group for row in rows})
    table = np.stack([_sum_of(rows, group) for group in groups])
    against = np.stack([_sum_of(other, group) for group in groups]) if other else None
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(_RESAMPLES):
        drawn = rng.integers(len(groups), size=len(groups))
        values.append(flood_iou(table[drawn]) - (flood_iou(against[drawn]) if against is not None else 0.0))
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def to_markdown(table: Mapping[str, Any], counts: Sequence[PlaceCount], *, brief: bool = False) -> str:
    """Return the table: IoU of the flooded class over all places and by cloud cover with its interval, mIoU, folds.

    Args:
        table: from `read_fold_table`.
        counts: from `read_counts`.
        brief: leave out the folds, the differences between runs, and what the definition marks as `minor`.
    """
    parts = _parts(float(table["cloudy_from"]), float(table["overcast_from"]))
    by_run = {entry["name"]: [row for row in counts if row.run == entry["name"]] for entry in _entries(table)}
    first = next((rows for rows in by_run.values() if rows), [])
    sizes = {part: sum(map(keep, first)) for part, keep in parts.items()}
    lines = [
        f"| IoU flooded | {' | '.join(f'{part} ({sizes[part]} places)' for part in parts)} | mIoU |",
        "|---|" + "---:|" * (len(parts) + 1),
    ]
    if not brief:
        lines = [lines[0] + " by fold |", lines[1] + "---|"]
    for entry in _entries(table):
        rows = by_run[entry["name"]]
        if brief and entry.get("minor"):
            continue
        if not rows:
            lines.append(f"| {entry['label']} |" + " not run |" * (len(parts) + 2 - brief))
            continue
        cells = [_cell([row for row in rows if keep(row)]) for keep in parts.values()]
        folds = sorted({row.fold for row in rows})
        by_fold = ", ".join(f"{flood_iou(_stack(r for r in rows if r.fold == fold)):.1f}" for fold in folds)
        label = entry["label"] if len(rows) == sizes["all"] else f"{entry['label']}, {len(rows)} places so far"
        end = "" if brief else f" {by_fold} |"
        lines.append(f"| {label} | {' | '.join(cells)} | {mean_iou(_stack(rows)):.1f} |{end}")
    return "\n".join(lines if brief else [*lines, "", *_differences(table, by_run, parts)])


def _parts(cloudy_from: float, overcast_from: float) -> dict[str, Callable[[PlaceCount], bool]]:
    return {
        "all": lambda row: True,
        "clear": lambda row: row.cloud_after < cloudy_from,
        "cloudy": lambda row: row.cloud_after >= cloudy_from,
        "overcast": lambda row: row.cloud_after >= overcast_from,
    }


def _differences(
    table: Mapping[str, Any], by_run: Mapping[str, list[PlaceCount]], parts: Mapping[str, Any]
) -> list[str]:
    lines = []
    for entry in table["runs"]:
        better, other = entry.get("compared_with"), entry["name"]
        for part, keep in parts.items() if better else ():
            ours = [row for row in by_run[better] if keep(row)]
            theirs = [row for row in by_run[other] if keep(row)]
            if ours and {row.place for row in ours} == {row.place for row in theirs}:
                margin = flood_iou(_stack(ours)) - flood_iou(_stack(theirs))
                low, high = bootstrap(ours, theirs)
                lines.append(f"- {better} minus {other}, {part}: {margin:+.1f} [{low:+.1f}, {high:+.1f}]")
    return lines


def _measure(
    table: Mapping[str, Any],
    entry: Mapping[str, Any],
    fold: int,
    results: Path,
    output: Path,
    root: str | Path | None,
    overrides: Sequence[str],
    reader: OmbriaReader,
) -> None:
    options: dict[str, Any] = {**table["dataset"], "fold": fold, "num_folds": int(table["num_folds"])}
    test = load_ombria("val", root=root, **options)
    start = time.perf_counter()
    if "config" in entry:
        counts, facts = _train(table, entry, fold, output, overrides)
    elif entry["name"] in BASELINES:
        train = load_ombria("train", root=root, **options)
        counts, facts = run_baseline(entry["name"], train, test, reader), {"commit": source_commit()}
    else:
        raise UserError(f"there is no baseline '{entry['name']}'; there are: {', '.join(BASELINES)}")
    if set(counts) != {item["image_id"] for item in test}:
        raise UserError(f"run '{entry['name']}' was tested on other places than fold {fold} of the table")
    places = {place: row for (split, place), row in read_places(_base(options, root)).items() if split == "train"}
    facts |= {"seconds": round(time.perf_counter() - start), SETUP: _setup(table, entry, fold, overrides)}
    _write_rows(table, entry, fold, results, counts, places, facts)


def _base(options: Mapping[str, Any], root: str | Path | None) -> Path:
    from mmovseg.data.datasets.catalog import datasets_root

    return Path(root or datasets_root()) / str(options.get("folder", "ombria"))


def _train(
    table: Mapping[str, Any], entry: Mapping[str, Any], fold: int, output: Path, overrides: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    folder = output / f"{entry['name']}-fold{fold}"
    pattern = f"eval/*/*/{PER_IMAGE_FILE}"
    for former in folder.glob(pattern):
        former.unlink()  # maybe of another modality
    settings = [f"train.output_dir={folder}", "train.eval_period=0", "train.tensorboard=false"]
    trained = train_main(["--config-file", entry["config"], *settings, *_settings(table, entry, fold, overrides)])
    file = next(iter(sorted(folder.glob(pattern))), None)
    if file is None:
        raise UserError(f"config '{entry['config']}' needs the evaluator PerImageEvaluator for a table of folds")
    facts = json.loads(file.with_name("result.json").read_text(encoding="utf-8"))["provenance"]
    row = {
        "config": entry["config"],
        "config_sha256": str(facts.get("config_sha256") or "")[:12],
        "iterations": trained["iteration"],
        "commit": facts.get("git_commit"),
        "weights_sha256": str(facts.get("checkpoint_sha256") or "")[:12],
    }
    return read_per_image(file, 2), row


def _settings(table: Mapping[str, Any], entry: Mapping[str, Any], fold: int, overrides: Sequence[str]) -> list[str]:
    """Return the overrides of one training that bear on its figures."""
    folds = [f"dataloader.{part}.dataset.{key}={value}" for part in ("train", "test")
             for key, value in (("fold", fold), ("num_folds", table["num_folds"]))]  # fmt: skip
    return [*folds, f"train.seed={table['seed']}", *entry.get("overrides", ()), *overrides]


def _setup(table: Mapping[str, Any], entry: Mapping[str, Any], fold: int, overrides: Sequence[str]) -> str:
    """Return the hash of all that makes a row, cut to the length that rows keep; overrides reach no baseline."""
    made = {key: table[key] for key in ("dataset", "num_folds", "cloudy_from")} | {"fold": fold}
    if "config" in entry:
        made["config"] = describe_config(entry["config"], tuple(_settings(table, entry, fold, overrides)), ())
    return digest({**made, "name": None if "config" in entry else entry["name"]})[:12]


def _write_rows(
    table: Mapping[str, Any],
    entry: Mapping[str, Any],
    fold: int,
    results: Path,
    counts: Mapping[str, np.ndarray],
    places: Mapping[str, PlaceFacts],
    facts: Mapping[str, Any],
) -> None:
    cloudy = {place for place in counts if places[place].cloud_after >= float(table["cloudy_from"])}
    common = {"run": entry["name"], "fold": fold, "seed": table["seed"]}
    append_rows(
        places_path(results),
        [
            {**common, "place": place, "group": places[place].group, "cloud_after": places[place].cloud_after}
            | dict(zip(("tn", "fp", "fn", "tp"), matrix.ravel().tolist(), strict=True))
            for place, matrix in sorted(counts.items())
        ],
        PLACE_FIELDS,
    )
    groups = {"IoU": set(counts), "IoU cloudy": cloudy, "IoU clear": set(counts) - cloudy}
    ious = {name: flood_iou(np.stack([counts[p] for p in members])) for name, members in groups.items() if members}
    row = {**common, "places": len(counts), "cloudy places": len(cloudy), **facts}
    row |= {name: f"{value:.2f}" for name, value in ious.items()} | {
        "mIoU": f"{mean_iou(np.stack(list(counts.values()))):.2f}",
        "commit": str(facts.get("commit") or "")[:12],
        "machine": f"{platform.machine()}, cpu",
    }
    append_rows(results, [row], RUN_FIELDS)


def _entries(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*table["runs"], *table["baselines"]]


def _stack(rows: Iterable[PlaceCount]) -> np.ndarray:
    return np.stack([row.counts for row in rows])


def _sum_of(rows: Sequence[PlaceCount], group: str) -> np.ndarray:
    return _stack(row for row in rows if row.group == group).sum(axis=0)


def _cell(rows: Sequence[PlaceCount]) -> str:
    if not rows:
        return "-"
    low, high = bootstrap(rows)
    return f"{flood_iou(_stack(rows)):.1f} [{low:.1f}, {high:.1f}]"
