"""Run the frozen teacher of an alignment config once over every image and view, and keep what it says on disk."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn
from tqdm import tqdm

from mmovseg.checkpoint.identity import teacher_sha256
from mmovseg.config import config_to_dict, instantiate
from mmovseg.config.instantiate import TARGET, resolve_target, target_arguments
from mmovseg.data.build import build_test_loader
from mmovseg.data.feature_writer import (
    FeatureWriter,
    check_space,
    claim_folder,
    count_rows,
    describe_size,
    find_progress,
)
from mmovseg.data.features import FORMAT_VERSION, VALID, FeatureMapper, describe_view, image_facts, image_name
from mmovseg.data.mapper import VIEW_KEY, OpticalSARMapper
from mmovseg.data.sample import ModelInput
from mmovseg.engine.launch import choose_device, set_threads
from mmovseg.errors import UserError
from mmovseg.evaluation.provenance import installed_versions, source_commit
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.meta_arch.batching import batch_view


@dataclass(frozen=True)
class Work:
    """All that is needed to compute features: what to read, how to show it, who looks at it.

    dicts: dataset dicts of different images. mapper: shows optical only, without clouds. source: the config's own
    mapper, which the features will be used with. facts: json-able, of the teacher's config.
    """

    dicts: list[dict[str, Any]]
    mapper: OpticalSARMapper
    source: OpticalSARMapper
    teacher: TimmEncoder
    norm: nn.Module
    view: str
    facts: dict[str, Any]

    @property
    def views(self) -> int:
        """How many an image has."""
        assert self.source.views is not None
        return self.source.views

    def requests(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return a dataset dict for each of these rows, asking for one view; row = image * views + view."""
        rows = (divmod(row, self.views) for row in range(start, stop))
        return [{**self.dicts[image], VIEW_KEY: view} for image, view in rows]


def read_work(config: DictConfig, built: nn.Module | None = None) -> Work:
    """Build teacher, mapper and data set of an alignment config; the student is not built.

    Args:
        config: of an alignment.
        built: the model, if it was built already: its teacher is taken and not built again.

    Raises:
        UserError: the config aligns nothing, its mapper shows an endless number of views or no optical raster, or two
            images share a name.
    """
    model, loader = config.model, (config.get("dataloader") or {}).get("train")
    if TARGET not in model or model.get("teacher") is None or model.get("teacher_norm") is None:
        raise UserError(
            "the config has no model.teacher with a model.teacher_norm, so there are no features to compute"
        )
    if loader is None or "mapper" not in loader or "dataset" not in loader:
        raise UserError("the config has no dataloader.train with a dataset and a mapper")
    named, _ = target_arguments(model[TARGET])
    view = str(model.get("teacher_view", named["teacher_view"].default if "teacher_view" in named else "image_clear"))
    node = inner_mapper(loader.mapper)
    source = instantiate(node)
    if not isinstance(source, OpticalSARMapper):
        raise UserError(f"features need an OpticalSARMapper, the config has a {type(source).__name__}")
    describe_view(source, view)
    mapper = copy.copy(source)
    mapper.modality, mapper.with_clear, mapper.keep_caption = "optical", view == "image_clear", False
    mapper.clouds = mapper.sar_photometric = None
    dicts = different_images(instantiate(loader.dataset))
    if source.modality == "sar" or not all("file_name" in entry for entry in dicts):
        raise UserError("the teacher reads optical rasters, but the config's mapper or data set gives SAR alone")
    if built is None:
        teacher, norm = instantiate(model.teacher), instantiate(model.teacher_norm)
    else:
        teacher, norm = built.teacher, built.teacher_norm
    plain = config_to_dict(config)["model"]
    facts = {key: plain[key] for key in ("teacher", "teacher_norm")}
    return Work(dicts, mapper, source, teacher, norm, view, facts)


def inner_mapper(node: DictConfig) -> DictConfig:
    """Return the config of the mapper itself, also when a `FeatureMapper` is around it."""
    return node.mapper if TARGET in node and resolve_target(node[TARGET]) is FeatureMapper else node


def features_folder(config: DictConfig) -> str | None:
    """Return the folder that a config's `FeatureMapper` reads, None without one."""
    node = ((config.get("dataloader") or {}).get("train") or {}).get("mapper")
    return str(node.features) if node is not None and inner_mapper(node) is not node else None


