"""Visual question answering as classification: a small head over a closed list of answers on frozen embeddings.

The authors' model for questions is a language model of billions of weights; this is the cheap stand-in: what a frozen
image-text model says of image and question, put together and classified.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmovseg.data.sample import ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.layers.precision import autocast_dtype
from mmovseg.projects.sartext.evaluation.answers import load_answer_rules
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel

logger = logging.getLogger(__name__)

_IGNORED = -100
_PASSING = -2
_RASTERS = ("image", "valid", "sar", "sar_valid")
_VALUES_COMPARED = 2**16  # of a raster: a quarter of a millisecond


class AnswerClassifier(nn.Module):
    """Choose an answer from a list by the embeddings of image and question.

    The encoder stays frozen and in evaluation mode. With `cache_features` it sees each image once: in evaluation, and
    in training if the mapper says which `view` it gives (``views=1`` and no photometry). Questions are kept always.

    Args:
        encoder: its image and text tower are used.
        answers: the closed list; see `answer_vocabulary`. Kept with the weights, and checked when they are loaded.
        hidden: width of the head's one hidden layer.
        dropout: on the hidden layer, in training.
        cache_features: see above.

    Raises:
        UserError: fewer than two answers, or two that are the same after normalisation.
    """

    def __init__(
        self,
        encoder: ImageTextModel,
        *,
        answers: Sequence[str],
        hidden: int = 256,
        dropout: float = 0.1,
        cache_features: bool = True,
    ) -> None:
        super().__init__()
        self.rules = load_answer_rules()
        self.answers = [str(answer) for answer in answers]
        self._position = {self.rules.normal_form(answer): index for index, answer in enumerate(self.answers)}
        if len(self.answers) < 2 or len(self._position) < len(self.answers):
            raise UserError(f"a classifier needs at least two different answers, got: {', '.join(self.answers)}")
        self.encoder = encoder.requires_grad_(False).eval()
        self.input_contract = encoder.input_contract
        width = encoder.embed_dim
        # A unit vector's entries shrink with its length; the norms bring all three parts to one scale.
        self.norms = nn.ModuleList([nn.LayerNorm(width, elementwise_affine=False) for _ in range(3)])
        self.head = nn.Sequential(
            nn.Linear(3 * width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, len(self.answers))
        )
        self.cache_features = cache_features
        self._images: dict[tuple[str, int, bytes], Tensor] = {}
        self._questions: dict[tuple[str, torch.dtype | None], Tensor] = {}
        self._unknown_told = False
        text = json.dumps(self.answers, ensure_ascii=False).encode()
        self.register_buffer("answer_text", torch.frombuffer(bytearray(text), dtype=torch.uint8).clone())
        self.register_load_state_dict_post_hook(lambda module, _: module._forget())

    def _forget(self) -> None:
        self._images.clear()
        self._questions.clear()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}answer_text")
        if saved is not None and bytes(saved.tolist()) != bytes(self.answer_text.tolist()):
            names = ", ".join(json.loads(bytes(saved.tolist()))[:8])
            raise UserError(f"these weights choose among other answers than model.answers says: {names}, ...")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> AnswerClassifier:
        """Set the mode; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Learn or answer.

        Args:
            batched_inputs: with the encoder's raster, `question` and, in training, `answer`.

        Returns:
            Training: ``{"loss_answer": 0-d}``; an answer that is not in the list does not count. Otherwise one dict a
            question: ``generated_answer``.

        Raises:
            UserError: a sample lacks what is needed.
        """
        scores = self.scores(batched_inputs)
        if not self.training:
            return [{"generated_answer": self.answers[index]} for index in scores.argmax(dim=1).tolist()]
        targets = torch.tensor([self._target(item) for item in batched_inputs], device=scores.device)
        # the sum keeps a batch without any known answer from dividing by zero
        loss = F.cross_entropy(scores, targets, ignore_index=_IGNORED, reduction="sum")
        return {"loss_answer": loss / (targets != _IGNORED).sum().clamp_min(1)}

    def scores(self, batched_inputs: Sequence[ModelInput]) -> Tensor:
        """Return (N, A) scores of the answers, before softmax."""
        images = self._image_embeddings(batched_inputs)
        questions = self._question_embeddings([_needed(item, "question") for item in batched_inputs])
        parts = (images, questions, images * questions)
        joined = torch.cat([norm(part) for norm, part in zip(self.norms, parts, strict=True)], dim=1)
        return self.head(joined).float()

    @torch.no_grad()
    def _image_embeddings(self, batched_inputs: Sequence[ModelInput]) -> Tensor:
        # what may differ from draw to draw is named by its place in the batch, and not kept
        keys = [self._key(item) or (str(index), _PASSING, b"") for index, item in enumerate(batched_inputs)]
        new = {key: item for key, item in zip(keys, batched_inputs, strict=True) if key not in self._images}
        fresh = dict(zip(new, self.encoder.encode_images(list(new.values())), strict=True)) if new else {}
        # clones: a row is a view that would keep its batch alive
        self._images.update({key: row.clone() for key, row in fresh.items() if key[1] != _PASSING})
        return torch.stack([fresh[key] if key in fresh else self._images[key] for key in keys])

    def _key(self, item: ModelInput) -> tuple[str, int, bytes] | None:
        """Return what names an image that is always shown alike; None where it may not be.

        An id is not enough: another loader may have the same ids for what another sensor saw.
        """
        if not self.cache_features or "image_id" not in item or (self.training and "view" not in item):
            return None
        return item["image_id"], item.get("view", -1), _fingerprint(item, self._precision())

    def _precision(self) -> torch.dtype | None:
        return autocast_dtype(self.answer_text.device)

    @torch.no_grad()
    def _question_embeddings(self, questions: Sequence[str]) -> Tensor:
        precision = self._precision()
        new = [text for text in dict.fromkeys(questions) if (text, precision) not in self._questions]
        for text, row in zip(new, self.encoder.encode_texts(new), strict=True):
            self._questions[text, precision] = row.clone()
        return torch.stack([self._questions[text, precision] for text in questions])

    def _target(self, item: ModelInput) -> int:
        answer = _needed(item, "answer")
        found = self._position.get(self.rules.normal_form(answer))
        if found is None and not self._unknown_told:
            self._unknown_told = True
            logger.warning(
                "the answer '%s' is not in the list of %d; such ones are left out", answer, len(self.answers)
            )
        return _IGNORED if found is None else found


def _fingerprint(item: ModelInput, precision: torch.dtype | None) -> bytes:
    """Return a hash of what an encoder may read of a sample, and how; of large rasters every n-th value counts."""
    text = f"{item.get('source')} {item.get('sar_source')} {precision}"
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for key in _RASTERS:
        raster = cast(Tensor | None, item.get(key))
        if raster is not None:
            values = raster.reshape(-1)[:: max(1, raster.numel() // _VALUES_COMPARED)]
            digest.update(f"{key} {tuple(raster.shape)}".encode())
            digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.digest()


def _needed(item: ModelInput, key: str) -> str:
    value = str(item.get(key, "")).strip()
    if not value:
        raise UserError(f"sample '{item.get('file_name', '?')}' has no {key}")
    return value


def answer_vocabulary(*, dataset: Iterable[Mapping[str, Any]], most: int = 1000, min_count: int = 1) -> list[str]:
    """Return the most frequent training answers in normal form, alphabetically.

    Args:
        dataset: dicts with `answer`.
        most: how many are kept; of equally frequent ones the first in alphabetical order.
        min_count: rarer answers are left out.

    Raises:
        UserError: nothing is left.
    """
    rules = load_answer_rules()
    counts = Counter(rules.normal_form(str(item["answer"])) for item in dataset)
    kept = [answer for answer in sorted(counts, key=lambda name: (-counts[name], name)) if counts[answer] >= min_count]
    if not kept:
        raise UserError(f"no training answer occurs {min_count} times or more")
    return sorted(kept[:most])
