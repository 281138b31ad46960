"""Which precision products are computed in at the moment."""

from __future__ import annotations

import torch


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the type that autocast computes in on a device, None where it is off.

    A part of the key wherever answers of a network are kept: those of bfloat16 are no answers in float32.
    """
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
