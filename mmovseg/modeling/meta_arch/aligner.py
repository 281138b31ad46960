"""Patch-wise alignment of an encoder to a frozen one: the core of cross-modal unification (paper Sec. 3.2.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.losses import patch_info_nce, patch_regression
from mmovseg.modeling.meta_arch.batching import batch_view

_LOSSES = ("infonce", "l1", "mse")


class PatchAligner(nn.Module):
    """Teach a student (SAR, or optical under clouds) the features of a frozen teacher on clear optical images.

    The paper's loss is InfoNCE over patches, averaged over the tapped blocks; its Table 4 compares L1 and MSE. Any
    weighted sum of the three is possible. L1 and MSE are taken between unit-length patches, as InfoNCE is. No labels
    are read.

    Args:
        teacher: frozen encoder of ``teacher_view``.
        student: trainable encoder of ``student_view`` with the same taps and patch size.
        teacher_view: ``image_clear`` or ``image``. student_view: ``sar`` or ``image``.
        loss_weights: weight of ``infonce``, ``l1`` and ``mse``; a name left out has weight 0.
        temperature: tau.
        patches_per_step: at most this many patches, drawn at random, enter each similarity matrix, which bounds its
            memory.
        levels: 1-based taps to align, None = all (paper: 4, 8, 12).
    """

    def __init__(
        self,
        *,
        teacher: TimmEncoder,
        student: TimmEncoder,
        teacher_norm: PixelNorm,
        student_norm: PixelNorm,
        teacher_view: str = "image_clear",
        student_view: str = "sar",
        loss_weights: Mapping[str, float] | None = None,
        temperature: float = 0.07,
        patches_per_step: int = 512,
        levels: Sequence[int] | None = None,
        input_contract: InputContract | None = None,
    ) -> None:
        super().__init__()
        if teacher.taps != student.taps or teacher.patch_size != student.patch_size:
            raise UserError(
                f"teacher and student must share taps and patch size, got {teacher.taps} and {student.taps}"
            )
        self.teacher, self.student = teacher, student
        self.teacher_norm, self.student_norm = teacher_norm, student_norm
        self.teacher_view, self.student_view = teacher_view, student_view
        self.loss_weights = dict(loss_weights or {"infonce": 1.0})
        unknown = sorted(set(self.loss_weights) - set(_LOSSES))
        if unknown:
            raise UserError(f"alignment has no loss '{unknown[0]}'; it has: {', '.join(_LOSSES)}")
        self.temperature, self.patches_per_step = temperature, patches_per_step
        self.levels = [f"block{level}" for level in (levels or teacher.taps)]
        self.input_contract = input_contract.to_dict() if input_contract is not None else None
        teacher.requires_grad_(False)
        teacher.freeze = True

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor]:
        """Return ``{"loss_<name>": 0-d}``, weighted means over levels. Raises `UserError` when a view is missing."""
        views = {}
        for key, norm in ((self.teacher_view, self.teacher_norm), (self.student_view, self.student_norm)):
            view = batch_view(
                batched_inputs, key, "sar_valid" if key == "sar" else "valid", norm, self.student.patch_size
            )
            if view is None:
                raise UserError(
                    f"alignment needs the key '{key}' in every input; it is missing in "
                    f"'{batched_inputs[0].get('file_name')}'"
                )
            views[key] = view
        with torch.no_grad():
            target = self.teacher(views[self.teacher_view].x)
        features = self.student(views[self.student_view].x)
        total = target[self.levels[0]][:, 0].numel()  # N*h*w
        chosen = torch.randperm(total)[: self.patches_per_step].to(views[self.student_view].x.device)
        losses: dict[str, list[Tensor]] = {name: [] for name in self.loss_weights}
        accuracies = []
        for level in self.levels:
            student, teacher = (_patches(maps[level])[chosen] for maps in (features, target))
            # The accuracy is logged whatever is trained, so InfoNCE is always there.
            contrastive, accuracy = patch_info_nce(student, teacher, temperature=self.temperature)
            accuracies.append(accuracy)
            if "infonce" in losses:
                losses["infonce"].append(contrastive)
            if "l1" in losses:
                losses["l1"].append(patch_regression(student, teacher, norm="l1"))
            if "mse" in losses:
                losses["mse"].append(patch_regression(student, teacher, norm="mse"))
        if self.training:
            get_event_storage().put_scalar("align_accuracy", torch.stack(accuracies).mean().item())
        return {f"loss_{name}": self.loss_weights[name] * torch.stack(terms).mean() for name, terms in losses.items()}


def _patches(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N*h*w, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
