"""From a list of model inputs to batched, normalised, padded tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL, Modality, ModelInput
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.layers.conv import pad_to_multiple
from mmovseg.layers.norm import PixelNorm, SourceNorm

Answer = TypeVar("Answer")

RASTER_KEYS: dict[Modality, tuple[str, ...]] = {"both": ("image", "sar"), "optical": ("image",), "sar": ("sar",)}
"""What a model of a modality reads of its inputs."""


@dataclass
class View:
    """One modality of a batch.

    Attributes:
        x: (N, C, H, W) normalised, padded.
        valid: (N, 1, H, W) bool, False at pixels without data and, unless padding is data, at padded ones; None = all
            are valid.
        seen: (N, 1, H, W) bool, False at pixels without data; a padded pixel counts as the nearest pixel of the raster.
            None = the rasters have no pixel without data.
    """

    x: Tensor
    valid: Tensor | None
    seen: Tensor | None = None


def answer_alike(
    inputs: Sequence[ModelInput],
    answer: Callable[[Sequence[ModelInput]], Sequence[Answer]],
    *,
    keys: Sequence[str] = RASTER_KEYS["both"],
    multiple: int = 1,
) -> list[Answer]:
    """Ask a model about inputs of any size and modality, so that no answer depends on what else is in the batch.

    Those go together that have the same rasters and, once padded, the same sizes. In one batch the smaller ones would
    be padded to the largest: encoders attend to padding, and positions are resampled to the grid of the padded image.
    Inputs that are all alike are asked about as they come.

    Args:
        inputs: of one batch.
        answer: inputs that are alike -> one answer each.
        keys: rasters that the model reads, ``image``, ``sar``, ...
        multiple: both sides are padded to a multiple of it.

    Returns:
        One answer an input, in their order.
    """
    groups: dict[tuple[tuple[int, ...] | None, ...], list[int]] = {}
    for index, item in enumerate(inputs):
        groups.setdefault(tuple(_padded_size(item, key, multiple) for key in keys), []).append(index)
    if len(groups) < 2:
        return list(answer(inputs))
    found: dict[int, Answer] = {}
    for places in groups.values():
        found.update(zip(places, answer([inputs[place] for place in places]), strict=True))
    return [found[index] for index in range(len(inputs))]


def _padded_size(item: ModelInput, key: str, multiple: int) -> tuple[int, ...] | None:
    if key not in item:
        return None
    # plain numbers also under a tracer
    return tuple(-(-int(side) // multiple) for side in item[key].shape[-2:])  # type: ignore[literal-required]


def batch_view(
    inputs: Sequence[ModelInput],
    key: str,
    valid_key: str,
    norm: PixelNorm | SourceNorm,
    multiple: int,
    *,
    bands: Sequence[int] | None = None,
    padding_is_data: bool = False,
    blank_where_absent: bool = False,
) -> View | None:
    """Stack one modality; None when the inputs do not have it.

    Padding, nodata and NaN all end as 0 after normalisation (the mean of the training data) and as False in `valid`.
    With `padding_is_data` a padded pixel is in `valid` what it is in `seen`: the encoders see the raster go on.
    With `blank_where_absent` inputs that lack what others of the batch have count as rasters without any data.

    Args:
        inputs: of one batch.
        key: ``image``, ``sar``, ...
        valid_key: its mask, which may be absent.
        norm: constants of the channels that are read, possibly by source.
        multiple: both sides are padded to a multiple of it.
        bands: 0-based channels to read, in this order; None = all.
        padding_is_data: whether padded pixels count in `valid` as the raster's nearest pixel does.
        blank_where_absent: whether a part of the batch may lack the modality; it then has ``image`` or ``sar``.

    Raises:
        UserError: only a part of the batch has the modality and must not, a band is asked for that an image does not
            have, an image has more or fewer channels than constants, or its source has none.
    """
    lacking = [item for item in inputs if key not in item]
    if len(lacking) == len(inputs):
        return None
    if lacking and not blank_where_absent:
        name = lacking[0].get("file_name", "?")
        raise UserError(f"{len(lacking)} of {len(inputs)} samples of a batch lack '{key}', the first of them '{name}'")
    read = [_read(item, key, valid_key, norm, bands) if key in item else None for item in inputs]
    channels = next(len(pair[0]) for pair in read if pair is not None)
    pairs = [pair or _blank(item, channels, norm.device) for pair, item in zip(read, inputs, strict=True)]
    masks = [mask for _, mask in pairs]
    height, width = (max(mask.shape[side] for mask in masks) for side in range(2))
    pads = [(0, width - mask.shape[1], 0, height - mask.shape[0]) for mask in masks]
    images = [torch.nn.functional.pad(image, pad) for (image, _), pad in zip(pairs, pads, strict=True)]
    x = pad_to_multiple(torch.stack(images), multiple)
    size = (x.shape[-2], x.shape[-1])
    holes = not all(bool(mask.all()) for mask in masks)
    seen = torch.stack([_continue(mask, size) for mask in masks])[:, None] if holes else None
    if padding_is_data:
        return View(x, seen, seen)
    if not holes and all(mask.shape == size for mask in masks):
        return View(x, None, None)
    pads = [(0, size[1] - mask.shape[1], 0, size[0] - mask.shape[0]) for mask in masks]
    valid = torch.stack([torch.nn.functional.pad(mask, pad) for mask, pad in zip(masks, pads, strict=True)])
    return View(x, valid[:, None], seen)


def _read(
    item: ModelInput, key: str, valid_key: str, norm: PixelNorm | SourceNorm, bands: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Return a raster normalised, (C, h, w), and where it has data, (h, w) bool."""
    image: Tensor = item[key]  # type: ignore[literal-required]
    if bands is not None:
        image = _select_bands(image, bands, item, key)
    item_norm = _norm_for(norm, item, image, key)
    image = image.to(norm.device, non_blocking=True)
    given: Tensor | None = item.get(valid_key)  # type: ignore[assignment]
    mask = torch.ones(image.shape[-2:], dtype=torch.bool) if given is None else given
    mask = mask.to(norm.device)
    if image.is_floating_point():
        mask = mask & torch.isfinite(image).all(dim=0)
        image = torch.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    return item_norm(image, mask), mask


