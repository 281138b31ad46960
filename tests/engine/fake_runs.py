"""A stand-in for the command that trains and evaluates: it writes the files that tables read, and keeps its calls."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mmovseg.checkpoint.save import save_weights
from mmovseg.engine.table_definition import METRICS
from mmovseg.errors import UserError


def segmentation_report(score):
    """What an evaluation of segmentation writes, as far as tables read it."""
    return {
        **dict.fromkeys(METRICS, score),
        "permuted": {"mIoU": 3.0, "mIoU-unseen": 4.0},
        "constant_baseline": {"mIoU-unseen": {"value": 6.0}},
        "dataset": "d",
        "provenance": {"images": 7},
        "per_class": [
            {"name": "water", "seen": False, "IoU": score / 2},
            {"name": "road", "seen": True, "IoU": None},
        ],
    }


class FakeRuns:
    """Call it like `train_main`.

    scores: by config, 40 for others. stop_after: calls, then it is interrupted. kind: of reports that are not of
    segmentation; kinds: by loader, of those that have another. loaders: names of several test loaders, of which the
    second has 1 more than the first, and so on.
    """

    def __init__(self):
        self.calls = []
        self.argvs = []
        self.broken = ()
        self.scores = {}
        self.stop_after = None
        self.kind = "encoder"
        self.kinds = {}
        self.loaders = ()

    def __call__(self, argv):
        if self.stop_after is not None and len(self.argvs) >= self.stop_after:
            raise KeyboardInterrupt
        self.argvs.append(list(argv))
        config = argv[argv.index("--config-file") + 1]
        if config in self.broken:
            raise UserError(f"data of {config} is missing")
        values = dict(item.split("=", 1) for item in argv if "=" in item)
        folder = Path(values["train.output_dir"])
        if "--eval-only" in argv:
            self.evaluate(argv, config, values, folder)
            return {}
        self.calls.append(("train", config))
        seed = int(values["train.seed"])
        tensors = {"student.model.x": torch.full((1,), float(seed)), "teacher.model.x": torch.zeros(1)}
        save_weights(tensors, folder / "model_final.safetensors", metadata={"iteration": "5"})
        return {"checkpoint": str(folder / "model_final.safetensors"), "iteration": 5, "seconds": 1.0}

    def evaluate(self, argv, config, values, folder):
        weights = values.get("train.init_checkpoint")
        assert weights is None or Path(weights).is_file()
        self.calls.append(("evaluate", config, weights))
        score = self.scores.get(config, 40.0) + 10 * int(values["train.seed"])
        if "--modality" in argv:
            modality = argv[argv.index("--modality") + 1]
            for number, name in enumerate(self.loaders or ["d"]):
                metrics = {"share 1": (5 + number) / 10} if self.loaders else {}
                report = {**segmentation_report(score + number), "dataset": name, "metrics": metrics}
                write_report(folder / "eval" / name / f"{modality}-clean", report)
            return
        for number, name in enumerate(
            [f"{self.kinds.get(name, self.kind)}-{name}" for name in self.loaders] or [self.kind]
        ):
            metrics = {"R@1": score + number, "CKA": 0.12345, "none": None}
            write_report(
                folder / "eval" / "d" / name, {"metrics": metrics, "dataset": "d", "provenance": {"images": 7}}
            )


def write_report(folder, report):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(report))


def described(config, overrides, replaced):
    """Stand in for `describe_config`: the name of the config is all it holds."""
    facts = {key: [config, *overrides, *replaced] for key in ("model", "train", "optimizer", "lr_multiplier", "data")}
    return {**facts, "test": None, "weights": []}
