"""From two rasters and a sentence to a map, at any size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tqdm import tqdm

import mmovseg
from mmovseg.checkpoint.contract import InputContract, contract_from_dict
from mmovseg.checkpoint.load import file_sha256
from mmovseg.config import config_hash
from mmovseg.data.sar import SarUnit
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.engine.log import memory_status_mb, peak_memory_mb
from mmovseg.engine.stopwatch import machine_name, reset_peak_memory
from mmovseg.errors import UserError
from mmovseg.evaluation.report import text_table, write_text
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.disk import writing
from mmovseg.inference.scene.layers import Layer, confidence_layer, label_layer, probability_layer, quality_layer
from mmovseg.inference.scene.memory import describe_shortage, free_memory_mib
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.outputs import check_map_path, check_outputs, layer_suffixes
from mmovseg.inference.scene.parts import PLAN_TAG, PartStore
from mmovseg.inference.scene.picture import check_drawable, draw_map
from mmovseg.inference.scene.plan import ScenePlan, describe, make_plan
from mmovseg.inference.scene.polygons import write_polygons
from mmovseg.inference.scene.processes import is_main, local_size, on_main, rank, together, world_size
from mmovseg.inference.scene.rasters import GDAL_CACHE_MIB, SceneInputs, ScenePair
from mmovseg.inference.scene.report import area_note, class_report
from mmovseg.inference.scene.stream import SceneStream, Timings
from mmovseg.inference.scene.tiling import consecutive, share
from mmovseg.inference.scene.windows import WindowModel


@dataclass
class _Scene:
    """A scene that is about to be mapped."""

    stream: SceneStream
    store: PartStore
    vocabulary: Vocabulary
    options: SceneOptions
    output: Path

    @property
    def plan(self) -> ScenePlan:
        return self.stream.plan

    @property
    def speaks(self) -> bool:
        return self.options.show_progress and is_main()

    def say(self, text: str) -> None:
        """Print to the user, once however many processes there are."""
        if self.speaks:
            print(text, flush=True)


def predict_scene(
    predictor: Predictor,
    inputs: SceneInputs,
    prompts: str | Sequence[str] | Vocabulary,
    output: str | Path,
    *,
    options: SceneOptions | None = None,
) -> dict[str, Any]:
    """Map one scene: an optical and a SAR raster on any grids, of any size.

    SAR is warped to the grid of the optical raster while it is read. The map appears, complete, under its name at the
    end; until then finished rows are kept in the folder ``<output>.parts``, from which the same call goes on after an
    interruption. In a process group the windows are shared out; the pixels are those of one process.

    Args:
        predictor: the model.
        inputs: rasters and how to read them.
        prompts: class names, comma-separated or listed, or a vocabulary; at least two, since they compete.
        output: a GeoTIFF (.tif); other layers get a second suffix, such as ``map.confidence.tif``.
        options: choices.

    Returns:
        The report, which is also written to ``<output without .tif>.json``: ``classes`` (name -> value, pixels,
        hectares), ``plan``, ``facts`` of the rasters, ``files``, ``seconds`` (total, read, model, blend, write, finish)
        and ``resident_mib`` (``loaded``: with the model, before the scene; ``peak``: since) of this process and call.
        With `dry_run` only ``plan``, ``facts`` and ``estimate``.

    Raises:
        UserError: rasters, model, prompts and options do not fit, a raster is damaged, or the output cannot be written.
            Finished parts are kept, and an empty folder of parts is not.
    """
    started, loaded_mib = time.perf_counter(), memory_status_mb("VmRSS")
    options = options or SceneOptions()
    output = check_map_path(output)
    vocabulary = check_prompts(predictor, prompts)
    if options.picture is not None:
        check_drawable(vocabulary)
    with ScenePair(
        inputs, contract=_contract(predictor), modality=options.modality, override_contract=options.override_contract
    ) as pair:
        scene = _prepare(predictor, pair, vocabulary, output, options)
        for sentence in pair.warnings:
            scene.say(f"note: {sentence}")
        free = free_memory_mib(scene.stream.model.device)
        estimate = _estimate(scene, finished=set())
        shortage = describe_shortage(estimate, free, processes=local_size())
        if options.dry_run:
            scene.say(_describe(scene, estimate) + (f"\nnote: {shortage}" if shortage else ""))
            return {"plan": scene.plan.to_dict(), "facts": pair.facts, "estimate": estimate}
        together(lambda: _refuse(None if scene.store.is_there() and not options.overwrite else shortage))
        try:
            _map(scene, estimate)
            start = time.perf_counter()
            files = on_main(lambda: _finish(scene, predictor))
            scene.stream.timings.finish = time.perf_counter() - start
        finally:
            if is_main():
                scene.store.close()
        return on_main(lambda: _report(scene, files, time.perf_counter() - started, loaded_mib))


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise UserError(reason)


def check_prompts(predictor: Predictor, prompts: str | Sequence[str] | Vocabulary) -> Vocabulary:
    """Return the classes to map.

    Raises:
        UserError: there are none, or fewer than two.
    """
    vocabulary = predictor.ask_for(prompts)
    if len(vocabulary) < 2:
        raise UserError(
            f"'{vocabulary.names[0]}' alone would win everywhere; name at least one more class that it can lose against"
        )
    return vocabulary


def _contract(predictor: Predictor) -> InputContract | None:
    return contract_from_dict(predictor.contract) if predictor.contract else None


def _prepare(
    predictor: Predictor, pair: ScenePair, vocabulary: Vocabulary, output: Path, options: SceneOptions
) -> _Scene:
    plan = make_plan(
        pair.grid,
        contract=predictor.contract,
        num_classes=len(vocabulary),
        options=options,
        network_size=getattr(predictor.model, "network_size", None),
    )
    model = WindowModel(predictor, vocabulary, precision=options.precision, modality=options.modality)
    layers = _layers(vocabulary, options, clouds=pair.inputs.cloud_mask is not None)
    stream = SceneStream(pair, plan, model, layers, clouds=options.clouds)
    what = {
        "mmovseg": mmovseg.__version__,
        "inputs": pair.identity,
        "weights_sha256": file_sha256(predictor.checkpoint),
        "config": predictor.name,
        "model_config": _model_hash(predictor),
        "contract": predictor.contract,
        "prompts": [asdict(entry) for entry in vocabulary.classes],
        "plan": plan.to_dict(),
        "clouds": options.clouds,
        "modality": model.modality,
        "precision": options.precision,
        "contract_overridden": options.override_contract,
    }
    rasters = [path for path in (pair.inputs.optical, pair.inputs.sar, pair.inputs.cloud_mask) if path]
    store = PartStore(output, pair.grid, layers, plan=what, part_rows=plan.tiling.parts, inputs=rasters)
    behind = [path for files in pair.identity["files"].values() for path, *_ in files]
    clouds = pair.inputs.cloud_mask is not None
    check_outputs(output, options=options, plan=store.digest, inputs=[*rasters, *behind], clouds=clouds)
    return _Scene(stream, store, vocabulary, options, output)


def _model_hash(predictor: Predictor) -> str | None:
    """Return a hash of what the model is built from; the weights alone do not decide what it computes."""
    config = getattr(predictor, "config", None)
    return None if config is None else config_hash(config.model)


def _layers(vocabulary: Vocabulary, options: SceneOptions, *, clouds: bool) -> list[Layer]:
    makers: dict[str, Callable[[], Layer]] = {
        "": lambda: label_layer(vocabulary),
        "confidence": confidence_layer,
        "quality": quality_layer,
        "probabilities": lambda: probability_layer(vocabulary),
    }
    return [makers[suffix]() for suffix in layer_suffixes(options, clouds=clouds)]


def _estimate(scene: _Scene, *, finished: set[int]) -> dict[str, float]:
    """Time one batch in the middle of the scene and return what all that is left takes, see `plan.describe`."""
    stream, plan = scene.stream, scene.plan
    tiling = plan.tiling
    rows, batches = len(tiling.rows.starts), tiling.batches()
    device = stream.model.device
    reset_peak_memory(device)
    before = _memory_mib(device)
    spent = 0.0
    for share_of_rows in (0.5, 0.25, 0.75):
        batch = batches[len(batches) // 2]
        for _ in range(2):
            start = time.perf_counter()
            found = stream.read(min(int(rows * share_of_rows), rows - 1), batch)
            answers = stream.model(found.windows)
            del found
            spent = time.perf_counter() - start
        if any(answer is not None for answer in answers):
            break
    left = 1.0 - len(finished) / len(tiling.parts)
    windows = sum(len(batch) for batch in batches) * rows * left / world_size()
    layer_bytes = sum(layer.raw_bytes(1) for layer in stream.layers)
    by_model = max(peak_memory_mb(device) - before, 0.0) + plan.sums_bytes() / 2**20
    beside = plan.part_bytes(layer_bytes) / 2**20 + GDAL_CACHE_MIB
    estimate = {"seconds": round(spent / len(batch) * windows, 1)}
    if device.type == "cuda":
        return estimate | {"memory_mib": round(beside, 1), "gpu_mib": round(by_model, 1)}
    return estimate | {"memory_mib": round(by_model + beside, 1)}


def _memory_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    return memory_status_mb("VmRSS") or peak_memory_mb(device)


def _describe(scene: _Scene, estimate: Mapping[str, float]) -> str:
    device = scene.stream.model.device
    processes = world_size()
    where = machine_name(device) if processes == 1 else f"{processes} processes, {machine_name(device)}"
    text = describe(scene.plan, scene.stream.pair.facts, estimate, device=where)
    return f"{text}\n{'disk':13}{scene.store.disk_need()}"


def _map(scene: _Scene, estimate: dict[str, float]) -> None:
    """Predict what is missing of the parts, each process its share.

    Raises:
        UserError: in any process; after all have ended.
    """
    store, options = scene.store, scene.options

    def begin() -> tuple[set[int], bool]:
        return store.begin(restart=options.restart, overwrite=options.overwrite), store.complete

    finished, complete = on_main(begin)
    for note in store.notes:
        scene.say(f"note: {note}")
    if complete:
        scene.say(f"'{scene.output}' is there already, made from the same rasters with the same options")
        return
    parts = scene.plan.tiling.parts
    if finished:
        estimate = _estimate(scene, finished=finished)
        scene.say(f"going on: {len(finished)} of {len(parts)} parts are there")
    scene.say(_describe(scene, estimate))
    missing = [index for index in range(len(parts)) if index not in finished]
    mine = share(missing, rank=rank(), world_size=world_size())
    together(lambda: _map_parts(scene, mine))


def _map_parts(scene: _Scene, indices: Sequence[int]) -> None:
    parts, timings = scene.plan.tiling.parts, scene.stream.timings
    total = sum(last - first for first, last in (parts[index] for index in indices))
    # standard error, and only on a terminal, where a line can be drawn again
    with tqdm(total=total, unit="row", desc="mapping", disable=None if scene.speaks else True) as bar:
        for run in consecutive(indices):
            for index, arrays in scene.stream.parts(run):
                start = time.perf_counter()
                scene.store.write(index, arrays)
                timings.write += time.perf_counter() - start
                first, last = parts[index]
                bar.update(last - first)


def _finish(scene: _Scene, predictor: Predictor) -> list[Path]:
    """Assemble the files of the map."""
    pair, plan, options = scene.stream.pair, scene.plan, scene.options
    tags = {
        "MMOVSEG_VERSION": mmovseg.__version__,
        "MODEL": predictor.name,
        "WEIGHTS_SHA256": file_sha256(predictor.checkpoint),
        "PROMPTS": ", ".join(scene.vocabulary.names),
        "MODALITY": scene.stream.model.modality,
        "CONTRACT": "overridden" if options.override_contract else "met",
        "TILING": f"tile {plan.tile}, overlap {plan.overlap}, margin {plan.margin}, anchor {options.anchor}",
    }
    if plan.model_gsd_m is not None:
        tags["MODEL_GSD_M"] = f"{plan.model_gsd_m:.6g}"
    for name in ("optical", "sar", "cloud_mask"):
        path = getattr(pair.inputs, name)
        if path:
            tags[name.upper()] = Path(path).name
    if pair.inputs.cloud_mask:
        tags["CLOUDS"] = options.clouds
    files = scene.store.finish(tags)
    if options.polygons is not None:
        polygons = write_polygons(
            files[0],
            options.polygons,
            scene.vocabulary,
            min_area_m2=options.min_area_m2,
            simplify_m=options.simplify_m,
        )
        files = [*files, Path(options.polygons)] if polygons is not None else files
    return files


def _report(scene: _Scene, files: Sequence[Path], total: float, loaded_mib: float | None) -> dict[str, Any]:
    """Write and print what came out."""
    timings: Timings = scene.stream.timings
    classes = class_report(files[0], scene.vocabulary)
    report: dict[str, Any] = {
        "classes": classes,
        "plan": scene.plan.to_dict(),
        "facts": scene.stream.pair.facts,
        "files": [str(path) for path in files],
        "seconds": {"total": round(total, 3), **{key: round(value, 3) for key, value in asdict(timings).items()}},
        "resident_mib": {"loaded": loaded_mib, "peak": memory_status_mb("VmHWM")},
        "processes": world_size(),
    }
    target = scene.output.with_suffix(".json")
    _write_report(report, target)
    if scene.options.picture is not None:  # last, as everything else is there by then
        _draw(scene, classes)
        report["files"].append(str(scene.options.picture))
        _write_report(report, target)
    rows = [
        [name, str(row["pixels"]), "" if row["hectares"] is None else f"{row['hectares']:.2f}"]
        for name, row in report["classes"].items()
    ]
    scene.say(text_table(rows, ["class", "pixels", "hectares"], text_columns=1))
    note = area_note(files[0])
    if note:
        scene.say(f"note: {note}")
    scene.say(f"wrote {', '.join([*report['files'], str(target)])}")
    return report


def _write_report(report: Mapping[str, Any], path: Path) -> None:
    with writing(path):
        write_text(path, json.dumps(report, indent=1, allow_nan=False) + "\n")


def _draw(scene: _Scene, classes: Mapping[str, Mapping[str, Any]]) -> None:
    assert scene.options.picture is not None
    layers = [(layer, layer.path_of(scene.output)) for layer in scene.stream.layers if layer.name != "probabilities"]
    hectares = {name: row["hectares"] for name, row in classes.items()}
    contract = scene.stream.pair.contract
    unit = contract.sar.unit if contract is not None and contract.sar is not None else "db"
    draw_map(
        scene.options.picture,
        scene.stream.pair,
        layers,
        scene.vocabulary,
        hectares=hectares,
        sar_unit=cast(SarUnit, unit),
        tags={PLAN_TAG: scene.store.digest},
    )
