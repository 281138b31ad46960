"""What a pretrained model makes of masked images, as pixels: for panels and for looking at single samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError
from mmovseg.projects.codemae.losses.patches import from_patches, patch_moments, to_patches
from mmovseg.projects.codemae.modeling.masking import draw_visible, masked_units

if TYPE_CHECKING:
    from mmovseg.projects.codemae.modeling.pretrainer import CoDeMAE

_IN_RASTER_UNITS = ("pixel", "spatial", "median")  # targets that keep the channels of the sensor
_OTHER = {"optical": "sar", "sar": "optical"}


def reconstruct_pairs(
    model: CoDeMAE, inputs: Sequence[ModelInput], *, keep: Tensor | None = None
) -> list[dict[str, Any]]:
    """Predict every patch of both sensors from the visible ones.

    Patches are predicted up to their mean and deviation; these are taken from the truth, as is usual for such pictures.

    Args:
        model: in evaluation mode.
        inputs: with `image` and `sar` of one size.
        keep: (B, V) visible units, the same for both sensors; None = drawn from torch's generator.

    Returns:
        One dict an input: ``mask`` (h, w) bool on the grid of units, True = masked; ``unit_size``, pixels; ``own``:
        sensor -> (C, H, W) predicted by the sensor's own decoder, in raster units; with a cross decoder ``cross``:
        sensor -> (P, H, W) predicted from the *other* sensor, and ``cross_target`` -> what was to be predicted, both in
        raster units if the target keeps the channels (``cross_in_raster_units``), else on the scale of normalised
        pixels. H, W: of the raster.

    Raises:
        UserError: a sensor is missing.
    """
    views = model.views(inputs)
    if len(views) < 2:
        raise UserError(f"reconstruction needs 'image' and 'sar', '{inputs[0].get('file_name')}' has one of them")
    images = {sensor: view.x for sensor, view in views.items()}
    valid = {sensor: view.valid for sensor, view in views.items()}
    grid = model.grid_of(images["optical"])
    if keep is None:
        keep = draw_visible(len(inputs), grid[0] * grid[1], model.mask_ratio)
    keep = keep.to(images["optical"].device)
    fused = model.fuse_levels(model.encode(images, keep, with_middle=False))
    own = {
        sensor: _as_image(values, images[sensor], valid[sensor], grid, normalised=True)
        for sensor, values in model.decode(model.decoder, fused, keep, grid).items()
    }
    cross, targets = _cross(model, inputs, images, valid, fused, keep, grid) if model.cross is not None else ({}, {})
    raster_units = model.cross is not None and model.cross_reconstruction.target.name in _IN_RASTER_UNITS
    own = _denormalised(model, inputs, own)
    mask = masked_units(keep, grid[0] * grid[1]).unflatten(1, grid)
    answers = []
    for index, item in enumerate(inputs):
        height, width = item["image"].shape[-2:]

        def cut(maps: Mapping[str, Tensor], i: int = index, h: int = height, w: int = width) -> dict[str, Tensor]:
            return {sensor: x[i, :, :h, :w] for sensor, x in maps.items()}

        answer: dict[str, Any] = {"mask": mask[index], "unit_size": model.unit_size, "own": cut(own)}
        if cross:
            answer |= {"cross": cut(cross), "cross_target": cut(targets), "cross_in_raster_units": raster_units}
        answers.append(answer)
    return answers


def items_of_sar(inputs: Sequence[ModelInput]) -> list[ModelInput]:
    """Return the inputs as normalisation by source has to see them for SAR, which may be of another source."""
    return [{**item, "source": item["sar_source"]} if "sar_source" in item else item for item in inputs]


def _cross(
    model: CoDeMAE,
    inputs: Sequence[ModelInput],
    images: Mapping[str, Tensor],
    valid: Mapping[str, Tensor | None],
    fused: Tensor,
    keep: Tensor,
    grid: tuple[int, int],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is predicted of each sensor from the other, and what was to be predicted."""
    wanted = model.cross_reconstruction.targets(images, valid)
    normalised = model.cross_reconstruction.normalise
    cross = {
        _OTHER[source]: _as_image(values, *wanted[source], grid, normalised=normalised)
        for source, values in model.decode_cross(fused, keep, grid).items()
    }
    targets = {_OTHER[source]: target for source, (target, _) in wanted.items()}
    if model.cross_reconstruction.target.name in _IN_RASTER_UNITS:
        return _denormalised(model, inputs, cross), _denormalised(model, inputs, targets)
    return cross, targets


def _as_image(
    values: Tensor, truth: Tensor, valid: Tensor | None, grid: tuple[int, int], *, normalised: bool
) -> Tensor:
    """(B, L, p*p*P) predicted values -> (B, C, H, W) on the scale of `truth` (B, C, H, W)."""
    patch = truth.shape[2] // grid[0]
    rows = to_patches(truth.float(), patch)
    predicted = values.float().unflatten(-1, (patch * patch, -1))[..., : rows.shape[-1]]
    if normalised:
        mean, deviation = patch_moments(rows, None if valid is None else to_patches(valid.float(), patch))
        predicted = predicted * deviation + mean
    return from_patches(predicted, grid)


def _denormalised(model: CoDeMAE, inputs: Sequence[ModelInput], maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo the normalisation of pixels."""
    norms = {"optical": (model.optical_norm, inputs), "sar": (model.sar_norm, items_of_sar(inputs))}
    answer = {}
    for sensor, x in maps.items():
        norm, items = norms[sensor]
        constants = [norm.for_item(item) for item in items]
        answer[sensor] = torch.stack([part * norm.std + norm.mean for part, norm in zip(x, constants, strict=True)])
    return answer
