"""Where a number or a weights file comes from."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmovseg.checkpoint.load import file_sha256

FORMAT_VERSION = "1"
_PACKAGES = ("mmovseg", "torch", "torchvision", "detectron2", "timm", "open_clip_torch", "numpy")


@lru_cache(maxsize=1)
def git_commit() -> str:
    """Return the commit of the checkout this package runs from, with "-dirty" when tracked files differ, else ""."""
    folder = Path(__file__).resolve().parent
    try:
        # Fails for an installed copy that merely lies inside somebody else's checkout.
        _git("ls-files", "--error-unmatch", Path(__file__).name, folder=folder)
        head = _git("rev-parse", "HEAD", folder=folder)
        dirty = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{head}-dirty" if dirty else head


def _git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def weights_metadata(*, model: nn.Module, config_sha256: str, config_file: str, seed: int) -> dict[str, str]:
    """Return the facts that a weights file carries, as text; `versions` and `input_contract` are JSON."""
    contract = getattr(model, "input_contract", None)
    if is_dataclass(contract) and not isinstance(contract, type):
        contract = asdict(contract)
    facts = {
        "mmovseg_format": FORMAT_VERSION,
        "config_sha256": config_sha256,
        "config_file": Path(config_file).name,
        "git_commit": git_commit(),
        "seed": str(seed),
        "versions": json.dumps(versions(), sort_keys=True),
    }
    if contract is not None:
        facts["input_contract"] = json.dumps(contract, sort_keys=True)
    return facts


def result_facts(
    *, config_file: str, config_sha256: str, seed: int, device: torch.device, checkpoint: str | None
) -> dict[str, Any]:
    """Return the facts that a result file carries beside commit and versions, which the evaluator adds itself.

    `checkpoint` None means that the model was evaluated as built or as trained so far.
    """
    return {
        "config_file": config_file,
        "config_sha256": config_sha256,
        "checkpoint": checkpoint,
        "checkpoint_sha256": file_sha256(checkpoint) if checkpoint else None,
        "seed": seed,
        "device": device_name(device),
    }
