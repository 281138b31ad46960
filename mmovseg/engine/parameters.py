"""How large a model is, part by part, and how much of it trains."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (all, trainable) parameters by part: the model's own counting if it has one, else its direct children.

    A tied parameter counts where it comes first. The last entry is ``total``.
    """
    if hasattr(model, "count_parameters"):
        return dict(model.count_parameters())
    seen: set[int] = set()
    table: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            part = name.split(".")[0]
            every, trainable = table.get(part, (0, 0))
            table[part] = (every + parameter.numel(), trainable + parameter.numel() * parameter.requires_grad)
    table["total"] = (sum(pair[0] for pair in table.values()), sum(pair[1] for pair in table.values()))
    return table


def format_parameters(table: Mapping[str, tuple[int, int]]) -> str:
    """Return the table as text, in numbers and millions."""
    width = max(len(part) for part in table)
    lines = [f"{'part':{width}}  {'parameters':>13}  {'trainable':>13}  {'frozen':>13}  {'M':>8}  {'M trainable':>11}"]
    for part, (every, trainable) in table.items():
        millions = f"{every / 1e6:>8.2f}  {trainable / 1e6:>11.2f}"
        lines.append(f"{part:{width}}  {every:>13,}  {trainable:>13,}  {every - trainable:>13,}  {millions}")
    return "\n".join(lines)
