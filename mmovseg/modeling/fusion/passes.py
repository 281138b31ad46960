"""In which portions per-class maps are computed at inference, so that memory does not grow with classes or batch."""

from __future__ import annotations

from torch import nn

# Pixels of the network's input times classes that are worked on at once: with the ViT-B head, 14 classes of 384x384
# pixels, of some 15 MB each.
PIXELS_AT_ONCE = 2**21

Passes = list[tuple[slice, list[slice]]]


def plan_passes(head: nn.Module, images: int, classes: int, grid: tuple[int, int], class_chunk: int | None) -> Passes:
    """Split N images times K classes into portions.

    Args:
        head: while it trains everything is one portion, since gradients need all maps anyway.
        images, classes: N and K.
        grid: size of the network's input in pixels.
        class_chunk: classes at once; None = as many as `PIXELS_AT_ONCE` allows.

    Returns:
        Slices of images, and for each the slices of classes.
    """
    if head.training:
        return [(slice(0, images), [slice(0, classes)])]
    maps = max(1, PIXELS_AT_ONCE // (grid[0] * grid[1]))
    chunk = min(class_chunk or maps, classes)
    together = max(1, maps // chunk)
    names = [slice(start, min(start + chunk, classes)) for start in range(0, classes, chunk)]
    return [(slice(start, min(start + together, images)), names) for start in range(0, images, together)]
