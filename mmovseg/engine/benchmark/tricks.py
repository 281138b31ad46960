"""What each way of saving work is worth: the released model as it is, against the same computation written plainly.

The plain forms are what a straightforward implementation does: attention that writes out its weights, guidance repeated
for every class and concatenated, the padding of the class attention as 256 real classes, and names encoded at every
call. Each gives the same answer, which is checked and stated, from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmovseg.config import apply_overrides, load_config
from mmovseg.engine.benchmark.timing import alternate
from mmovseg.engine.cost_inputs import noise_batch, record_calls
from mmovseg.engine.run import build_model, prepare
from mmovseg.engine.stopwatch import Clock
from mmovseg.layers.class_attention import ClassAttentionBlock
from mmovseg.layers.conv import GuidedDoubleConv
from mmovseg.layers.window_attention import GuidedWindowBlock

Plain = Callable[[nn.Module], Any]  # a context in which one thing is computed plainly


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Let all attention write out its weights, (N, heads, L, L)."""

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: Any,
    ) -> Tensor:
        weights = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            mask = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).tril()
            weights = weights.masked_fill(~mask, float("-inf"))
        if attn_mask is not None:
            weights = (
                weights.masked_fill(~attn_mask, float("-inf"))
                if attn_mask.dtype == torch.bool
                else (weights + attn_mask)
            )
        return weights.softmax(dim=-1) @ value

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with patch.object(F, "scaled_dot_product_attention", attend):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def plain_guidance(model: nn.Module) -> Iterator[None]:
    """Repeat guidance for every class and concatenate, in the decoder and in the window attention."""

    def double_conv(self: GuidedDoubleConv, x: Tensor, guidance: Tensor | None, num_classes: int) -> Tensor:
        weight = self.conv1.weight
        if guidance is not None and self.guidance is not None:
            x = torch.cat([x, guidance.repeat_interleave(num_classes, dim=0)], dim=1)
            weight = torch.cat([weight, self.guidance.weight], dim=1)
        y = F.relu(self.norm1(F.conv2d(x, weight, padding=1)))
        return F.relu(self.norm2(self.conv2(y)))

    def project(self: GuidedWindowBlock, x: Tensor, guidance: Tensor, num_classes: int) -> Tensor:
        both = torch.cat([x, guidance.repeat_interleave(num_classes, dim=0)], dim=-1)
        return torch.cat([self.query(both), self.key(both), self.value(x)], dim=-1)

    with patch.object(GuidedDoubleConv, "forward", double_conv), patch.object(GuidedWindowBlock, "_project", project):
        yield


@contextmanager
def plain_padding(model: nn.Module) -> Iterator[None]:
    """Fill the class attention up with real copies of the padding class, queries and all."""

    def attend(self: ClassAttentionBlock, tokens: Tensor, guidance: Tensor) -> Tensor:
        count, missing = tokens.shape[-2], max(0, self.class_padding - tokens.shape[-2])
        filling = self.norm1(self.padding_token[0]).expand(*tokens.shape[:-2], missing, -1)
        guide = torch.cat([guidance, self.padding_guidance[0].expand(missing, -1)])
        tokens = torch.cat([tokens, filling], dim=-2)
        both = torch.cat([tokens, guide.expand(*tokens.shape[:-1], -1)], dim=-1)
        heads = (self.num_heads, -1)
        query, key = (F.elu(layer(both).unflatten(-1, heads)) + 1 for layer in (self.query, self.key))
        value = self.value(tokens).unflatten(-1, heads)
        total = torch.einsum("...khd,...hd->...kh", query, key.sum(dim=-3)) + 1e-6
        summed = torch.einsum("...khd,...hde->...khe", query, torch.einsum("...khd,...khe->...hde", key, value))
        return (summed / total[..., None]).flatten(-2)[..., :count, :]

    with patch.object(ClassAttentionBlock, "_attend", attend):
        yield


@contextmanager
def plain_text(model: nn.Module) -> Iterator[None]:
    """Encode the names at every call."""
    clip: Any = model.get_submodule("clip")
    encode = clip.encode_vocabulary

    def anew(*args: Any, **kwargs: Any) -> Tensor:
        clip._text_cache.clear()
        return encode(*args, **kwargs)

    clip.encode_vocabulary = anew
    try:
        yield
    finally:
        del clip.encode_vocabulary


TRICKS: dict[str, tuple[str, Plain]] = {
    "fused attention": ("optical_encoder", plain_attention),
    "guidance convolved once for all classes": ("head", plain_guidance),
    "padding classes as one weighted key": ("head", plain_padding),
    "names encoded once": ("clip", plain_text),
}
"""Name -> the part of the model that it is measured on, and the context that takes it away."""


def measure_tricks(settings: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Measure the forward pass of one pair with every trick and with none, and each trick on the part it concerns.

    Settings: ``config_file``, ``overrides``, ``pixels``, ``classes``, ``seconds``.

    Returns:
        ``tricks``: one dict each with ``name``, ``part``, ``ours`` and ``plain`` (``seconds``), ``largest_difference``
        of the answers; the first is the whole model. ``other_cores`` of the busiest.

    Raises:
        UserError: the config is wrong.
    """
    config = apply_overrides(load_config(settings["config_file"]), settings.get("overrides", ()))
    context = prepare(config, settings["config_file"])
    model = build_model(context, checkpoint=None, resumed=True).eval()
    batch = noise_batch(
        model.input_contract, pixels=settings["pixels"], count=1, classes=settings["classes"], is_train=False
    )
    parts = {name: model.get_submodule(name) for name in dict.fromkeys(part for part, _ in TRICKS.values())}
    calls: dict[str, Any] = {}

    def record(left: list[str]) -> Any:
        if not left:
            return model(batch)
        calls[left[0]] = record_calls(parts[left[0]], lambda: record(left[1:]))
        return None

    with torch.no_grad():
        record(list(parts))
        rows = [
            _compare(
                "all of these",
                "",
                lambda: model(batch),
                [plain for _, plain in TRICKS.values()],
                model,
                clock,
                settings,
            )  # fmt: skip
        ]
        for name, (part, plain) in TRICKS.items():
            rows.append(_compare(name, part, _replay(parts[part], calls[part]), [plain], model, clock, settings))
    busiest = [row.pop("other_cores") for row in rows]
    return {"tricks": rows, "other_cores": max((value for value in busiest if value is not None), default=None)}


def _replay(part: nn.Module, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> Callable[[], Any]:
    return lambda: [getattr(part, method)(*args, **kwargs) for method, args, kwargs in calls]


def _compare(
    name: str,
    part: str,
    call: Callable[[], Any],
    contexts: list[Plain],
    model: nn.Module,
    clock: Clock,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    answers: dict[str, Any] = {}

    def ours() -> None:
        answers["ours"] = call()

    def plainly() -> None:
        with ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context(model))
            answers["plain"] = call()

    found = alternate({"ours": ours, "plain": plainly}, clock, seconds=settings["seconds"])
    pairs = zip(*(_tensors(answers[which]) for which in ("ours", "plain")), strict=True)
    difference = max(float((one.float() - other.float()).abs().max()) for one, other in pairs)
    return {"name": name, "part": part, "largest_difference": difference, **found}


def _tensors(answer: Any) -> list[Tensor]:
    return [value for value in tree_leaves(answer) if isinstance(value, Tensor)]
