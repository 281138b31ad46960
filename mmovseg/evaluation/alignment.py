"""How the features of one level fill their space, and how they agree with a teacher's: patches, scenes, the whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmovseg.evaluation.retrieval import chance_recall, patch_hits, recall_at
from mmovseg.evaluation.similarity import LinearCKA
from mmovseg.evaluation.spectrum import Moments, effective_rank

TOP = (1, 5, 10)


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
        self.scenes: list[tuple[Tensor, Tensor]] = []
        self.alone: Moments | None = None  # of images without a teacher; CKA has the sums of the others

    def update_alone(self, student: Tensor, valid: Tensor) -> None:
        """Add one image that has no teacher; arguments as for `update`."""
        self.alone = _joined(self.alone, Moments.of(student.permute(1, 2, 0)[valid]))

    def update(
        self, student: Tensor, teacher: Tensor, valid: Tensor, *, global_features: tuple[Tensor, Tensor] | None
    ) -> None:
        """Add one image.

        Args:
            student, teacher: (C, h, w) and (D, h, w) maps of the same grid; C = D unless only CKA is wanted.
            valid: (h, w) bool, True where both hold data; at least one.
            global_features: (C,) of the student and (D,) of the teacher, which stand for the scene in retrieval; None
                takes the means of the valid patches.
        """
        mine, theirs = (maps.permute(1, 2, 0)[valid].float() for maps in (student, teacher))
        self.cka.update(mine, theirs)
        if mine.shape[1] != theirs.shape[1]:
            return
        hits, patches = patch_hits(mine, theirs)
        self.hits, self.patches, self.images = self.hits + hits, self.patches + patches, self.images + 1
        if len(self.scenes) < self.gallery:
            first, second = global_features or (mine.mean(dim=0), theirs.mean(dim=0))
            # clones: a class token is a view that would keep all tokens of its batch alive
            self.scenes.append((first.detach().float().cpu().clone(), second.detach().float().cpu().clone()))

    @classmethod
    def joined(cls, parts: Sequence[AlignmentCounter]) -> AlignmentCounter:
        """Return the counts of all processes together: their images in a row, of which the first make the gallery."""
        whole = cls(parts[0].gallery)
        for part in parts:
            whole.hits += part.hits
            whole.patches += part.patches
            whole.images += part.images
            whole.cka.add_state(part.cka.state)
            whole.alone = _joined(whole.alone, part.alone)
            whole.scenes = (whole.scenes + part.scenes)[: whole.gallery]
        return whole

    def metrics(self, names: tuple[str, str]) -> dict[str, float | None]:
        """Return retrieval both ways, patch accuracy, CKA and effective ranks; None where there is nothing to count.

        Args:
            names: of the student's modality and of the teacher's, for the keys.
        """
        sides = [torch.stack([pair[side] for pair in self.scenes]) for side in (0, 1)] if self.scenes else []
        found: dict[str, float | None] = {}
        for first, second in ((0, 1), (1, 0)):
            recall = recall_at(sides[first], sides[second], top=TOP) if sides else {}
            found |= {f"R@{k} {names[first]}->{names[second]}": recall.get(k) for k in TOP}
        chance = chance_recall(len(self.scenes), top=TOP) if self.scenes else {}
        found |= {f"chance R@{k}": chance.get(k) for k in TOP}
        found["patch accuracy"] = 100 * self.hits / self.patches if self.patches else None
        found["chance patch accuracy"] = 100 * self.images / self.patches if self.patches else None
        found["CKA"] = self.cka.value()
        student, teacher = _joined(self.alone, self.cka.moments(0)), self.cka.moments(1)
        found["effective rank"] = None if student is None else effective_rank(student)
        found["teacher effective rank"] = None if teacher is None else effective_rank(teacher)
        return found


def _joined(one: Moments | None, other: Moments | None) -> Moments | None:
    return one if other is None else other if one is None else one + other
