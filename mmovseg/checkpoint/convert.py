"""Foreign checkpoints to our safetensors and back, by explicit key tables: bit-exact, strict, nothing executed."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmovseg.checkpoint.load import file_sha256, load_plain, read_metadata, read_state
from mmovseg.checkpoint.rules import ASIDE, KeyTable, Rule, Shape
from mmovseg.checkpoint.save import atomic_write, save_weights
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.checkpoint.tables.contracts import sar_picture_contract
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions

Side = Literal["theirs", "ours"]
TORCH_SUFFIXES = (".pth", ".pt")
# Sources of encoders that optical and SAR images alike may go through.
ENCODER_SOURCES = ("dino", "dinov3", "dinov3_hf")


class ConversionError(UserError):
    """The file does not fit the table. `faults` has one line for every tensor concerned."""

    def __init__(self, message: str, faults: Sequence[str]) -> None:
        super().__init__(message)
        self.faults = list(faults)


@dataclass
class ConversionReport:
    """What a conversion did; lists of keys.

    read: tensors of the file that were converted. written: tensors of the new file. constants: tensors that our modules
    compute, compared bit by bit, or made again on the way back. aside: of no use to our modules, kept for the way back.
    outside: of other parts of the model, not converted. entries: what the file holds beside its weights, not read.
    filled: on the way back, tensors set aside that the file never had, with their neutral value. use: how to load it.
    """

    source: str
    architecture: str
    source_path: str
    target_path: str
    read: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    use: str = ""

    def summary(self) -> str:
        """Return one line with the counts."""
        counts = f"{len(self.read)} tensors read, {len(self.written)} written, {len(self.constants)} constants"
        return f"'{self.source_path}' -> '{self.target_path}' ({self.source}, {self.architecture}): {counts}"

    def __str__(self) -> str:
        lines = [self.summary()]
        for title, names in (
            ("set aside, kept for the way back", self.aside),
            ("of other parts of the model, not converted", self.outside),
            ("beside the weights, not read", self.entries),
            ("not in the file, neutral value written", self.filled),
        ):
            lines += [f"  {title} ({len(names)}): {', '.join(_shorten(names))}"] if names else []
        return "\n".join([*lines, f"  load it with {self.use}"] if self.use else lines)


def convert_checkpoint(
    source_path: str | Path,
    target_path: str | Path,
    *,
    source: str,
    reverse: bool = False,
    table: KeyTable | None = None,
    modality: Literal["optical", "sar"] = "optical",
    architecture: str | None = None,
    outside: Sequence[str] = (),
) -> ConversionReport:
    """Convert a foreign checkpoint to our safetensors, or with `reverse` one of ours back.

    Every tensor of the file is used, equal to a constant, set aside or named by the table as another part's, and every
    tensor of ours is filled; otherwise nothing is written. The same input gives the same bytes. dtypes are kept.

    Args:
        source_path: ``.pth``, ``.pt`` or ``.safetensors``; tensors are mapped from the disk, not read as a whole.
        target_path: ``.safetensors``; with `reverse` also ``.pth`` or ``.pt``. Replaced atomically.
        source: one of `SOURCES`; names the official side in both directions.
        reverse: from ours to the official names.
        table: takes the place of the tables of `source`, for models of other sizes.
        modality: which images an encoder (`ENCODER_SOURCES`) was trained on; for the input contract.
        architecture: of several that `source` knows; None = the one that the tensors fit. Needed only where two models
            differ in their training alone.
        outside: glob patterns of further tensors that are of other parts, for example a projection head that was
            trained beside an encoder. They are reported, not converted.

    Raises:
        ConversionError: the tensors do not fit the table.
        UserError: unknown source, unreadable file, or a path of the wrong kind.
    """
    tables = (table,) if table is not None else _tables_of(source, architecture)
    if modality == "sar" and source not in ENCODER_SOURCES:
        raise UserError(f"modality 'sar' is for {', '.join(ENCODER_SOURCES)}, not for source '{source}'")
    _check_target(Path(source_path), Path(target_path), reverse=reverse)
    if reverse:
        return _convert_back(Path(source_path), Path(target_path), tables)
    widened = [replace(table, outside=(*table.outside, *outside)) for table in tables]
    return _convert(Path(source_path), Path(target_path), widened, modality)


def _convert(source_path: Path, target_path: Path, tables: Sequence[KeyTable], modality: str) -> ConversionReport:
    state, entry, entries = _read_entry(source_path, tables[0].entries)
    chosen = _closest(tables, state, "theirs", source_path)
    groups = {rule.optional for name, rule in chosen.theirs.items() if name in state}
    rules = [rule for rule in chosen.rules if rule.optional in {"", *groups}]
    outside = [name for name in state if name not in chosen.theirs and _matches(name, chosen.outside)]
    faults = _find_faults(chosen, rules, state, "theirs", ignored=outside) or _differing_constants(rules, state)
    _raise(faults, source_path, chosen)
    converted = {name: tensor for rule in rules for name, tensor in rule.convert(state).items()}
    constants = _constants(rules)
    facts = {
        "converted_entry": entry,
        "converted_optional": json.dumps(sorted(groups - {""})),
        "converted_constants": json.dumps({name: _dtype_name(state[name]) for name in sorted(constants)}),
    }
    save_weights(converted, target_path, metadata={**_provenance(chosen, source_path, modality), **facts})
    return ConversionReport(
        source=chosen.source,
        architecture=chosen.architecture,
        source_path=str(source_path),
        target_path=str(target_path),
        read=[name for name in state if name in chosen.theirs],
        written=list(converted),
        constants=constants,
        aside=[name for name in converted if name.startswith(ASIDE)],
        outside=outside,
        entries=entries,
        use=chosen.use.replace("<path>", f"'{target_path}'"),
    )


def _provenance(table: KeyTable, path: Path, modality: str) -> dict[str, str]:
    """Return what the header says about where the weights come from and what they read."""
    contract = table.contract
    if modality == "sar":
        contract = sar_picture_contract(contract.train_size if contract is not None else None)
    return {
        "converted_from": table.source,
        "converted_architecture": table.architecture,
        "converted_naming": table.naming,
        "source_file": path.name,
        "source_sha256": file_sha256(path),
        "versions": json.dumps(installed_versions(), sort_keys=True),
        "input_contract": json.dumps(contract.to_dict() if contract is not None else None, sort_keys=True),
    }


def _constants(rules: Sequence[Rule]) -> list[str]:
    return [name for rule in rules if rule.make is not None for name in rule.theirs]


def _convert_back(source_path: Path, target_path: Path, tables: Sequence[KeyTable]) -> ConversionReport:
    state, _ = read_state(source_path)
    header = read_metadata(source_path)
    named = [
        table
        for table in tables
        if (table.source, table.architecture, table.naming)
        == tuple(header.get(f"converted_{fact}") for fact in ("from", "architecture", "naming"))
    ]
    chosen = _closest(named or tables, state, "ours", source_path)
    groups = {rule.optional for name, rule in chosen.ours.items() if name in state}
    if named:
        groups |= set(json.loads(header["converted_optional"]))
    rules = [rule for rule in chosen.rules if rule.optional in {"", *groups}]
    # A model that was trained here, or part of another one, never had what this conversion sets aside.
    filled = {} if named else _neutral_values(rules, state)
    state |= filled
    _raise(_find_faults(chosen, rules, state, "ours") or _unequal_copies(rules, state), source_path, chosen)
    dtypes = json.loads(header.get("converted_constants", "{}")) if named else {}
    restored: dict[str, Tensor] = {}
    for rule in rules:
        for name, tensor in rule.restore(state).items():
            restored[name] = tensor.to(getattr(torch, dtypes[name])) if name in dtypes else tensor
    entry = header["converted_entry"] if named else next(iter(chosen.entries), "")
    if target_path.suffix in TORCH_SUFFIXES:
        _save_torch(restored, target_path, entry)
    else:
        save_weights(restored, target_path, metadata={"restored_to": chosen.source})
    return ConversionReport(
        source=chosen.source,
        architecture=chosen.architecture,
        source_path=str(source_path),
        target_path=str(target_path),
        read=[name for name in state if name not in filled],
        written=list(restored),
        constants=_constants(rules),
        filled=[name.removeprefix(ASIDE) for name in filled],
    )


def _tables_of(source: str, architecture: str | None) -> tuple[KeyTable, ...]:
    if source not in SOURCES:
        raise UserError(f"there is no key table for source '{source}'; there are: {', '.join(SOURCES)}")
    tables = SOURCES[source]()
    if architecture is None:
        return tables
    chosen = tuple(table for table in tables if table.architecture == architecture)
    if not chosen:
        known = ", ".join(dict.fromkeys(table.architecture for table in tables))
        raise UserError(f"source '{source}' has no architecture '{architecture}'; it has: {known}")
    return chosen


def _check_target(source: Path, target: Path, *, reverse: bool) -> None:
    allowed = (".safetensors", *TORCH_SUFFIXES) if reverse else (".safetensors",)
    if target.suffix not in allowed:
        raise UserError(f"the converted file must end in {' or '.join(allowed)}, but the path is '{target}'")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"'{target}' would overwrite the checkpoint that is converted")


def _read_entry(path: Path, entries: Iterable[str]) -> tuple[dict[str, Any], str, list[str]]:
    """Return the tensors, the name of the entry that holds them, and the names of all other entries."""
    if path.suffix == ".safetensors":
        return read_state(path)[0], "", []
    content = load_plain(path, skip_values=True)
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint '{path}' holds {type(content).__name__}, not weights by name")
    for name in entries:
        if isinstance(content.get(name), Mapping):
            return _detached(content[name]), name, [str(key) for key in content if key != name]
    if any(isinstance(value, Tensor) for value in content.values()):
        return _detached(content), "", []
    names = ", ".join(_shorten([str(name) for name in content])) or "nothing"
    raise UserError(f"checkpoint '{path}' has none of the entries {', '.join(entries)}; it has: {names}")


def _detached(state: Mapping[Any, Any]) -> dict[str, Any]:
    """Take parameters as plain tensors, without a graph."""
    return {str(name): value.detach() if isinstance(value, Tensor) else value for name, value in state.items()}


def _closest(tables: Sequence[KeyTable], state: Mapping[str, Any], side: Side, path: str | Path) -> KeyTable:
    """Return the table that most tensors fit, by name and shape; whether all do is checked afterwards."""
    shapes = [table.shapes(side) for table in tables]
    fitting = [sum(_fits(state.get(name), shape) for name, shape in wanted.items()) for wanted in shapes]
    if not any(fitting):
        first, known = next(iter(state), "nothing"), next(iter(shapes[0]))
        raise UserError(
            f"checkpoint '{path}' is of another kind: none of its {len(state)} tensors fits source "
            f"'{tables[0].source}' (it has '{first}', the table '{known}')"
        )
    # of two that fit equally well, that which asks for nothing more
    scores = [(count, -len(wanted)) for count, wanted in zip(fitting, shapes, strict=True)]
    best = scores.index(max(scores))
    alike = [table for table, wanted in zip(tables, shapes, strict=True) if wanted == shapes[best]]
    if side == "theirs" and len(alike) > 1:
        names = " or ".join(table.architecture for table in alike)
        raise UserError(
            f"checkpoint '{path}' may be {names}, which only their training tells apart; say which architecture"
        )
    return tables[best]


def _fits(value: object, shape: Shape) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim == len(shape)
        and all(wanted in (None, size) for size, wanted in zip(value.shape, shape, strict=True))
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _find_faults(
    table: KeyTable, rules: Sequence[Rule], state: Mapping[str, Any], side: Side, ignored: Collection[str] = ()
) -> dict[str, list[str]]:
    """Return what does not fit: kind of fault -> one text a tensor."""
    faults: dict[str, list[str]] = {}
    known = table.shapes(side)
    for name, value in state.items():
        if name not in known and name not in ignored:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            faults.setdefault("that the table does not know", []).append(f"{name} {shape}")
    for rule in rules:
        present = [name for name in getattr(rule, side) if isinstance(state.get(name), Tensor)]
        for name, shape in getattr(rule, side).items():
            if name not in state:
                faults.setdefault("missing", []).append(name)
            elif not isinstance(state[name], Tensor):
                faults.setdefault("that are no tensors", []).append(name)
            elif not _fits(state[name], shape):
                wanted = str(shape).replace("None", "any")
                faults.setdefault("of wrong shape", []).append(f"{name} {tuple(state[name].shape)} instead of {wanted}")
        if len({state[name].dtype for name in present}) > 1:
            faults.setdefault("of different types that belong together", []).append(" and ".join(present))
    return faults


def _differing_constants(rules: Sequence[Rule], state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    differing = [
        name
        for rule in rules
        if rule.make is not None
        for name in rule.theirs
        if not _same_bits(rule.make().to(state[name].dtype), state[name])
    ]
    return {"unequal to what our modules compute": differing} if differing else {}


def _unequal_copies(rules: Sequence[Rule], state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    differing = [" and ".join(rule.ours) for rule in rules if rule.kind == "double" and not _all_equal(rule, state)]
    return {"that have to be equal to become one and are not": differing} if differing else {}


def _all_equal(rule: Rule, state: Mapping[str, Tensor]) -> bool:
    first, *others = (state[name] for name in rule.ours)
    return all(_same_bits(first, other) for other in others)


def _same_bits(left: Tensor, right: Tensor) -> bool:
    return torch.equal(
        left.contiguous().reshape(-1).view(torch.uint8), right.contiguous().reshape(-1).view(torch.uint8)
    )


def _neutral_values(rules: Sequence[Rule], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the tensors set aside that a model trained here never had."""
    made: dict[str, Tensor] = {}
    for rule in rules:
        siblings = [state[name] for name in rule.ours if name in state]
        dtype = siblings[0].dtype if siblings else torch.float32
        for name, shape in rule.ours.items():
            if name.startswith(ASIDE) and name not in state and rule.fill is not None:
                made[name] = torch.full([int(size or 0) for size in shape], rule.fill, dtype=dtype)
    return made


def _raise(faults: Mapping[str, Sequence[str]], path: str | Path, table: KeyTable) -> None:
    if not faults:
        return
    texts = [f"{len(names)} {kind}: {', '.join(_shorten(names))}" for kind, names in faults.items()]
    raise ConversionError(
        f"checkpoint '{path}' does not fit source '{table.source}' ({table.architecture}), tensors "
        f"{'; '.join(texts)}; nothing was written",
        [f"{kind}: {name}" for kind, names in faults.items() for name in names],
    )


def _shorten(names: Sequence[str], count: int = 4) -> list[str]:
    return [*names[:count], f"and {len(names) - count} more"] if len(names) > count else list(names)


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _save_torch(state: Mapping[str, Tensor], path: Path, entry: str) -> None:
    """Write tensors that each own their memory: torch would store the whole of what a view looks at."""
    plain = {
        name: tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor.contiguous()
        for name, tensor in state.items()
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:  # an open file: torch stores a path's name
        torch.save({entry: plain} if entry else plain, file)
