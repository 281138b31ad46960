"""Detection, evaluated by COCO's rules: detectron2's `COCOEvaluator` with pycocotools, by category and by size."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tempfile
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from omegaconf import OmegaConf
from pycocotools.cocoeval import COCOeval

from mmovseg.data.sample import EvaluationModality, ModelInput, Prediction
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.evaluation.report import format_percent, safe_name, text_table, write_text

logger = logging.getLogger(__name__)

HEADLINE = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COCO_EDGES_PX = (32.0, 96.0)
_HUGE_PX = 1e5

DEFINITION = {
    "AP": "COCO's average precision in percent: mean over IoU 0.50, 0.55 .. 0.95 and over the categories with objects",
    "AP50, AP75": "at this IoU alone",
    "APs, APm, APl": "of objects below 32 x 32 pixels, up to 96 x 96, and larger, by their annotated area",
    "by size": "the same between other edges: the square root of the annotated area, in pixels of the original image",
    "AR100": "mean recall over the same IoU with up to 100 detections an image",
    "limits": "at most 100 detections an image; crowds are neither objects nor mistakes",
    "None": "no test image has such an object; a category with objects but without any detection has AP 0",
    "data_manifest_sha256": "over the sorted hashes of (image id, size, boxes, classes) of every image evaluated",
}


class BoxEvaluator(DatasetEvaluator):
    """Compare detections with the objects that the test loader gives beside the images.

    Every process evaluates its share; all must call `evaluate`. `report` then holds, on the main process, what
    ``result.json`` says (`DEFINITION`).

    Args:
        dataset_name: used in the result folder and in the report.
        categories: names, in the order of the class ids.
        size_edges_px: edges between the groups of sizes of the extra table, rising.
        modality: what the model sees, written down; ``shuffled-sar`` has a folder of its own.
        loader: name of the test loader where a config has several; goes into the report and the folder's name. The
            engine fills it in.
        output_dir: the run's output folder; None writes no files.
        provenance: facts to record; commit, versions and hashes are added.

    Raises:
        UserError: the edges do not rise.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        categories: Sequence[str],
        size_edges_px: Sequence[float] = COCO_EDGES_PX,
        modality: EvaluationModality | None = None,
        loader: str | None = None,
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        self.edges = tuple(float(edge) for edge in size_edges_px)
        if any(high <= low for low, high in zip((0.0, *self.edges), self.edges, strict=False)):
            raise UserError(f"size_edges_px of the evaluator must rise from above 0, got {list(size_edges_px)}")
        self.dataset_name, self.categories = dataset_name, tuple(categories)
        self.modality, self.loader, self.output_dir = modality, loader, output_dir
        plain: Any = OmegaConf.to_container(provenance) if OmegaConf.is_config(provenance) else provenance
        self.provenance: dict[str, Any] = dict(plain or {})
        self.report: dict[str, Any] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        self._truth: dict[str, Instances] = {}
        self._found: dict[str, Instances] = {}
        self._started = time.perf_counter()

    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Prediction]) -> None:
        """Keep the objects and the detections of a batch.

        Args:
            inputs: with `instances` at the original size, as evaluation mappers give them.
            outputs: with `instances` at the same size.

        Raises:
            UserError: an image comes without objects to compare with, twice, or with a class outside the categories.
            ValueError: detections are for another size, or not finite.
        """
        for item, output in zip(inputs, outputs, strict=True):
            name, image_id = str(item.get("file_name", "?")), str(item["image_id"])
            if "instances" not in item:
                raise UserError(f"'{name}' has no objects to evaluate against; its dataset dict needs 'annotations'")
            truth, found = item["instances"].to("cpu"), output["instances"].to("cpu")
            if len(truth) and int(truth.gt_classes.max()) >= len(self.categories):
                raise UserError(
                    f"'{name}' has an object of class {int(truth.gt_classes.max())}; the evaluator knows "
                    f"{len(self.categories)}: {', '.join(self.categories)}"
                )
            if image_id in self._truth:
                raise UserError(f"image '{image_id}' of '{self.dataset_name}' came twice; every id must be there once")
            if found.image_size != truth.image_size:
                raise ValueError(f"'{name}': detections are for {found.image_size} pixels, not {truth.image_size}")
            if not bool(found.scores.isfinite().all() and found.pred_boxes.tensor.isfinite().all()):
                raise ValueError(f"'{name}': a detection is not finite")
            self._truth[image_id], self._found[image_id] = truth, found

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Join the processes, run COCO's evaluation, write the result, return the metrics.

        Returns:
            ``{"bbox": {"AP": ..., "AP50": ..., "AP-<category>": ...}}`` in percent on the main process, None on the
            others. A metric without a value is NaN here (None in the report and in JSON).

        Raises:
            UserError: the test images hold no object at all.
        """
        shares = comm.gather((self._truth, self._found))
        if not comm.is_main_process():
            return None
        truth: dict[str, Instances] = {name: value for share in shares for name, value in share[0].items()}
        found: dict[str, Instances] = {name: value for share in shares for name, value in share[1].items()}
        if not any(bool((~value.gt_crowd).any()) for value in truth.values()):
            raise UserError(f"the {len(truth)} test images of '{self.dataset_name}' hold no object: no AP")
        self.report = self._build_report(truth, found)
        logger.info("%s:\n%s", self.dataset_name, format_box_table(self.report))
        if self.output_dir is not None:
            path = box_result_path(self.output_dir, self.dataset_name, self.modality, loader=self.loader)
            write_text(path, json.dumps(self.report, indent=1, allow_nan=False, default=str) + "\n")
            logger.info("wrote %s", path)
        metrics = self.report["metrics"]
        flat = {key: float("nan") if value is None else float(value) for key, value in metrics.items()}
        return OrderedDict({"bbox": flat})

    def _build_report(self, truth: Mapping[str, Instances], found: Mapping[str, Instances]) -> dict[str, Any]:
        counts = np.zeros(len(self.categories), dtype=np.int64)
        for value in truth.values():
            counts += np.bincount(value.gt_classes[~value.gt_crowd].numpy(), minlength=len(counts))
        metrics, coco = self._run_coco(truth, found)
        sized = None if coco is None else _evaluate_sizes(coco, self.edges)
        groups, ranges = size_names(self.edges), _ranges(self.edges)
        rows = [
            {
                "name": name,
                "objects": int(counts[index]),
                "AP": _category(coco, index, int(counts[index])),
                "AP50": _category(coco, index, int(counts[index]), iou=0),
                "AP75": _category(coco, index, int(counts[index]), iou=5),
                "AP by size": {
                    group: _category(sized, index, _count(truth, ranges[number], index), area=number)
                    for number, group in enumerate(groups)
                },
            }
            for index, name in enumerate(self.categories)
        ]
        by_size = [
            {
                "size_px": group,
                "objects": _count(truth, ranges[number]),
                "AP": _mean([row["AP by size"][group] for row in rows]),  # type: ignore[index]
            }
            for number, group in enumerate(groups)
        ]
        return {
            "dataset": self.dataset_name,
            "modality": self.modality,
            **({"loader": self.loader} if self.loader is not None else {}),
            "metrics": metrics | {f"AP-{row['name']}": row["AP"] for row in rows},
            "categories": rows,
            "by_size": by_size,
            "definition": DEFINITION,
            "provenance": {
                "git_commit": source_commit(),
                "versions": installed_versions(),
                **self.provenance,
                "data_manifest_sha256": _manifest(truth),
                "processes": comm.get_world_size(),
                "images": len(truth),
                "objects": int(counts.sum()),
                "detections": sum(len(value) for value in found.values()),
                "seconds": round(time.perf_counter() - self._started, 3),
            },
        }

    def _run_coco(
        self, truth: Mapping[str, Instances], found: Mapping[str, Instances]
    ) -> tuple[dict[str, float | None], COCOeval | None]:
        """Return the headline metrics and COCO's own evaluation, None when nothing was detected."""
        if not any(len(value) for value in found.values()):
            return _nothing_found(truth), None  # COCO's code gives no number then
        numbers = {image_id: number for number, image_id in enumerate(sorted(truth), start=1)}
        with _registered(_coco_ground_truth(truth, numbers, self.categories), self.categories) as name:
            evaluator = _KeepingEvaluator(name, tasks=("bbox",), distributed=False, use_fast_impl=False)
            evaluator.reset()
            evaluator.process(
                [{"image_id": number} for number in numbers.values()],
                [{"instances": found[image_id]} for image_id in numbers],
            )
            with contextlib.redirect_stdout(io.StringIO()):
                results = evaluator.evaluate()["bbox"]
        coco = evaluator.coco_eval
        assert coco is not None
        metrics: dict[str, float | None] = {key: _number(results[key]) for key in HEADLINE}
        metrics["AR100"] = _number(100 * coco.stats[8]) if coco.stats[8] >= 0 else None
        return metrics, coco


