"""AdamW with parameter groups by rule: learning rate by part, no weight decay where it makes no sense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from mmovseg.config.suggest import did_you_mean
from mmovseg.errors import UserError

NORM_MODULES: tuple[type[nn.Module], ...] = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


def build_optimizer(
    model: nn.Module,
    *,
    base_lr: float,
    weight_decay: float = 0.01,
    lr_multipliers: Mapping[str, float] | None = None,
    decay_norms: bool = False,
    decay_biases: bool = True,
    decay_embeddings: bool = False,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """Build AdamW over the trainable parameters, one group for each (learning rate, weight decay).

    Args:
        model: parameters with ``requires_grad=False`` are left out. A parameter with the attribute ``frozen_rows``
            (some rows must not move) gets weight decay 0.
        base_lr: learning rate of everything that `lr_multipliers` does not name.
        weight_decay: of everything that the three options below do not exempt.
        lr_multipliers: factor on `base_lr` by module or parameter name; the longest matching name wins.
        decay_norms: decay weights and biases of normalisation layers.
        decay_biases: decay the other biases (as the released MM-OVSeg models were trained).
        decay_embeddings: decay `nn.Embedding` tables.
        betas: of AdamW.
        eps: of AdamW.

    Raises:
        UserError: a name in `lr_multipliers` matches no parameter, or nothing is trainable.
    """
    multipliers = dict(lr_multipliers or {})
    names = [name for name, _ in model.named_parameters()]
    for prefix in multipliers:
        if not any(_is_below(name, prefix) for name in names):
            known = {
                name[:end] for name in names for end in range(len(name) + 1) if end == len(name) or name[end] == "."
            }
            raise UserError(
                f"optimizer.lr_multipliers names '{prefix}', which matches no parameter{did_you_mean(prefix, known)}"
            )
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, module in _trainable(model):
        matching = [prefix for prefix in multipliers if _is_below(name, prefix)]
        lr = base_lr * (multipliers[max(matching, key=len)] if matching else 1.0)
        decays = _decays(name, parameter, module, decay_norms, decay_biases, decay_embeddings)
        groups.setdefault((float(lr), float(weight_decay) if decays else 0.0), []).append(parameter)
    if not groups:
        raise UserError("nothing to train: every parameter of the model is frozen")
    beta1, beta2 = (float(beta) for beta in betas)
    return torch.optim.AdamW(
        [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()],
        lr=float(base_lr),
        betas=(beta1, beta2),
        eps=float(eps),
    )


def _is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    """Yield (name, parameter, owning module) once for every trainable parameter, also when it is tied."""
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for short, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{short}" if prefix else short), parameter, module


def _decays(name: str, parameter: nn.Parameter, module: nn.Module, norms: bool, biases: bool, embeddings: bool) -> bool:
    if getattr(parameter, "frozen_rows", None) is not None:
        return False
    if isinstance(module, NORM_MODULES):
        return norms
    if isinstance(module, nn.Embedding):
        return embeddings
    return biases or not name.rsplit(".", 1)[-1].endswith("bias")
