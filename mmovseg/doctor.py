"""What is installed here, what is found, and what is wrong, in words: `python -m mmovseg.doctor [--json]`.

Exit status 1 if something that mmovseg needs is missing or does not work; notes about optional things leave it at 0.
Nothing is downloaded and nothing is written.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import mmovseg
from mmovseg.errors import OneLineParser, exit_on_user_error

PACKAGE = Path(__file__).resolve().parent
DETECTRON2_ADVICE = "run: python tools/install_detectron2.py (or build detectron2 from its upstream sources)"


@dataclass(frozen=True)
class Finding:
    """One line of the report. `problem` = needed and not in order, `note` = optional; `advice` says what to do."""

    section: str
    name: str
    text: str
    status: Literal["ok", "note", "problem"] = "ok"
    advice: str = ""


@dataclass(frozen=True)
class FoundationWeights:
    """Weights that open_clip or timm fetch from a model hub into its local cache when a config first asks for them."""

    name: str
    repository: str
    files: tuple[str, ...]
    used_by: str


_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
FOUNDATION_WEIGHTS = (
    FoundationWeights("ViT-B-16-quickgelu openai", "timm/vit_base_patch16_clip_224.openai", _CLIP_FILES, "ViT-B/16"),
    FoundationWeights(
        "ViT-L-14-336-quickgelu openai", "timm/vit_large_patch14_clip_336.openai", _CLIP_FILES, "ViT-L/14"
    ),
    FoundationWeights("vit_base_patch16_224.dino", "timm/vit_base_patch16_224.dino", _TIMM_FILES, "ViT-B/16"),
    FoundationWeights(
        "vit_large_patch16_dinov3.sat493m", "timm/vit_large_patch16_dinov3.sat493m", _TIMM_FILES, "ViT-L/14"
    ),
    FoundationWeights(
        "vit_base_patch8_224.dino", "timm/vit_base_patch8_224.dino", _TIMM_FILES, "released ViT-B/16, trained anew"
    ),
    FoundationWeights(
        "vit_large_patch16_dinov3_qkvb.sat493m",
        "timm/vit_large_patch16_dinov3_qkvb.sat493m",
        _TIMM_FILES,
        "released ViT-L/14, trained anew",
    ),
    FoundationWeights(
        "vit_base_patch16_clip_quickgelu_224.openai",
        "timm/vit_base_patch16_clip_224.openai",
        _TIMM_FILES,
        "CMU of CLIP, ViT-B/16",
    ),
)


def diagnose() -> list[Finding]:
    """Look at everything. A probe that breaks becomes a problem itself, so the report is always whole."""
    probes = (_python, _packages, _torch, _detectron2, _gdal, _machine, _shipped_weights, _foundation_weights, _data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the libraries are no findings
        return [finding for probe in probes for finding in _guarded(probe)]


def _guarded(probe: Callable[[], Iterator[Finding]]) -> list[Finding]:
    findings: list[Finding] = []
    try:
        for finding in probe():
            findings.append(finding)
    except Exception as error:  # whatever an import or a driver raises is the finding
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        name = probe.__name__.strip("_")
        advice = DETECTRON2_ADVICE if "detectron2" in name else "install requirements/base.in"
        findings.append(Finding(name, "error", reason, "problem", advice))
    return findings


def _python() -> Iterator[Finding]:
    new_enough = sys.version_info >= (3, 11)
    yield Finding(
        "python",
        "python",
        f"{platform.python_version()} in {sys.prefix} ({platform.platform(terse=True)})",
        "ok" if new_enough else "problem",
        "" if new_enough else "mmovseg needs Python 3.11 or newer",
    )
    kind = "checkout" if (PACKAGE.parent / "setup.py").is_file() else "installed copy"
    yield Finding("python", "mmovseg", f"{mmovseg.__version__} ({kind} in {PACKAGE.parent})")


def direct_requirements() -> list[str]:
    """Our direct dependencies with their bounds: from the checkout, else from the installed package's metadata."""
    file = PACKAGE.parent / "requirements" / "base.in"
    if file.is_file() and (PACKAGE.parent / "setup.py").is_file():
        lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line]
    try:
        return [line for line in importlib.metadata.requires("mmovseg") or [] if "extra ==" not in line]
    except importlib.metadata.PackageNotFoundError:
        return []


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in direct_requirements():
        wanted = Requirement(line)
        advice = f"run: pip install '{line}'"
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", wanted.name, "not installed", "problem", advice)
            continue
        if wanted.specifier.contains(version, prereleases=True):
            yield Finding("packages", wanted.name, version)
        else:
            text = f"{version} is outside of {wanted.specifier}"
            yield Finding("packages", wanted.name, text, "problem", advice)


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("torch", "torch", f"{torch.__version__}, {_spell_gpu_build(torch)}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding("torch", f"cuda:{index}", f"{facts.name}, {facts.total_memory / 2**30:.1f} GiB")
    else:
        yield Finding("torch", "device", "CPU only: no CUDA device is visible to torch")
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores (OMP_NUM_THREADS changes it)"
    yield Finding("torch", "threads", threads)
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]])
    kept = torchvision.ops.nms(boxes, torch.tensor([1.0, 0.5]), 0.5).tolist()  # fails if the two builds do not match
    right = kept == [0]
    yield Finding(
        "torch",
        "torchvision",
        f"{torchvision.__version__}, its compiled operators {'work' if right else f'gave {kept} for [0]'}",
        "ok" if right else "problem",
        "" if right else "install torch and torchvision together, both in their default builds",
    )


def _spell_gpu_build(torch: object) -> str:
    version = getattr(torch, "version", None)
    for name in ("cuda", "hip"):
        if getattr(version, name, None):
            return f"built for {name.upper()} {getattr(version, name)}"
    return "built for CPU"


