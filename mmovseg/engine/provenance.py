"""Where a number or a weights file comes from."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmovseg.checkpoint.load import file_sha256
from mmovseg.evaluation.provenance import installed_versions, source_commit

FORMAT_VERSION = "1"


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
        "git_commit": source_commit() or "",
        "seed": str(seed),
        "versions": json.dumps(installed_versions(), sort_keys=True),
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