def different_images(dataset: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every image once, without its label: a mix may list one several times.

    Raises:
        UserError: there is none, or two images share a name.
    """
    facts: dict[str, list[Any]] = {}
    kept = []
    for entry in dataset:
        name, own = image_name(entry), image_facts(entry)
        if name not in facts:
            kept.append({key: value for key, value in entry.items() if key != "sem_seg_file_name"})
        elif facts[name] != own:
            raise UserError(f"two different images of the data set are named '{name}'; image ids must be unique")
        facts[name] = own
    if not kept:
        raise UserError("the data set is empty: no sample to load; check its name, folder and split")
    return kept


def precompute(config: DictConfig, output: str | Path, **options: Any) -> int:
    """Fill `output` with the features that an alignment config's teacher has for its training images.

    Args:
        config: `train.device` and `train.num_threads` hold; precision is always float32.
        output: the folder, see `mmovseg.data.features`.
        options: of `fill_store`.

    Returns:
        The number of views computed by this call.

    Raises:
        UserError: see `read_work` and `fill_store`.
    """
    device = choose_device(config.train.device)
    set_threads(config.train.num_threads, device)
    work = read_work(config)
    work.teacher.requires_grad_(False).eval().to(device)
    work.norm.to(device)
    return fill_store(work, output, **options)


def fill_store(
    work: Work,
    output: str | Path,
    *,
    dtype: str = "float16",
    batch_size: int = 16,
    num_workers: int = 0,
    tell: Callable[[str], None] = print,
    show_progress: bool = True,
) -> int:
    """Compute the features of every image and view; go on where an earlier call was stopped.

    Args:
        work: its teacher is on its device.
        output: the folder.
        dtype: ``float16`` or ``float32`` on disk.
        batch_size: views a forward pass.
        num_workers: reading processes.
        tell: gets a line on what will be written, and one on the end.
        show_progress: draw a progress bar on stderr.

    Returns:
        The number of views computed by this call.

    Raises:
        UserError: views of different sizes; too little disk; a folder that was begun with something else or is being
            filled by another process; values that float16 cannot hold.
    """
    if dtype not in ("float16", "float32"):
        raise UserError(f"features are stored as float16 or float32, not '{dtype}'")
    if batch_size < 1 or num_workers < 0:
        raise UserError(f"got --batch-size {batch_size} and --workers {num_workers}; they start at 1 and 0")
    folder = Path(output)
    with claim_folder(folder):
        index = make_index(work, dtype)
        done, finished = find_progress(folder, index)
        rows = count_rows(index)
        if finished:
            tell(f"'{folder}' is complete: {describe_size(index)}")
            return 0
        free = check_space(folder, index, done)
        tell(f"{describe_size(index)} in '{folder}'; {done} of {rows} views are there, {free / 1e9:.1f} GB are free")
        bar = tqdm(total=rows, initial=done, unit="view", disable=not show_progress)
        with bar, FeatureWriter(folder, index, done) as writer:
            for batch in _batches(work, done, rows, batch_size, num_workers):
                _check_sizes(batch, work.view, index["image_size"])
                writer.append(_answer(work, batch), [item["image_id"] for item in batch])
                bar.update(len(batch))
    tell(f"'{folder}' is complete")
    return rows - done


def _batches(work: Work, start: int, stop: int, batch_size: int, num_workers: int) -> Iterable[list[ModelInput]]:
    if start == stop:  # a run that was stopped after its last row
        return []
    dataset = work.requests(start, stop)
    return build_test_loader(dataset=dataset, mapper=work.mapper, batch_size=batch_size, num_workers=num_workers)


def make_index(work: Work, dtype: str) -> dict[str, Any]:
    """Describe the store that will be; sizes are those of the first view, which is computed for it."""
    item = work.mapper(work.requests(0, 1)[0])
    shapes = {name: list(rows.shape[1:]) for name, rows in _answer(work, [item]).items() if name != VALID}
    return {
        "format": FORMAT_VERSION,
        "teacher": {"sha256": teacher_sha256(work.teacher, work.norm, work.view), "view": work.view, **work.facts},
        "mapper": describe_view(work.source, work.view),
        "dtype": dtype,
        "views": work.views,
        "image_size": list(item[work.view].shape[-2:]),  # type: ignore[literal-required]
        "levels": {name: shape for name, shape in shapes.items() if len(shape) == 3},
        "globals": {name.removesuffix("_global"): shape for name, shape in shapes.items() if len(shape) == 1},
        "made_by": {"commit": source_commit(), "versions": installed_versions()},
        "images": [image_name(entry) for entry in work.dicts],
        "facts": [image_facts(entry) for entry in work.dicts],
    }


@torch.no_grad()
def _answer(work: Work, batch: Sequence[ModelInput]) -> dict[str, np.ndarray]:
    """Return rows for every file: what the teacher says of a batch, float32, and the bits of its masks."""
    view = batch_view(batch, work.view, "valid", work.norm, work.teacher.patch_size)  # type: ignore[arg-type]
    assert view is not None
    maps, tokens = work.teacher.encode(view.x)
    answer = {**maps, **{f"{level}_global": token for level, token in tokens.items()}}
    rows = {name: tensor.float().cpu().numpy() for name, tensor in answer.items()}
    rows[VALID] = np.stack([np.packbits(_mask(item, work.view).ravel()) for item in batch])
    return rows


def _mask(item: ModelInput, key: str) -> np.ndarray:
    if "valid" in item:
        return item["valid"].numpy()
    return np.ones(item[key].shape[-2:], dtype=bool)  # type: ignore[literal-required]


def _check_sizes(batch: Sequence[ModelInput], key: str, size: list[int]) -> None:
    for item in batch:
        own = list(item[key].shape[-2:])  # type: ignore[literal-required]
        if own != size:
            raise UserError(
                f"image '{item['image_id']}' is shown with {own[0]}x{own[1]} pixels and the first one with "
                f"{size[0]}x{size[1]}; features need views of one size, so let the geometry end with a crop and a pad"
            )
