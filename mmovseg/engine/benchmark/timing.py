"""Repeat a call under the clock, or several in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from mmovseg.engine.cost import LEAST_STEPS, LONG_STEP_SECONDS
from mmovseg.engine.stopwatch import Clock, OtherLoad

MOST_REPEATS = 100


def repeat(call: Callable[[], Any], clock: Clock, *, seconds: float) -> dict[str, Any]:
    """Measure a call for about so many seconds, after one call that does not count.

    Returns:
        ``seconds`` of every call, ``first_seconds`` of the one before them, ``other_cores`` kept busy by others.
    """
    found = alternate({"it": call}, clock, seconds=seconds)
    return {**found.pop("it"), **found}


def alternate(calls: Mapping[str, Callable[[], Any]], clock: Clock, *, seconds: float) -> dict[str, Any]:
    """Measure several calls in turn, so that a machine that slows down slows all of them.

    Each runs once before; where that takes longer than `LONG_STEP_SECONDS`, one further round is all.

    Returns:
        For each name ``seconds`` and ``first_seconds`` as of `repeat`, and ``other_cores``.
    """
    first = {name: _timed(call, clock) for name, call in calls.items()}
    least = 1 if max(first.values()) > LONG_STEP_SECONDS else LEAST_STEPS
    rounds: list[dict[str, float]] = []
    others, start = OtherLoad(), time.perf_counter()
    while len(rounds) < least or (time.perf_counter() - start < seconds and len(rounds) < MOST_REPEATS):
        rounds.append({name: _timed(call, clock) for name, call in calls.items()})
    found: dict[str, Any] = {
        name: {"seconds": [turn[name] for turn in rounds], "first_seconds": first[name]} for name in calls
    }
    return found | {"other_cores": others.cores()}


def _timed(call: Callable[[], Any], clock: Clock) -> float:
    clock.wait()
    start = clock.mark()
    call()
    end = clock.mark()
    clock.wait()
    return clock.seconds(start, end)
