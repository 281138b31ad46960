"""What measuring a step takes: clocks of CPU and CUDA, time inside a model's parts, memory, the load by others."""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from inspect import isfunction
from pathlib import Path
from typing import Any

import torch
from torch import nn

Mark = Any
"""A moment, as `Clock.mark` gives it."""


class Clock:
    """Moments of a device: the wall clock on a CPU, events on the current stream of a CUDA device.

    On CUDA a mark costs no synchronisation; call `wait` once before asking for seconds.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Mark:
        """Return this moment."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Wait until the device has passed every mark."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, start: Mark, end: Mark) -> float:
        """Return the seconds from one mark to another."""
        if self.device.type != "cuda":
            return float(end - start)
        return float(start.elapsed_time(end)) / 1000.0


def public_methods(module: nn.Module) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield name and bound method of everything that others may call on a module to compute: its `forward` and the
    methods that its own classes add to `nn.Module`.
    """
    inherited = set(dir(nn.Module)) - {"forward"}
    for name in dir(type(module)):
        if not name.startswith("_") and name not in inherited and isfunction(getattr(type(module), name, None)):
            yield name, getattr(module, name)


@contextmanager
def watched(module: nn.Module, around: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace the public methods of one module by ``around(name, method)``, and put them back at the end.

    Hooks of `nn.Module` would only see calls of the module itself, not of ``encoder.encode(x)``.
    """
    replaced = []
    for name, method in list(public_methods(module)):
        if name not in vars(module):
            object.__setattr__(module, name, around(name, method))
            replaced.append(name)
    try:
        yield
    finally:
        for name in replaced:
            object.__delattr__(module, name)


class PartTimer:
    """Forward seconds of one part of a model. Calls from within the part to itself count once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spans: list[tuple[Mark, Mark]] = []
        self._depth = 0
        self._start: Mark = None

    @contextmanager
    def watching(self, part: nn.Module) -> Iterator[None]:
        """Time all calls to the part: to its public methods, or past them to a module within it."""
        handles = []
        for module in part.modules():
            if module is not part:
                handles.append(module.register_forward_pre_hook(lambda *_: self._enter()))
                handles.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        try:
            with watched(part, self._around):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def seconds(self) -> float:
        """Return the sum over all calls so far."""
        return sum(self.clock.seconds(start, end) for start, end in self.spans)

    def _enter(self) -> None:
        if self._depth == 0:
            self._start = self.clock.mark()
        self._depth += 1

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.spans.append((self._start, self.clock.mark()))

    def _around(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._enter()
            try:
                return method(*args, **kwargs)
            finally:
                self._leave()

        return timed


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the direct children that have parameters."""
    return {name: part for name, part in model.named_children() if next(part.parameters(), None) is not None}


def is_frozen(module: nn.Module) -> bool:
    """True when nothing of the module trains."""
    return not any(parameter.requires_grad for parameter in module.parameters())


# ---------------------------------------------------------------- memory


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_mb` count from now on: on CUDA, and of a process on Linux where the kernel allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError, AttributeError):  # what the C library keeps of freed memory would count as used
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


# ---------------------------------------------------------------- the machine


class OtherLoad:
    """How many cores other processes, and other guests of the same host, kept busy since this object was made."""

    def __init__(self) -> None:
        self._start = self._busy()
        self._time, self._own = time.perf_counter(), time.process_time()

    def cores(self) -> float | None:
        """Return the mean so far, None where the system does not tell."""
        now, seconds = self._busy(), time.perf_counter() - self._time
        if now is None or self._start is None or seconds <= 0:
            return None
        own = time.process_time() - self._own
        return max(0.0, (now - self._start - own) / seconds)

    @staticmethod
    def _busy() -> float | None:
        """Seconds that all cores have worked since the start of the system, stolen time included."""
        with suppress(OSError, ValueError, IndexError):
            user, nice, system, _idle, _wait, irq, soft, steal = map(
                int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
            )
            return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        return None


def machine_name(device: torch.device) -> str:
    """Return the device in words: the GPU's name, or the processor's and how many cores there are."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = "CPU"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def matmul_gflops(clock: Clock, *, dtype: torch.dtype = torch.float32, large: bool = False, repeats: int = 7) -> float:
    """Return the device's rate of square matrix products, 1e9 operations a second, to compare machines by.

    Args:
        clock: of the device.
        dtype: of the matrices.
        large: take sides of 2048 (CUDA: 8192) instead of 512 (4096): nearer to the most that the device can do.
        repeats: the median of so many products counts.
    """
    size = (8192 if large else 4096) if clock.device.type == "cuda" else (2048 if large else 512)
    generator = torch.Generator(device=clock.device).manual_seed(0)
    a = torch.randn(size, size, generator=generator, device=clock.device).to(dtype)
    marks = []
    for _ in range(repeats + 2):
        start = clock.mark()
        torch.mm(a, a)
        marks.append((start, clock.mark()))
    clock.wait()
    return 2e-9 * size**3 / statistics.median(clock.seconds(*pair) for pair in marks[2:])


def spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return median, least and greatest in milliseconds."""
    return tuple(1000.0 * value for value in (statistics.median(seconds), min(seconds), max(seconds)))  # type: ignore[return-value]
