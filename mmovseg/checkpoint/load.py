"""Read weights without executing anything, and say what was used."""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from mmovseg.checkpoint.rules import ASIDE
from mmovseg.errors import UserError
from mmovseg.weights import resolve

logger = logging.getLogger(__name__)

# Entries of a .pth file that are known to hold weights.
WEIGHT_KEYS = ("model", "state_dict", "teacher")
_WRAPPERS = ("module.", "_orig_mod.")
# Values beside the tensors that training checkpoints of detectron2 and DINO hold: NumPy numbers and arrays (under the
# names of NumPy 1 and 2) and a parsed command line. Nobody needs them, so nothing is called to make them.
_SKIPPED = (
    *(
        f"{core}.{name}"
        for core in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("scalar", "_reconstruct")
    ),
    "numpy.dtype",
    "numpy.ndarray",
    "argparse.Namespace",
)


@dataclass
class LoadReport:
    """What a load did, as lists of keys.

    used; missing: in the model only; unexpected: in the file only; aside: kept in a converted file for the way back to
    its source, of no use to the model; outside: in the file, but not below the part that was asked for.
    """

    path: str
    entry: str = ""
    used: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line with the counts."""
        entry = f" (entry '{self.entry}')" if self.entry else ""
        counts = f"{len(self.used)} tensors used, {len(self.missing)} missing, {len(self.unexpected)} unexpected"
        counts += f", {len(self.aside)} set aside" if self.aside else ""
        counts += f", {len(self.outside)} of other parts" if self.outside else ""
        return f"checkpoint '{self.path}'{entry}: {counts}"

    def __str__(self) -> str:
        lines = [self.summary()]
        lines += [f"  missing: {key}" for key in self.missing]
        lines += [f"  unexpected: {key}" for key in self.unexpected]
        lines += [f"  set aside: {key}" for key in self.aside]
        return "\n".join(lines)


def read_state(path: str | Path, *, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Read the tensors of a file on the CPU.

    Args:
        path: ``.safetensors``, or ``.pth``/``.pt`` (read with ``weights_only=True``); ``shipped://<name>`` is one of
            the package's own.
        key: which entry of a ``.pth`` holds the weights; None = the only one of `WEIGHT_KEYS`, or the file itself.

    Returns:
        (tensors by name, name of the chosen entry or "").

    Raises:
        UserError: the file is missing, corrupt, holds pickled code, or leaves open which entry is meant.
    """
    path = resolve(path)
    if not path.is_file():
        raise UserError(f"checkpoint '{path}' does not exist")
    if path.suffix == ".safetensors":
        try:
            return load_file(path), ""
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"checkpoint '{path}' is corrupt or truncated: {_one_line(error)}") from error
    return _choose_entry(load_plain(path, skip_values=True), path, key)


def load_plain(path: str | Path, *, skip_values: bool = False) -> Any:
    """Read a torch file that may hold tensors and plain Python values, and nothing that executes.

    Args:
        path: of the file.
        skip_values: for files of which only tensors are wanted: NumPy values and parsed command lines beside them
            become `SkippedValue`, and tensors are mapped from the disk instead of read.

    Raises:
        UserError: missing, corrupt, or it holds pickled objects.
    """
    path = resolve(path)
    if not path.is_file():
        raise UserError(f"checkpoint '{path}' does not exist")
    try:
        mmap = skip_values and zipfile.is_zipfile(path)  # torch's older format cannot be mapped
        with warnings.catch_warnings(), _skipping(_SKIPPED if skip_values else ()):
            warnings.simplefilter("ignore", UserWarning)  # torch's guesses about a file that the errors below describe
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # torch names the object that it refused; anything else, such as "Unsupported operand", is not its kind of file.
        if any(word in str(error) for word in ("GLOBAL", "global:", "class ", "call reduce")):
            raise UserError(
                f"checkpoint '{path}' holds pickled Python objects beside tensors, which are not loaded"
            ) from error
        raise UserError(f"checkpoint '{path}' is corrupt or no torch checkpoint") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"checkpoint '{path}' is a TorchScript archive, which is code; save the model's state_dict() alone"
            ) from error
        # what the unpickler stumbles over in a file of another kind tells a reader nothing
        if isinstance(error, LookupError | AttributeError | TypeError):
            raise UserError(f"checkpoint '{path}' is corrupt or no torch checkpoint") from error
        raise UserError(f"checkpoint '{path}' is corrupt or truncated: {_one_line(error)}") from error


class SkippedValue:
    """Stands for a value that was not made: whatever it was to be called with is dropped."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@contextmanager
def _skipping(names: Sequence[str]) -> Iterator[None]:
    """Let torch's safe unpickler put a `SkippedValue` where a file asks for one of these globals."""
    before = torch.serialization.get_safe_globals()
    stand_ins = []
    for name in names:
        module, _, own = name.rpartition(".")
        stand_ins.append(type(own, (SkippedValue,), {"__module__": module, "__qualname__": own}))
    torch.serialization.add_safe_globals(stand_ins)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__


