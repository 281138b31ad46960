"""How many multiply-adds a model takes, counted by fvcore from a trace of one pass.

Counted are the products: convolutions, linear layers, matrix products, einsum and attention (also the fused kinds,
which fvcore does not know by itself). Norms, activations, resizing and other work a value at a time are left out and
listed; in these models they are a few percent.

Training is taken as three times the forward pass of every layer with weights that train (forward, gradient of the
input, gradient of the weights), twice that of layers that only let a gradient through, and once that of frozen
encoders: the work that a step needs, whatever else is computed on the way.

The forward pass itself is counted as it is done. The two convolutions of one channel that begin a `SimilarityFusion`
are done as one of two channels whose weights are half zeros, and these products with 0 count: twice what the two need.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import Handle, conv_flop_jit, get_shape, linear_flop_jit, matmul_flop_jit
from torch import Tensor, nn

from mmovseg.data.sample import ModelInput
from mmovseg.engine.stopwatch import is_frozen

_RASTERS = ("image", "sar")


@dataclass(frozen=True)
class Operations:
    """Multiply-adds of one pass over a batch.

    forward: of the forward pass.
    step: of a training step by the rule above; of inference the same as `forward`.
    by_operator: of the forward pass, by kind of product.
    left_out: kinds of other work and how often each is called.
    """

    forward: float
    step: float
    by_operator: dict[str, float]
    left_out: dict[str, int]


def count_operations(model: nn.Module, batch: Sequence[ModelInput]) -> Operations:
    """Count one pass in the model's present mode: a training step, or inference without a gradient.

    Class names that the model has cached cost nothing, as in later calls; let it answer once before.

    Args:
        model: answers a list of model inputs.
        batch: what it is given.
    """
    rasters = [item[key] for item in batch for key in _RASTERS if key in item]  # type: ignore[literal-required]
    analysis = FlopCountAnalysis(_OfTensors(model, batch), tuple(rasters))
    analysis.clear_op_handles().set_op_handle(**_HANDLES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    # detectron2 scripts functions on import, and tracing turns sizes into numbers: both warn
    with warnings.catch_warnings(), torch.set_grad_enabled(model.training):
        warnings.simplefilter("ignore")
        by_module = analysis.by_module()
        by_operator, left_out = analysis.by_operator(), analysis.unsupported_ops()
    forward = float(analysis.total())
    return Operations(
        forward=forward,
        step=_of_a_step(model, by_module) if model.training else forward,
        by_operator={str(name): float(count) for name, count in by_operator.items()},
        left_out={name.removeprefix("aten::"): int(count) for name, count in sorted(left_out.items())},
    )


class _OfTensors(nn.Module):
    """A model as a function of tensors, which is all that can be traced."""

    def __init__(self, model: nn.Module, batch: Sequence[ModelInput]) -> None:
        super().__init__()
        self.model = model
        self._batch = list(batch)
        self.train(model.training)

    def forward(self, *rasters: Tensor) -> list[Tensor]:
        """Answer the batch with its rasters replaced, in the order of `count_operations`."""
        left = list(rasters)
        batch: list[Any] = [{**item, **{key: left.pop(0) for key in _RASTERS if key in item}} for item in self._batch]
        answer = self.model(batch)
        if isinstance(answer, dict):
            return list(answer.values())
        return [value for item in answer for value in item.values() if isinstance(value, Tensor)]


def _of_a_step(model: nn.Module, by_module: Counter[str]) -> float:
    """Sum over modules what each does itself, as often as a training step does it."""
    total = 0.0
    for name, module in model.named_modules():
        path = f"model.{name}" if name else "model"
        own = by_module[path] - sum(by_module[f"{path}.{child}"] for child, _ in module.named_children())
        total += own * _times(model, name, module)
    return total


def _times(model: nn.Module, name: str, module: nn.Module) -> int:
    part = model.get_submodule(name.split(".")[0]) if name else model
    if is_frozen(part):
        return 1
    own = list(module.parameters(recurse=False))
    # products of activations with each other (attention, similarity) have a gradient for both
    return 3 if not own or any(parameter.requires_grad for parameter in own) else 2


# ---------------------------------------------------------------- what fvcore does not count, or only roughly


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """softmax(Q K^T) V: one product each for the weights and for the values."""
    query, key, value = (get_shape(inputs[index]) for index in range(3))
    assert query is not None and key is not None and value is not None
    return Counter({"attention": math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])})


def _whole_attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """PyTorch's own attention layer in one kernel: projections to Q, K, V and out, and the attention."""
    query, key = get_shape(inputs[0]), get_shape(inputs[1])
    assert query is not None and key is not None
    number, length, width = query
    projections = number * width * width * (2 * length + 2 * key[1])
    return Counter({"linear": projections, "attention": 2 * number * length * key[1] * width})


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Two factors: the product of the lengths of all letters. fvcore rounds to four digits."""
    terms = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    shapes = [get_shape(value) for value in inputs[1].node().inputs()]
    lengths: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        assert shape is not None
        before, _, after = term.partition("...")
        inner = shape[len(before) : len(shape) - len(after)]
        letters = [*before, *(f"...{-place}" for place in range(len(inner), 0, -1)), *after]
        for letter, length in zip(letters, shape, strict=True):
            lengths[letter] = max(lengths.get(letter, 1), length)
    return Counter({"einsum": math.prod(lengths.values())})


_HANDLES: dict[str, Handle] = {
    "aten::_convolution": conv_flop_jit,
    "aten::linear": linear_flop_jit,
    "aten::matmul": matmul_flop_jit,
    "aten::bmm": matmul_flop_jit,
    "aten::mm": matmul_flop_jit,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
    "aten::_native_multi_head_attention": _whole_attention,
}
