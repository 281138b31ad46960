"""Whether a scene fits into memory, said before it is begun instead of by a process that is killed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

_MEMORY_FILE = Path("/proc/meminfo")


def free_memory_mib(device: torch.device) -> dict[str, float]:
    """Return MiB that are free: ``memory_mib`` of the machine (Linux only), ``gpu_mib`` of a CUDA device."""
    free: dict[str, float] = {}
    with suppress(OSError, ValueError):
        for line in _MEMORY_FILE.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):  # free, or a cache that the kernel gives up
                free["memory_mib"] = int(line.split()[1]) / 2**10
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free["gpu_mib"] = (torch.cuda.mem_get_info(device)[0] + unused) / 2**20
    return free


def describe_shortage(need: Mapping[str, float], free: Mapping[str, float], *, processes: int = 1) -> str | None:
    """Return a sentence when a scene needs more memory than there is, else None.

    Args:
        need: ``memory_mib`` and, on CUDA, ``gpu_mib`` of one process; other keys do not matter.
        free: from `free_memory_mib`, taken before `need` was measured.
        processes: that share the memory of this machine; each has a GPU of its own.
    """
    for key, name, times in (("memory_mib", "memory", processes), ("gpu_mib", "GPU memory", 1)):
        if key in need and key in free and need[key] * times > free[key]:
            each = f" in each of {times} processes" if times > 1 else ""
            return (
                f"the map needs about {need[key]:.0f} MiB of {name}{each}, and {free[key]:.0f} MiB are free; "
                "give a smaller --tile, or ask for fewer classes at a time"
            )
    return None
