"""An encoder evaluated by itself: what its patches tell of land cover, and how they agree with a teacher's."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from omegaconf import OmegaConf
from torch import Tensor

from mmovseg.data.sample import IGNORE_LABEL, EvaluationModality, ModelInput
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.evaluation.alignment import AlignmentCounter
from mmovseg.evaluation.confusion import ConfusionMatrix
from mmovseg.evaluation.encoder_report import DEFINITION, format_encoder_table
from mmovseg.evaluation.linear_probe import (
    L2,
    LinearProbe,
    fit_linear_probe,
    patch_class_counts,
    resize_labels,
)
from mmovseg.evaluation.metrics import constant_baseline, per_class_metrics, summary_metrics
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.evaluation.report import safe_name, write_text

logger = logging.getLogger(__name__)

Student = Literal["sar", "optical"]
_RASTER_KEYS: dict[str, tuple[str, str]] = {"sar": ("sar", "sar_valid"), "optical": ("image", "valid")}


def probe_pairs(*, fit: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples that a probe is fit on followed by those that it is tested on, as one data set.

    Args:
        fit, test: dataset dicts with `image_id`.

    Raises:
        UserError: an image is in both parts, or twice in one.
    """
    fit_ids, test_ids = ([str(item["image_id"]) for item in part] for part in (fit, test))
    shared = sorted(set(fit_ids) & set(test_ids))
    if shared:
        raise UserError(
            f"{len(shared)} images are in both parts of the probe, '{shared[0]}' for one; an encoder must not be "
            "tested on what its probe was fit on"
        )
    for part, ids in (("fit", fit_ids), ("test", test_ids)):
        if len(set(ids)) < len(ids):
            twice = next(name for name in ids if ids.count(name) > 1)
            raise UserError(f"image '{twice}' is {ids.count(twice)} times in the {part} part of the probe")
    return [dict(item) for item in (*fit, *test)]


@dataclass
class _Image:
    """What is kept of a test image until the probe is there, on the CPU: features (C, h, w), which of the patches hold
    data (h, w), labels (H, W) uint8, and the size of the encoder's input.
    """

    features: Tensor
    covered: Tensor
    labels: Tensor
    patch_size: int
    view: tuple[int, int]


