"""Distillation of a frozen optical model into the optical side of the encoder (paper Sec. III-B, Eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.layers.distributed import global_mean_weight
from mmovseg.projects.codemae.modeling.blocks import transformer_block
from mmovseg.projects.codemae.modeling.teacher import FrozenTeacher


@dataclass(frozen=True)
class DistillationSpec:
    """What the distillation is to be; the pretrainer builds it, since it knows the widths.

    teacher: frozen.
    auxiliary: also distil into an earlier block, through two blocks of its own. The release does, the paper says
        nothing of it.
    middle: which block that is, as the part of the transformer blocks before it (0.75: the 19th of 24).
    num_heads: of the two blocks; 8 in the release.

    Raises:
        UserError: `middle` is outside [0, 1).
    """

    teacher: FrozenTeacher
    auxiliary: bool = True
    middle: float = 0.75
    num_heads: int = 8

    def __post_init__(self) -> None:
        if not 0.0 <= self.middle < 1.0:
            raise UserError(f"model.distillation.middle is {self.middle} but must lie in [0, 1)")


class OpticalDistillation(nn.Module):
    r"""Predict, from the visible units of the optical image, what the teacher says of them on the whole image.

        L_OKD = SmoothL1( head(norm(t^O)), T ) + SmoothL1( aux_head(aux_norm(A(z^O))), T )

    t^O: fused visible tokens; z^O: output of an earlier block, A: two transformer blocks; T: the teacher's tokens after
    its own final norm, through a LayerNorm without parameters, at the visible units. SmoothL1 with beta 1, mean over
    units and channels. The two terms are added, not averaged. SAR learns through the shared weights alone.

    The paper's text lacks the body of Eq. 2, and the second term altogether; this is what the release does. A unit
    counts by its share of optical pixels with data. Images that are no pairs count as well.

    Args:
        spec: options.
        dim: width of t.
        encoder_dim: width of z.

    Raises:
        UserError: the heads of the auxiliary blocks do not divide that width.
    """

    def __init__(self, spec: DistillationSpec, *, dim: int, encoder_dim: int) -> None:
        super().__init__()
        self.teacher = spec.teacher  # no module: neither its weights nor its parameters are part of this one
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, spec.teacher.width)
        self.auxiliary = spec.auxiliary
        if spec.auxiliary:
            if encoder_dim % spec.num_heads:
                raise UserError(
                    f"model.distillation.num_heads is {spec.num_heads}, which does not divide the encoder's width "
                    f"{encoder_dim}"
                )
            self.aux_blocks = nn.Sequential(
                *(transformer_block(encoder_dim, num_heads=spec.num_heads) for _ in range(2))
            )
            self.aux_norm = nn.LayerNorm(encoder_dim, eps=1e-6)
            self.aux_head = nn.Linear(encoder_dim, spec.teacher.width)

    def forward(
        self, fused: Tensor, middle: Tensor | None, targets: Tensor, shares: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compare with the teacher.

        Args:
            fused: (B, V, dim) fused visible tokens of the optical images.
            middle: (B, V, encoder_dim) output of the earlier block on them; not read without the auxiliary branch.
            targets: (B, V, width) of the teacher at the visible units.
            shares: (B, V) in [0, 1], which part of the unit's pixels holds data; None = all do.

        Returns:
            ``okd`` and, with the auxiliary branch, ``okd_aux``: 0-d.
        """
        targets = F.layer_norm(targets.float(), targets.shape[-1:])
        weights = torch.ones_like(targets[..., 0]) if shares is None else shares
        number = global_mean_weight(weights.sum())

        def distance(answer: Tensor) -> Tensor:
            gaps = F.smooth_l1_loss(answer.float(), targets, reduction="none").mean(dim=2)
            return (gaps * weights).sum() / number

        losses = {"okd": distance(self.head(self.norm(fused)))}
        if self.auxiliary:
            assert middle is not None
            losses["okd_aux"] = distance(self.aux_head(self.aux_norm(self.aux_blocks(middle))))
        return losses
