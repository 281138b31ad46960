"""Losses that an encoder has by itself, whatever task it serves, for example the balance of a mixture of experts."""

from __future__ import annotations

from torch import Tensor, nn


def auxiliary_losses(*encoders: nn.Module | None) -> dict[str, Tensor]:
    """Collect what encoders ask to be added to the loss of a step.

    An encoder asks by a method ``auxiliary_losses()`` that returns weighted 0-d losses by name (``loss_*``) for the
    batch that it saw last, or nothing when it is frozen or in evaluation mode.

    Args:
        encoders: of one model, after their forward pass; those without the method, and None, have no losses.

    Returns:
        The losses by name; those of one name are added up.
    """
    found: dict[str, Tensor] = {}
    for encoder in encoders:
        ask = getattr(encoder, "auxiliary_losses", None)
        for name, loss in (ask() if ask is not None else {}).items():
            found[name] = found[name] + loss if name in found else loss
    return found
