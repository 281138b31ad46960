"""Which rows a benchmark has, and what each is measured with.

A row is plain data: its name, its group (a table of the report), its kind (what measures it, see `worker`) and settings
that go to a process of its own.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from mmovseg.config import config_hash, load_config
from mmovseg.errors import UserError

CLASSES = (5, 20, 150, 847)
"""Sizes of class lists: a small map, Pascal VOC, ADE20K, and ADE20K in full."""
BASE_CLASSES = 6
"""Classes of all rows but those above: PIE-RGB-SAR has six."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    needs: names of rows by which this one predicts its time.
    """

    name: str
    group: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Hash of what is measured: settings, and the configs that they name."""
        content: dict[str, Any] = {"kind": self.kind, **self.settings}
        for key in ("config_file", "scene_config"):
            if key in self.settings:
                content[f"{key}_sha256"] = _config_digest(self.settings[key])
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=8)
def _config_digest(path: str) -> str:
    return config_hash(load_config(path))


@dataclass(frozen=True)
class Scope:
    """What a benchmark is run on; the defaults are MM-OVSeg B.

    config_file: the model of the rows `inference`, `training` and `classes`.
    released_config: the model of the rows `reference`, with the head of the authors' release.
    scene_config, scene_weights: the small model that maps a scene; None for weights at random.
    pixels: side of the images.
    batches: sizes of a batch; the first is that of the rows `classes`.
    classes: sizes of class lists.
    seconds: about so long a row is measured, after its warm-up.
    scene_pixels: side of the scene that is mapped.
    files: pairs that loaders read.
    workers: reading processes, beside a loader that reads in its own.
    """

    config_file: str = "configs/mmovseg/mmovseg_vitb16.py"
    released_config: str = "configs/mmovseg/released_vitb16.py"
    scene_config: str = "configs/miniearth/mmovseg_xs.py"
    scene_weights: str | None = "shipped://mmovseg_xs"
    overrides: tuple[str, ...] = ()
    pixels: int = 384
    batches: tuple[int, ...] = (1, 8)
    classes: tuple[int, ...] = CLASSES
    seconds: float = 15.0
    scene_pixels: int = 1024
    files: int = 16
    workers: int = 2
    device: str = "auto"


def rows_of(scope: Scope) -> list[Row]:
    """Return all rows in the order in which they are measured, those that others need first."""
    return [
        Row("machine/matmul", "machine", "matmul", {"device": scope.device}),
        Row(
            "machine/operations",
            "machine",
            "operations",
            {**_model(scope), "classes": BASE_CLASSES},
        ),
        *_model_rows(scope),
        *_class_rows(scope),
        *_data_rows(scope),
        Row(
            "reference/tricks",
            "reference",
            "tricks",
            {**_model(scope), "config_file": scope.released_config, "classes": BASE_CLASSES},
        ),
    ]


def _model(scope: Scope) -> dict[str, Any]:
    return {
        "config_file": scope.config_file,
        "overrides": [*scope.overrides, f"train.device={scope.device}"],
        "pixels": scope.pixels,
        "seconds": scope.seconds,
        "device": scope.device,
    }


def _model_rows(scope: Scope) -> list[Row]:
    rows = []
    for phase, group in (("infer", "inference"), ("train", "training")):
        for batch in scope.batches:
            for precision in ("float32", "bfloat16"):
                for mode in ("eager", "compiled"):
                    amp = f"train.amp.enabled={str(precision != 'float32').lower()}"
                    settings = _model(scope) | {"phase": phase, "batch": batch, "classes": BASE_CLASSES}
                    settings["precision"], settings["compiled"] = precision, mode == "compiled"
                    settings["overrides"] = [
                        *settings["overrides"],
                        amp,
                        f"train.amp.dtype={'bfloat16' if precision == 'float32' else precision}",
                        f"train.compile={str(mode == 'compiled').lower()}",
                    ]
                    smallest = f"{group}/batch{scope.batches[0]}/{precision}/{mode}"
                    name = f"{group}/batch{batch}/{precision}/{mode}"
                    needs = () if name == smallest else (smallest,)
                    rows.append(Row(name, "model", "model", settings, needs))
    return rows


def _class_rows(scope: Scope) -> list[Row]:
    rows: list[Row] = []
    base = _model(scope) | {"phase": "infer", "batch": scope.batches[0], "precision": "float32", "compiled": False}
    base["overrides"] = [*base["overrides"], "train.amp.enabled=false", "train.compile=false"]
    for count in sorted(scope.classes):
        needs = tuple(row.name for row in rows[-2:])
        rows.append(Row(f"classes/{count}", "classes", "model", base | {"classes": count}, needs))
    if len(rows) > 2:
        together = sorted(scope.classes)[-2]
        settings = base | {
            "classes": together,
            "overrides": [*base["overrides"], f"+model.head.class_chunk={together}"],
        }
        rows.append(Row(f"classes/{together}-at-once", "classes", "model", settings, (f"classes/{together}",)))
    return rows


def _data_rows(scope: Scope) -> list[Row]:
    base = {
        "config_file": scope.config_file,
        "overrides": list(scope.overrides),
        "pixels": scope.pixels,
        "files": scope.files,
        "seconds": scope.seconds / 3,
        "device": scope.device,
    }
    rows = [
        Row(f"loader/{source}/workers{workers}", "data", "loader", base | {"source": source, "workers": workers})
        for source in ("png", "geotiff")
        for workers in (0, scope.workers)
    ]
    window = {key: base[key] for key in ("pixels", "seconds", "device")} | {"scene_pixels": scope.scene_pixels}
    rows += [
        Row(f"loader/{source}", "data", "windows", window | {"source": source}) for source in ("aligned", "warped")
    ]
    rows.append(Row("evaluation/confusion", "data", "evaluator", base | {"classes": BASE_CLASSES}))
    scene = {
        "scene_config": scope.scene_config,
        "weights": scope.scene_weights,
        "scene_pixels": scope.scene_pixels,
        "device": scope.device,
    }
    return [*rows, Row("scene/xs", "scene", "scene", scene)]


def choose(rows: Sequence[Row], patterns: Sequence[str] | None) -> list[Row]:
    """Return the rows whose names match one of the patterns (``*`` stands for anything), all for None.

    Raises:
        UserError: a pattern matches no row.
    """
    if patterns is None:
        return list(rows)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(row.name, pattern) for row in rows):
            raise UserError(f"--rows '{pattern}' matches no row; there are: {', '.join(row.name for row in rows)}")
    return [row for row in rows if any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns)]
