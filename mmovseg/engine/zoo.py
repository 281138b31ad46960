"""Make the shipped XS weights: one training after the other, each starting from what the earlier ones shipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmovseg.checkpoint.export import export_part
from mmovseg.checkpoint.load import file_sha256, read_metadata
from mmovseg.engine.cli import train_main
from mmovseg.engine.launch import choose_device
from mmovseg.engine.log import peak_memory_mb
from mmovseg.weights import FOLDER


@dataclass(frozen=True)
class ZooStep:
    """One file: `config` is trained, `part` of the result is stored as `name`.safetensors in float16."""

    name: str
    config: str
    part: str
    what: str


STEPS = (
    ZooStep("clip_xs", "miniearth/clip_xs.py", "clip.model", "CLIP from scratch on captions"),
    ZooStep("dense_xs", "miniearth/dense_xs.py", "student.model", "optical dense encoder, no labels"),
    ZooStep("sar_xs", "miniearth/sar_xs.py", "student.model", "SAR encoder, aligned patch by patch, no labels"),
    ZooStep("mmovseg_xs", "miniearth/mmovseg_xs.py", "", "MM-OVSeg, labels of the seen classes"),
)


def make_zoo(output: str | Path, *, steps: Sequence[ZooStep] = STEPS, seed: int = 0) -> list[Path]:
    """Train the steps in order and put the weights into the package, where the later steps read them.

    Args:
        output: folder for the runs.
        steps: what to make.
        seed: of every training.

    Returns:
        The files written.
    """
    made = []
    for number, step in enumerate(steps, start=1):
        folder = Path(output) / step.name
        print(f"step {number} of {len(steps)}: {step.name}, {step.what} ({step.config})", flush=True)
        run = train_main(["--config-file", step.config, f"train.seed={seed}", f"train.output_dir={folder}"])
        target = FOLDER / f"{step.name}.safetensors"
        facts = {
            "command": f"python tools/train_net.py --config-file configs/{step.config} train.seed={seed}",
            "made_by": "python tools/make_zoo.py",
            "train_seconds": str(round(run["seconds"])),
            "peak_memory_mb": str(round(peak_memory_mb(choose_device("auto")))),
            "iterations": str(run["iteration"]),
            "data": "MiniEarth train, domain default, seed 0",
        }
        export_part(run["checkpoint"], target, part=step.part, half=True, facts=facts)
        made.append(target)
        print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)", flush=True)
    return made


def zoo_records(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return what the headers of the shipped weights say, with size and hash."""
    records = []
    for step in STEPS:
        path = folder / f"{step.name}.safetensors"
        if path.is_file():
            facts = read_metadata(path)
            size, digest = path.stat().st_size, file_sha256(path)
            records.append({"name": step.name, "what": step.what, "bytes": size, "sha256": digest, **facts})
    return records


def zoo_markdown(records: Sequence[dict[str, Any]]) -> str:
    """Return the table of MODEL_ZOO.md."""
    lines = [
        "| file | what | command | seed | commit | data | time | size | sha256 |",
        "|---|---|---|---|---|---|---:|---:|---|",
    ]
    for record in records:
        commit, _, dirty = str(record.get("git_commit", "?")).partition("-")
        commit = f"{commit[:10]}, changed" if dirty else commit[:10]
        lines.append(
            f"| `{record['name']}.safetensors` | {record['what']} | `{record.get('command', '?')}` | "
            f"{record.get('seed', '?')} | `{commit}` | {record.get('data', '?')} | "
            f"{float(record.get('train_seconds', 'nan')) / 60:.1f} min | {record['bytes'] / 1e6:.1f} MB | "
            f"`{record['sha256'][:16]}` |"
        )
    return "\n".join(lines)


def contract_markdown(record: dict[str, Any]) -> str:
    """Return the input contract of a record as a list."""
    contract = json.loads(record.get("input_contract", "{}"))
    lines = []
    for modality in ("optical", "sar"):
        facts = contract.get(modality)
        if facts:
            bands = ", ".join(facts["bands"])
            clip = f", clipped to {tuple(facts['clip'])}" if facts.get("clip") else ""
            numbers = f"mean {tuple(facts['mean'])}; std {tuple(facts['std'])}"
            lines.append(f"- {modality}: {facts['sensor']}; bands {bands}; unit {facts['unit']}{clip}; {numbers}")
    lines.append(f"- ground sampling distance {contract.get('gsd_m')} m; scenes of {contract.get('train_size')} px")
    return "\n".join(lines)
