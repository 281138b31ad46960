"""The lines of a key table: which tensors of a foreign checkpoint are which of ours, and the exact way between them.

Every rule goes both ways without rounding: converting and restoring gives back the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mmovseg.checkpoint.contract import InputContract

# A None stands for any size; only tensors that are set aside may have one.
Shape = tuple[int | None, ...]

# Tensors that our modules have no use for are kept in the converted file under this prefix, so that the way back is
# exact. `load_weights` leaves them out and says so.
ASIDE = "aside."

Kind = Literal["copy", "pack", "split", "swap", "double", "constant", "aside"]


@dataclass(frozen=True)
class Rule:
    """One line of a key table.

    kind: what happens. ``copy``: the same tensor under another name. ``pack``: several of theirs become one of ours,
        in order along `dim`. ``split``: one of theirs becomes several of ours. ``swap``: the two halves along `dim`
        change places. ``double``: one of theirs becomes several of ours with the same values, which must still be equal
        on the way back. ``constant``: our modules compute it; it must equal `make()` bit by bit, and is made again on
        the way back. ``aside``: our modules have no use for it; it is kept under `ASIDE`.
    theirs: official names with their shapes.
    ours: our names with their shapes; empty for a constant.
    dim: see `kind`.
    make: the constant.
    optional: name of a group of tensors that a file has all or none of; "" = always there.
    fill: value of a tensor set aside, for the way back of a file that never had it (a model trained here). None = such
        a file cannot go back.
    """

    kind: Kind
    theirs: Mapping[str, Shape]
    ours: Mapping[str, Shape]
    dim: int = 0
    make: Callable[[], Tensor] | None = None
    optional: str = ""
    fill: float | None = None

    def convert(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors from theirs (named and shaped as `theirs` says); views where possible."""
        values = [tensors[name] for name in self.theirs]
        if self.kind == "constant":
            return {}
        if self.kind == "double":
            return dict.fromkeys(self.ours, values[0])
        return dict(zip(self.ours, self._apply(values, list(self.ours.values())), strict=True))

    def restore(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their tensors from ours; the inverse of `convert`."""
        if self.make is not None:
            return {name: self.make() for name in self.theirs}
        values = [tensors[name] for name in self.ours]
        if self.kind == "double":
            return dict.fromkeys(self.theirs, values[0])
        return dict(zip(self.theirs, self._apply(values, list(self.theirs.values())), strict=True))

    def _apply(self, values: Sequence[Tensor], shapes: Sequence[Shape]) -> Sequence[Tensor]:
        if self.kind == "swap":
            return [torch.cat(values[0].chunk(2, self.dim)[::-1], self.dim)]
        if len(values) > 1:
            return [torch.cat(list(values), self.dim)]
        if len(shapes) > 1:
            return values[0].split([int(shape[self.dim] or 0) for shape in shapes], self.dim)
        return values


@dataclass(frozen=True)
class KeyTable:
    """Everything that is known about the checkpoints of one source in one architecture and one way of naming.

    source: the name to ask for it, for example ``dino``.
    architecture: in words, for example ``vit_base_patch8``.
    rules: every tensor, each exactly once on either side.
    naming: prefix that wrappers left on the official names, "" = none.
    outside: glob patterns of tensors that a file may hold beside the part that this table is about. They are
        reported, not converted.
    entries: names of the entry of a ``.pth`` that holds the tensors, in the order in which they are looked for; the
        file itself is the last resort.
    contract: what the converted weights were trained to read.
    use: how to load the converted file, in words.
    """

    source: str
    architecture: str
    rules: tuple[Rule, ...]
    naming: str = ""
    outside: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    contract: InputContract | None = None
    use: str = ""
    theirs: Mapping[str, Rule] = field(init=False, repr=False, compare=False)
    ours: Mapping[str, Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for side in ("theirs", "ours"):
            names: dict[str, Rule] = {}
            for rule in self.rules:
                for name in getattr(rule, side):
                    if name in names:
                        raise ValueError(f"the table of '{self.source}' has two rules for '{name}'")
                    names[name] = rule
            object.__setattr__(self, side, names)

    def shapes(self, side: Literal["theirs", "ours"], *, optional: bool = True) -> dict[str, Shape]:
        """Return every name of one side with its shape; without `optional` only what every file has."""
        return {
            name: shape
            for rule in self.rules
            if optional or not rule.optional
            for name, shape in getattr(rule, side).items()
        }


def expand(count: int, rows: Mapping[str, Shape]) -> dict[str, Shape]:
    """Write out rows whose names hold the block index ``{n}`` for n = 0..count - 1."""
    return {name.replace("{n}", str(n)): shape for n in range(count) for name, shape in rows.items()}


def copies(rows: Mapping[str, Shape], *, theirs: str = "", ours: str = "") -> list[Rule]:
    """One ``copy`` a row: the same name on both sides, behind a prefix each."""
    return [copy(theirs + name, ours + name, shape) for name, shape in rows.items()]


def copy(theirs: str, ours: str, shape: Shape) -> Rule:
    """The same tensor under another name."""
    return Rule("copy", {theirs: shape}, {ours: shape})


def pack(theirs: Sequence[str], ours: str, shape: Shape, *, dim: int = 0) -> Rule:
    """Equal tensors of `shape`, in order along `dim`, make one of ours."""
    packed = tuple(len(theirs) * (size or 0) if axis == dim else size for axis, size in enumerate(shape))
    return Rule("pack", dict.fromkeys(theirs, shape), {ours: packed}, dim=dim)


def split(theirs: str, ours: Mapping[str, int], shape: Shape, *, dim: int) -> Rule:
    """One tensor of `shape` is cut along `dim` into ours, each with its size; a size is never guessed.

    A piece whose name starts with `ASIDE` has no use in our modules; as it has none in theirs either, it may be zero.
    """
    if sum(ours.values()) != shape[dim]:
        raise ValueError(f"the pieces of '{theirs}' add up to {sum(ours.values())}, not to {shape[dim]}")
    pieces: dict[str, Shape] = {name: (*shape[:dim], size, *shape[dim + 1 :]) for name, size in ours.items()}
    fill = 0.0 if any(name.startswith(ASIDE) for name in ours) else None
    return Rule("split", {theirs: shape}, pieces, dim=dim, fill=fill)


def swap(theirs: str, ours: str, shape: Shape, *, dim: int) -> Rule:
    """The two halves along `dim` change places."""
    if (shape[dim] or 0) % 2:
        raise ValueError(f"'{theirs}' has no two halves along axis {dim} of {shape}")
    return Rule("swap", {theirs: shape}, {ours: shape}, dim=dim)


def double(theirs: str, ours: Sequence[str], shape: Shape) -> Rule:
    """One tensor becomes several of ours with the same values, for example the filters of two kinds of images."""
    return Rule("double", {theirs: shape}, dict.fromkeys(ours, shape))


def constant(theirs: str, make: Callable[[], Tensor], shape: Shape, *, optional: str = "") -> Rule:
    """A tensor that our modules compute."""
    return Rule("constant", {theirs: shape}, {}, make=make, optional=optional)


def aside(theirs: str, shape: Shape, *, fill: float | None = None, optional: str = "") -> Rule:
    """A tensor that our modules have no use for."""
    return Rule("aside", {theirs: shape}, {ASIDE + theirs: shape}, optional=optional, fill=fill)