class _KeepingEvaluator(COCOEvaluator):
    """Keeps COCO's evaluation object, which holds more than the summary that comes out."""

    coco_eval: COCOeval | None = None

    def _derive_coco_results(self, coco_eval: Any, iou_type: str, class_names: Any = None) -> Any:
        self.coco_eval = coco_eval
        return super()._derive_coco_results(coco_eval, iou_type, class_names)


@contextlib.contextmanager
def _registered(ground_truth: Mapping[str, Any], categories: Sequence[str]) -> Iterator[str]:
    """Register a data set for as long as the context lasts, since `COCOEvaluator` reads a registered file."""
    name = f"boxes-{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ground_truth.json"
        file.write_text(json.dumps(ground_truth), encoding="utf-8")
        try:
            MetadataCatalog.get(name).set(json_file=str(file), thing_classes=list(categories))
            yield name
        finally:
            MetadataCatalog.remove(name)


def _coco_ground_truth(
    truth: Mapping[str, Instances], numbers: Mapping[str, int], categories: Sequence[str]
) -> dict[str, Any]:
    images, annotations = [], []
    for image_id, number in numbers.items():
        value = truth[image_id]
        images.append({"id": number, "height": value.image_size[0], "width": value.image_size[1]})
        rows = zip(value.gt_boxes.tensor.tolist(), value.gt_classes, value.gt_areas, value.gt_crowd, strict=True)
        for (x0, y0, x1, y1), category, area, crowd in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would mean "unmatched" inside pycocotools
                    "image_id": number,
                    "category_id": int(category),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    named = [{"id": index, "name": name} for index, name in enumerate(categories)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": named}


def _evaluate_sizes(coco: COCOeval, edges: Sequence[float]) -> COCOeval:
    """Run COCO's evaluation once more, with areas between these edges."""
    with contextlib.redirect_stdout(io.StringIO()):
        sized = COCOeval(coco.cocoGt, coco.cocoDt, "bbox")
        sized.params.areaRng = [list(pair) for pair in _ranges(edges)]
        sized.params.areaRngLbl = size_names(edges)
        sized.evaluate()
        sized.accumulate()
    return sized


def _ranges(edges: Sequence[float]) -> list[tuple[float, float]]:
    bounds = [0.0, *(edge**2 for edge in edges), _HUGE_PX**2]
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def size_names(edges: Sequence[float]) -> list[str]:
    """Return the groups of sizes in words: ``0-6``, ``6-10``, ``10+``."""
    bounds = ["0", *(f"{edge:g}" for edge in edges)]
    return [f"{low}-{high}" for low, high in zip(bounds[:-1], bounds[1:], strict=True)] + [f"{bounds[-1]}+"]


def _category(
    coco: COCOeval | None, category: int, objects: int, *, iou: int | None = None, area: int = 0
) -> float | None:
    """Return the AP of one category in percent, None without objects of it."""
    if objects == 0:
        return None
    if coco is None:
        return 0.0
    precision = coco.eval["precision"][:, :, category, area, -1]
    precision = precision if iou is None else precision[iou]
    precision = precision[precision > -1]
    return float(100 * precision.mean()) if precision.size else None


def _count(truth: Mapping[str, Instances], areas: tuple[float, float], category: int | None = None) -> int:
    """Return how many objects, of one category or all, have an area in this range, both ends included as in COCO."""
    count = 0
    for value in truth.values():
        kept = (~value.gt_crowd) & (value.gt_areas >= areas[0]) & (value.gt_areas <= areas[1])
        if category is not None:
            kept &= value.gt_classes == category
        count += int(kept.sum())
    return count


def _nothing_found(truth: Mapping[str, Instances]) -> dict[str, float | None]:
    """Return the headline metrics without any detection: 0 wherever there is something to find."""
    sizes = zip(("APs", "APm", "APl"), _ranges(COCO_EDGES_PX), strict=True)
    by_size = {key: 0.0 if _count(truth, areas) else None for key, areas in sizes}
    return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0, **by_size, "AR100": 0.0}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _manifest(truth: Mapping[str, Instances]) -> str:
    digests = []
    for image_id, value in truth.items():
        digest = hashlib.sha256(f"{image_id} {value.image_size}".encode())
        digest.update(value.gt_boxes.tensor.numpy().tobytes() + value.gt_classes.numpy().tobytes())
        digests.append(digest.hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def box_result_path(
    output_dir: str | Path,
    dataset_name: str,
    modality: EvaluationModality | None = None,
    *,
    loader: str | None = None,
) -> Path:
    """Return where `BoxEvaluator` writes: ``<output_dir>/eval/<dataset>/detection[-<loader>]/result.json``.

    The control with the SAR image of another scene has a folder of its own, ``detection-shuffled-sar``.
    """
    parts = ["detection", *([safe_name(loader)] if loader else [])]
    parts += ["shuffled-sar"] if modality == "shuffled-sar" else []
    return Path(output_dir) / "eval" / safe_name(dataset_name) / "-".join(parts) / "result.json"


def format_box_table(report: Mapping[str, Any]) -> str:
    """Return a report of `BoxEvaluator` as text: headline, categories with sizes."""
    groups = [row["size_px"] for row in report["by_size"]]
    keys = ("AP", "AP50", "AP75")
    rows = [
        [row["name"], str(row["objects"]), *(format_percent(row[key]) for key in keys)]
        + [format_percent(row["AP by size"][group]) for group in groups]
        for row in report["categories"]
    ]
    total = [format_percent(report["metrics"][key]) for key in keys]
    total += [format_percent(row["AP"]) for row in report["by_size"]]
    rows.append(["all", str(report["provenance"]["objects"]), *total])
    headers = ["category", "objects", *keys, *(f"AP {group} px" for group in groups)]
    return text_table(rows, headers, text_columns=1)
