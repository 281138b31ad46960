"""How fast a mixture of experts is beside the dense MLP that it replaces, and beside a loop with a mask an expert.

All three are computed in turn in one run, so that a machine that slows down slows all of them. The loop has the same
weights and router; it selects the tokens of each expert by a boolean mask, as simple implementations do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mmovseg.engine.benchmark.timing import alternate
from mmovseg.engine.provenance import device_name
from mmovseg.engine.stopwatch import Clock
from mmovseg.evaluation.provenance import source_commit
from mmovseg.projects.crossearth.modeling.moe import SparseMoE

Precision = Literal["float32", "bfloat16"]
Phase = Literal["forward", "training"]
PHASES: tuple[Phase, ...] = ("forward", "training")

FIELDS = (
    *("width", "images", "tokens", "experts", "top_k", "phase", "precision", "device", "threads", "clock"),
    *("dense_ms", "moe_ms", "loop_ms", "moe_over_dense", "least", "most", "loop_over_moe", "rounds", "other_cores"),
    *("torch", "commit", "machine"),
)


@dataclass(frozen=True)
class SpeedCase:
    """What is measured.

    width: C; the hidden width is 4 C.
    images, tokens: of a batch, and of an image.
    experts, top_k: of the mixture.
    phase: ``forward`` under no_grad, or ``training``: forward and backward, the input's gradient too.
    precision: ``bfloat16`` is autocast.
    clock: ``wall``, or ``cpu``: processor time of this process, for a machine that others use.
    seconds: about so long, three rounds at least.
    """

    width: int
    images: int = 2
    tokens: int = 1025
    experts: int = 6
    top_k: int = 1
    phase: Phase = "training"
    precision: Precision = "float32"
    clock: Literal["wall", "cpu"] = "wall"
    seconds: float = 10.0


class _CpuClock(Clock):
    def mark(self) -> Any:
        return time.process_time()


def masked_loop(moe: SparseMoE, x: Tensor) -> Tensor:
    """What `moe` computes, with one boolean mask an expert: (N, L, C) -> (N, L, C)."""
    routing = moe.router(x, moe.descriptors)
    rows = x.flatten(0, 1)
    output = torch.zeros_like(rows)
    gates = torch.ones_like(routing.index, dtype=x.dtype) if routing.gates is None else routing.gates
    experts = moe.experts
    for number in range(moe.num_experts):
        chosen = routing.index == number
        tokens = chosen.any(dim=1)
        hidden = experts.act(F.linear(rows[tokens], experts.w1[number], experts.b1[number]))
        answer = F.linear(hidden, experts.w2[number], experts.b2[number])
        weight = (gates * chosen).sum(dim=1)[tokens, None]
        output = output.index_put((tokens.nonzero()[:, 0],), (weight * answer).to(output.dtype), accumulate=True)
    return output.view(x.shape)


def measure_speed(case: SpeedCase, device: torch.device) -> dict[str, Any]:
    """Return one row of `FIELDS`.

    ``moe_over_dense`` is the median over rounds of the ratio within a round, ``least`` and ``most`` its extremes.
    """
    torch.manual_seed(0)
    mlp = Mlp(case.width, 4 * case.width).to(device)
    moe = SparseMoE(mlp, dim=case.width, num_experts=case.experts, top_k=case.top_k).to(device)
    moe.descriptors = torch.randn(case.images, moe.router.num_descriptors, device=device)
    x = torch.randn(case.images, case.tokens, case.width, device=device, requires_grad=True)
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "dense": mlp,
        "moe": moe,
        "loop": lambda tokens: masked_loop(moe, tokens),
    }
    clock = Clock(device) if case.clock == "wall" else _CpuClock(device)
    found = alternate(
        {name: _step(call, x, [mlp, moe], case, device) for name, call in calls.items()}, clock, seconds=case.seconds
    )
    times = {name: found[name]["seconds"] for name in calls}
    ratios = [ours / plain for ours, plain in zip(times["moe"], times["dense"], strict=True)]
    loops = [loop / ours for loop, ours in zip(times["loop"], times["moe"], strict=True)]
    others = found["other_cores"]
    return {
        **{key: getattr(case, key) for key in FIELDS if hasattr(case, key)},
        "device": device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else "",
        **{f"{name}_ms": round(1e3 * median(seconds), 3) for name, seconds in times.items()},
        "moe_over_dense": round(median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "loop_over_moe": round(median(loops), 3),
        "rounds": len(ratios),
        "other_cores": "" if others is None else round(others, 2),
        "torch": torch.__version__,
        "commit": (source_commit() or "")[:12],
        "machine": device_name(device),
    }


def _step(
    call: Callable[[Tensor], Tensor], x: Tensor, modules: Sequence[nn.Module], case: SpeedCase, device: torch.device
) -> Callable[[], None]:
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=case.precision == "bfloat16")

    def forward() -> None:
        with torch.no_grad(), precision:
            call(x)

    def train() -> None:
        x.grad = None
        for module in modules:
            module.zero_grad(set_to_none=True)
        with precision:
            output = call(x)
        output.backward(torch.ones_like(output))

    return forward if case.phase == "forward" else train


def speed_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| width | batch | phase | dense (ms) | MoE over dense | loop over MoE | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{float(row['moe_over_dense']):.2f} ({float(row['least']):.2f} .. {float(row['most']):.2f})"
        lines.append(
            f"| {row['width']} | {row['images']} x {row['tokens']} | {row['phase']} | {float(row['dense_ms']):.1f} | "
            f"{spread} | {float(row['loop_over_moe']):.2f} | {row['rounds']} |"
        )
    last = rows[-1]
    threads = f", {last['threads']} thread(s)" if last["threads"] != "" else ""
    busy = f", others used {last['other_cores']} cores" if last["other_cores"] != "" else ""
    return "\n".join(
        [*lines, f"\n{last['machine']}{threads}, {last['precision']}, {last['clock']} time{busy}; k = {last['top_k']}"]
    )
