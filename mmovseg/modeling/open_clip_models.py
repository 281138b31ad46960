"""Models of open_clip by name or as data, and their tokenizers."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.modeling.text.tokenizer import ReducedTokenizer

_CLIP_KEYS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
_COCA_KEYS = (*_CLIP_KEYS, "multimodal_cfg")
_MAX_LOGIT_SCALE = math.log(100.0)  # CLIP, Sec. 2.5: so that training stays stable


def pretrained_tags(name: str | None) -> list[str]:
    """Return the tags of weights that open_clip knows for an architecture; none without a name."""
    return open_clip.list_pretrained_tags_by_model(name) if name else []


def clip_from_architecture(architecture: Mapping[str, Any]) -> open_clip.CLIP:
    """Build a CLIP with random weights.

    Args:
        architecture: keys ``embed_dim``, ``vision_cfg``, ``text_cfg`` and ``quick_gelu`` as in open_clip's configs.

    Raises:
        UserError: an unknown key.
    """
    _check_keys(architecture, _CLIP_KEYS, "clip")
    return open_clip.CLIP(
        architecture["embed_dim"],
        dict(architecture["vision_cfg"]),
        dict(architecture["text_cfg"]),
        quick_gelu=bool(architecture.get("quick_gelu", False)),
    )


def coca_from_architecture(architecture: Mapping[str, Any]) -> open_clip.CoCa:
    """Build a CoCa with random weights.

    Args:
        architecture: as for `clip_from_architecture`, and ``multimodal_cfg``. The image tower needs
            ``output_tokens``, the text tower that and ``embed_cls``.

    Raises:
        UserError: an unknown or missing key, or a tower that does not give what the decoder reads.
    """
    _check_keys(architecture, _COCA_KEYS, "coca")
    text, vision = dict(architecture["text_cfg"]), dict(architecture["vision_cfg"])
    for tower, keys in (("vision_cfg", ("output_tokens",)), ("text_cfg", ("output_tokens", "embed_cls"))):
        for key in keys:
            if not architecture[tower].get(key):
                raise UserError(f"coca architecture: {tower}.{key} must be true, it gives what the decoder reads")
    model = open_clip.CoCa(
        architecture["embed_dim"],
        dict(architecture["multimodal_cfg"]),
        text,
        vision,
        quick_gelu=bool(architecture.get("quick_gelu", False)),
    )
    _init_decoder(model)
    return model


def _init_decoder(model: open_clip.CoCa) -> None:
    """Give the decoder's output projection random values: open_clip 3.3 leaves there what the memory held before."""
    projection = model.text_decoder.text_projection
    nn.init.normal_(projection, std=projection.shape[0] ** -0.5)


def _check_keys(architecture: Mapping[str, Any], known: tuple[str, ...], kind: str) -> None:
    unknown = set(architecture) - set(known)
    if unknown:
        raise UserError(f"{kind} architecture has the unknown key '{sorted(unknown)[0]}'")
    missing = set(known) - set(architecture) - {"quick_gelu"}
    if missing:
        raise UserError(f"{kind} architecture lacks the key '{sorted(missing)[0]}'")


def model_from_name(name: str | None, tag: str | None) -> nn.Module:
    """Build a model of open_clip's list.

    Args:
        name: of the architecture.
        tag: of its weights, which may have to be downloaded; None = random.

    Raises:
        UserError: unknown name, or weights that cannot be downloaded; the message says which file to put where.
    """
    if name not in open_clip.list_models():
        raise UserError(f"open_clip has no model '{name}'; see open_clip.list_models()")
    root = logging.getLogger()
    level = root.level
    try:
        if tag is not None:
            root.setLevel(logging.CRITICAL)  # open_clip logs its own version of the error below
        model: nn.Module = open_clip.create_model(name, pretrained=tag)
    except (OSError, RuntimeError) as error:
        if tag is None:
            raise
        source = str((open_clip.get_pretrained_cfg(name, tag) or {}).get("hf_hub") or "its source").rstrip("/")
        raise UserError(
            f"the '{tag}' weights of open_clip model '{name}' cannot be downloaded ({type(error).__name__}); put "
            f"'open_clip_model.safetensors' of the hub repository '{source}' into the Hugging Face cache, or give a "
            f"local file as `weights=<path>`"
        ) from error
    finally:
        root.setLevel(level)
    if tag is None and isinstance(model, open_clip.CoCa):
        _init_decoder(model)
    return model


@lru_cache(maxsize=8)
def clip_tokenizer(vocab_size: int, context_length: int) -> open_clip.SimpleTokenizer:
    """Return CLIP's tokenizer, cut short for small vocabularies.

    It is kept: parsing the list of merges takes longer than building a small model, and models only read theirs.
    """
    full = open_clip.SimpleTokenizer(context_length=context_length)
    return full if vocab_size == full.vocab_size else ReducedTokenizer(vocab_size, context_length)


@torch.no_grad()
def limit_logit_scale(logit_scale: Tensor) -> None:
    """Bring a trained log inverse temperature back to at most ln 100; call it before a training step uses it.

    The parameter itself, as CLIP does: clamping what is computed from it would stop its gradient, and OpenAI's weights
    stand at that very limit.

    Args:
        logit_scale: 0-d, changed in place.
    """
    logit_scale.clamp_(max=_MAX_LOGIT_SCALE)
