"""Labels for SAR images, made by models that look at the optical twin: builds sets such as CrossEarth-SAR-200K.

A folder holds ``label/`` (class ids, 255 = none), ``confidence/`` and, with several models, ``agreement/``; of a made
world also its rasters and ``truth/``. ``pairs.jsonl`` and ``vocabulary.json`` are what training reads
(`load_pseudo_labels`), ``records.jsonl`` has a line an image, ``pseudo_labels.json`` the figures and how everything was
made, ``manifest.json`` the hash of every raster.

Source: Sec. 4.1 and 7 of the paper. There one model, trained on other optical images, labels every pixel; four models
agree or not on 1,000 images.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mmovseg.checkpoint.save import atomic_write
from mmovseg.data.datasets.folders import load_pair_jsonl
from mmovseg.data.datasets.manifest import write_manifest
from mmovseg.data.feature_writer import claim_folder
from mmovseg.data.io import FileReader
from mmovseg.data.prepare.jobs import begin_run_folder
from mmovseg.data.prepare.rasters import LAYER_SUFFIXES, Layer, read_place, remove_partial_files, write_layer
from mmovseg.data.sample import IGNORE_LABEL, DatasetDict, RawSample
from mmovseg.data.vocabulary import Vocabulary, vocabulary_from_file
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.inference.scene.layers import SCORE_NODATA, SCORE_SCALE
from mmovseg.projects.crossearth.data.agreement import image_figures, summarize
from mmovseg.projects.crossearth.data.labellers import Labeller
from mmovseg.projects.crossearth.data.pair_sources import PairSource

FORMAT_VERSION = 1
RECORDS_FILE, PAIRS_FILE, VOCABULARY_FILE, SUMMARY_FILE = (
    "records.jsonl",
    "pairs.jsonl",
    "vocabulary.json",
    "pseudo_labels.json",
)
LabelBy = Literal["first", "mean"]
LABEL_BY: tuple[LabelBy, ...] = get_args(LabelBy)


@dataclass(frozen=True)
class LabelRule:
    """How a label follows from what models say.

    label_by: ``first``, as the paper: the class that the first model finds likeliest, the others only agree or not.
        ``mean``: of the mean probability of all.
    min_confidence: below this probability a pixel gets no label, 0..1. The paper labels all.
    min_agreement: a pixel that fewer models give its label gets none. The paper labels all.
    agreement_images: the models after the first see so many images only, drawn by `seed`; the paper takes 1,000. None =
        all.
    seed: of that draw.
    """

    label_by: LabelBy = "first"
    min_confidence: float = 0.0
    min_agreement: int = 1
    agreement_images: int | None = None
    seed: int = 0

    def check(self, models: int) -> None:
        """Raise `UserError` for what cannot be with so many models."""
        if self.label_by not in LABEL_BY:
            raise UserError(f"--label-by must be one of {', '.join(LABEL_BY)}, got '{self.label_by}'")
        if not 0 <= self.min_confidence <= 1:
            raise UserError(f"--min-confidence must lie in 0 .. 1, got {self.min_confidence:g}")
        if not 1 <= self.min_agreement <= models:
            raise UserError(f"--min-agreement is {self.min_agreement}, but there are {models} models")
        if self.agreement_images is None:
            return
        if self.agreement_images < 1:
            raise UserError(f"--agreement-images must be at least 1, got {self.agreement_images}")
        if self.label_by == "mean" or self.min_agreement > 1:
            raise UserError(
                "--agreement-images shows the other models a part of the images only, so labels cannot depend on them: "
                "leave out --label-by mean and --min-agreement"
            )


@dataclass(frozen=True)
class Labelled:
    """One image with its labels: (H, W) each; `agreement`: how many models give `label`, None if one model was asked.

    label: uint8, 255 = none. confidence: uint8, times `SCORE_SCALE` a probability, 255 where a raster holds no data.
    """

    label: np.ndarray
    confidence: np.ndarray
    agreement: np.ndarray | None
    figures: dict[str, Any]


def label_image(answers: Sequence[Tensor], valid: np.ndarray, truth: np.ndarray | None, *, rule: LabelRule) -> Labelled:
    """Make the labels of an image of what models say.

    Args:
        answers: (K, H, W) probabilities by each model, the first one's first.
        valid: (H, W) bool, True where both rasters hold data.
        truth: (H, W) true classes, 255 = unknown, for the figures alone; or None.
        rule: as asked for.
    """
    maps = [answer.argmax(dim=0).numpy().astype(np.uint8) for answer in answers]
    chosen = torch.stack(list(answers)).mean(dim=0) if rule.label_by == "mean" else answers[0]
    confidence, best = chosen.max(dim=0)
    given, certainty = best.numpy().astype(np.uint8), confidence.numpy().clip(0, 1)
    votes = np.sum([one == given for one in maps], axis=0).astype(np.uint8)
    kept = valid & (certainty >= rule.min_confidence)
    if rule.min_agreement > 1:
        kept &= votes >= rule.min_agreement
    label = np.where(kept, given, np.uint8(IGNORE_LABEL))
    stored = np.where(valid, np.rint(certainty / SCORE_SCALE), SCORE_NODATA).astype(np.uint8)
    agreement = np.where(valid, votes, np.uint8(0)) if len(maps) > 1 else None
    figures = image_figures(maps, given, label, certainty, valid, truth, num_classes=answers[0].shape[0])
    return Labelled(label, stored, agreement, figures)


def make_pseudo_labels(
    source: PairSource,
    labellers: Sequence[Labeller],
    output: str | Path,
    *,
    rule: LabelRule | None = None,
    batch_size: int = 8,
    reader: FileReader | None = None,
    reader_facts: Mapping[str, Any] | None = None,
    show_progress: bool = False,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Label all pairs of a source; a command that was stopped goes on where it was, to the same files.

    Args:
        source: the pairs.
        labellers: at least one; the first one labels.
        output: the folder.
        rule: None = as the paper.
        batch_size: images of one size that models see together.
        reader: of the rasters; None reads 8-bit images and 16-bit reflectance.
        reader_facts: what the reader was told, json-able, for the record.
        show_progress: draw a progress bar on stderr.
        tell: gets a line on what was there already.

    Returns:
        The content of ``pseudo_labels.json``.

    Raises:
        UserError: the folder was begun with something else or is being filled, or a raster is unusable; what was
            labelled before stays.
    """
    rule = rule or LabelRule()
    rule.check(len(labellers))
    if batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {batch_size}")
    root, classes = Path(output), labellers[0].classes
    facts = _facts(source, labellers, rule, reader_facts or {})
    with claim_folder(root):
        begin_run_folder(root, facts)
        remove_partial_files(root)
        run = _Run(source, labellers, root, rule, reader or FileReader(), _shown_to_all(source, rule))
        records = _kept_records(root, source, batch_size)
        if records:
            tell(f"'{root}' holds {len(records)} of {len(source.dicts)} images already")
        with (
            (root / RECORDS_FILE).open("a", encoding="utf-8") as file,
            tqdm(total=len(source.dicts), initial=len(records), unit="image", disable=not show_progress) as bar,
        ):
            for start in range(len(records), len(source.dicts), batch_size):
                made = run.label(range(start, min(start + batch_size, len(source.dicts))))
                file.writelines(json.dumps(record) + "\n" for record in made)
                file.flush()
                os.fsync(file.fileno())
                records += made
                bar.update(len(made))
        return _finish(root, source, records, facts, classes, [one.label for one in labellers])


