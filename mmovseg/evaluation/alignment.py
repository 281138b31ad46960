"""How well the features of two encoders agree at one level: patches, scenes, the whole space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmovseg.evaluation.retrieval import chance_recall, patch_hits, recall_at
from mmovseg.evaluation.similarity import LinearCKA

TOP = (1, 5, 10)
Descriptor = Literal["patch_mean", "global"]
"""What stands for a scene in retrieval: the mean of its valid patches, or what the encoder itself calls global."""
DESCRIPTORS: tuple[Descriptor, ...] = get_args(Descriptor)


class AlignmentCounter:
    """Counts of one level. Of several processes they are joined by `joined`, in the order of the processes.

    Args:
        gallery: scenes to keep for retrieval: the first ones.
    """

    def __init__(self, gallery: int) -> None:
        self.gallery = gallery
        self.hits = 0.0
        self.patches = 0
        self.images = 0
        self.cka = LinearCKA()
        self.scenes: dict[Descriptor, list[tuple[Tensor, Tensor]]] = {name: [] for name in DESCRIPTORS}

    def update(
        self, student: Tensor, teacher: Tensor, valid: Tensor, *, global_features: tuple[Tensor, Tensor] | None
    ) -> None:
        """Add one image.

        Args:
            student, teacher: (C, h, w) and (D, h, w) maps of the same grid; C = D unless only CKA is wanted.
            valid: (h, w) bool, True where both hold data; at least one.
            global_features: (C,) of the student and (D,) of the teacher, or None.
        """
        mine, theirs = (maps.permute(1, 2, 0)[valid].float() for maps in (student, teacher))
        self.cka.update(mine, theirs)
        if mine.shape[1] != theirs.shape[1]:
            return
        hits, patches = patch_hits(mine, theirs)
        self.hits, self.patches, self.images = self.hits + hits, self.patches + patches, self.images + 1
        if len(self.scenes["patch_mean"]) < self.gallery:
            self.scenes["patch_mean"].append((mine.mean(dim=0).cpu(), theirs.mean(dim=0).cpu()))
            if global_features is not None:
                first, second = (part.detach().float().cpu() for part in global_features)
                self.scenes["global"].append((first, second))

    @classmethod
    def joined(cls, parts: Sequence[AlignmentCounter]) -> AlignmentCounter:
        """Return the counts of all processes together: their images in a row, of which the first make the gallery."""
        whole = cls(parts[0].gallery)
        for part in parts:
            whole.hits += part.hits
            whole.patches += part.patches
            whole.images += part.images
            whole.cka.add_state(part.cka.state)
            for name in DESCRIPTORS:
                whole.scenes[name] = (whole.scenes[name] + part.scenes[name])[: whole.gallery]
        return whole

    def retrieval(self, descriptor: Descriptor, *, names: tuple[str, str]) -> dict[str, float | None]:
        """Return R@k both ways and by chance in percent; None without a scene.

        Args:
            descriptor: what stands for a scene.
            names: of the student's modality and of the teacher's, for the keys.
        """
        scenes = self.scenes[descriptor]
        sides = [torch.stack([pair[side] for pair in scenes]) for side in (0, 1)] if scenes else []
        found: dict[str, float | None] = {}
        for first, second in ((0, 1), (1, 0)):
            recall = recall_at(sides[first], sides[second], top=TOP) if sides else {}
            found |= {f"R@{k} {names[first]}->{names[second]}": recall.get(k) for k in TOP}
        chance = chance_recall(len(scenes), top=TOP) if scenes else {}
        return found | {f"chance R@{k}": chance.get(k) for k in TOP}

    def local(self) -> dict[str, float | None]:
        """Return patch accuracy and its chance in percent, and CKA; None where there is nothing to count."""
        return {
            "patch accuracy": 100 * self.hits / self.patches if self.patches else None,
            "chance patch accuracy": 100 * self.images / self.patches if self.patches else None,
            "CKA": self.cka.value(),
        }
