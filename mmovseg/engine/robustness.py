"""How models bear clouds and badly registered SAR: sweeps of evaluations, one CSV row each, Markdown from the CSV.

A sweep is a JSON file below ``configs/tables``: ``title``, ``seeds``, ``scenes`` (the first so many of the test set,
null = all), ``cover`` (``kind`` of cloud, ``percent``, and those of ``columns`` for the Markdown), ``shift_px``, and
``runs`` with ``name``, ``label``, ``config``, optional ``overrides``, optional ``checkpoint`` (a file or ``shipped://``
name; ``{seed}`` is filled in; a run without one is trained), and for each of the sweeps ``cover``, ``shift`` and
``margin`` the modalities to test with.

cover: made-up clouds of one kind and growing cover replace those of the test loader; noise, edges and colour of a
    scene's cloud stay the same for all covers and models.
shift: SAR moved by whole pixels (`ShiftedSar`), under the clouds of the test loader.
margin: control of the shift: the same margin of SAR is missing, nothing is moved; 0 px is that of the shift.

Each row holds a 95 % interval from a bootstrap over scenes, which says nothing of the spread between trainings.
What a sweep cannot change (SAR alone under clouds, optical alone or another place's SAR when SAR moves) is evaluated
once; its `value` is ``any``. Rows are appended as they finish, so that a stopped sweep goes on where it was.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from omegaconf import DictConfig

from mmovseg.checkpoint.load import file_sha256
from mmovseg.config import apply_overrides, config_hash, config_to_dict, instantiate, load_config
from mmovseg.config.instantiate import TARGET, resolve_target
from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.perturb import SarOfAnother, ShiftedSar, shuffle_sar
from mmovseg.data.sample import EVALUATION_MODALITIES, Reader
from mmovseg.engine.cli import train_main
from mmovseg.engine.evaluation import evaluate, test_nodes
from mmovseg.engine.hooks import FINAL_FILE
from mmovseg.engine.provenance import device_name, result_facts
from mmovseg.engine.run import autocast_for, build_model, prepare
from mmovseg.engine.table_reuse import KeptRows
from mmovseg.engine.table_rows import SETUP
from mmovseg.engine.table_trainings import Trainings, digest, read_note
from mmovseg.engine.tables import METRICS, append_row, read_rows
from mmovseg.errors import UserError
from mmovseg.evaluation.bootstrap import bootstrap_intervals
from mmovseg.evaluation.per_image import PerImageEvaluator
from mmovseg.evaluation.provenance import source_commit
from mmovseg.evaluation.sem_seg import OVSegEvaluator
from mmovseg.weights import resolve

SweepName = Literal["cover", "shift", "margin"]
SWEEPS: tuple[SweepName, ...] = get_args(SweepName)
ANY = "any"
_KEY = ("run", "seed", "sweep", "kind", "value", "modality")
_UNTOUCHED = {("cover", "sar"), ("shift", "optical"), ("shift", "shuffled-sar"), ("margin", "optical")}
INTERVALS = tuple(f"{metric} {end}" for metric in METRICS for end in ("low", "high"))
FIELDS = (
    "table", "sweep", "kind", "value", "run", "seed", "modality", *METRICS, *INTERVALS, "config", "config_sha256",
    "data", "images", "seconds", "commit", "weights_sha256", "machine", SETUP,
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One evaluation of a run: `value` is a cover in percent or a shift in pixels, as text, or ``any``."""

    sweep: SweepName
    kind: str
    value: str
    modality: str


@dataclass
class _Shared:
    """What all evaluations of one process share: rendered or listed test data, by what describes them."""

    data: dict[str, tuple[list[dict[str, Any]], Reader]] = field(default_factory=dict)


