"""The trainings behind a table: each is done once a seed, and done again only when something that made it changed.

What made a training is hashed: its model, training data, optimiser and schedule with all overrides, the bytes of the
files it starts from (weights, and statistics that its norms read), and the same of the parts it uses. The hash is kept
beside the weights, in the files of exported parts and in the rows of results, so that nothing made otherwise is taken
for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mmovseg.checkpoint.export import export_part
from mmovseg.checkpoint.load import file_sha256, read_metadata
from mmovseg.checkpoint.save import atomic_write
from mmovseg.config import TrainCfg, apply_overrides, config_to_dict, load_config
from mmovseg.config.loading import walk_calls
from mmovseg.engine.hooks import FINAL_FILE
from mmovseg.engine.run import require_statistics, statistics_files
from mmovseg.engine.state import STATE_FILE
from mmovseg.weights import SCHEME, resolve

NOTE_FILE = "table_setup.json"
# Of `train`, what does not change the weights.
_REPORTING = (
    "output_dir", "log_period", "eval_period", "checkpoint", "select_best", "tensorboard", "num_threads", "device",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """Weights to evaluate; `checkpoint` None = the model as built, `seconds` None = not known or not trained now."""

    checkpoint: str | None
    iterations: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Part:
    """An exported part."""

    name: str
    file: Path
    iterations: str
    seconds: float | None


class Trainings:
    """Trains runs and parts of a table when they are asked for, and finds those that are done.

    Args:
        table: from `read_table`.
        output: folder for the runs; a part's file is ``<output>/<part>-seed<k>.safetensors``.
        overrides: ``key=value`` for every config.
        start: does a run from its arguments: `train_main`.
    """

    def __init__(
        self,
        table: Mapping[str, Any],
        output: str | Path,
        *,
        overrides: Sequence[str] = (),
        start: Callable[[Sequence[str]], Mapping[str, Any]],
    ) -> None:
        self._parts = {part["name"]: part for part in table.get("parts", ())}
        self._runs = {run["name"]: run for run in table["runs"]}
        self._output = Path(output)
        self._overrides = tuple(overrides)
        self._start = start

    def folder(self, entry: Mapping[str, Any], seed: int) -> Path:
        """Return the folder of a run or part."""
        return self._output / f"{entry['name']}-seed{seed}"

    def settings(self, entry: Mapping[str, Any], seed: int, *, with_parts: bool = True) -> list[str]:
        """Return every override of a run or part; the parts that it uses are trained first."""
        uses = entry.get("uses", {}) if with_parts else {}
        return [
            "train.eval_period=-1",  # a run may ask for evaluations on the way, for the best of them
            "train.tensorboard=false",
            *entry.get("overrides", ()),
            *self._overrides,
            *(f"{key}={self.part(name, seed).file}" for key, name in uses.items()),
            f"train.seed={seed}",
            f"train.output_dir={self.folder(entry, seed)}",
        ]

    def check(self, entry: Mapping[str, Any]) -> None:
        """Look for what a run or part and the parts it uses will read, before any of them is trained.

        Raises:
            UserError: statistics of its data are missing.
        """
        require_statistics(self._described(entry, 0).get("statistics", ()), str(entry["config"]))
        for name in entry.get("uses", {}).values():
            self.check(self._parts[name])

    def check_overrides(self, run: Mapping[str, Any], *, with_parts: bool = True) -> None:
        """Apply the overrides, if there are any, to the configs of a run, its parts and the run whose weights it tests.

        Raises:
            UserError: a config has no such key, or the value does not fit.
        """
        left = [run] if self._overrides else []
        while left:
            entry = left.pop()
            self._described(entry, 0)
            if with_parts:
                left += [self._parts[name] for name in entry.get("uses", {}).values()]
                left += [self._runs[entry["weights_of"]]] if "weights_of" in entry else []

    def weights(self, run: Mapping[str, Any], seed: int) -> Trained:
        """Return the weights of a run: its own, those of the run whose weights it tests, or none."""
        if not run.get("train", True):
            return Trained(None)
        if "weights_of" in run:
            other = self._train(self._runs[run["weights_of"]], seed)
            return Trained(other.checkpoint, other.iterations)
        return self._train(run, seed)

    def part(self, name: str, seed: int) -> Part:
        """Return the file of a part, which is trained and exported if there is none that was made in the same way."""
        entry, file = self._parts[name], self._output / f"{name}-seed{seed}.safetensors"
        setup = self.training_sha256(entry, seed)
        facts = read_metadata(file) if file.is_file() else {}
        if facts.get("setup_sha256") != setup:
            trained = self._train(entry, seed)
            assert trained.checkpoint is not None
            facts = {
                "setup_sha256": setup,
                "iterations": trained.iterations,
                "train_seconds": "" if trained.seconds is None else f"{trained.seconds:.1f}",
            }
            export_part(trained.checkpoint, file, part=entry["part"], facts=facts)
        seconds = facts.get("train_seconds", "")
        return Part(name, file, facts.get("iterations", ""), float(seconds) if seconds else None)

    def parts_of(self, entry: Mapping[str, Any], seed: int) -> list[Part]:
        """Return the parts that a run or part is made of, those they use included, in the order of the table."""
        wanted: set[str] = set()
        left = list(entry.get("uses", {}).values())
        while left:
            name = left.pop()
            wanted.add(name)
            left += self._parts[name].get("uses", {}).values()
        return [self.part(name, seed) for name in self._parts if name in wanted]

    def training_sha256(self, entry: Mapping[str, Any], seed: int) -> str:
        """Return the hash of all that makes the weights of a run or part; for a run without training, of its model."""
        uses = entry.get("uses", {})
        described = self._described(entry, seed)
        keys = ("model", "train", "optimizer", "lr_multiplier", "data") if entry.get("train", True) else ("model",)
        return digest(
            {
                "config": {key: described[key] for key in keys},
                "weights": described["weights"],
                "part": entry.get("part"),
                "uses": {key: self.training_sha256(self._parts[name], seed) for key, name in uses.items()},
            }
        )

    def row_sha256(self, run: Mapping[str, Any], seed: int, *, given: str | Path | None = None) -> str:
        """Return the hash of all that makes a row: the weights (`given`: a file of them), the model and the test."""
        described = self._described(run, seed)
        weights = self._runs[run["weights_of"]] if "weights_of" in run else run
        made = file_sha256(given) if given is not None else self.training_sha256(weights, seed)
        return digest({"weights": made, "model": described["model"], "test": described["test"]})

    def _described(self, entry: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
        settings = (*entry.get("overrides", ()), *self._overrides, f"train.seed={seed}")
        return describe_config(str(entry["config"]), settings, tuple(entry.get("uses", ())))

    def _train(self, entry: Mapping[str, Any], seed: int) -> Trained:
        folder, setup = self.folder(entry, seed), self.training_sha256(entry, seed)
        final, state, note = folder / FINAL_FILE, folder / STATE_FILE, read_note(folder)
        same = note.get("setup_sha256") == setup
        if same and note.get("finished") and final.is_file():
            return Trained(str(final), str(note["iterations"]), note["seconds"])
        settings = self.settings(entry, seed)
        resumed = same and state.is_file()
        if not resumed:  # of a training that was set up otherwise
            final.unlink(missing_ok=True)
            state.unlink(missing_ok=True)
        _write_note(folder, setup_sha256=setup, finished=False)
        done = self._start(["--config-file", entry["config"], *settings, *(["--resume"] if resumed else [])])
        # how long the sittings before took was not written down
        trained = Trained(done["checkpoint"], str(done["iteration"]), None if resumed else float(done["seconds"]))
        facts = {"iterations": trained.iterations, "seconds": trained.seconds}
        _write_note(folder, setup_sha256=setup, finished=True, **facts)
        return trained


@lru_cache(maxsize=512)
def describe_config(config: str, overrides: tuple[str, ...], replaced: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what a config with its overrides makes, as plain containers to be hashed.

    Args:
        config: file.
        overrides: ``key=value``.
        replaced: keys whose value comes from elsewhere and does not count.

    Returns:
        ``model``, ``optimizer``, ``lr_multiplier``, ``train`` (what changes weights), ``data`` (the train loader),
        ``test`` (test loaders and evaluators), ``weights`` (hashes of the files that the model starts from and of
        those of statistics) and ``statistics`` (the names of the latter).

    Raises:
        UserError: unknown file or key.
    """
    node = load_config(config)
    apply_overrides(node, [*overrides, *(f"{key}=null" for key in replaced)])
    named = [call.get("weights") for _, call in walk_calls(node.get("model"))]
    measured = statistics_files(node.get("model"))
    plain = config_to_dict(node)
    usual = OmegaConf.to_container(OmegaConf.structured(TrainCfg))  # left out: a new setting changes no old hash
    train = {
        key: value
        for key, value in plain.get("train", {}).items()
        if key not in _REPORTING and not (isinstance(usual, dict) and value == usual.get(key))
    }
    loaders = _without_workers(plain.get("dataloader") or {})
    files = (*named, train.get("init_checkpoint"), *measured)
    (plain.get("model") or {}).pop("input_contract", None)  # a description, which computes nothing
    return {
        **{key: plain.get(key) for key in ("model", "optimizer", "lr_multiplier")},
        "train": train,
        "data": loaders.get("train"),
        "test": [loaders.get("test"), loaders.get("evaluator")],
        "weights": [_file_hash(name) for name in files if isinstance(name, str)],
        "statistics": measured,
    }


def _without_workers(node: Any) -> Any:
    """Drop how many processes load the data: batches do not depend on it."""
    if isinstance(node, Mapping):
        return {key: _without_workers(value) for key, value in node.items() if key != "num_workers"}
    return [_without_workers(value) for value in node] if isinstance(node, list) else node


def _file_hash(weights: str) -> str:
    """Return the hash of the file that a ``weights`` argument names, with or without a prefix such as ``clip:``."""
    bare = weights if weights.startswith(SCHEME) or ":" not in weights else weights.split(":", 1)[1]
    file = resolve(bare)
    return file_sha256(file) if file.is_file() else ""


def digest(content: Any) -> str:
    """Return the sha256 of plain containers."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def read_note(folder: Path) -> dict[str, Any]:
    """Return what a training in this folder wrote down of itself, nothing when it did not."""
    try:
        note = json.loads((folder / NOTE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(folder: Path, **facts: Any) -> None:
    with atomic_write(folder / NOTE_FILE) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
