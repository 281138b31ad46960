"""Tables of measured runs: train and evaluate what is missing, one CSV row an evaluation, Markdown from the CSV.

What a table may say: `mmovseg.engine.table_definition`. Rows are appended as they finish and trainings are kept, so
that a stopped table goes on where it was. `peak_memory_mb` is that of the process so far: with several runs in one
process, an upper bound for the later ones. Two processes may fill one table if they take different seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmovseg.checkpoint.load import read_metadata
from mmovseg.engine.cli import train_main
from mmovseg.engine.table_definition import METRICS, read_table
from mmovseg.engine.table_reuse import KeptRows
from mmovseg.engine.table_rows import (
    FIELDS,
    append_classes,
    append_row,
    classes_file,
    encoder_row,
    facts_of,
    fields_of,
    loaders_row,
    read_classes,
    read_rows,
    segmentation_row,
    with_classes,
)
from mmovseg.engine.table_text import mean_and_spread, to_markdown, write_summary
from mmovseg.engine.table_trainings import Trained, Trainings
from mmovseg.errors import UserError
from mmovseg.evaluation.report import safe_name

__all__ = [
    "FIELDS", "METRICS", "append_row", "classes_file", "fill_table", "mean_and_spread", "read_classes", "read_rows",
    "read_table", "table_rows", "to_markdown", "write_summary",
]  # fmt: skip


def table_rows(results: str | Path) -> list[dict[str, str]]:
    """Return the rows of a CSV with the IoU of single classes from the file beside it, where there is one."""
    return with_classes(read_rows(results), read_classes(classes_file(results)))


def fill_table(
    table: Mapping[str, Any],
    results: str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    checkpoints: str | Path | None = None,
    skip: Callable[[str, str], None] | None = None,
) -> list[dict[str, str]]:
    """Run what the CSV does not hold yet and return all rows.

    Args:
        table: from `read_table`.
        results: CSV to append to.
        output: folder for the runs.
        overrides: ``key=value`` for every run and part.
        only: names of the runs to measure, None = all.
        seeds: seeds to measure, None = those of the table.
        checkpoints: folder of given weights, ``<run>.safetensors`` or what the run says under `checkpoint`: nothing is
            trained then, and a run whose file is not there stays unmeasured.
        skip: called with name and reason of a run that cannot be done, and the table goes on; None stops it.

    Raises:
        UserError: `only` names a run that the table does not have, the folder has no checkpoint of the table, the table
            needs such a folder and has none, a run cannot be done, or the CSV holds it measured in another way, or in
            a way that it does not tell while there are `overrides` or `checkpoints`.
    """
    names = [run["name"] for run in table["runs"]]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise UserError(f"table '{table['name']}' has no run '{unknown[0]}'; it has: {', '.join(names)}")
    chosen = [run for run in table["runs"] if only is None or run["name"] in only]
    if checkpoints is not None:
        chosen = _with_checkpoint(chosen, Path(checkpoints), skip)
    trainings = Trainings(table, output, overrides=overrides, start=train_main)
    chosen = _with_overrides(chosen, trainings, skip, with_parts=checkpoints is None)
    kept = KeptRows(results, changed=bool(overrides) or checkpoints is not None)
    sitting = _Sitting(table, Path(results), trainings, None if checkpoints is None else Path(checkpoints), kept)
    for seed in table["seeds"] if seeds is None else seeds:
        for run in chosen:
            try:
                missing = sitting.missing(run, seed)
                if missing:
                    sitting.measure(run, seed, missing)
            except UserError as error:
                if skip is None:
                    raise
                skip(run["name"], str(error))
    kept.tell()
    return read_rows(results)


def _with_overrides(
    runs: Sequence[Mapping[str, Any]],
    trainings: Trainings,
    skip: Callable[[str, str], None] | None,
    *,
    with_parts: bool,
) -> list[Mapping[str, Any]]:
    """Return the runs whose configs take the overrides: a slip in the last one is told before hours of the first."""
    able = []
    for run in runs:
        try:
            trainings.check_overrides(run, with_parts=with_parts)
            able.append(run)
        except UserError as error:
            if skip is None:
                raise
            skip(run["name"], str(error))
    return able


def _with_checkpoint(
    runs: Sequence[Mapping[str, Any]], folder: Path, skip: Callable[[str, str], None] | None
) -> list[Mapping[str, Any]]:
    missing = {run["name"]: file for run in runs if not (file := _given_file(run, folder)).is_file()}
    if runs and len(missing) == len(runs):
        raise UserError(
            f"folder '{folder}' has no checkpoint of this table, for example '{_given_file(runs[0], folder)}'"
        )
    for name, file in missing.items():
        if skip is not None:
            skip(name, f"checkpoint '{file}' does not exist")
    return [run for run in runs if run["name"] not in missing]


def _given_file(run: Mapping[str, Any], folder: Path) -> Path:
    return folder / str(run.get("checkpoint", f"{run['name']}.safetensors"))


@dataclass(frozen=True)
class _Sitting:
    """One call of `fill_table`: what it fills and where its weights come from (`checkpoints` None = trained here)."""

    table: Mapping[str, Any]
    results: Path
    trainings: Trainings
    checkpoints: Path | None
    kept: KeptRows

    @property
    def of_segmentation(self) -> bool:
        return bool(self.table.get("report", "segmentation") == "segmentation")

    def setup(self, run: Mapping[str, Any], seed: int) -> str:
        """Return the hash of all that makes a row, cut to the length that rows keep."""
        given = None if self.checkpoints is None else _given_file(run, self.checkpoints)
        return self.trainings.row_sha256(run, seed, given=given)[:12]

    def missing(self, run: Mapping[str, Any], seed: int) -> list[str]:
        """Return the modalities that have no row yet.

        Raises:
            UserError: there is a row that was measured with other settings.
        """
        known = {
            row["modality"]: row
            for row in read_rows(self.results)
            if (row["run"], row["seed"]) == (run["name"], str(seed))
        }
        for modality in (name for name in run["evaluate"] if name in known):
            what = f"run '{run['name']}', seed {seed}, {modality}"
            self.kept.take(known[modality], partial(self.setup, run, seed), what)
        return [modality for modality in run["evaluate"] if modality not in known]

    def measure(self, run: Mapping[str, Any], seed: int, modalities: Sequence[str]) -> None:
        """Train what is missing, evaluate, and append a row for every report."""
        self.trainings.check(run)
        weights = self.weights(run, seed)
        setup = self.setup(run, seed)
        given = self.checkpoints is not None
        parts = [] if given else self.trainings.parts_of(run, seed)
        seconds = [part.seconds for part in parts]
        facts = {
            "table": self.table["name"],
            "run": run["name"],
            "seed": seed,
            "config": run["config"],
            "iterations": weights.iterations,
            "train_seconds": _rounded([weights.seconds]),
            "parts": "+".join(part.name for part in parts),
            "part_iterations": "+".join(part.iterations for part in parts),
            "part_seconds": _rounded(seconds) if parts else "",
            "setup_sha256": setup,
        }
        settings = self.trainings.settings(run, seed, with_parts=not given)
        argv = ["--config-file", run["config"], *settings, "--eval-only"]
        if weights.checkpoint is not None:
            argv.append(f"train.init_checkpoint={weights.checkpoint}")
        for modality in modalities:
            self.evaluate(argv, self.trainings.folder(run, seed), {**facts, "modality": modality})

    def weights(self, run: Mapping[str, Any], seed: int) -> Trained:
        """Return what a run evaluates: given, shared, as built or trained."""
        if self.checkpoints is not None:
            file = _given_file(run, self.checkpoints)
            return Trained(str(file), str(read_metadata(file).get("iteration", "")))
        if "checkpoint" in run:
            raise UserError(
                f"run '{run['name']}' evaluates a given checkpoint; name the folder of '{run['checkpoint']}'"
            )
        return self.trainings.weights(run, seed)

    def evaluate(self, argv: Sequence[str], folder: Path, facts: Mapping[str, Any]) -> None:
        """Evaluate once and append a row for every test set, or one for all loaders that the table names."""
        modality, loaders = facts["modality"], self.table.get("loaders", ())
        kind = self.table.get("report", "segmentation")
        if self.of_segmentation:
            patterns = [f"eval/{name}/{modality}-*" for name in map(safe_name, loaders)] or [f"eval/*/{modality}-*"]
        else:
            kinds = self.table.get("reports", {})
            patterns = [f"eval/*/{kinds.get(name, kind)}-{safe_name(name)}" for name in loaders] or [f"eval/*/{kind}"]
        for file in (file for pattern in patterns for file in folder.glob(f"{pattern}/result.json")):
            file.unlink()  # of a sitting that was stopped
        train_main([*argv, *(["--modality", modality] if self.of_segmentation else [])])
        found = [sorted(folder.glob(f"{pattern}/result.json")) for pattern in patterns]
        for pattern, files in zip(patterns, found, strict=True):
            if not files:
                raise UserError(
                    f"the evaluation of run '{facts['run']}' wrote no report '{folder / pattern}/result.json'"
                )
        if loaders:
            self.append_joined(facts, {name: files[0] for name, files in zip(loaders, found, strict=True)})
            return
        for file in found[0]:
            report = json.loads(file.read_text(encoding="utf-8"))
            row = {**facts, **facts_of(report)}
            if self.of_segmentation:
                row |= segmentation_row(report)
                append_classes(classes_file(self.results), row, report)
            else:
                row |= encoder_row(report, self.table["metrics"], file)
            append_row(self.results, row, fields_of(self.table))

    def append_joined(self, facts: Mapping[str, Any], files: Mapping[str, Path]) -> None:
        """Append one row of the reports of several loaders."""
        reports = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}
        parts = [facts_of(report) for report in reports.values()]
        row = {**facts, **parts[0], **loaders_row(reports, self.table["metrics"], files)}
        for key in ("data", "images"):  # once where all loaders read the same
            row[key] = "+".join(dict.fromkeys(str(part[key]) for part in parts))
        for report in reports.values() if self.of_segmentation else ():
            append_classes(classes_file(self.results), row, report)
        append_row(self.results, row, fields_of(self.table))


def _rounded(seconds: Sequence[float | None]) -> str:
    """Return the sum in seconds as text, "" when one of them is not known."""
    known = [value for value in seconds if value is not None]
    return str(round(sum(known))) if len(known) == len(seconds) else ""