class EncoderEvaluator(DatasetEvaluator):
    """Evaluate patch features of one modality, alone and against a teacher's (`encoder_report.DEFINITION`).

    For models that answer an image with ``student`` (level -> (C, h, w)), ``patch_valid`` ((h, w) bool, where both
    sides hold data), ``patch_size`` (pixels of the input) and, for images that have the other modality, ``teacher``;
    perhaps also ``student_global`` and ``teacher_global`` (level -> (C,)). `PatchAligner` does.

    Images of `fit_dataset` train the probe, all others are the test part. The loader gives both in one stream
    (`probe_pairs`). Every process evaluates its share, in the order of the data set; all must call `evaluate`. `report`
    then holds, on the main process, what `result.json` says.

    The features of the probe's level are kept until the end: 4 bytes a channel and patch, over both parts. A test part
    of 3,000 images with 256 patches of 768 channels takes 2.4 GB.

    Args:
        dataset_name: used in the result folder and in the report.
        vocabulary: the label space; label id = position.
        fit_dataset: dataset dicts of the probe's training part; None = no probe, and labels are not needed.
        gallery: scenes of the test part that retrieval chooses among, the first ones in the order of the data set.
        level: name of the level (``block4``) that the headline metrics are of, ``last`` for the last tap.
        probe_level: level that the probe reads; ``last``, a name, or ``all`` for all taps side by side.
        student: modality that the evaluated encoder reads; its mask says which patches count.
        teacher: name of the other side in the keys of the metrics.
        l2: penalty of the probe.
        probe_device: where the probe is fit, for example ``cuda``.
        modality: written down, as in `OVSegEvaluator`; other than ``both`` it also goes into the folder's name.
        loader: name of the test loader where a config has several; goes into the report and the folder's name. The
            engine fills it in.
        output_dir: the run's output folder; None writes no files.
        provenance: facts to record.

    Raises:
        UserError: an unknown student, or a gallery below 1.
    """

    def __init__(
        self,
        *,
        dataset_name: str,
        vocabulary: Vocabulary,
        fit_dataset: Sequence[Mapping[str, Any]] | None = None,
        gallery: int = 200,
        level: str = "last",
        probe_level: str = "last",
        student: Student = "sar",
        teacher: str = "optical",
        l2: float = L2,
        probe_device: str = "cpu",
        modality: EvaluationModality = "both",
        loader: str | None = None,
        output_dir: str | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        if student not in _RASTER_KEYS:
            raise UserError(f"encoder evaluation knows no student '{student}'; it knows: {', '.join(_RASTER_KEYS)}")
        if gallery < 1:
            raise UserError(f"the gallery of the encoder evaluation must hold at least 1 scene, got {gallery}")
        self.dataset_name, self.vocabulary = dataset_name, vocabulary
        self.fit_ids = {str(item["image_id"]) for item in fit_dataset or ()}
        self.gallery, self.level, self.probe_level = gallery, level, probe_level
        self.student, self.names = student, (str(student), teacher)
        self.l2, self.probe_device = l2, probe_device
        self.modality, self.loader, self.output_dir = modality, loader, output_dir
        plain: Any = OmegaConf.to_container(provenance) if OmegaConf.is_config(provenance) else provenance
        self.provenance: dict[str, Any] = dict(plain or {})
        self.report: dict[str, Any] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everything counted so far."""
        self._levels: dict[str, AlignmentCounter] = {}
        self._fit_features: list[Tensor] = []
        self._fit_counts: list[Tensor] = []
        self._test: list[_Image] = []
        self._digests: dict[str, list[str]] = {"fit": [], "test": []}
        self._empty = 0
        self._channels = 0
        self._started = time.perf_counter()

    @torch.no_grad()
    def process(self, inputs: Sequence[ModelInput], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch.

        Args:
            inputs: model inputs; with `sem_seg` (H, W) of the full label space when there is a probe.
            outputs: features, see the class.

        Raises:
            UserError: the model gives no features or not this level, a label is missing or outside the class list.
            ValueError: features are not finite, or the grid does not cover the image.
        """
        for item, output in zip(inputs, outputs, strict=True):
            name = str(item.get("file_name", item.get("image_id", "?")))
            for key in ("student", "patch_valid", "patch_size"):
                if key not in output:
                    raise UserError(
                        f"encoder evaluation needs a model that answers with '{key}'; this one answers with: "
                        f"{', '.join(map(str, output))}"
                    )
            levels = list(output["student"])
            for wanted, known in ((self.level, ("last", *levels)), (self.probe_level, ("last", "all", *levels))):
                if wanted not in known:
                    raise UserError(f"the encoder has no level '{wanted}'; known here: {', '.join(known)}")
            part = "fit" if str(item.get("image_id")) in self.fit_ids else "test"
            if not bool(output["patch_valid"].any()):
                self._empty += 1
            elif part == "test":
                self._compare(output)
            self._digests[part].append(self._probe_image(item, output, part, name))

    def _compare(self, output: Mapping[str, Any]) -> None:
        """Count one image against its teacher, or by itself if it has none."""
        for level, features in output["student"].items():
            counter = self._levels.setdefault(level, AlignmentCounter(self.gallery))
            if "teacher" not in output:
                counter.update_alone(features, output["patch_valid"])
                continue
            both = None
            if "student_global" in output and "teacher_global" in output:
                both = output["student_global"][level], output["teacher_global"][level]
            counter.update(features, output["teacher"][level], output["patch_valid"], global_features=both)

    def _probe_image(self, item: ModelInput, output: Mapping[str, Any], part: str, name: str) -> str:
        """Keep what the probe needs of one image; return the hash of its id and labels."""
        digest = hashlib.sha256(str(item.get("image_id", name)).encode())
        if not self.fit_ids:
            return digest.hexdigest()
        raster, mask = _RASTER_KEYS[self.student]
        truth = self._truth(item, name)
        digest.update(f" {tuple(truth.shape)}".encode() + truth.to(torch.int32).numpy().tobytes())
        view: tuple[int, int] = tuple(item[raster].shape[-2:])  # type: ignore[literal-required]
        given: Tensor | None = item.get(mask)  # type: ignore[assignment]
        valid = torch.ones(view, dtype=torch.bool) if given is None else given.cpu()
        truth = truth.masked_fill(~resize_labels(valid, (truth.shape[0], truth.shape[1])), IGNORE_LABEL)
        features = self._probe_features(output["student"]).cpu()
        if not bool(torch.isfinite(features).all()):
            raise ValueError(f"'{name}': the encoder's features hold a value that is not finite")
        self._channels = features.shape[0]
        grid: dict[str, Any] = {"patch_size": int(output["patch_size"]), "grid": features.shape[1:]}
        if part == "test":
            covered = patch_class_counts(torch.where(valid, 0, IGNORE_LABEL), num_classes=1, **grid)[..., 0] > 0
            self._test.append(_Image(features, covered, truth.to(torch.uint8), grid["patch_size"], view))
            return digest.hexdigest()
        counts = patch_class_counts(resize_labels(truth, view), num_classes=len(self.vocabulary), **grid)
        keep = counts.sum(dim=-1) > 0
        self._fit_features.append(features.permute(1, 2, 0)[keep])
        self._fit_counts.append(counts[keep])
        return digest.hexdigest()

    def _truth(self, item: ModelInput, name: str) -> Tensor:
        if "sem_seg" not in item:
            raise UserError(f"'{name}' has no labels, which a linear probe needs; give sem_seg_file_name")
        truth = item["sem_seg"].cpu()
        wrong = truth[(truth != IGNORE_LABEL) & ((truth < 0) | (truth >= len(self.vocabulary)))]
        if wrong.numel():
            raise UserError(
                f"label of '{name}' has the value {int(wrong[0])}, outside the class list 0..{len(self.vocabulary) - 1}"
            )
        return truth

    def _probe_features(self, student: Mapping[str, Tensor]) -> Tensor:
        if self.probe_level == "all":
            return torch.cat([maps.float() for maps in student.values()])
        return student[_level(self.probe_level, list(student))].float()

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Fit and test the probe, join the processes, write the result, return the metrics.

        Returns:
            `{"encoder": metrics}` on the main process, None on the others. Percent, CKA 0..1; a metric without a value
            is NaN here, since loggers want floats (None in the report and in JSON).

        Raises:
            UserError: the loader gave no test image, or not all images of the probe's training part.
        """
        gathered = comm.all_gather((self._levels, self._digests, self._empty, self._channels))
        digests = {part: [digest for share in gathered for digest in share[1][part]] for part in ("fit", "test")}
        if len(digests["fit"]) != len(self.fit_ids):
            raise UserError(
                f"the test loader gave {len(digests['fit'])} of the {len(self.fit_ids)} images that the probe is fit "
                "on; it must give both parts, see probe_pairs"
            )
        if not digests["test"]:
            raise UserError("the test loader gave no image to test the encoder on")
        probe, matrix = None, ConfusionMatrix(len(self.vocabulary))
        if self.fit_ids:
            probe = self._fit_probe(max(share[3] for share in gathered))
            self._test_probe(probe, matrix)
        if not comm.is_main_process():
            return None
        names = list(dict.fromkeys(level for share in gathered for level in share[0]))
        levels = {name: AlignmentCounter.joined([s[0][name] for s in gathered if name in s[0]]) for name in names}
        self.report = self._build_report(levels, probe, matrix, digests, empty=sum(share[2] for share in gathered))
        logger.info("%s, encoder of %s:\n%s", self.dataset_name, self.student, format_encoder_table(self.report))
        if self.output_dir is not None:
            path = encoder_result_path(self.output_dir, self.dataset_name, self.modality, loader=self.loader)
            write_text(path, json.dumps(self.report, indent=1, allow_nan=False, default=str) + "\n")
            logger.info("wrote %s", path)
        flat = {k: float("nan") if value is None else value for k, value in self.report["metrics"].items()}
        return OrderedDict({"encoder": flat})

    def _fit_probe(self, channels: int) -> LinearProbe:
        start = time.perf_counter()
        probe = fit_linear_probe(
            self._fit_features,
            self._fit_counts,
            channels=channels,
            num_classes=len(self.vocabulary),
            l2=self.l2,
            device=self.probe_device,
        )
        logger.info("fit the linear probe in %d steps, %.1f s", probe.iterations, time.perf_counter() - start)
        if not probe.converged:
            logger.warning(
                "the linear probe stopped after %d steps before it converged; its figures could be higher",
                probe.iterations,
            )
        return probe

    def _test_probe(self, probe: LinearProbe, matrix: ConfusionMatrix) -> None:
        for image in self._test:
            size = (image.labels.shape[0], image.labels.shape[1])
            predicted = probe.predict(
                image.features, patch_size=image.patch_size, view=image.view, size=size, covered=image.covered
            )
            matrix.update(image.labels, predicted)
        matrix.reduce()

    def _build_report(
        self,
        levels: Mapping[str, AlignmentCounter],
        probe: LinearProbe | None,
        matrix: ConfusionMatrix,
        digests: Mapping[str, list[str]],
        *,
        empty: int,
    ) -> dict[str, Any]:
        headline = AlignmentCounter(self.gallery) if not levels else levels[_level(self.level, list(levels))]
        return {
            "metrics": {
                **self._probe_metrics(probe, matrix),
                **headline.metrics(self.names),
            },
            "levels": {name: counter.metrics(self.names) for name, counter in levels.items()},
            "probe": self._probe_report(probe, matrix, digests),
            "dataset": self.dataset_name,
            "modality": self.modality,
            **({"loader": self.loader} if self.loader is not None else {}),
            "student": self.student,
            "teacher": self.names[1],
            "level": self.level,
            "gallery": len(headline.scenes),
            "test_images": len(digests["test"]),
            "definition": DEFINITION,
            "provenance": {
                "git_commit": source_commit(),
                "versions": installed_versions(),
                **self.provenance,
                "label_space_sha256": self.vocabulary.sha256,
                "data_manifest_sha256": _joint_hash(digests["test"]),
                "fit_manifest_sha256": _joint_hash(digests["fit"]) if digests["fit"] else None,
                "processes": comm.get_world_size(),
                "images": len(digests["test"]),
                "images_without_data": empty,
                "seconds": round(time.perf_counter() - self._started, 3),
            },
        }

    def _probe_metrics(self, probe: LinearProbe | None, matrix: ConfusionMatrix) -> dict[str, float | None]:
        if probe is None:
            return dict.fromkeys(("probe mIoU", "probe accuracy", "probe chance mIoU"))
        summary = summary_metrics(matrix.counts, self.vocabulary)
        constant = constant_baseline(matrix.counts, self.vocabulary)["mIoU"]
        return {
            "probe mIoU": summary["mIoU"],
            "probe accuracy": summary["pACC"],
            "probe chance mIoU": None if constant is None else constant["value"],
        }

    def _probe_report(
        self, probe: LinearProbe | None, matrix: ConfusionMatrix, digests: Mapping[str, list[str]]
    ) -> dict[str, Any] | None:
        if probe is None:
            return None
        ious, accuracies = per_class_metrics(matrix.counts)
        return {
            "level": self.probe_level,
            "channels": int(probe.weight.shape[0]),
            "l2": self.l2,
            "fit_images": len(digests["fit"]),
            "fit_loss": probe.loss,
            "steps": probe.iterations,
            "converged": probe.converged,
            "per_class": [
                {
                    "name": entry.name,
                    "seen": entry.seen,
                    "IoU": ious[i],
                    "accuracy": accuracies[i],
                    "pixels": int(matrix.counts[i].sum()),
                }
                for i, entry in enumerate(self.vocabulary.classes)
            ],
            "confusion": {"classes": self.vocabulary.names, "counts": matrix.counts.tolist()},
        }


def encoder_result_path(
    output_dir: str | Path,
    dataset_name: str,
    modality: EvaluationModality = "both",
    *,
    loader: str | None = None,
) -> Path:
    """Return where `EncoderEvaluator` writes its report.

    ``<output_dir>/eval/<dataset>/encoder[-<loader>][-<modality>]/result.json``: the loader where a config has several,
    the modality if it is not ``both`` and the loader is not called after it.
    """
    parts = ["encoder", *([safe_name(loader)] if loader else [])]
    if modality not in ("both", loader):
        parts.append(modality)
    return Path(output_dir) / "eval" / safe_name(dataset_name) / "-".join(parts) / "result.json"


def _level(wanted: str, levels: Sequence[str]) -> str:
    return levels[-1] if wanted == "last" else wanted


def _joint_hash(digests: Sequence[str]) -> str:
    """Return one hash of the images, whatever their order and share among processes."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
