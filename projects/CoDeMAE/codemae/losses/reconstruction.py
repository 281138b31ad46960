"""Masked reconstruction of both sensors by one decoder (paper Eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmovseg.layers.distributed import global_mean_weight
from mmovseg.projects.codemae.losses.patches import masked_error


class MaskedReconstruction(nn.Module):
    r"""Predict the pixels of masked patches, normalised patch by patch; one average over both sensors.

        L_MAE = ( sum_s sum_b sum_i m_bi (1/K_s) || xhat^s_bi - norm(x^s_bi) ||^2 ) / ( 2 sum_b sum_i m_bi )

    s: optical and SAR; m_bi: 1 where patch i of pair b is masked, the same for both; x: standardised pixels, K_s values
    a patch; norm(x) = (x - mean(x)) / sqrt(var(x) + 1e-6) with the unbiased variance over all values of the patch.

    The paper's text lacks the body of its Eq. 1; this is what the release does. Pixels without data (`valid`,
    `sar_valid`, padding) are no target: they enter neither norm nor error, and a patch counts by its share of pixels
    with data, in the denominator too. Several processes average over the patches of all of them.

    Args:
        patch: side of a patch in pixels.
    """

    def __init__(self, *, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(
        self,
        predicted: Mapping[str, Tensor],
        images: Mapping[str, Tensor],
        mask: Tensor,
        valid: Mapping[str, Tensor | None],
    ) -> Tensor:
        """Compare.

        Args:
            predicted: by sensor, (B, L, p*p*P), P at least the sensor's channels.
            images: by sensor, (B, C, H, W) standardised.
            mask: (B, L) bool, True = masked.
            valid: by sensor, (B, 1, H, W) bool, or None = all pixels hold data.

        Returns:
            0-d loss; 0 where no masked patch holds data.
        """
        parts = [
            masked_error(predicted[sensor], images[sensor], mask, valid[sensor], patch=self.patch, normalise=True)
            for sensor in predicted
        ]
        errors, numbers = (torch.stack(list(part)).sum() for part in zip(*parts, strict=True))
        return errors / global_mean_weight(numbers)
