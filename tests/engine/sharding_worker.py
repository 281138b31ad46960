"""Trainings that two processes do one after the other; a module that a new process can import."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from mmovseg.engine.cli import train_main

CONFIG = str(Path(__file__).with_name("sharded_config.py"))
OPTIONS = (
    "model.noise=0.1",
    "train.ema.enabled=true",
    "train.clip_grad.enabled=true",
    "train.clip_grad.max_norm=0.5",
    "train.checkpoint.period=3",
    "train.eval_period=2",
    "train.select_best.metric=fit/mse",
    "train.log_period=1",
    "dataloader.train.batch_size=8",
)
SHARDED = ("train.fsdp.enabled=true", "model.encoder.checkpointing=true")


def command(folder: Path, *arguments: str) -> list[str]:
    return ["--config-file", CONFIG, f"train.output_dir={folder}", *OPTIONS, *arguments]


def work(rank: int, folder: Path, ports: list[int]) -> None:
    """Train sharded: unbroken, killed and resumed; on replicas; and on replicas from the state of a sharded run."""
    runs = (
        command(folder / "unbroken", *SHARDED),
        command(folder / "killed", *SHARDED, "model.poison_after=4"),
        command(folder / "killed_copy", "--resume"),
        command(folder / "killed", *SHARDED, "--resume"),
        command(folder / "replicas"),
    )
    for run, port in zip(runs, ports, strict=True):
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
        killed = "model.poison_after=4" in run
        with contextlib.suppress(SystemExit) if killed else contextlib.nullcontext():
            train_main(run)
        if killed and rank == 0:
            shutil.copytree(folder / "killed", folder / "killed_copy")