def _detectron2() -> Iterator[Finding]:
    if importlib.util.find_spec("detectron2") is None:
        yield Finding("detectron2", "detectron2", "not installed", "problem", DETECTRON2_ADVICE)
        return
    detectron2 = importlib.import_module("detectron2")
    for name in ("config", "engine", "evaluation", "modeling", "utils.visualizer"):
        importlib.import_module(f"detectron2.{name}")
    folder = Path(detectron2.__file__ or "").parent
    pure = (folder / "PORTS.txt").is_file()
    origin = "pure-Python build made by tools/install_detectron2.py" if pure else "own or upstream build"
    yield Finding("detectron2", "detectron2", f"{detectron2.__version__}, {origin}, in {folder}")
    try:
        compiled = hasattr(importlib.import_module("detectron2._C"), "nms_rotated")
    except ImportError:
        compiled = False
    text = "there" if compiled else "not there and not needed (rotated boxes and deformable convolution lack)"
    yield Finding("detectron2", "compiled ops", text)


def _gdal() -> Iterator[Finding]:
    import rasterio
    from rasterio.crs import CRS

    yield Finding("gdal", "rasterio", f"{rasterio.__version__} with GDAL {rasterio.__gdal_version__}")
    with rasterio.Env() as environment:
        missing = sorted({"GTiff", "COG", "PNG", "VRT"} - set(environment.drivers()))
    if missing:
        advice = "install the rasterio wheel, which brings its own GDAL"
        yield Finding("gdal", "drivers", f"missing: {', '.join(missing)}", "problem", advice)
    try:
        CRS.from_epsg(32632).to_wkt()
        yield Finding("gdal", "PROJ", "coordinate systems can be looked up")
    except rasterio.errors.CRSError as error:
        found = {name: os.environ[name] for name in ("PROJ_LIB", "PROJ_DATA", "GDAL_DATA") if name in os.environ}
        advice = f"unset {', '.join(found)}: it points to another PROJ" if found else "install rasterio again"
        yield Finding("gdal", "PROJ", str(error).splitlines()[0], "problem", advice)


def _machine() -> Iterator[Finding]:
    memory = _memory_gib()
    text = f"{memory:.1f} GiB" if memory else "unknown"
    small = bool(memory) and memory < 4
    yield Finding("machine", "memory", text, "note" if small else "ok", "the demo wants about 4 GiB" if small else "")
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    low = free < 2
    yield Finding(
        "machine",
        "disk",
        f"{free:.1f} GB free at {here}",
        "note" if low else "ok",
        "checkpoints and figures need room" if low else "",
    )


def _memory_gib() -> float:
    """Memory that this process may use: the machine's, or less if a container limits it. 0 if unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0.0
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(name).read_text()))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return total / 2**30


def _shipped_weights() -> Iterator[Finding]:
    folder = PACKAGE / "weights"
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        yield Finding("shipped weights", file.name, f"{file.stat().st_size / 1e6:.1f} MB")
    if not files:
        advice = "run: make zoo, or take them from a complete checkout; the demo starts from them"
        yield Finding("shipped weights", "small models", f"none in {folder}", "note", advice)


def _foundation_weights() -> Iterator[Finding]:
    from huggingface_hub import constants, try_to_load_from_cache

    for weights in FOUNDATION_WEIGHTS:
        cached = [try_to_load_from_cache(weights.repository, file) for file in weights.files]
        found = next((path for path in cached if isinstance(path, str)), None)
        if found:
            yield Finding("foundation weights", weights.name, f"found: {found}")
            continue
        advice = (
            f"only the {weights.used_by} models want it: {weights.files[0]} of {weights.repository}, fetched on first "
            "use, or downloaded elsewhere and given as weights=<path>"
        )
        yield Finding("foundation weights", weights.name, f"not in {constants.HF_HUB_CACHE}", "note", advice)


def _data() -> Iterator[Finding]:
    root = os.environ.get("DETECTRON2_DATASETS")
    if root is None:
        text = f"not set: data sets are looked for in {Path('datasets').resolve()}"
        yield Finding("data", "DETECTRON2_DATASETS", text)
    elif Path(root).expanduser().is_dir():
        yield Finding("data", "DETECTRON2_DATASETS", root)
    else:
        advice = "make the folder or let the variable name another one; MiniEarth needs none"
        yield Finding("data", "DETECTRON2_DATASETS", f"{root} is not a folder", "note", advice)


def spell(findings: list[Finding]) -> str:
    """The report as text: sections, aligned lines, and at the end what is wrong."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section]
        mark = {"ok": " ", "note": "-", "problem": "!"}[finding.status]
        lines.append(f" {mark} {finding.name:<{width}}  {finding.text}")
    notes = [finding for finding in findings if finding.status == "note"]
    problems = [finding for finding in findings if finding.status == "problem"]
    for title, chosen in (("Good to know (-)", notes), ("Wrong (!)", problems)):
        if chosen:
            lines += ["", title]
            lines += [f" * {item.name}: {item.text}" + (f"; {item.advice}" if item.advice else "") for item in chosen]
    lines += ["", f"problems: {len(problems)}" if problems else "all that is needed is there"]
    return "\n".join(lines).lstrip("\n")


@exit_on_user_error
def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """Command line; returns the exit status."""
    parser = OneLineParser(
        prog=prog or "python -m mmovseg.doctor", description="Say what is installed, what is found, and what is wrong."
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    options = parser.parse_args(arguments)
    findings = diagnose()
    healthy = all(finding.status != "problem" for finding in findings)
    if options.json:
        print(json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(spell(findings))
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
