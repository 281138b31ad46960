"""How the losses of pairs are switched off for images that are no pair.

The release multiplies them by 0. That keeps every parameter in the graph, for which DDP waits, but 0 * NaN is NaN: an
overflow in a loss that should not count would still reach the weights. Both functions here give the value 0 and
gradients of exactly 0, whatever the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def zero_of(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return 0 that depends on parameters without reading them: their gradients are zeros and not None.

    What they belong to need not run at all. Nothing is read, so nothing that is not finite can come through.

    Args:
        parameters: frozen ones are passed over.

    Returns:
        0-d; without a gradient where there is no trainable parameter.
    """
    parts = [parameter.flatten()[:0].sum() for parameter in parameters if parameter.requires_grad]
    return torch.stack([part.float() for part in parts]).sum() if parts else torch.zeros(())


def silenced(loss: Tensor) -> Tensor:
    """Return 0 whose gradient into `loss` is exactly 0, also where `loss` is NaN or infinite.

    For a loss that has to stay in the graph because its backward pass is a collective that other processes wait for.
    """
    return loss.masked_fill(torch.ones_like(loss, dtype=torch.bool), 0.0)
