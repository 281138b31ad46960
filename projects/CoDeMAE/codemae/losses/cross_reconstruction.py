"""Reconstruction of one sensor from the other, the target degraded (paper Sec. III-D, Eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.layers.distributed import global_mean_weight
from mmovseg.projects.codemae.losses.patches import masked_error, masked_number
from mmovseg.projects.codemae.modeling.targets import CrossTarget, TargetName

Directions = Literal["both", "sar_to_optical"]

_OTHER = {"optical": "sar", "sar": "optical"}


@dataclass(frozen=True)
class CrossSpec:
    """What cross-modal reconstruction is to be; the pretrainer builds it, since it knows patch and channels.

    target: degradation of the target, see `CrossTarget`.
    directions: ``both`` (the release), or ``sar_to_optical``, the one that the paper's text stresses.
    normalise: compare with patches normalised one by one. None = yes, but not for targets that are constant within a
        patch (``spatial``, ``dual``): normalised they would be zero everywhere.

    Raises:
        UserError: unknown target or directions.
    """

    target: TargetName = "grey"
    directions: Directions = "both"
    normalise: bool | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("target", self.target, get_args(TargetName)),
            ("directions", self.directions, get_args(Directions)),
        ):
            if value not in known:
                raise UserError(f"model.cross.{name} is '{value}' but must be one of {', '.join(known)}")


class CrossReconstruction(nn.Module):
    r"""Predict, from what is visible of one sensor, a degraded view of the masked patches of the other.

        L_CDR = ( sum_b sum_i m_bi (1/K) [ || yhat^O_bi - norm(G(x^S)_bi) ||^2
                                         + || yhat^S_bi - norm(G(x^O)_bi) ||^2 ] ) / ( 2 sum_b sum_i m_bi )

    yhat^O: what the cross decoder says on the rows of the optical images; G: degradation, by default
    0.299 R + 0.587 G + 0.114 B of the standardised optical image and the mean over the channels of SAR; m and norm as
    in `MaskedReconstruction`. The crossing is in the target: rows of optical images are compared with SAR.

    The paper's text lacks the body of Eq. 5 and speaks of SAR to grey optical; the release has both directions. With
    one direction the denominator counts that one. Pixels whose target reads a pixel without data do not count.

    Args:
        spec: options.
        patch: side of a patch in pixels.
        in_chans: channels by sensor.
    """

    def __init__(self, spec: CrossSpec, *, patch: int, in_chans: Mapping[str, int]) -> None:
        super().__init__()
        self.patch = patch
        self.sources = ("optical", "sar") if spec.directions == "both" else ("sar",)
        self.target = CrossTarget(spec.target, unit_size=patch)
        self.normalise = not self.target.is_flat if spec.normalise is None else spec.normalise
        self.num_planes = max(self.target.planes(in_chans[_OTHER[source]]) for source in self.sources)

    @property
    def num_values(self) -> int:
        """What the cross decoder has to say of a patch."""
        return self.num_planes * self.patch**2

    @torch.no_grad()
    def targets(
        self, images: Mapping[str, Tensor], valid: Mapping[str, Tensor | None]
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return, by source sensor, the degraded image (B, P, H, W) of the other and where it holds (B, 1, H, W)."""
        return {
            source: self.target(images[_OTHER[source]], valid[_OTHER[source]], sensor=_OTHER[source])
            for source in self.sources
        }

    def forward(
        self,
        predicted: Mapping[str, Tensor] | None,
        images: Mapping[str, Tensor],
        mask: Tensor,
        valid: Mapping[str, Tensor | None],
    ) -> Tensor | None:
        """Compare.

        Args:
            predicted: by source sensor, (B, L, num_values); None for images that are no pairs.
            images: by sensor, (B, C, H, W) standardised.
            mask: (B, L) bool, True = masked.
            valid: by sensor, (B, 1, H, W) bool, or None = all pixels hold data.

        Returns:
            0-d loss, None without predictions. All processes must call it, since their numbers of patches are added,
            those without pairs included: as in the release, the loss weighs by the share of processes with pairs.
        """
        if predicted is None:
            numbers = [masked_number(mask, valid[_OTHER[source]], patch=self.patch) for source in self.sources]
            global_mean_weight(torch.stack(numbers).sum())
            return None
        parts = []
        for source, (wanted, holds) in self.targets(images, valid).items():
            options = {"patch": self.patch, "normalise": self.normalise}
            parts.append(masked_error(predicted[source], wanted, mask, holds, **options))
        errors, numbers = (torch.stack(list(part)).sum() for part in zip(*parts, strict=True))
        return errors / global_mean_weight(numbers)
