"""Console and file logging: quiet by default, one line for each `train.log_period` iterations."""

from __future__ import annotations

import datetime
import logging
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch
from detectron2.utils.events import EventWriter, get_event_storage

_OURS = "_mmovseg_handler"
# Libraries whose warnings matter here and whose chatter does not.
_LIBRARIES = ("detectron2", "fvcore", "iopath")


def setup_logging(output_dir: str | Path | None, *, rank: int = 0) -> None:
    """Send the log to stdout (rank 0) and to ``log.txt`` in `output_dir` (``log_rank1.txt`` ... for other ranks).

    Calling it again replaces the former destinations, so that several runs in one process do not mix.
    """
    handlers: list[logging.Handler] = []
    if rank == 0:
        handlers.append(logging.StreamHandler(sys.stdout))
    if output_dir is not None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        name = "log.txt" if rank == 0 else f"log_rank{rank}.txt"
        handlers.append(logging.FileHandler(Path(output_dir) / name, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", datefmt="%H:%M:%S"))
        setattr(handler, _OURS, True)
    close_logging()
    if not logging.root.handlers:
        # open_clip logs through the root logger, and Python then gives that a handler that repeats every line of ours.
        logging.root.addHandler(logging.NullHandler())
    for name, level in [("mmovseg", logging.INFO), *((library, logging.WARNING) for library in _LIBRARIES)]:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        for handler in handlers:
            logger.addHandler(handler)


def close_logging() -> None:
    """Detach and close what `setup_logging` attached."""
    for name in ("mmovseg", *_LIBRARIES):
        logger = logging.getLogger(name)
        for handler in [handler for handler in logger.handlers if hasattr(handler, _OURS)]:
            logger.removeHandler(handler)
            handler.close()


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory in MiB: of the allocator on CUDA, the resident set of the process elsewhere.

    On Linux the figure is that of the memory map; a process inherits that of `resource` from a larger parent.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = memory_status_mb("VmHWM")
    if peak is None:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = used / 2**20 if sys.platform == "darwin" else used / 2**10
    return peak


def memory_status_mb(key: str) -> float | None:
    """Return a figure in MiB that Linux keeps of this process, ``VmRSS`` or ``VmHWM``; None on other systems."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) / 2**10
    return None


class ProgressPrinter(EventWriter):
    """Log one line: iteration, time left, losses, learning rate, seconds an iteration, peak memory."""

    def __init__(self, *, max_iter: int, device: torch.device, window: int = 20) -> None:
        """Keep the settings; losses are the median of the last `window` iterations."""
        self.max_iter = max_iter
        self.device = device
        self.window = window
        self.logger = logging.getLogger(__name__)
        self._last_iter = -1

    def write(self) -> None:
        """Log the line for the current iteration, once."""
        storage = get_event_storage()
        done = storage.iter + 1
        histories = storage.histories()
        if storage.iter <= self._last_iter or storage.iter >= self.max_iter or "total_loss" not in histories:
            return
        self._last_iter = storage.iter
        names = ["total_loss", *(name for name in histories if name.startswith("loss"))]
        losses = "  ".join(f"{name} {histories[name].median(self.window):.4g}" for name in names)
        parts = [f"iter {done}/{self.max_iter}"]
        if "time" in histories:
            seconds = histories["time"].median(1000)
            parts.append(f"eta {datetime.timedelta(seconds=int(seconds * (self.max_iter - done)))}")
        parts.append(losses)
        if "lr" in histories:
            parts.append(f"lr {histories['lr'].latest():.3g}")
        if "time" in histories:
            parts.append(f"time {seconds:.3f}")
        if "data_time" in histories:
            parts.append(f"data_time {histories['data_time'].median(self.window):.3f}")
        parts.append(f"max_mem {peak_memory_mb(self.device):.0f}M")
        self.logger.info("%s", "  ".join(parts))