@dataclass(frozen=True)
class _Run:
    """What stays the same from image to image. `everyone`: numbers of the images that all models are shown."""

    source: PairSource
    labellers: Sequence[Labeller]
    root: Path
    rule: LabelRule
    reader: FileReader
    everyone: frozenset[int]

    def label(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Label images and write their files; return their records in order."""
        records = []
        read = [(number, *self._read(number)) for number in numbers]
        for _, part in groupby(read, key=lambda one: (np.shape(one[2].optical), one[0] in self.everyone)):
            group = list(part)
            images = [raw.optical for _, _, raw in group]
            seen = [raw.optical_valid for _, _, raw in group]
            asked = self.labellers if group[0][0] in self.everyone else self.labellers[:1]
            answers = [labeller(images, seen) for labeller in asked]
            for index, (_, item, raw) in enumerate(group):
                records.append(self._write(item, raw, [answer[index] for answer in answers]))
        return records

    def _read(self, number: int) -> tuple[DatasetDict, RawSample]:
        item = self.source.files_of(self.source.dicts[number], self.root)
        return item, self.reader(item)

    def _write(self, item: DatasetDict, raw: RawSample, answers: Sequence[Tensor]) -> dict[str, Any]:
        assert raw.optical_valid is not None and raw.sar_valid is not None
        truth = None if raw.sem_seg is None else self._wanted_truth(raw.sem_seg, item)
        made = label_image(answers, raw.optical_valid & raw.sar_valid, truth, rule=self.rule)
        crs, transform = read_place(item["file_name"])
        stem, files = str(item["image_id"]), {}
        layers = {"label": made.label, "confidence": made.confidence, "agreement": made.agreement}
        for folder, array in layers.items():
            if array is not None:
                path = write_layer(self.root / folder, stem, Layer(array, crs, transform))
                files[folder] = path.relative_to(self.root).as_posix()
        height, width = made.label.shape
        return {"image_id": stem, "height": height, "width": width, "files": files, **made.figures}

    def _wanted_truth(self, truth: np.ndarray, item: DatasetDict) -> np.ndarray:
        """Number true classes as the wanted ones; 255 where there is no such class."""
        assert self.source.truth is not None
        table = np.full(256, IGNORE_LABEL, dtype=np.uint8)
        for number, column in enumerate(truth_columns(self.source.truth, self.labellers[0])):
            table[number] = IGNORE_LABEL if column is None else column
        if truth.max(initial=0, where=truth != IGNORE_LABEL) >= len(self.source.truth) or truth.min(initial=0) < 0:
            raise UserError(
                f"label '{item['sem_seg_file_name']}' has a value outside the {len(self.source.truth)} classes of "
                "--truth-vocabulary"
            )
        return table[truth]


def load_pseudo_labels(folder: str | Path, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """List the images of a finished folder with their labels.

    Args:
        folder: as `make_pseudo_labels` filled it.
        vocabulary: what the reader takes the numbers in the labels for.

    Raises:
        UserError: the folder is not finished, a raster is missing, or its labels number other classes.
    """
    path = Path(folder) / VOCABULARY_FILE
    stored = vocabulary_from_file(path).names
    if stored != vocabulary.names:
        raise UserError(
            f"'{path}' numbers the classes {', '.join(stored)}, but the config has {', '.join(vocabulary.names)}; give "
            f"it dataloader.classes={path}, or label with other classes"
        )
    return load_pair_jsonl(Path(folder) / PAIRS_FILE)


def truth_columns(truth: Vocabulary, labeller: Labeller) -> list[int | None]:
    """Return the wanted class that each true one is: by its name, or as the class map of the first model says."""
    by_prompt = dict(zip(labeller.map.prompts.names, labeller.map.columns, strict=True))
    return [by_prompt.get(name, labeller.classes.find(name)) for name in truth.names]


def _facts(
    source: PairSource, labellers: Sequence[Labeller], rule: LabelRule, reader: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all that the labels depend on: a folder is filled with one set of facts only."""
    ids = "\n".join(str(item["image_id"]) for item in source.dicts)
    return {
        "format": FORMAT_VERSION,
        "source": source.facts | {"images": len(source.dicts), "ids_sha256": hashlib.sha256(ids.encode()).hexdigest()},
        "classes": labellers[0].classes.names,
        "vocabulary_sha256": labellers[0].classes.sha256,
        "models": [labeller.facts() for labeller in labellers],
        "rule": asdict(rule),
        "reader": dict(reader),
        "sees": "optical",
    }


def _shown_to_all(source: PairSource, rule: LabelRule) -> frozenset[int]:
    total = len(source.dicts)
    if rule.agreement_images is None or rule.agreement_images >= total:
        return frozenset(range(total))
    drawn = np.random.default_rng(rule.seed).permutation(total)[: rule.agreement_images]
    return frozenset(drawn.tolist())


def _kept_records(root: Path, source: PairSource, batch_size: int) -> list[dict[str, Any]]:
    """Return the records of whole batches whose files are there, and cut off what follows them."""
    path, kept = root / RECORDS_FILE, []
    for item, record in zip(source.dicts, _read_records(path), strict=False):
        files = (root / name for name in record.get("files", {}).values())
        if record.get("image_id") != str(item["image_id"]) or not all(file.is_file() for file in files):
            break
        kept.append(record)
    if len(kept) < len(source.dicts):
        kept = kept[: len(kept) // batch_size * batch_size]  # batches are cut as in an unbroken run
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
    return kept


def _read_records(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a killed run may leave half a line
            return
        yield record


def _finish(
    root: Path,
    source: PairSource,
    records: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    classes: Vocabulary,
    models: Sequence[str],
) -> dict[str, Any]:
    """Write what training reads, the manifest and the figures."""
    lines = []
    for item, record in zip(source.dicts, records, strict=True):
        line = {key: record[key] for key in ("image_id", "height", "width")}
        line |= {key: item[key] for key in ("gsd_m", "caption", "captions") if key in item}  # type: ignore[literal-required]
        paths = source.paths_of(item, root)
        line |= {key: _below(path, root) for key, path in paths.items() if key != "sem_seg_file_name"}
        lines.append(line | {"sem_seg_file_name": record["files"]["label"]})
    _write(root / PAIRS_FILE, "".join(json.dumps(line) + "\n" for line in lines))
    _write(root / VOCABULARY_FILE, json.dumps(classes.to_dict(), indent=1) + "\n")
    write_manifest(root, made_by=facts, files=_rasters(root))
    content = {
        "made_by": dict(facts),
        "git_commit": source_commit(),
        "versions": installed_versions(),
        **summarize(records, classes=classes, models=models),
    }
    _write(root / SUMMARY_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
    return content


def _rasters(root: Path) -> list[Path]:
    folders = ("optical", "sar", "truth", "label", "confidence", "agreement")
    return [path for name in folders for path in (root / name).glob("*") if path.suffix in LAYER_SUFFIXES]


def _below(path: str, root: Path) -> str:
    """Return a path as a table in `root` names it: relative if it lies below, so that the folder can be moved."""
    own, whole = Path(path).resolve(), root.resolve()
    return own.relative_to(whole).as_posix() if own.is_relative_to(whole) else str(own)


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
