"""Optimisers with parameter groups by rule: learning rate by part and layer, no decay where it makes no sense."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
    layer_decay: float | None = None,
    layer_module: str = "encoder",
    decay_norms: bool = False,
    decay_biases: bool = True,
    decay_embeddings: bool = False,
    decay_vectors: bool = True,
    no_decay: Sequence[str] = (),
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> torch.optim.AdamW:
    """Build AdamW over the trainable parameters, one group for each (learning rate, weight decay).

    Args:
        model: parameters with ``requires_grad=False`` are left out. A parameter with the attribute ``frozen_rows``
            (some rows must not move) gets weight decay 0.
        base_lr: learning rate of everything that `lr_multipliers` does not name.
        weight_decay: of everything that the options below do not exempt.
        lr_multipliers: factor on `base_lr` by module or parameter name; the longest matching name wins.
        layer_decay: see `layer_factors`; None = all layers learn alike.
        layer_module: see `layer_factors`.
        decay_norms: decay weights and biases of normalisation layers.
        decay_biases: decay the other biases (as the released MM-OVSeg models were trained).
        decay_embeddings: decay `nn.Embedding` tables.
        decay_vectors: decay, among what the rules above leave, parameters of at most one dimension too. False is the
            rule of MAE and BEiT: no decay for norms, biases and layer scales, whatever the layer.
        no_decay: glob patterns of further parameters without decay, for example ``*positions``.
        betas: of AdamW.
        eps: of AdamW.

    Raises:
        UserError: a name in `lr_multipliers` or a pattern in `no_decay` matches no parameter, nothing is trainable, or
            see `layer_factors`.
    """
    groups = parameter_groups(
        model,
        base_lr=base_lr,
        weight_decay=weight_decay,
        lr_multipliers=lr_multipliers,
        layer_decay=layer_decay,
        layer_module=layer_module,
        decay_norms=decay_norms,
        decay_biases=decay_biases,
        decay_embeddings=decay_embeddings,
        decay_vectors=decay_vectors,
        no_decay=no_decay,
    )
    beta1, beta2 = (float(beta) for beta in betas)
    return torch.optim.AdamW(groups, lr=float(base_lr), betas=(beta1, beta2), eps=float(eps))


def build_sgd(
    model: nn.Module,
    *,
    base_lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    lr_multipliers: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
    layer_module: str = "encoder",
    decay_norms: bool = False,
    decay_biases: bool = True,
    decay_embeddings: bool = False,
    decay_vectors: bool = True,
    no_decay: Sequence[str] = (),
) -> torch.optim.SGD:
    """Build SGD with the groups of `build_optimizer`; its defaults are those of a linear probe.

    Args:
        model: see `build_optimizer`, as for all that is not named here.
        base_lr: see there.
        momentum: of SGD.
        nesterov: take the gradient where the momentum leads.

    Raises:
        UserError: as there.
    """
    groups = parameter_groups(
        model,
        base_lr=base_lr,
        weight_decay=weight_decay,
        lr_multipliers=lr_multipliers,
        layer_decay=layer_decay,
        layer_module=layer_module,
        decay_norms=decay_norms,
        decay_biases=decay_biases,
        decay_embeddings=decay_embeddings,
        decay_vectors=decay_vectors,
        no_decay=no_decay,
    )
    return torch.optim.SGD(groups, lr=float(base_lr), momentum=float(momentum), nesterov=nesterov)


def parameter_groups(
    model: nn.Module,
    *,
    base_lr: float,
    weight_decay: float,
    lr_multipliers: Mapping[str, float] | None,
    layer_decay: float | None,
    layer_module: str,
    decay_norms: bool,
    decay_biases: bool,
    decay_embeddings: bool,
    decay_vectors: bool,
    no_decay: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the trainable parameters as groups of one (learning rate, weight decay) each; see `build_optimizer`."""
    multipliers = dict(lr_multipliers or {})
    names = [name for name, _ in model.named_parameters()]
    _check_names(names, multipliers, no_decay)
    factors = {} if layer_decay is None else layer_factors(model, layer_decay, layer_module)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, module in _trainable(model):
        matching = [prefix for prefix in multipliers if _is_below(name, prefix)]
        lr = base_lr * (multipliers[max(matching, key=len)] if matching else 1.0) * factors.get(name, 1.0)
        decays = _decays(name, parameter, module, decay_norms, decay_biases, decay_embeddings)
        decays = decays and (decay_vectors or parameter.ndim > 1)
        decays = decays and not any(fnmatch.fnmatchcase(name, pattern) for pattern in no_decay)
        groups.setdefault((float(lr), float(weight_decay) if decays else 0.0), []).append(parameter)
    if not groups:
        raise UserError("nothing to train: every parameter of the model is frozen")
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def layer_factors(model: nn.Module, layer_decay: float, layer_module: str) -> dict[str, float]:
    """Return the factor on the learning rate of every parameter of an encoder: less, the nearer to the input.

    A parameter of layer i of L gets ``layer_decay ** (L - i)``; parameters outside the encoder are not in the result
    and keep their rate. Source: BEiT (Bao et al., 2022, https://arxiv.org/abs/2106.08254).

    Args:
        model: the whole model.
        layer_decay: in (0, 1].
        layer_module: name of the part that knows its layers: it has `parameter_layers()` (parameter name -> layer from
            0) and `num_layers` (L).

    Raises:
        UserError: there is no such part, it knows no layers, or the decay is out of range.
    """
    if not 0 < layer_decay <= 1:
        raise UserError(f"optimizer.layer_decay is {layer_decay} but must lie above 0 and not above 1")
    modules = dict(model.named_modules())
    if layer_module not in modules:
        known = did_you_mean(layer_module, modules)
        raise UserError(f"optimizer.layer_module is '{layer_module}', which the model does not have{known}")
    part = modules[layer_module]
    if not hasattr(part, "parameter_layers"):
        raise UserError(
            f"optimizer.layer_decay needs a part that knows its layers, '{layer_module}' "
            f"({type(part).__name__}) has no parameter_layers()"
        )
    prefix = f"{layer_module}." if layer_module else ""
    return {prefix + name: layer_decay ** (part.num_layers - layer) for name, layer in part.parameter_layers().items()}


def _check_names(names: Sequence[str], multipliers: Mapping[str, float], no_decay: Sequence[str]) -> None:
    for prefix in multipliers:
        if not any(_is_below(name, prefix) for name in names):
            known = {
                name[:end] for name in names for end in range(len(name) + 1) if end == len(name) or name[end] == "."
            }
            raise UserError(
                f"optimizer.lr_multipliers names '{prefix}', which matches no parameter{did_you_mean(prefix, known)}"
            )
    for pattern in no_decay:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise UserError(f"optimizer.no_decay has the pattern '{pattern}', which matches no parameter")


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
