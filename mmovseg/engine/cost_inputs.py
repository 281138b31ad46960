"""What a cost is measured with: batches of a config's own data or of noise, and the calls to one part of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mmovseg.config import LazyCall, instantiate
from mmovseg.config.instantiate import TARGET, target_arguments
from mmovseg.data.mapper import DRAW_KEY, OpticalSARMapper
from mmovseg.data.sample import DatasetDict, ModelInput, RawSample
from mmovseg.data.vocabulary import ClassEntry, Vocabulary
from mmovseg.engine.run import build_loader
from mmovseg.engine.stopwatch import watched
from mmovseg.errors import UserError

_TENSORS = ("image", "image_clear", "sar")


class NoiseReader:
    """Random rasters in place of files: a step costs the same, whatever the pixels show.

    Args:
        optical, sar: the modality's part of an input contract as a dict, or None for a modality that is absent.
        num_classes: labels are drawn from so many; None gives no labels.
    """

    def __init__(
        self, *, optical: Mapping[str, Any] | None, sar: Mapping[str, Any] | None, num_classes: int | None
    ) -> None:
        self.optical, self.sar, self.num_classes = optical, sar, num_classes

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Return rasters of the size that the dict says, the same for the same `image_id`."""
        rng = np.random.default_rng([*str(dataset_dict["image_id"]).encode()])
        size = (dataset_dict["height"], dataset_dict["width"])
        optical, sar = _noise(rng, self.optical, size), _noise(rng, self.sar, size)
        label = rng.integers(self.num_classes, size=size, dtype=np.uint8) if self.num_classes is not None else None
        return RawSample(
            optical=optical,
            optical_valid=np.ones(size, dtype=np.bool_) if optical is not None else None,
            sar=sar.astype(np.float32) if sar is not None else None,
            sar_valid=np.ones(size, dtype=np.bool_) if sar is not None else None,
            sem_seg=label,
            captions=["noise"],
        )


def _noise(rng: np.random.Generator, contract: Mapping[str, Any] | None, size: tuple[int, int]) -> np.ndarray | None:
    if contract is None:
        return None
    if contract["unit"] in ("uint8", "amplitude8"):
        return rng.integers(256, size=(*size, len(contract["bands"])), dtype=np.uint8)
    return rng.normal(contract["mean"], contract["std"], size=(*size, len(contract["bands"]))).astype(np.float32)


def use_noise(loader: DictConfig, contract: Mapping[str, Any], *, pixels: int, count: int) -> None:
    """Let a loader of a config read `count` made-up pairs of `pixels` x `pixels` instead of its data set.

    Args:
        loader: changed in place.
        contract: input contract of the model, as a dict; it says the channels and units.
        pixels: side of the rasters before the mapper's geometry.
        count: how many pairs.

    Raises:
        UserError: the loader has no data set and mapper with a reader of its own, or `pixels` is not positive.
    """
    mapper = loader.get("mapper")
    if "dataset" not in loader or mapper is None or "reader" not in mapper:
        raise UserError("--pixels needs a loader with a dataset, and a mapper with a reader, in the config")
    if pixels < 1:
        raise UserError(f"--pixels is {pixels} but must be at least 1")
    loader.dataset = [_noise_dict(number, contract, pixels) for number in range(count)]
    vocabulary = instantiate(mapper.get("vocabulary"))
    reader = LazyCall(NoiseReader)(
        optical=contract.get("optical"),
        sar=contract.get("sar"),
        num_classes=len(vocabulary) if vocabulary is not None else None,
    )
    OmegaConf.update(mapper, "reader", reader, merge=False)


def _noise_dict(number: int, contract: Mapping[str, Any], pixels: int) -> dict[str, Any]:
    facts: dict[str, Any] = {"height": pixels, "width": pixels}
    if contract.get("sources"):  # a mix: each sample names the source whose statistics it gets
        facts["source"] = contract["sources"][0]["name"]
    return dict.fromkeys(("image_id", "file_name", "sar_file_name"), f"noise{number:04d}") | facts


def made_up_vocabulary(count: int) -> Vocabulary:
    """Return `count` classes, all of them seen; a name costs the same whatever it says."""
    return Vocabulary("made up", tuple(ClassEntry(name=f"class {number}") for number in range(count)))


def noise_batch(
    contract: Mapping[str, Any], *, pixels: int, count: int, classes: int, is_train: bool
) -> list[ModelInput]:
    """Return made-up pairs that ask for made-up classes.

    Args:
        contract: input contract of the model, as a dict; it says the channels and units.
        pixels: side of the rasters.
        count: how many pairs.
        classes: how many classes; inference may ask for any number, labels hold at most 255.
        is_train: with labels.

    Raises:
        UserError: `pixels` is not positive, or there are more than 255 classes to train on.
    """
    if pixels < 1:
        raise UserError(f"--pixels is {pixels} but must be at least 1")
    vocabulary = made_up_vocabulary(classes)
    mapper = OpticalSARMapper(
        is_train=is_train,
        vocabulary=vocabulary if is_train else None,
        prompts=None if is_train else vocabulary,
        reader=NoiseReader(
            optical=contract.get("optical"), sar=contract.get("sar"), num_classes=classes if is_train else None
        ),
    )
    return [mapper({**_noise_dict(number, contract, pixels), DRAW_KEY: number}) for number in range(count)]