def _blank(item: ModelInput, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what `_read` makes of a raster without any data, of the size of the one that the item has."""
    height, width = (item["image"] if "image" in item else item["sar"]).shape[-2:]
    mask = torch.zeros(height, width, dtype=torch.bool, device=device)
    return torch.zeros(channels, height, width, device=device), mask


def _continue(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Extend (h, w) to `size` at the bottom and right with the nearest value."""
    rows, columns = (
        torch.arange(side, device=mask.device).clamp(max=own - 1) for side, own in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def seen_by_any(views: Sequence[View]) -> Tensor | None:
    """Pixels (N, 1, H, W) of which at least one of the views has data; None = all, or there is no view."""
    masks = [view.seen for view in views if view.seen is not None]
    if len(masks) < len(views) or not masks:
        return None
    return torch.stack(masks).any(dim=0)


def without_blank(*views: View | None) -> tuple[View | None, ...]:
    """Return the views with None for those without any data, which spares their encoders; all when none has data."""
    found = tuple(view if view is not None and (view.seen is None or bool(view.seen.any())) else None for view in views)
    return found if any(view is not None for view in found) else views


def _norm_for(norm: PixelNorm | SourceNorm, item: ModelInput, image: Tensor, key: str) -> PixelNorm:
    found = norm.for_item(item)
    if len(image) != len(found.mean):
        raise UserError(
            f"'{key}' of '{item.get('file_name', '?')}' does not fit the model: expected {len(found.mean)} channels, "
            f"got {len(image)}"
        )
    return found


def _select_bands(image: Tensor, bands: Sequence[int], item: ModelInput, key: str) -> Tensor:
    if not bands or min(bands) < 0 or max(bands) >= len(image):
        raise UserError(
            f"'{key}' of '{item.get('file_name', '?')}' has {len(image)} channels, so the channels "
            f"{tuple(bands)} cannot be read (counted from 0)"
        )
    return image[list(bands)]


def shared_vocabulary(inputs: Sequence[ModelInput]) -> Vocabulary:
    """Return the vocabulary that the batch asks for. Raises `UserError` when there is none or the items differ."""
    if not all("vocabulary" in item for item in inputs):
        raise UserError("the model was asked without class names: every input needs the key 'vocabulary'")
    vocabulary = inputs[0]["vocabulary"]
    if any(item["vocabulary"] is not vocabulary and item["vocabulary"] != vocabulary for item in inputs):
        raise UserError("the samples of a batch ask for different vocabularies; batch them apart")
    return vocabulary


def batch_labels(inputs: Sequence[ModelInput], device: torch.device) -> Tensor:
    """Stack labels (N, H, W) int64, padded with 255."""
    labels = [item["sem_seg"].to(device) for item in inputs]
    height, width = max(x.shape[0] for x in labels), max(x.shape[1] for x in labels)
    pads = [(0, width - x.shape[1], 0, height - x.shape[0]) for x in labels]
    return torch.stack(
        [torch.nn.functional.pad(x, pad, value=IGNORE_LABEL) for x, pad in zip(labels, pads, strict=True)]
    )
