"""CLIP's byte-pair encoding, whole or cut short for small text towers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

from open_clip import SimpleTokenizer
from torch import Tensor

logger = logging.getLogger(__name__)


class ReducedTokenizer(SimpleTokenizer):
    """CLIP's BPE with only its first merges.

    CLIP learned 48,894 merges, most frequent first. Any prefix of that list is itself a complete byte-level BPE: every
    text can still be written, rare words just take more tokens. A small model saves most of its embedding table so.

    Args:
        vocab_size: total number of tokens: 512 bytes forms, the merges kept, start and end.
        context_length: tokens a prompt may have, start and end included.
    """

    def __init__(self, vocab_size: int, context_length: int) -> None:
        whole = SimpleTokenizer(context_length=context_length)
        if not 514 < vocab_size <= whole.vocab_size:
            raise ValueError(f"vocab_size must be between 515 and {whole.vocab_size}, got {vocab_size}")
        super().__init__(context_length=context_length)
        specials = [whole.decoder[token] for token in whole.all_special_ids]
        words = [whole.decoder[index] for index in range(vocab_size - len(specials))] + specials
        merges = {pair: rank for pair, rank in whole.bpe_ranks.items() if rank < vocab_size - 514}
        self.encoder: dict[str, int] = {word: index for index, word in enumerate(words)}
        self.decoder: dict[int, str] = dict(enumerate(words))
        self.bpe_ranks: dict[tuple[str, str], int] = merges
        self.vocab_size: int = vocab_size
        self.all_special_ids: list[int] = [self.encoder[word] for word in specials]
        self.sot_token_id, self.eot_token_id = self.all_special_ids


def tokenize(tokenizer: SimpleTokenizer, texts: Sequence[str]) -> Tensor:
    """Tokenize, with one warning for each distinct text that is longer than the context and therefore cut.

    Args:
        tokenizer: with `context_length` set.
        texts: T sentences.

    Returns:
        (T, context_length) int64 token ids, zero padded.
    """
    limit = int(tokenizer.context_length or 77)
    tokens: Tensor = tokenizer(list(texts), context_length=limit)
    for row in tokens[:, -1].nonzero()[:, 0].tolist():  # padding is 0: only a text that fills its row can have been cut
        length = len(tokenizer.encode(texts[row])) + 2
        if length > limit:
            _warn_once(texts[row], length, limit)
    return tokens


@lru_cache(maxsize=4096)
def _warn_once(text: str, length: int, limit: int) -> None:
    """Warn; the cache keeps an evaluation or a training from repeating itself in every step."""
    logger.warning("the prompt '%s...' has %d tokens; only the first %d are used", text[:60], length, limit)