def _choose_entry(content: Any, path: Path, key: str | None) -> tuple[dict[str, Tensor], str]:
    if not isinstance(content, Mapping):
        raise UserError(f"checkpoint '{path}' holds {type(content).__name__}, not weights by name")
    found = [name for name in WEIGHT_KEYS if isinstance(content.get(name), Mapping)]
    top = ", ".join(str(name) for name in list(content)[:8])
    if key is not None:
        if not isinstance(content.get(key), Mapping):
            raise UserError(f"checkpoint '{path}' has no entry '{key}' with weights; it has: {top}")
        found = [key]
    elif content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content), ""
    if len(found) != 1:
        problem = (
            f"more than one entry with weights ({', '.join(found)})"
            if found
            else f"no entry with weights (it has: {top})"
        )
        raise UserError(f"checkpoint '{path}' has {problem}; name one with train.init_key")
    return {name: value for name, value in content[found[0]].items() if isinstance(value, Tensor)}, found[0]


def load_weights(
    model: nn.Module,
    path: str | Path,
    *,
    key: str | None = None,
    part: str = "",
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> LoadReport:
    """Copy a checkpoint into `model`; nothing is changed when it does not fit.

    Values are cast to the type of the model's own tensor, so that weights stored in fp16 load into an fp32 model.
    Tensors below ``aside.``, which a conversion keeps for the way back, are left out and reported.

    Args:
        model: receives the weights.
        path: see `read_state`.
        key: see `read_state`.
        part: name of a part of a larger model, for example ``encoder``: from a file with tensors below it, those alone
            are read, under their names within the part; any other file is read whole.
        allow_missing: glob patterns of model keys that the file may lack.
        allow_unexpected: glob patterns of keys in the file that the model may lack.

    Raises:
        UserError: unreadable, of another architecture, of other shapes, or with missing or unexpected keys that are not
            allowed.
    """
    state, entry = read_state(path, key=key)
    return copy_state(
        model,
        state,
        path,
        entry=entry,
        part=part,
        allow_missing=allow_missing,
        allow_unexpected=allow_unexpected,
    )


def copy_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,
    *,
    entry: str = "",
    part: str = "",
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
) -> LoadReport:
    """Copy tensors that were read, and perhaps converted, into `model`; see `load_weights`.

    Args:
        model: receives the weights.
        state: tensors by name.
        path: where they are from, for the report and for errors.
        entry: of the file, for the report.
        part: see `load_weights`.
        allow_missing: see there.
        allow_unexpected: see there.

    Raises:
        UserError: as there.
    """
    own = model.state_dict()
    state = dict(state)
    for prefix in _WRAPPERS:  # left behind by DistributedDataParallel and torch.compile
        if (
            state
            and all(name.startswith(prefix) for name in state)
            and not any(name.startswith(prefix) for name in own)
        ):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    report = LoadReport(str(path), entry)
    if part and any(name.startswith(part + ".") for name in state):
        report.outside = [name for name in state if not name.startswith(part + ".")]
        state = {name.removeprefix(part + "."): state[name] for name in state if name.startswith(part + ".")}
    report.aside = [name for name in state if name.startswith(ASIDE) and name not in own]
    state = {name: tensor for name, tensor in state.items() if name not in set(report.aside)}
    report.used = [name for name in own if name in state]
    report.missing = [name for name in own if name not in state]
    report.unexpected = [name for name in state if name not in own]
    if not report.used:
        theirs, ours = next(iter(state), "nothing"), next(iter(own), "nothing")
        raise UserError(
            f"checkpoint '{path}' is of another architecture: none of its {len(state)} tensors fits the model "
            f"(it has '{theirs}', the model '{ours}')"
        )
    _check_shapes(state, own, report)
    _check_keys(report.missing, allow_missing, f"checkpoint '{path}' lacks", "that the model needs")
    _check_keys(report.unexpected, allow_unexpected, f"checkpoint '{path}' holds", "that the model does not have")
    model.load_state_dict({name: state[name] for name in report.used}, strict=False)
    logger.info("%s", report.summary())
    return report


def _check_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], report: LoadReport) -> None:
    wrong = [name for name in report.used if state[name].shape != own[name].shape]
    if wrong:
        facts = "; ".join(
            f"{name} of shape {tuple(state[name].shape)} but the model needs {tuple(own[name].shape)}"
            for name in wrong[:3]
        )
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise UserError(f"checkpoint '{report.path}' has {facts}{more}")


def _check_keys(names: Sequence[str], allowed: Sequence[str], start: str, end: str) -> None:
    left = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise UserError(f"{start} {len(left)} tensor(s) {end}: {', '.join(left[:3])}{more}")


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the facts in a safetensors header; ``{}`` for a ``.pth`` file, which has none.

    Raises:
        UserError: the file is missing or corrupt.
    """
    path = resolve(path)
    if not path.is_file():
        raise UserError(f"checkpoint '{path}' does not exist")
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint '{path}' is corrupt or truncated: {_one_line(error)}") from error


def file_sha256(path: str | Path) -> str:
    """Return the sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with resolve(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
