"""Losses of a head that answers with a set of masks: match queries to classes, then score class and mask.

Source: Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022
(https://arxiv.org/abs/2112.01527). The function is that of `Mask2FormerLoss` in `transformers`, to rounding and from
the same random numbers (tested). It is written anew because that one cannot keep ignored pixels out, counts masks over
processes only under `accelerate`, and samples the masks of every image by themselves.

Shapes: N images, Q queries, K classes, M matched pairs of the batch, P points; h, w is the grid of the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mmovseg.data.sample import IGNORE_LABEL
from mmovseg.errors import UserError
from mmovseg.layers.distributed import global_mean_weight
from mmovseg.modeling.losses.segmentation import IgnoredPixels

_TINY = 1e-6  # of a share of labelled pixels, which is at most 1

Pairs = tuple[Tensor, Tensor, Tensor]
"""Image, query and class of every matched pair, (M,) int64 each."""


class MaskLoss(nn.Module):
    """Class, mask and Dice loss of the queries that are matched to the classes of each image, for every output.

    A query that is matched to no class is to answer "no object". Matching is one to one and costs what the losses
    weigh; masks are compared at P points: for the matching anywhere, for the losses mostly where the mask is
    undecided.

    Args:
        num_classes: K; "no object" is class K.
        class_weight, mask_weight, dice_weight: of cross-entropy, binary cross-entropy and Dice, also in the matching.
        no_object_weight: of "no object" among the classes of the cross-entropy.
        num_points: P.
        oversample_ratio: candidates drawn for a point that is chosen because the mask is undecided there.
        importance_ratio: share of the points that are chosen so, 0 .. 1; the rest lies anywhere.
        ignored_pixels: what a pixel of 255 means to the masks. ``exclude``: nothing. It says that the class there is
            unknown, and evaluation skips it too. ``negative``: it lies in no mask, as both public code bases have it.

    Raises:
        UserError: an unknown option, or a number out of range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
        ignored_pixels: IgnoredPixels = "exclude",
    ) -> None:
        super().__init__()
        if ignored_pixels not in get_args(IgnoredPixels):
            known = ", ".join(get_args(IgnoredPixels))
            raise UserError(f"ignored_pixels of the mask losses is '{ignored_pixels}' but must be one of {known}")
        if num_points < 1 or oversample_ratio < 1 or not 0 <= importance_ratio <= 1:
            raise UserError(
                f"mask losses need num_points >= 1, oversample_ratio >= 1 and importance_ratio in [0, 1], got "
                f"{num_points}, {oversample_ratio} and {importance_ratio}"
            )
        self.num_classes = num_classes
        self.class_weight, self.mask_weight, self.dice_weight = class_weight, mask_weight, dice_weight
        self.num_points, self.ignored_pixels = num_points, ignored_pixels
        self.num_candidates = int(num_points * oversample_ratio)
        self.num_undecided = int(num_points * importance_ratio)
        weights = torch.ones(num_classes + 1)
        weights[-1] = no_object_weight
        self.register_buffer("weights", weights, persistent=False)  # an option, so no part of a checkpoint
        self.weights: Tensor

    def forward(self, outputs: Sequence[tuple[Tensor, Tensor]], target: Tensor) -> dict[str, Tensor]:
        """Score every supervised output by a matching of its own.

        Args:
            outputs: class logits (N, Q, K + 1) and mask logits (N, Q, h, w) of each.
            target: (N, H, W) int64 in 0..K-1, 255 = ignore; covers the same ground as the masks.

        Returns:
            ``loss_class``, ``loss_mask`` and ``loss_dice``: 0-d, weighted, each the sum over the outputs.

        Raises:
            UserError: a label that is no class.
        """
        with torch.autocast(target.device.type, enabled=False):
            truth = _Truth(target, self.num_classes, exclude=self.ignored_pixels == "exclude")
            totals = target.new_zeros(3, dtype=torch.float32)
            for class_logits, mask_logits in outputs:
                class_logits, mask_logits = class_logits.float(), mask_logits.float()
                pairs = self.match(class_logits, mask_logits, truth)
                masks = self._mask_losses(mask_logits, truth, pairs)
                totals = totals + torch.stack([self._class_loss(class_logits, pairs), *masks])
        weights = (self.class_weight, self.mask_weight, self.dice_weight)
        names = ("loss_class", "loss_mask", "loss_dice")
        return {name: weight * total for name, weight, total in zip(names, weights, totals, strict=True)}

    @torch.no_grad()
    def match(self, class_logits: Tensor, mask_logits: Tensor, truth: _Truth) -> Pairs:
        """Give every class that an image has the query that answers for it best, all of them together.

        Args:
            class_logits: (N, Q, K + 1).
            mask_logits: (N, Q, h, w).
            truth: of the same images.

        Returns:
            The pairs, image by image, queries rising.
        """
        cost = self.costs(class_logits, mask_logits, truth)
        worst = torch.finfo(cost.dtype).max  # a query that is not finite is matched last
        cost = torch.nan_to_num(cost, nan=worst, posinf=worst, neginf=worst).cpu()
        found: list[tuple[int, int, int]] = []
        for image, present in enumerate(truth.present.cpu()):
            classes = present.nonzero()[:, 0]
            queries, positions = linear_sum_assignment(cost[image][:, classes].numpy())
            found += [(image, int(q), int(classes[p])) for q, p in zip(queries, positions, strict=True)]
        table = torch.tensor(found, dtype=torch.int64, device=mask_logits.device).reshape(-1, 3)
        return table[:, 0], table[:, 1], table[:, 2]

    @torch.no_grad()
    def costs(self, class_logits: Tensor, mask_logits: Tensor, truth: _Truth) -> Tensor:
        """Return what it costs to let a query answer for a class: (N, Q, K), of classes that are not there too."""
        points = torch.rand(len(mask_logits), self.num_points, 2, device=mask_logits.device)
        logits = sample_points(mask_logits, points)  # (N, Q, P)
        labels, share = truth.at(points)  # (N, K, P), (N, 1, P)
        counted = share.sum(dim=2, keepdim=True).clamp_min(_TINY)
        seen = labels * share
        # softplus(x) - x y is the binary cross-entropy of logit x and label y
        cross = ((F.softplus(logits) * share).sum(2, keepdim=True) - logits @ seen.transpose(1, 2)) / counted
        probabilities = logits.sigmoid()
        both = probabilities @ seen.transpose(1, 2)
        sizes = (probabilities * share).sum(2, keepdim=True) + seen.sum(2)[:, None]
        dice = 1 - (2 * both + 1) / (sizes + 1)
        cost = self.mask_weight * cross + self.dice_weight * dice
        return cost - self.class_weight * class_logits.softmax(dim=-1)[..., :-1]

    def _class_loss(self, logits: Tensor, pairs: Pairs) -> Tensor:
        """Weighted cross-entropy of all queries; the mean is over the weights of all processes."""
        image, query, category = pairs
        target = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        target[image, query] = category
        total = F.cross_entropy(logits.transpose(1, 2), target, self.weights, reduction="sum")
        return total / global_mean_weight(self.weights[target].sum())

    def _mask_losses(self, logits: Tensor, truth: _Truth, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy and Dice, summed over the pairs, by the number of masks of all processes."""
        image, query, category = pairs
        masks = logits[image, query][:, None]  # (M, 1, h, w)
        with torch.no_grad():
            points = self._undecided_points(masks, truth, image)
            labels, share = truth.at(points, image, category)
            labels, share = labels[:, 0], share[:, 0]
        values = sample_points(masks, points)[:, 0]  # (M, P)
        cross = F.binary_cross_entropy_with_logits(values, labels, reduction="none") * share
        cross = cross.sum(1) / share.sum(1).clamp_min(_TINY)
        probabilities = values.sigmoid() * share
        both, sizes = (probabilities * labels).sum(1), probabilities.sum(1) + (labels * share).sum(1)
        dice = 1 - (2 * both + 1) / (sizes + 1)
        count = global_mean_weight(truth.present.sum()).clamp_min(1)
        return cross.sum() / count, dice.sum() / count

    def _undecided_points(self, masks: Tensor, truth: _Truth, image: Tensor) -> Tensor:
        """Return P points in [0, 1] x [0, 1] for each of (M, 1, h, w) masks: (M, P, 2)."""
        candidates = torch.rand(len(masks), self.num_candidates, 2, device=masks.device)
        certainty = sample_points(masks, candidates)[:, 0].abs()
        if truth.valid is not None:  # candidates without a label are taken last
            share = sample_points(truth.valid[image], candidates)[:, 0]
            certainty = certainty.masked_fill(share < _TINY, torch.inf)
        chosen = torch.topk(-certainty, self.num_undecided, dim=1).indices
        points = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        rest = self.num_points - self.num_undecided
        if rest:
            points = torch.cat([points, torch.rand(len(masks), rest, 2, device=masks.device)], dim=1)
        return points


class _Truth:
    """Labels of a batch as one mask a class.

    Attributes:
        masks: (N, K, H, W) float32, 0 or 1.
        present: (N, K) bool, whether the image has a pixel of the class.
        valid: (N, 1, H, W) float32, 0 at pixels that have no label; None = all count.
    """

    def __init__(self, target: Tensor, num_classes: int, *, exclude: bool) -> None:
        labelled = target != IGNORE_LABEL
        wrong = labelled & ((target < 0) | (target >= num_classes))
        if bool(wrong.any()):
            raise UserError(f"a label is {int(target[wrong][0])}, but the model has {num_classes} classes")
        classes = torch.arange(num_classes, device=target.device)[:, None, None]
        self.masks = (target[:, None] == classes).float()
        self.present = self.masks.flatten(2).any(dim=2)
        self.valid = labelled[:, None].float() if exclude and not bool(labelled.all()) else None

    def at(self, points: Tensor, image: Tensor | None = None, category: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read labels at points, between pixels bilinearly.

        Args:
            points: (N, P, 2) of the images, or (M, P, 2) of the masks that `image` and `category` name.
            image, category: (M,).

        Returns:
            Labels (N, K, P) or (M, 1, P) in [0, 1], means over the labelled pixels around; and the share of these
            pixels (N, 1, P) or (M, 1, P), which weighs the point.
        """
        masks = self.masks if image is None else self.masks[image, category][:, None]
        labels = sample_points(masks, points)
        if self.valid is None:
            return labels, torch.ones_like(labels[:, :1])
        share = sample_points(self.valid if image is None else self.valid[image], points)
        return labels / share.clamp_min(_TINY), share


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps at points bilinearly; beyond the centres of the outer pixels they fade to 0, as both code bases do.

    Args:
        maps: (N, C, H, W).
        points: (N, P, 2), (x, y) in [0, 1] over the whole map.

    Returns:
        (N, C, P).
    """
    if not len(maps):
        return maps.new_zeros(0, maps.shape[1], points.shape[1]) + maps.sum()  # keeps the graph
    return F.grid_sample(maps, 2 * points[:, None] - 1, align_corners=False)[:, :, 0]