def train_batch(config: DictConfig) -> list[ModelInput]:
    """Return the first batch of the config's train loader, read in this process."""
    node = config.dataloader.get("train")
    if node is not None and "num_workers" in target_arguments(node[TARGET])[0]:
        node.num_workers = 0
    return list(next(iter(build_loader(config, 0))))


def test_batch(config: DictConfig, batch: int) -> list[ModelInput]:
    """Return the first `batch` samples of the config's (first) test loader, of its train loader if it has no other."""
    node = first_test_loader(config)
    if node is None:
        config.dataloader.train.batch_size = batch
        return train_batch(config)
    named = target_arguments(node[TARGET])[0]
    for key, value in (("batch_size", batch), ("num_workers", 0)):
        if key in named:
            node[key] = value
    return list(next(iter(instantiate(node))))[:batch]


def first_test_loader(config: DictConfig) -> DictConfig | None:
    """Return the node of the test loader, the first one where there are several."""
    node = config.dataloader.get("test")
    if node is None or TARGET in node:
        return node
    return node[next(iter(node))]


def inference_inputs(model: nn.Module, batch: Sequence[ModelInput]) -> list[ModelInput]:
    """Return the items as inference sees them.

    A model that trains a student beside a teacher hands on the student alone, so its items keep only that view.
    """
    view = getattr(model, "student_view", None)
    if view is None:
        return list(batch)
    dropped = {"image", "image_clear", "sar", "valid", "sar_valid", "teacher_features"}
    dropped -= {view, "sar_valid" if view == "sar" else "valid"}
    return [{key: value for key, value in item.items() if key not in dropped} for item in batch]  # type: ignore[misc]


def describe_batch(batch: Sequence[ModelInput]) -> str:
    """Say which rasters a batch holds: ``image 3x256x256, sar 2x256x256``, those of the largest item."""
    sizes: dict[str, tuple[int, ...]] = {}
    for item in batch:
        for key in _TENSORS:
            if key in item:
                shape = tuple(item[key].shape)  # type: ignore[literal-required]
                sizes[key] = max(sizes.get(key, shape), shape)
    return ", ".join(f"{key} {'x'.join(map(str, shape))}" for key, shape in sizes.items())


# ---------------------------------------------------------------- one part alone

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class PartAlone(nn.Module):
    """One part of a model with the calls that the model makes to it in one step: the same methods and arguments.

    While training it answers ``{"loss_part": 0-d}``, a stand-in that lets gradients flow into everything that the part
    gives back: scalars as they are, of larger tensors the mean square. Arguments that had a gradient in the model have
    one here too.
    """

    def __init__(self, part: nn.Module, calls: Sequence[Call]) -> None:
        super().__init__()
        self.part = part
        self._calls = list(calls)

    def forward(self, batch: object) -> Any:
        """Repeat the calls; `batch` is not used."""
        answers = [getattr(self.part, name)(*args, **kwargs) for name, args, kwargs in self._calls]
        if not self.training:
            return answers
        losses = [
            tensor.float() if tensor.dim() == 0 else tensor.float().square().mean()
            for tensor in tree_leaves(answers)
            if isinstance(tensor, Tensor) and tensor.requires_grad
        ]
        if not losses:
            raise UserError("nothing in this part trains; measure its inference alone (--phase infer)")
        return {"loss_part": torch.stack(losses).sum()}


def find_part(model: nn.Module, name: str) -> nn.Module:
    """Return the part with this dotted name. Raises `UserError` with the names there are."""
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(child for child, _ in model.named_children())
        raise UserError(f"--part '{name}': the model has no such part; it has: {known}") from error


def record_calls(part: nn.Module, run: Callable[[], Any]) -> list[Call]:
    """Run a step of the whole model and return the calls to public methods of `part`, outermost ones only.

    Tensors are detached copies, so that the model can be thrown away.

    Raises:
        UserError: the part was not called.
    """
    calls: list[Call] = []
    inside = False

    def around(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if inside:
                return method(*args, **kwargs)
            inside = True
            try:
                calls.append((name, *_detached((args, kwargs))))
                return method(*args, **kwargs)
            finally:
                inside = False

        return recorded

    with watched(part, around):
        run()
    if not calls:
        raise UserError("the model does not call this part by itself in a step, so it cannot be measured alone")
    return calls


def _detached(arguments: Any) -> Any:
    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        copy = value.detach().clone()
        return copy.requires_grad_(value.requires_grad) if value.is_floating_point() else copy

    return tree_map(leaf, arguments)


def endless(batch: list[ModelInput]) -> Iterator[list[ModelInput]]:
    """Yield the same batch for ever."""
    while True:
        yield batch
