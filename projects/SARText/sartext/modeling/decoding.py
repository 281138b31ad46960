"""Beam search over the decoder of an open_clip CoCa, with or without the beginning of the text given.

open_clip's own `generate` takes its beam search from transformers, which dropped it in version 5, ranks beams by sums
of raw logits, and knows no beginning of the text. This one needs nothing but torch and ranks by log-probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from open_clip import CoCa
from torch import Tensor

from mmovseg.projects.sartext.modeling.decoder_steps import Steps, steps_of

_NEVER = float("-inf")


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
            model: in eval mode. Its padding token, which it never learned to write, is not written.
            images: (N, 3, H, W) normalised.
            prompts: (N, P) token ids with which the texts begin, the start token first; None = the start token alone.

        Returns:
            Per image the ids written after the prompt, without the end token.
        """
        _, tokens = model._encode_image(images)
        if prompts is None:
            prompts = torch.full((len(images), 1), self.start, dtype=torch.long, device=images.device)
        unwritten = [self.start, *([model.pad_id] if hasattr(model, "pad_id") else [])]
        return self._search(steps_of(model, tokens), prompts, unwritten)

    def _search(self, steps: Steps, prompts: Tensor, unwritten: list[int]) -> list[list[int]]:
        count, width, most = len(prompts), self.beams, self.max_length - prompts.shape[1]
        scores = torch.full((count, width), _NEVER, device=prompts.device)
        scores[:, 0] = 0.0  # there is one text to begin with
        texts = prompts.new_zeros(count, width, 0)
        lengths = torch.zeros_like(scores)
        done = torch.zeros_like(scores, dtype=torch.bool)
        coming = steps.begin(prompts)[:, None].expand(-1, width, -1) if most > 0 else None
        for written in range(most):
            assert coming is not None
            last = written == most - 1
            allowed = self._only_allowed(coming, done, unwritten, may_end=written >= self.min_length, must_end=last)
            scores, chosen = (scores[:, :, None] + allowed).flatten(1).topk(width, dim=1)
            beam, token = chosen // coming.shape[-1], chosen % coming.shape[-1]
            texts = torch.cat([texts.gather(1, beam[:, :, None].expand(-1, -1, written)), token[..., None]], dim=2)
            lengths = lengths.gather(1, beam) + (~done.gather(1, beam)).float()
            done = done.gather(1, beam) | (token == self.end)
            if self._settled(scores, lengths, done, most):
                break
            coming = steps.advance(torch.zeros_like(beam) if written == 0 else beam, token)
        # an image whose search was settled before others ended has texts without an end, which do not win
        best = self._ranks(scores, lengths).masked_fill(~done, _NEVER).argmax(dim=1)
        rows = texts[torch.arange(count, device=texts.device), best].tolist()
        return [row[: row.index(self.end)] if self.end in row else row for row in rows]

    def _ranks(self, scores: Tensor, lengths: Tensor) -> Tensor:
        return scores / lengths.clamp_min(1.0) ** self.length_penalty

    def _settled(self, scores: Tensor, lengths: Tensor, done: Tensor, most: int) -> bool:
        """Return whether no unfinished text of any image can still get ahead of its best finished one.

        Log-probabilities only add up to less, so a text's best end is one that costs nothing and, as more tokens mean
        a smaller penalty, comes last.
        """
        finished = self._ranks(scores, lengths).masked_fill(~done, _NEVER).amax(dim=1)
        longest = torch.full_like(lengths, float(most)) if self.length_penalty > 0 else lengths
        hoped = self._ranks(scores, longest).masked_fill(done, _NEVER).amax(dim=1)
        return bool((finished >= hoped).all())

    def _only_allowed(
        self, steps: Tensor, done: Tensor, unwritten: list[int], *, may_end: bool, must_end: bool
    ) -> Tensor:
        """Keep finished texts as they are, and the others from ending too early, too late or beginning anew."""
        steps = steps.clone()
        steps[..., unwritten] = _NEVER
        if not may_end and not must_end:
            steps[..., self.end] = _NEVER
        if must_end:
            only = torch.full_like(steps, _NEVER)
            only[..., self.end] = steps[..., self.end]
            steps = only
        stay = torch.full_like(steps[0, 0], _NEVER)
        stay[self.end] = 0.0  # a finished text writes its end again, at no cost
        return torch.where(done[..., None], stay, steps)
