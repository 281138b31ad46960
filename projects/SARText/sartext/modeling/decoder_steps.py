"""Log-probabilities of the next token of texts that a CoCa of open_clip writes, one step after another.

open_clip runs every token through both text stacks again at every step. `CachedSteps` keeps keys and values, so that a
step costs one token; `WholeTexts` is the plain way, for towers that are built otherwise. Both give the same numbers.

Shapes: N images, B beams an image, M = N * B texts, L tokens, H heads, d channels of a head, T image tokens.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from open_clip import CoCa
from open_clip.transformer import ResidualAttentionBlock, TextTransformer
from torch import Tensor


class Steps(Protocol):
    """Next-token log-probabilities of texts that grow by a token at a time."""

    def begin(self, prompts: Tensor) -> Tensor:
        """Start one text an image with (N, P) tokens; return (N, V)."""

    def advance(self, beams: Tensor, tokens: Tensor) -> Tensor:
        """Let text b of image n go on from text `beams[n, b]` with `tokens[n, b]`, both (N, B); return (N, B, V).

        After `begin` every image has a single text, number 0.
        """


def steps_of(model: CoCa, image_tokens: Tensor) -> Steps:
    """Return the cheapest steps that a model allows.

    Args:
        model: in eval mode.
        image_tokens: (N, T, C) of its image tower.
    """
    return CachedSteps(model, image_tokens) if CachedSteps.fits(model) else WholeTexts(model, image_tokens)


class WholeTexts:
    """Runs whole texts through the model at every step."""

    def __init__(self, model: CoCa, image_tokens: Tensor) -> None:
        self._model, self._memory = model, image_tokens
        self._texts = torch.empty(0)

    def begin(self, prompts: Tensor) -> Tensor:
        """See `Steps`."""
        self._texts = prompts[:, None]
        return self._ask()[:, 0]

    def advance(self, beams: Tensor, tokens: Tensor) -> Tensor:
        """See `Steps`."""
        earlier = self._texts.gather(1, beams[:, :, None].expand(-1, -1, self._texts.shape[2]))
        self._texts = torch.cat([earlier, tokens[:, :, None]], dim=2)
        return self._ask()

    def _ask(self) -> Tensor:
        count, width = self._texts.shape[:2]
        _, embedded = self._model._encode_text(self._texts.flatten(0, 1))
        memory = self._memory.repeat_interleave(width, dim=0)
        logits = self._model.text_decoder(memory, embedded)[:, -1]
        return F.log_softmax(logits.float(), dim=-1).unflatten(0, (count, width))


class CachedSteps:
    """Runs each token through the model once and keeps what attention needs of it.

    Keys and values of the image are computed once an image and shared by its beams.
    """

    def __init__(self, model: CoCa, image_tokens: Tensor) -> None:
        self._text: Any = model.text
        self._decoder: Any = model.text_decoder
        self._images = [_cross_memory(block, image_tokens) for block in self._decoder.cross_attn]
        # (keys, values), each (N, B, H, L, d), of the blocks of the text tower and then of the decoder
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._length = 0

    @staticmethod
    def fits(model: object) -> bool:
        """Return whether a model is built of the blocks that are known here, and reads texts from left to right."""
        text, decoder = getattr(model, "text", None), getattr(model, "text_decoder", None)
        if not isinstance(text, TextTransformer) or text.attn_mask is None or decoder is None:
            return False
        blocks = [*text.transformer.resblocks, *decoder.resblocks, *decoder.cross_attn]
        return all(type(block) is ResidualAttentionBlock and block.attn.batch_first for block in blocks)

    def begin(self, prompts: Tensor) -> Tensor:
        """See `Steps`."""
        self._kept, self._length = [], 0
        return self._run(prompts[:, None])[:, 0]

    def advance(self, beams: Tensor, tokens: Tensor) -> Tensor:
        """See `Steps`."""
        rows = torch.arange(len(beams), device=beams.device)[:, None]
        self._kept = [(keys[rows, beams], values[rows, beams]) for keys, values in self._kept]
        return self._run(tokens[:, :, None])

    def _run(self, tokens: Tensor) -> Tensor:
        """Run (N, B, L) new tokens; return (N, B, V) after the last of them."""
        text, decoder = self._text, self._decoder
        places = text.positional_embedding[self._length : self._length + tokens.shape[2]]
        x = text.token_embedding(tokens).to(places.dtype) + places
        first = not self._kept
        number = 0
        for block in text.transformer.resblocks:
            x = self._self_attend(block, x, number, first)
            number += 1
        if text.cls_emb is None:  # as in the tower: only one without a class token normalises what it hands on
            x = text.ln_final(x)
        for block, cross, image in zip(decoder.resblocks, decoder.cross_attn, self._images, strict=True):
            x = _cross_attend(cross, self._self_attend(block, x, number, first), image)
            number += 1
        self._length += tokens.shape[2]
        logits = decoder.ln_final(x[:, :, -1])
        if decoder.text_projection is not None:
            logits = logits @ decoder.text_projection
        return F.log_softmax(logits.float(), dim=-1)

    def _self_attend(self, block: Any, x: Tensor, number: int, first: bool) -> Tensor:
        """Run a block over (N, B, L, C) new tokens, which see those kept and, from left to right, each other."""
        query, keys, values = (_heads(block.attn, block.ln_1(x), part) for part in range(3))
        if first:
            self._kept.append((keys, values))
        else:  # a single new token, so that nothing has to be hidden from it
            keys = torch.cat([self._kept[number][0], keys], dim=3)
            values = torch.cat([self._kept[number][1], values], dim=3)
            self._kept[number] = (keys, values)
        seen = F.scaled_dot_product_attention(query, keys, values, is_causal=first)
        return _finish(block, x, seen.transpose(2, 3).flatten(3))


def _heads(attention: Any, x: Tensor, part: int) -> Tensor:
    """Project (..., L, C) to queries, keys or values (`part` 0, 1, 2) of shape (..., H, L, d)."""
    width = attention.embed_dim
    rows = slice(part * width, (part + 1) * width)
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[rows]
    projected = F.linear(x, attention.in_proj_weight[rows], bias)
    return projected.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(-2, -3)


def _cross_memory(block: Any, image_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values (N, H, T, d) of the image for a cross-attention block."""
    x = block.ln_1_kv(image_tokens)
    return _heads(block.attn, x, 1), _heads(block.attn, x, 2)


def _cross_attend(block: Any, x: Tensor, image: tuple[Tensor, Tensor]) -> Tensor:
    """Run a cross-attention block over (N, B, L, C); the texts of an image are queries side by side."""
    query = _heads(block.attn, block.ln_1(x.flatten(1, 2)), 0)  # (N, H, B * L, d)
    seen = F.scaled_dot_product_attention(query, *image).transpose(1, 2).flatten(2)
    return _finish(block, x, seen.unflatten(1, x.shape[1:3]))


def _finish(block: Any, x: Tensor, seen: Tensor) -> Tensor:
    """Add what attention saw (before its output projection), then what the perceptron makes of it."""
    x = x + block.ls_1(block.attn.out_proj(seen))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