def read_sweep(path: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """Read a sweep's definition.

    Args:
        path: JSON file.
        kind: of the clouds, instead of that of the file.

    Raises:
        UserError: the file is missing, lacks a key, or names an unknown modality.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        sweep = {
            "name": path.stem,
            "title": str(content["title"]),
            "seeds": [int(seed) for seed in content["seeds"]],
            "scenes": content.get("scenes"),
            "kind": kind or str(content["cover"]["kind"]),
            "percent": [int(value) for value in content["cover"]["percent"]],
            "columns": [int(value) for value in content["cover"].get("columns") or content["cover"]["percent"]],
            "shift_px": [int(value) for value in content.get("shift_px", ())],
            "runs": [{**run, "name": str(run["name"]), "config": str(run["config"])} for run in content["runs"]],
        }
    except OSError as error:
        raise UserError(f"sweep '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"sweep '{path}' needs JSON with title, seeds, cover and runs: {error}") from error
    for run in sweep["runs"]:
        for modality in (name for part in SWEEPS for name in run.get(part, ())):
            if modality not in EVALUATION_MODALITIES:
                raise UserError(
                    f"sweep '{path}': run '{run['name']}' is to be tested with '{modality}'; known: "
                    f"{', '.join(EVALUATION_MODALITIES)}"
                )
    CloudSynthesizer(kind=sweep["kind"])  # an unknown kind is told before minutes of work
    return sweep


def points_of(sweep: Mapping[str, Any], run: Mapping[str, Any]) -> list[Point]:
    """Return all evaluations of one run and seed, each once."""
    values = {"cover": sweep["percent"], "shift": sweep["shift_px"]}
    values["margin"] = [value for value in sweep["shift_px"] if value != 0]
    points: dict[Point, None] = {}
    for part in SWEEPS:
        for modality in run.get(part, ()):
            for value in values[part]:
                shown = ANY if (part, modality) in _UNTOUCHED else str(value)
                points[Point(part, sweep["kind"] if part == "cover" else "", shown, modality)] = None
    return list(points)


def fill_sweep(
    sweep: Mapping[str, Any],
    results: str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """Evaluate what the CSV does not hold yet, training the runs that have no weights, and return all rows.

    Args:
        sweep: from `read_sweep`.
        results: CSV to append to.
        output: folder for the runs that have to be trained; ``<run>-seed<seed>`` that lie there are used, unless a note
            beside them says that they were trained otherwise, or there are `overrides` and no note.
        overrides: ``key=value`` for every config.
        only: names of the runs to measure, None = all.

    Raises:
        UserError: `only` names a run that the sweep does not have, a config or checkpoint is not usable, or a row was
            measured in another way or, with `overrides`, does not tell how.
    """
    names = [run["name"] for run in sweep["runs"]]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise UserError(f"sweep '{sweep['name']}' has no run '{unknown[0]}'; it has: {', '.join(names)}")
    runs = [run for run in sweep["runs"] if only is None or run["name"] in only]
    trainings = Trainings(sweep, output, overrides=overrides, start=train_main)
    for run in runs:
        trainings.check_overrides(run)  # a slip in the last one is told before hours of the first
    kept = KeptRows(results, changed=bool(overrides))
    known = {tuple(row[name] for name in _KEY): row for row in read_rows(results)}
    shared = _Shared()
    for seed, run in product(sweep["seeds"], runs):
        missing = []
        for point in points_of(sweep, run):
            row = known.get((run["name"], str(seed), point.sweep, point.kind, point.value, point.modality))
            if row is None:
                missing.append(point)
            else:
                what = f"run '{run['name']}', seed {seed}, {point.sweep} {point.value}, {point.modality}"
                kept.take(row, partial(_setup, sweep, run, seed, trainings), what)
        if missing:
            checkpoint = _checkpoint(run, seed, trainings, changed=bool(overrides))
            setup = _setup(sweep, run, seed, trainings)
            for row in _measure(sweep, run, seed, missing, checkpoint, overrides, shared):
                append_row(results, {**row, SETUP: setup}, FIELDS)
    kept.tell()
    return read_rows(results)


def _setup(sweep: Mapping[str, Any], run: Mapping[str, Any], seed: int, trainings: Trainings) -> str:
    """Return the hash of all that makes the rows of a run, cut to the length that rows keep."""
    made = trainings.row_sha256(run, seed, given=_given(run, seed))
    return digest({"run": made, "scenes": sweep["scenes"]})[:12]


def _given(run: Mapping[str, Any], seed: int) -> str | None:
    """Return the weights that the sweep names for a run, None when it is to be trained.

    Raises:
        UserError: they do not exist.
    """
    if run.get("checkpoint") is None:
        return None
    given = str(run["checkpoint"]).replace("{seed}", str(seed))
    if not resolve(given).is_file():
        raise UserError(f"checkpoint '{given}' does not exist")
    return given


def _measure(
    sweep: Mapping[str, Any],
    run: Mapping[str, Any],
    seed: int,
    points: Sequence[Point],
    checkpoint: str,
    overrides: Sequence[str],
    shared: _Shared,
) -> Iterator[dict[str, Any]]:
    """Evaluate points of one run and seed with one model; yield a row each."""
    changes = [*run.get("overrides", ()), *overrides, f"train.seed={seed}"]
    config = load_config(run["config"])
    apply_overrides(config, changes)
    name, loader, evaluator = _only_test(config, run["config"])
    context = prepare(config, run["config"])
    model = build_model(context, checkpoint=checkpoint)
    dataset, reader = _test_data(config, loader, sweep["scenes"], shared)
    facts = result_facts(
        config_file=run["config"],
        config_sha256=config_hash(config),
        seed=seed,
        device=context.device,
        checkpoint=checkpoint,
    )
    fixed = {
        "table": sweep["name"],
        "run": run["name"],
        "seed": seed,
        "config": run["config"],
        "config_sha256": facts["config_sha256"][:12],
        "data": evaluator.get("dataset_name") or name,
        "images": len(dataset),
        "commit": str(source_commit() or "")[:12],
        "weights_sha256": file_sha256(checkpoint)[:12],
        "machine": f"{platform.machine()}, {device_name(context.device)}",
    }
    for point in points:
        start = time.perf_counter()
        judge = _evaluator(evaluator, point, facts)
        tests = {name: (_loader(loader, dataset, reader, point), judge)}
        metrics = evaluate(model, tests, autocast_for(context))[name]["sem_seg"]
        seconds = time.perf_counter() - start
        shown = f"{point.sweep} {point.value}{' ' + point.kind if point.kind else ''}, {point.modality}"
        print(f"{run['name']} seed {seed}: {shown}: mIoU {metrics['mIoU']:.1f} ({seconds:.0f} s)", flush=True)
        yield {
            **fixed,
            "sweep": point.sweep,
            "kind": point.kind,
            "value": point.value,
            "modality": point.modality,
            **{key: _percent(metrics[key]) for key in METRICS},
            **_intervals(judge),
            "seconds": round(seconds, 1),
        }


def _checkpoint(run: Mapping[str, Any], seed: int, trainings: Trainings, *, changed: bool) -> str:
    """Return the weights of a run, training them if they are to be trained and do not lie in the folder yet.

    Raises:
        UserError: what lies there was trained otherwise or, when it may have been (`changed`), does not tell how.
    """
    given = _given(run, seed)
    if given is not None:
        return given
    file = trainings.folder(run, seed) / FINAL_FILE
    if file.is_file():
        setup = read_note(file.parent).get("setup_sha256")
        if setup == trainings.training_sha256(run, seed) or (setup is None and not changed):
            return str(file)
        told = "does not tell how it was trained" if setup is None else "was trained with another config or overrides"
        raise UserError(f"'{file}' {told}; remove it or name another folder with --output")
    return str(trainings.weights(run, seed).checkpoint)


def _only_test(config: DictConfig, source: str) -> tuple[str, DictConfig, DictConfig]:
    nodes = test_nodes(config)
    if len(nodes) != 1:
        raise UserError(f"config '{source}' has {len(nodes)} test loaders; a sweep needs exactly one")
    ((name, (loader, evaluator)),) = nodes.items()
    for part, node in (("dataset", loader.get("dataset")), ("reader", (loader.get("mapper") or {}).get("reader"))):
        if node is None:
            raise UserError(f"config '{source}': its test loader has no {part}, which a sweep needs")
    return name, loader, evaluator


def _test_data(
    config: DictConfig, loader: DictConfig, scenes: int | None, shared: _Shared
) -> tuple[list[dict[str, Any]], Reader]:
    """Build data set and reader once for all runs that describe them alike, so that scenes are rendered once."""
    plain = config_to_dict(config)["dataloader"]["test"]
    plain = plain if "dataset" in plain else next(iter(plain.values()))
    key = json.dumps([plain["dataset"], plain["mapper"]["reader"]], sort_keys=True, default=str)
    if key not in shared.data:
        shared.data[key] = (list(instantiate(loader.dataset))[:scenes], instantiate(loader.mapper.reader))
    return shared.data[key]


def _loader(loader: DictConfig, dataset: list[dict[str, Any]], reader: Reader, point: Point) -> Any:
    """Build the test loader of a point around the shared data."""
    mapper = {key: loader.mapper[key] for key in loader.mapper}
    if point.modality == "shuffled-sar":
        dataset, reader = shuffle_sar(dataset=dataset), SarOfAnother(reader=reader)
    mapper["modality"] = "both" if point.modality == "shuffled-sar" else point.modality
    if point.sweep == "cover" and point.value != ANY:
        kind: Any = point.kind
        mapper["clouds"] = CloudSynthesizer(kind=kind, coverage=int(point.value) / 100)
    elif point.sweep != "cover" and point.value != ANY:
        reader = ShiftedSar(reader=reader, shift_px=int(point.value), only_margin=point.sweep == "margin")
    mapper["reader"] = reader
    return instantiate({**{key: loader[key] for key in loader}, "dataset": dataset, "mapper": mapper})


def _evaluator(evaluator: DictConfig, point: Point, facts: Mapping[str, Any]) -> Any:
    arguments = {key: evaluator[key] for key in evaluator}
    if resolve_target(evaluator[TARGET]) is OVSegEvaluator:
        arguments[TARGET] = PerImageEvaluator
    return instantiate({**arguments, "modality": point.modality, "output_dir": None, "provenance": dict(facts)})


def _intervals(evaluator: Any) -> dict[str, str]:
    """Return 95 % intervals over scenes; the draws are the same for all points of a test set."""
    if not isinstance(evaluator, PerImageEvaluator):
        return {}
    found = bootstrap_intervals(list(evaluator.per_image.values()), evaluator.vocabulary)
    shown: dict[str, str] = {}
    for metric in METRICS:
        interval = found[metric]
        for end, value in zip(("low", "high"), interval or (), strict=False):
            shown[f"{metric} {end}"] = _percent(value)
    return shown


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
