"""Beam search over the decoder of an open_clip CoCa, with or without the beginning of the text given.

open_clip's own `generate` takes its beam search from transformers, which dropped it in version 5, ranks beams by sums
of raw logits, and knows no beginning of the text. This one needs nothing but torch and ranks by log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip import CoCa
from torch import Tensor


@dataclass(frozen=True)
class BeamSearch:
    """How texts are searched.

    Attributes:
        start, end: ids of the start and end tokens.
        beams: how many texts are kept at a time; 1 is greedy.
        max_length: tokens of a text, start and end included.
        min_length: tokens that are written at least before the end token, the given beginning not counted.
        length_penalty: a text's score is its log-probability divided by (tokens written)^penalty; 1 = the mean.
    """

    start: int
    end: int
    beams: int = 6
    max_length: int = 77
    min_length: int = 5
    length_penalty: float = 1.0

    @torch.no_grad()
    def __call__(self, model: CoCa, images: Tensor, prompts: Tensor | None = None) -> list[list[int]]:
        """Write one text an image.

        Args:
            model: in eval mode.
            images: (N, 3, H, W) normalised.
            prompts: (N, P) token ids with which the texts begin, the start token first; None = the start token alone.

        Returns:
            Per image the ids written after the prompt, without the end token.
        """
        _, tokens = model._encode_image(images)
        if prompts is None:
            prompts = torch.full((len(images), 1), self.start, dtype=torch.long, device=images.device)
        return self._search(model, tokens, prompts)

    def _search(self, model: CoCa, image_tokens: Tensor, prompts: Tensor) -> list[list[int]]:
        count, width, given = len(prompts), self.beams, prompts.shape[1]
        texts = prompts[:, None].expand(-1, width, -1)  # (N, B, L)
        memory = image_tokens.repeat_interleave(width, dim=0)
        scores = torch.full((count, width), float("-inf"), device=prompts.device)
        scores[:, 0] = 0.0  # all beams begin alike; let one of them branch
        lengths = torch.zeros_like(scores)
        done = torch.zeros_like(scores, dtype=torch.bool)
        for written in range(self.max_length - given):
            steps = self._log_probabilities(model, texts.flatten(0, 1), memory).unflatten(0, (count, width))
            last = written == self.max_length - given - 1
            steps = self._only_allowed(steps, done, may_end=written >= self.min_length, must_end=last)
            candidates = (scores[:, :, None] + steps).flatten(1)
            scores, chosen = candidates.topk(width, dim=1)
            beam, token = chosen // steps.shape[-1], chosen % steps.shape[-1]
            texts = torch.cat([texts.gather(1, beam[:, :, None].expand(-1, -1, texts.shape[2])), token[..., None]], 2)
            lengths = lengths.gather(1, beam) + (~done.gather(1, beam)).float()
            done = done.gather(1, beam) | (token == self.end)
            if bool(done.all()):
                break
        best = (scores / lengths.clamp_min(1.0) ** self.length_penalty).argmax(dim=1)
        rows = texts[torch.arange(count, device=texts.device), best, given:].tolist()
        return [row[: row.index(self.end)] if self.end in row else row for row in rows]

    @staticmethod
    def _log_probabilities(model: CoCa, texts: Tensor, memory: Tensor) -> Tensor:
        """Return (M, V) log-probabilities of the next token of (M, L) texts."""
        _, embedded = model._encode_text(texts)
        logits: Tensor = model.text_decoder(memory, embedded)[:, -1]
        return F.log_softmax(logits.float(), dim=-1)

    def _only_allowed(self, steps: Tensor, done: Tensor, *, may_end: bool, must_end: bool) -> Tensor:
        """Keep finished texts as they are, and the others from ending too early, too late or beginning anew."""
        steps = steps.clone()
        steps[..., self.start] = float("-inf")
        if not may_end:
            steps[..., self.end] = float("-inf")
        if must_end:
            steps = torch.full_like(steps, float("-inf")).index_copy(
                -1, torch.tensor([self.end], device=steps.device), steps[..., self.end : self.end + 1]
            )
        stay = torch.full_like(steps[0, 0], float("-inf"))
        stay[self.end] = 0.0  # a finished text writes its end again, at no cost
        return torch.where(done[..., None], stay, steps)
