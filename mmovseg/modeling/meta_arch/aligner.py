"""Alignment of an encoder to a frozen one by pairs of images: cross-modal unification, CMU (paper Sec. 3.2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.checkpoint.identity import teacher_sha256
from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError
from mmovseg.layers.conv import masked_mean_pool
from mmovseg.layers.distributed import gather_rows, world_size
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.layers.queue import FeatureQueue
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.losses import OTHER_BATCH, info_nce, patch_regression
from mmovseg.modeling.meta_arch.auxiliary import auxiliary_losses
from mmovseg.modeling.meta_arch.batching import answer_alike, batch_view

TokenKind = Literal["patch", "global"]
Negatives = Literal["all", "other_images"]
GlobalPool = Literal["mean", "class_token"]

_LOSSES = ("infonce", "l1", "mse")
_ROUNDING = 1e-6  # of the mean over a patch
_MIN_TEMPERATURE = 0.01  # CLIP's limit: below it a learned temperature lets the softmax collapse


@dataclass
class _Features:
    """One encoder's answer: level -> (N, C, h, w), level -> (N, C) or empty; `valid` (N, h, w) bool."""

    maps: dict[str, Tensor]
    tokens: dict[str, Tensor]
    valid: Tensor


class PatchAligner(nn.Module):
    """Teach a student (SAR, or optical under clouds) the features of a frozen teacher on clear optical images.

    The paper's loss is InfoNCE, averaged over the tapped blocks; its Table 4 compares L1 and MSE. Any weighted sum of
    the three is possible; L1 and MSE are taken between unit-length vectors, as InfoNCE is. No labels are read. The
    paper does not say whether an embedding stands for a patch or for an image. Patches are the default: what the fusion
    reads is dense, and a batch of 8 then has thousands of negatives and not seven.

    In evaluation mode the answer is the features themselves, for `EncoderEvaluator`.

    Args:
        teacher: frozen encoder of ``teacher_view``; None when every input brings `teacher_features`.
        student: trainable encoder of ``student_view`` with the same taps, width and patch size.
        teacher_norm, student_norm: pixel constants of the views, one set or one a source.
        teacher_view: ``image_clear`` or ``image``. student_view: ``sar`` or ``image``.
        loss_weights: weight of ``infonce``, ``l1`` and ``mse``; a name left out has weight 0.
        tokens: what is aligned: ``patch`` tokens, one ``global`` embedding an image, or both (their losses are added).
        temperature: tau; the start if it learns.
        learn_temperature: train tau, from 0.01 upwards.
        negatives: of a patch: ``all`` other patches of the batch, or those of ``other_images`` only. Other patches of
            one scene often show the same thing, but they are also the ones that a map must tell apart.
        symmetric: average with the loss of teacher embeddings that pick their student's; the paper has one direction.
        gather: take negatives from all processes, so that several give the loss of one with the whole batch.
        queue_size: negatives kept from past batches, at each level; exact, since the teacher does not move.
        patches_per_step: at most this many patches a process, drawn at random, enter the loss; None = all.
        row_chunk: rows of the similarity matrix that are in memory at a time, see `info_nce`; None = all.
        levels: 1-based taps to align, None = all (paper: 4, 8, 12).
        global_pool: an image's embedding: ``mean`` of its valid patches, or the ``class_token``.
        min_valid: least share of pixels with data, in both views, of a patch that is aligned.

    Raises:
        UserError: the encoders do not match, or an option is unknown or impossible.
    """

    def __init__(
        self,
        *,
        teacher: TimmEncoder | None,
        student: TimmEncoder,
        teacher_norm: PixelNorm | SourceNorm | None,
        student_norm: PixelNorm | SourceNorm,
        teacher_view: str = "image_clear",
        student_view: str = "sar",
        loss_weights: Mapping[str, float] | None = None,
        tokens: Sequence[TokenKind] = ("patch",),
        temperature: float = 0.07,
        learn_temperature: bool = False,
        negatives: Negatives = "all",
        symmetric: bool = False,
        gather: bool = True,
        queue_size: int = 0,
        patches_per_step: int | None = 512,
        row_chunk: int | None = None,
        levels: Sequence[int] | None = None,
        global_pool: GlobalPool = "mean",
        min_valid: float = 1.0,
        input_contract: InputContract | None = None,
    ) -> None:
        super().__init__()
        self.loss_weights = dict(loss_weights or {"infonce": 1.0})
        self.tokens = tuple(tokens)
        self.levels = [f"block{level}" for level in (levels or student.taps)]
        _check_options(self.loss_weights, self.tokens, negatives, global_pool, temperature)
        _check_encoders(teacher, student, self.levels, class_token=global_pool == "class_token")
        if queue_size and not gather:
            raise UserError("a queue of past embeddings is shared by all processes and needs gather=True")
        self.teacher, self.student = teacher, student
        self.teacher_norm, self.student_norm = teacher_norm, student_norm
        self.teacher_view, self.student_view = teacher_view, student_view
        self.negatives, self.symmetric, self.gather = negatives, symmetric, gather
        self.patches_per_step, self.row_chunk = patches_per_step, row_chunk
        self.global_pool, self.min_valid = global_pool, min_valid
        self.temperature = float(temperature)
        if learn_temperature and "infonce" not in self.loss_weights:
            raise UserError("learn_temperature needs the loss 'infonce': the other losses have no temperature")
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None
        width = student.output_shape()[self.levels[0]].channels
        assert width is not None
        self.queues = nn.ModuleDict(
            {kind: FeatureQueue(queue_size, levels=len(self.levels), width=width) for kind in self.tokens if queue_size}
        )
        self.input_contract = input_contract.to_dict() if input_contract is not None else None
        self._checked_teachers: set[str] = set()
        if teacher is not None:
            teacher.requires_grad_(False)
            teacher.freeze = True
        # What lies behind the deepest aligned block gets no gradient, for which DDP would wait.
        deepest = max(int(level.removeprefix("block")) for level in self.levels)
        student.model.blocks[deepest:].requires_grad_(False)

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Align or, in evaluation mode, return the features.

        Args:
            batched_inputs: with the student's view, and in training the teacher's or `teacher_features`.

        Returns:
            Training: ``{"loss_<name>": 0-d}`` of patches and ``{"loss_<name>_global": 0-d}`` of images, weighted means
            over levels, and what `auxiliary_losses` finds in the student. Otherwise one dict an image: ``student`` and
            ``teacher`` (level -> (C, h, w)), ``student_global`` and ``teacher_global`` (level -> (C,)), ``patch_valid``
            (h, w) bool, False in padding, and ``patch_size``, input pixels; the teacher's only when the input has what
            it takes.

        Raises:
            UserError: a view is missing, or there is nothing to contrast with.
        """
        if not self.training:
            views = (self.student_view, self.teacher_view)
            return answer_alike(batched_inputs, self._answers, keys=views, multiple=self.student.patch_size)
        student, teacher, valid = self._features(batched_inputs)
        assert teacher is not None
        if self.log_temperature is not None:
            with torch.no_grad():  # the parameter itself, as CLIP does: a clamped value would have no way back
                self.log_temperature.clamp_(min=math.log(_MIN_TEMPERATURE))
        losses: dict[str, Tensor] = {}
        accuracies = []
        for kind in self.tokens:
            rows = self._rows(kind, student, teacher, valid)
            terms, accuracy = self._align(kind, *rows)
            suffix = "" if kind == "patch" else "_global"
            losses |= {f"loss_{name}{suffix}": self.loss_weights[name] * term for name, term in terms.items()}
            accuracies.append(accuracy)
        self._log(torch.stack(accuracies).mean())
        return losses | auxiliary_losses(self.student)

    # ------------------------------------------------------------------ features

    def _answers(self, inputs: Sequence[ModelInput]) -> list[dict[str, Any]]:
        return _as_list(*self._features(inputs), self.global_pool, self.student.patch_size)

    def _features(self, inputs: Sequence[ModelInput]) -> tuple[_Features, _Features | None, Tensor]:
        """Return what the student and, if there is one, the teacher say, and which patches both see, (N, h, w) bool."""
        student = self._encode(inputs, self.student, self.student_view, self.student_norm, needed=True)
        assert student is not None
        teacher = self._teach(inputs, student)
        return student, teacher, student.valid if teacher is None else student.valid & teacher.valid

    def _teach(self, inputs: Sequence[ModelInput], student: _Features) -> _Features | None:
        """Run the teacher, or take what it once said. None only in evaluation mode."""
        stored = [item["teacher_features"] for item in inputs if "teacher_features" in item]
        if len(stored) == len(inputs):
            self._check_teacher({item["teacher_sha256"] for item in inputs if "teacher_sha256" in item})
            return _from_store(stored, inputs, student, self.levels, self.min_valid)
        if self.teacher is None or self.teacher_norm is None:
            if not self.training:
                return None
            raise UserError(
                f"alignment without a teacher needs 'teacher_features' in every input; they are missing in "
                f"'{inputs[0].get('file_name')}'"
            )
        with torch.no_grad():
            return self._encode(inputs, self.teacher, self.teacher_view, self.teacher_norm, needed=self.training)

    def _check_teacher(self, digests: set[str]) -> None:
        """Compare the teacher here, if there is one, with the one whose features came; a digest is computed once."""
        if self.teacher is None or self.teacher_norm is None or digests <= self._checked_teachers:
            return
        own = teacher_sha256(self.teacher, self.teacher_norm, self.teacher_view)
        if digests - {own}:
            raise UserError(
                f"'teacher_features' were made by another teacher (weights, normalisation or view differ: sha256 "
                f"{min(digests - {own})[:12]}, here {own[:12]}); compute them again, or set model.teacher and "
                "model.teacher_norm to null to train with what they hold"
            )
        self._checked_teachers = digests

    def _encode(
        self,
        inputs: Sequence[ModelInput],
        encoder: TimmEncoder,
        key: str,
        norm: PixelNorm | SourceNorm,
        *,
        needed: bool,
    ) -> _Features | None:
        view = batch_view(inputs, key, "sar_valid" if key == "sar" else "valid", norm, encoder.patch_size)
        if view is None:
            if not needed:
                return None
            raise UserError(
                f"alignment needs the key '{key}' in every input; it is missing in '{inputs[0].get('file_name')}'"
            )
        maps, tokens = encoder.encode(view.x)
        grid = next(iter(maps.values())).shape
        if view.valid is None:
            valid = torch.ones(len(inputs), *grid[-2:], dtype=torch.bool, device=view.x.device)
        else:
            valid = masked_mean_pool(view.valid, (grid[-2], grid[-1]))[:, 0] >= self.min_valid - _ROUNDING
        return _Features(maps, tokens, valid)

    def _rows(
        self, kind: TokenKind, student: _Features, teacher: _Features, valid: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Paired embeddings a level, (L, C) each, and the image (L,) that each is from."""
        first = (dist.get_rank() << 20) if world_size() > 1 else 0  # images are numbered over all processes
        if kind == "global":
            there = valid.flatten(1).any(dim=1)
            rows = [
                [_pool(part, valid, level, self.global_pool)[there] for level in self.levels]
                for part in (student, teacher)
            ]
            return rows[0], rows[1], first + there.nonzero()[:, 0]
        index = valid.flatten().nonzero()[:, 0]
        if self.patches_per_step is not None:
            index = index[torch.randperm(len(index))[: self.patches_per_step].to(index.device)]
        images = first + index // valid[0].numel()
        rows = [[_patches(part.maps[level])[index] for level in self.levels] for part in (student, teacher)]
        return rows[0], rows[1], images

    # ------------------------------------------------------------------ losses

    def _align(
        self, kind: TokenKind, student: list[Tensor], teacher: list[Tensor], images: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return each loss as the mean over levels, not yet weighted, and the accuracy."""
        keys, start = gather_rows(torch.stack(teacher, dim=1)) if self.gather else (torch.stack(teacher, dim=1), 0)
        key_images = gather_rows(images)[0] if self.gather else images
        self._check_negatives(kind, key_images)
        losses: dict[str, list[Tensor]] = {name: [] for name in self.loss_weights}
        accuracies = []
        for number in range(len(self.levels)):
            contrast = self._contrast(kind, number, student[number], keys[:, number], images, key_images, start)
            accuracies.append(contrast[1])
            if "infonce" in losses:
                losses["infonce"].append(contrast[0])
            if "l1" in losses:
                losses["l1"].append(patch_regression(student[number], teacher[number], norm="l1"))
            if "mse" in losses:
                losses["mse"].append(patch_regression(student[number], teacher[number], norm="mse"))
        if kind in self.queues:
            self.queues[kind].push(keys.transpose(0, 1))  # type: ignore[operator]
        return {name: torch.stack(terms).mean() for name, terms in losses.items()}, torch.stack(accuracies).mean()

    def _contrast(
        self,
        kind: TokenKind,
        number: int,
        student: Tensor,
        keys: Tensor,
        images: Tensor,
        key_images: Tensor,
        start: int,
    ) -> tuple[Tensor, Tensor]:
        """InfoNCE at one level and its accuracy; without a graph when it only gives the accuracy that is logged."""
        positives = start + torch.arange(len(student), device=student.device)
        apart = kind == "patch" and self.negatives == "other_images"
        tau = self.temperature if self.log_temperature is None else self.log_temperature.exp()
        options: dict[str, Any] = {"temperature": tau, "row_chunk": self.row_chunk}
        with torch.set_grad_enabled(torch.is_grad_enabled() and "infonce" in self.loss_weights):
            candidates, groups = keys, key_images
            if kind in self.queues:
                past = self.queues[kind].keys(number)  # type: ignore[operator]
                candidates = torch.cat([keys, past.to(keys)])
                groups = torch.cat([key_images, key_images.new_full((len(past),), OTHER_BATCH)])
            pairs = {"query_groups": images, "key_groups": groups} if apart else {}
            loss, accuracy = info_nce(student, candidates, positives, **pairs, **options)
            if not self.symmetric:
                return loss, accuracy
            all_students = gather_rows(student)[0] if self.gather else student
            pairs = {"query_groups": images, "key_groups": key_images} if apart else {}
            back, _ = info_nce(keys[start : start + len(student)], all_students, positives, **pairs, **options)
            return (loss + back) / 2, accuracy

    def _check_negatives(self, kind: TokenKind, images: Tensor) -> None:
        """One image has negatives only among its own patches, if these may be some."""
        if kind == "patch" and self.negatives == "all" or kind in self.queues or "infonce" not in self.loss_weights:
            return
        if len(images) and bool((images == images[0]).all()):
            what = "global embeddings" if kind == "global" else "negatives='other_images'"
            raise UserError(
                f"InfoNCE with {what} and a batch of one image has no negatives; use a larger batch, patch tokens with "
                f"negatives='all', or a queue"
            )

    def _log(self, accuracy: Tensor) -> None:
        storage = get_event_storage()
        if bool(torch.isfinite(accuracy)):  # a batch without a single valid patch has none
            storage.put_scalar("align_accuracy", accuracy.item())
        if self.log_temperature is not None:
            storage.put_scalar("temperature", self.log_temperature.exp().item())


def _check_options(
    weights: Mapping[str, float], tokens: Sequence[str], negatives: str, pool: str, temperature: float
) -> None:
    unknown = sorted(set(weights) - set(_LOSSES))
    if unknown:
        raise UserError(f"alignment has no loss '{unknown[0]}'; it has: {', '.join(_LOSSES)}")
    for name, value, known in (("negatives", negatives, Negatives), ("global_pool", pool, GlobalPool)):
        if value not in get_args(known):
            raise UserError(f"alignment option {name} must be one of {', '.join(get_args(known))}, got '{value}'")
    if not tokens or set(tokens) - set(get_args(TokenKind)):
        raise UserError(f"alignment tokens must be some of {', '.join(get_args(TokenKind))}, got {list(tokens)}")
    if temperature <= 0:
        raise UserError(f"the temperature of alignment must be positive, got {temperature:g}")


def _check_encoders(
    teacher: TimmEncoder | None, student: TimmEncoder, levels: Sequence[str], *, class_token: bool
) -> None:
    missing = [level for level in levels if level not in student.feature_names]
    if missing:
        raise UserError(f"alignment level '{missing[0]}' is no tap of the student, which has {student.feature_names}")
    if class_token and not (student.has_class_token and (teacher is None or teacher.has_class_token)):
        raise UserError("global_pool='class_token' needs encoders with a class token; use 'mean'")
    if teacher is None:
        return
    if teacher.taps != student.taps or teacher.patch_size != student.patch_size:
        raise UserError(
            f"teacher and student must share taps and patch size, got {teacher.taps} of {teacher.patch_size} px and "
            f"{student.taps} of {student.patch_size} px"
        )
    widths = [next(iter(encoder.output_shape().values())).channels for encoder in (teacher, student)]
    if widths[0] != widths[1]:
        raise UserError(f"teacher and student must have features of one width, got {widths[0]} and {widths[1]}")


def _from_store(
    stored: Sequence[Mapping[str, Any]],
    inputs: Sequence[ModelInput],
    student: _Features,
    levels: Sequence[str],
    min_valid: float,
) -> _Features:
    """Batch what the inputs bring, at these levels; the pixel mask of the teacher's view may come with it."""
    maps: dict[str, Tensor] = {}
    for level in levels:
        like = student.maps[level]
        for features, item in zip(stored, inputs, strict=True):
            if level not in features or features[level].shape != like.shape[1:]:
                found = f"the shape {tuple(features[level].shape)}" if level in features else "nothing"
                raise UserError(
                    f"'teacher_features' of '{item.get('file_name')}' have {found} for '{level}', the student has "
                    f"{tuple(like.shape[1:])}"
                )
        maps[level] = torch.stack([features[level] for features in stored]).to(like)
    names = [level for level in maps if all(level in features.get("global", {}) for features in stored)]
    tokens = {level: torch.stack([x["global"][level] for x in stored]).to(maps[level]) for level in names}
    masks = [_patch_mask(item.get("valid"), student.valid[i], min_valid) for i, item in enumerate(inputs)]
    return _Features(maps, tokens, torch.stack(masks))


def _patch_mask(pixels: Tensor | None, like: Tensor, min_valid: float) -> Tensor:
    """Which patches of the grid `like` (h, w) have data; all where no mask is given."""
    if pixels is None:
        return torch.ones_like(like)
    share = masked_mean_pool(pixels[None, None].to(like.device), (like.shape[0], like.shape[1]))
    return share[0, 0] >= min_valid - _ROUNDING


def _as_list(
    student: _Features, teacher: _Features | None, valid: Tensor, pool: GlobalPool, patch_size: int
) -> list[dict[str, Any]]:
    parts = {"student": student} | ({"teacher": teacher} if teacher is not None else {})
    pooled = {name: {level: _pool(part, valid, level, pool) for level in part.maps} for name, part in parts.items()}
    return [
        {"patch_valid": valid[i], "patch_size": patch_size}
        | {name: {level: maps[i] for level, maps in part.maps.items()} for name, part in parts.items()}
        | {f"{name}_global": {level: rows[i] for level, rows in pooled[name].items()} for name in parts}
        for i in range(len(valid))
    ]


def _pool(features: _Features, valid: Tensor, level: str, pool: GlobalPool) -> Tensor:
    """One embedding an image: (N, C)."""
    if pool == "class_token":
        if level not in features.tokens:
            raise UserError(f"global_pool='class_token' finds no class token of '{level}' in the 'teacher_features'")
        return features.tokens[level]
    weights = valid[:, None].to(features.maps[level].dtype)
    return (features.maps[level] * weights).sum(dim=(2, 3)) / weights.sum(dim=(2, 3)).clamp_min(1.0)


def _patches(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N*h*w, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)
