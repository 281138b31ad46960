"""CLIP from open_clip as a dense image encoder and a text encoder in one embedding space (paper Sec. 3.2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from mmovseg.checkpoint.load import load_weights
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.layers.precision import autocast_dtype
from mmovseg.modeling.open_clip_models import (
    clip_from_architecture,
    clip_tokenizer,
    model_from_name,
    pretrained_tags,
)
from mmovseg.modeling.text.tokenizer import tokenize

FinetuneMode = Literal["qv", "full", "none"]
DenseMode = Literal["value_cls", "value_own", "value", "tokens"]
WordChoice = Literal["all", "first"]

# Templates that belong to a head. Paper Sec. 3.2.3: "a photo of {CLASSLIST}"; the release has one fixed sentence.
TEMPLATES: dict[str, tuple[str, ...]] = {"paper": ("a photo of {}",), "released": ("A photo of a {} in the scene",)}

_PROMPTS_AT_ONCE = 64  # bounds the memory of long vocabularies


class OpenCLIPEncoder(nn.Module):
    """open_clip CLIP with dense visual features, block taps and cached vocabulary embeddings.

    Args:
        name: open_clip architecture, for example ``ViT-B-16-quickgelu`` (OpenAI weights need the quickgelu one).
        weights: an open_clip pretrained tag (``"openai"``), a path to our safetensors, or None for random weights. Of
            a whole model whose CLIP lies below ``model.``, such as a training of image and text, that part is read.
        architecture: instead of `name`, the architecture as data: keys ``embed_dim``, ``vision_cfg``, ``text_cfg``,
            ``quick_gelu`` as in open_clip's model configs. Used by the XS models.
        taps: 1-based visual blocks whose raw patch tokens are returned as guidance.
        dense: how patch tokens get into the text space. ``value_cls``: value path of the last block plus the class
            token's residual and the MLP, as the release does; ``value_own``: the same with each token's own residual,
            right for towers that pool by averaging patches; ``value``: value path alone (MaskCLIP); ``tokens``: the
            ordinary output tokens, which the last attention has mixed over the scene.
        finetune: what trains. ``qv``: query and value weights of every attention (the release; the only choice that
            meets the paper's 31M trainable parameters); ``full``: everything; ``none``.
        templates: prompt templates, averaged after normalisation, or the name of a head: ``paper`` or ``released``.
        words: which words stand for a class: ``all``, its name and its synonyms, averaged; ``first``, the part of the
            name before the first comma alone (the release).

    Raises:
        UserError: unknown name, tag or file, or weights that cannot be downloaded.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        weights: str | None = None,
        architecture: dict[str, Any] | None = None,
        taps: Sequence[int] = (4, 8),
        dense: DenseMode = "value_cls",
        finetune: FinetuneMode = "qv",
        templates: str | Sequence[str] = "paper",
        words: WordChoice = "all",
    ) -> None:
        super().__init__()
        tag = weights if weights and weights in pretrained_tags(name) else None
        self.model: Any = clip_from_architecture(architecture) if architecture else model_from_name(name, tag)
        self.tokenizer = clip_tokenizer(self.model.vocab_size, self.model.context_length)
        self.dense = dense
        self.taps = tuple(int(tap) for tap in taps)
        self.templates = _templates(templates)
        if words not in ("all", "first"):
            raise UserError(f"clip words must be all or first, got '{words}'")
        self.words = words
        self._text_cache: dict[tuple[Any, ...], Tensor] = {}
        self.weights_file = weights if weights and tag is None else None
        if self.weights_file is not None:
            load_weights(self.model, self.weights_file, part="model")
        self.set_finetune(finetune)

    @property
    def embed_dim(self) -> int:
        return int(self.model.visual.output_dim)

    @property
    def visual_width(self) -> int:
        return int(self.model.visual.conv1.out_channels)

    @property
    def patch_size(self) -> int:
        return int(self.model.visual.patch_size[0])

    # ------------------------------------------------------------------ what trains

    def set_finetune(self, mode: FinetuneMode) -> None:
        """Choose the trainable weights; see the class."""
        if mode not in ("qv", "full", "none"):
            raise UserError(f"clip finetune must be qv, full or none, got '{mode}'")
        self.finetune = mode
        self.model.requires_grad_(mode == "full")
        # The temperature belongs to the contrastive loss; segmentation has no use for it.
        self.model.logit_scale.requires_grad_(False)
        if mode == "qv":
            for module in self.model.modules():
                if isinstance(module, nn.MultiheadAttention):
                    _train_query_and_value(module)

    def freeze_visual(self) -> None:
        """Freeze the visual tower (models that never see an optical image)."""
        self.model.visual.requires_grad_(False)

    # ------------------------------------------------------------------ image side

    def encode_image(self, x: Tensor) -> dict[str, Tensor]:
        """Encode normalised RGB.

        Args:
            x: (N, 3, H, W), H and W multiples of the patch size; positions are resampled to any grid.

        Returns:
            ``dense``: (N, D, h, w) patch embeddings in the text space, not normalised; ``block<k>``: (N, C, h, w) raw
            tokens of tap k.
        """
        visual = self.model.visual
        grid = (x.shape[-2] // self.patch_size, x.shape[-1] // self.patch_size)
        tokens = self._embed(x, grid)
        blocks = list(visual.transformer.resblocks)
        outputs: dict[str, Tensor] = {}
        for number, block in enumerate(blocks, start=1):
            if number == len(blocks) and self.dense != "tokens":
                tokens = _value_path(block, tokens, self.dense)
            else:
                tokens = _attend(block, tokens)
            if number in self.taps:
                outputs[f"block{number}"] = _to_map(tokens, grid)
        outputs["dense"] = _to_map(visual.ln_post(tokens) @ visual.proj, grid)
        return outputs

    def _embed(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        visual = self.model.visual
        patches = visual.conv1(x).flatten(2).transpose(1, 2)
        class_token = visual.class_embedding.to(patches.dtype).expand(len(x), 1, -1)
        positions = self._positions(grid).to(patches.dtype)
        return visual.ln_pre(torch.cat([class_token, patches], dim=1) + positions)

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Positions of the class token and of a grid of patches, (1 + h*w, C)."""
        visual = self.model.visual
        positions = visual.positional_embedding
        if grid == tuple(visual.grid_size):
            return positions
        table = positions[1:].T.reshape(1, -1, *visual.grid_size)
        table = F.interpolate(table.float(), size=grid, mode="bicubic", align_corners=False)
        return torch.cat([positions[:1], table.flatten(2)[0].T.to(positions.dtype)])

    # ------------------------------------------------------------------ text side

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return (T, D) unit-length embeddings of T sentences."""
        device = self.model.token_embedding.weight.device
        return self.model.encode_text(tokenize(self.tokenizer, texts).to(device), normalize=True)

    def encode_vocabulary(self, vocabulary: Vocabulary) -> Tensor:
        """Return (K, D) unit-length class embeddings: unit-length prompts averaged over templates and `words`.

        Without a graph the result is kept until the text weights or the precision change, keyed by templates and names.
        """
        words = [
            (entry.name, *entry.synonyms) if self.words == "all" else (entry.name.split(", ")[0],)
            for entry in vocabulary.classes
        ]
        if torch.is_grad_enabled():
            return self._embed_words(words)
        precision = autocast_dtype(self.model.token_embedding.weight.device)
        key = (self.templates, tuple(words), precision, self._text_state())
        if key not in self._text_cache:
            self._text_cache = {key: self._embed_words(words)}
        return self._text_cache[key]

    def _embed_words(self, words: list[tuple[str, ...]]) -> Tensor:
        prompts = [template.format(word) for group in words for word in group for template in self.templates]
        owner = [index for index, group in enumerate(words) for _ in range(len(group) * len(self.templates))]
        # With gradients all activations stay anyway.
        portion = len(prompts) if torch.is_grad_enabled() else _PROMPTS_AT_ONCE
        parts = [self.encode_texts(prompts[start : start + portion]) for start in range(0, len(prompts), portion)]
        features = torch.cat(parts)
        index = torch.tensor(owner, device=features.device)
        summed = features.new_zeros(len(words), features.shape[1]).index_add(0, index, features)
        return F.normalize(summed, dim=1)

    def _text_state(self) -> tuple[tuple[int, int], ...]:
        """Identify the current text weights: storage and in-place version of each."""
        visual = {id(parameter) for parameter in self.model.visual.parameters()}
        return tuple((p.data_ptr(), p._version) for p in self.model.parameters() if id(p) not in visual)


def _to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, 1 + h*w, C) with a class token in front -> (N, C, h, w), a view."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def _attend(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Return ``block(x)``. Its `nn.MultiheadAttention` would write out the attention matrix; here it is fused."""
    attention = block.attn
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    x = x + block.ls_1(attention.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _value_path(block: ResidualAttentionBlock, x: Tensor, mode: DenseMode) -> Tensor:
    """Last block without attention: every token keeps its own value projection, so features stay local.

    MaskCLIP drops the residual and the MLP; the release adds the class token's residual to all tokens and keeps the
    MLP.
    """
    width = x.shape[-1]
    attention = block.attn
    values = F.linear(block.ln_1(x), attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
    values = block.ls_1(attention.out_proj(values))
    if mode == "value":
        return values
    values = values + (x[:, :1] if mode == "value_cls" else x)
    return values + block.ls_2(block.mlp(block.ln_2(values)))


def _train_query_and_value(attention: nn.MultiheadAttention) -> None:
    """Let the query and value thirds of the packed projection train, and hold the key third.

    open_clip packs q, k and v in one parameter. The gradient of the key rows is zeroed, and `frozen_rows` tells the
    optimizer to leave out weight decay and the parameter count to leave out these rows.
    """
    weight = attention.in_proj_weight
    width = weight.shape[1]
    weight.requires_grad_(True)
    weight.frozen_rows = slice(width, 2 * width)  # type: ignore[attr-defined]

    def zero_key_rows(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[width : 2 * width] = 0
        return gradient

    weight.register_hook(zero_key_rows)


def trainable_elements(parameter: nn.Parameter) -> int:
    """Number of entries of a parameter that training can change."""
    if not parameter.requires_grad:
        return 0
    rows = getattr(parameter, "frozen_rows", None)
    frozen = parameter[rows].numel() if rows is not None else 0
    return parameter.numel() - frozen


def _templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(templates, str):
        if templates not in TEMPLATES:
            raise UserError(f"there are no prompt templates '{templates}'; there are: {', '.join(TEMPLATES)}")
        return TEMPLATES[templates]
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"prompt template '{template}' must hold exactly one {{}} for the class name")
    return tuple(templates)
