"""Rates of what feeds a model and of what counts its answers: loaders, windows of a scene, the evaluator."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from PIL import Image

from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.data.build import build_train_loader
from mmovseg.data.datasets import load_pair_folder
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth.export import write_miniearth_folder
from mmovseg.data.miniearth.scenes import write_miniearth_scene
from mmovseg.data.sar import db_to_amplitude8
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.benchmark.timing import repeat
from mmovseg.engine.cost_inputs import made_up_vocabulary
from mmovseg.engine.stopwatch import Clock
from mmovseg.evaluation import OVSegEvaluator
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair

_BATCH = 8
_KINDS = ("optical", "sar", "label")


def measure_loader(settings: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Measure the training loader of a config on files of MiniEarth: reading, geometry and jitter, without clouds.

    Settings: ``config_file``, ``overrides``; ``source``: ``png`` (8-bit optical and SAR) or ``geotiff`` (8-bit optical,
    float32 SAR in dB); ``files``: pairs; ``pixels``: their side; ``workers``; ``seconds``. The files are read again and
    again, so the operating system has them in memory: this is the time to decode, not that of a disk.

    Returns:
        ``seconds`` of every batch, ``images`` and ``pixels`` of a batch, and what `repeat` gives.
    """
    config = apply_overrides(load_config(settings["config_file"]), settings.get("overrides", ()))
    mapper = config.dataloader.train.mapper
    is_png = settings["source"] == "png"
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "geotiff"
        write_miniearth_folder(pairs, splits=("train",), num_scenes=settings["files"], size=settings["pixels"])
        pairs = _as_png(pairs / "train", Path(folder) / "png") if is_png else pairs / "train"
        loader = build_train_loader(
            dataset=load_pair_folder(*(pairs / kind for kind in _KINDS)),
            mapper=OpticalSARMapper(
                is_train=True,
                vocabulary=get_vocabulary("miniearth", "clean"),
                reader=FileReader(sar_unit_in="amplitude8", sar_channels=2) if is_png else FileReader(),
                geometry=instantiate(mapper.get("geometry")) or (),
                optical_photometric=instantiate(mapper.get("optical_photometric")),
                sar_photometric=instantiate(mapper.get("sar_photometric")),
            ),
            batch_size=_BATCH,
            num_workers=settings["workers"],
        )
        batches = iter(loader)
        found = _rate(batches, workers=settings["workers"], clock=clock, seconds=settings["seconds"])
        height, width = next(batches)[0]["image"].shape[-2:]
        del batches  # ends the workers before their files vanish
    if settings["workers"]:
        found["other_cores"] = None  # our own workers would count as others
    return found | {"images": _BATCH, "pixels": _BATCH * int(height) * int(width)}


def _rate(batches: Iterator[Any], *, workers: int, clock: Clock, seconds: float) -> dict[str, Any]:
    """Time batches; workers have several ready, so that as many are thrown away first, and groups of batches count."""
    ahead = 2 * workers  # torch's prefetch factor
    for _ in range(ahead):
        next(batches)
    group = max(1, ahead)
    found = repeat(lambda: [next(batches) for _ in range(group)], clock, seconds=seconds)
    return found | {"seconds": [value / group for value in found["seconds"]]}


def _as_png(source: Path, target: Path) -> Path:
    """Write GeoTIFF pairs again as PNG: optical and label as they are, the first polarisation as 8-bit amplitude."""
    for kind in _KINDS:
        (target / kind).mkdir(parents=True)
        for file in sorted((source / kind).glob("*.tif")):
            with rasterio.open(file) as raster:
                bands = raster.read()
            values = db_to_amplitude8(bands[0]).astype(np.uint8) if kind == "sar" else bands.astype(np.uint8)
            Image.fromarray(values.transpose(1, 2, 0) if kind == "optical" else values.squeeze()).save(
                target / kind / f"{file.stem}.png"
            )
    return target


def measure_windows(settings: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Measure reading of paired windows of a scene.

    Settings: ``source``: ``aligned`` (SAR on the optical grid) or ``warped`` (SAR on another CRS and a grid twice as
    coarse); ``scene_pixels``, ``pixels`` (side of a window), ``seconds``.

    Returns:
        ``seconds`` of every window, ``images`` and ``pixels`` of a window, and what `repeat` gives.
    """
    side = min(settings["pixels"], settings["scene_pixels"])
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_scene(Path(folder) / "scene", settings["scene_pixels"], settings["source"])
        with ScenePair(inputs, contract=None) as pair:
            starts = _starts(pair.grid.height, pair.grid.width, side)
            found = repeat(lambda: pair.read(*next(starts), side, side), clock, seconds=settings["seconds"])
    return found | {"images": 1, "pixels": side * side}


def write_scene(folder: Path, pixels: int, source: str) -> SceneInputs:
    """Write a square scene of MiniEarth, its SAR ``aligned`` or ``warped`` as of `measure_windows`."""
    grid: dict[str, Any] = {"sar_crs": "EPSG:32633", "sar_gsd_m": 5.0} if source == "warped" else {}
    write_miniearth_scene(folder, height=pixels, width=pixels, clouds="varied", **grid)
    return SceneInputs(optical=str(folder / "optical.tif"), sar=str(folder / "sar.tif"))


def _starts(height: int, width: int, side: int) -> Iterator[tuple[int, int]]:
    """Yield rows and columns of windows, row by row, again and again."""
    while True:
        for row in range(0, height - side + 1, side):
            for col in range(0, width - side + 1, side):
                yield row, col


def measure_evaluator(settings: Mapping[str, Any], clock: Clock) -> dict[str, Any]:
    """Measure what the evaluator does with the answers for a batch; the scores lie on the clock's device.

    Settings: ``classes``, ``pixels``, ``seconds``.

    Returns:
        ``seconds`` of every batch, ``images`` and ``pixels`` of a batch, and what `repeat` gives.
    """
    side, vocabulary = settings["pixels"], made_up_vocabulary(settings["classes"])
    evaluator = OVSegEvaluator(dataset_name="benchmark", vocabulary=vocabulary)
    generator = torch.Generator().manual_seed(0)
    inputs: list[Any] = []
    outputs: list[Any] = []
    for number in range(_BATCH):
        label = torch.randint(len(vocabulary), (side, side), generator=generator)
        scores = torch.randn(len(vocabulary), side, side, generator=generator)
        inputs.append({"image_id": str(number), "sem_seg": label})
        outputs.append({"sem_seg": scores.to(clock.device)})
    start = time.perf_counter()
    found = repeat(lambda: evaluator.process(inputs, outputs), clock, seconds=settings["seconds"])
    images = _BATCH * (1 + len(found["seconds"]))
    evaluator.evaluate()
    assert evaluator.report is not None and evaluator.report["provenance"]["images"] == images
    return found | {"images": _BATCH, "pixels": _BATCH * side * side, "whole_seconds": time.perf_counter() - start}
