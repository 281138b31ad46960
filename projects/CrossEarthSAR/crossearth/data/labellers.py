"""Segmentors as labellers: what a model says of an optical image, as probabilities of the classes that are wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmovseg.checkpoint.load import file_sha256
from mmovseg.config import config_hash
from mmovseg.data.text import read_text
from mmovseg.data.vocabulary import Vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.rasters import WindowData
from mmovseg.inference.scene.windows import WindowModel

_SMALLEST_SUM = 1e-12


@dataclass(frozen=True)
class ClassMap:
    """Which classes a model is asked for, and which of the wanted classes each of them is.

    prompts: what the model is asked for. columns: for every prompt the number of the wanted class, in their order.
    """

    prompts: Vocabulary
    columns: tuple[int, ...]

    def by_class(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return what is asked for in place of each wanted class, as in the file."""
        pairs = list(zip(self.prompts.names, self.columns, strict=True))
        return {name: [prompt for prompt, at in pairs if at == column] for column, name in enumerate(names)}

    def merge(self, probabilities: Tensor, num_classes: int) -> Tensor:
        """Return (K, H, W) probabilities of the wanted classes of (P, H, W) of the prompts: sums, 1 in all.

        Scores of models that rate each class by itself are brought to the sum 1 first. A class that no prompt stands
        for gets 0.
        """
        shares = probabilities / probabilities.sum(dim=0, keepdim=True).clamp_min(_SMALLEST_SUM)
        merged = shares.new_zeros(num_classes, *shares.shape[1:])
        return merged.index_add_(0, torch.tensor(self.columns, device=shares.device), shares)


def read_class_map(path: str | Path, classes: Vocabulary, *, like: Vocabulary | None = None) -> ClassMap:
    """Read which classes of a model make up each wanted class.

    Args:
        path: JSON: ``{"building": ["city"], "barren": ["bareland"], "background": []}``; a class that is left out is
            asked for by its own name, one with an empty list is never given.
        classes: the wanted ones.
        like: the classes that the model's data knows, whose synonyms and colours are taken over.

    Raises:
        UserError: the file is no such JSON, names an unknown class, one class of the model twice, or none at all.
    """
    text = read_text(path, "class map")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"class map '{path}' is not valid JSON: {error}") from error
    fits = isinstance(content, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in content.values()
    )
    if not fits:
        raise UserError(f'class map \'{path}\' must be an object of lists of names, such as {{"building": ["city"]}}')
    unknown = [name for name in content if name not in classes.names]
    if unknown:
        raise UserError(f"class map '{path}' has the class '{unknown[0]}'; wanted are: {', '.join(classes.names)}")
    asked = [(name, column) for column, own in enumerate(classes.names) for name in content.get(own, [own])]
    if not asked:
        raise UserError(f"class map '{path}' asks the model for nothing: all its lists are empty")
    prompts = vocabulary_from_names([name for name, _ in asked], like=like, source=str(path))
    return ClassMap(prompts, tuple(column for _, column in asked))


class Labeller:
    """A trained segmentor that is shown the optical image alone.

    Args:
        label: names it in the figures.
        config: config file, or a name below ``configs/``.
        weights: checkpoint; None takes the one that the config names.
        classes: wanted ones. A model with a class list of its own must have what it is asked for.
        class_map: JSON file, see `read_class_map`; None asks for the wanted classes themselves.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: config, weights or class map are not usable, or the model reads SAR only.
    """

    def __init__(
        self,
        label: str,
        *,
        config: str | Path,
        weights: str | Path | None,
        classes: Vocabulary,
        class_map: str | Path | None = None,
        device: str = "auto",
    ) -> None:
        self.label, self.classes = label, classes
        predictor = Predictor(config, weights, device)
        own = ClassMap(classes, tuple(range(len(classes))))
        self.map = own if class_map is None else read_class_map(class_map, classes, like=predictor.vocabulary)
        self.model = WindowModel(predictor, self.map.prompts, modality="optical")
        plain = predictor.config.copy()
        plain.train.device = "auto"  # where a model runs is not what it is
        self._facts = {
            "label": label,
            "config": str(config),
            "config_sha256": config_hash(plain),
            "weights": predictor.checkpoint.name,
            "weights_sha256": file_sha256(predictor.checkpoint),
            "class_map": None if class_map is None else self.map.by_class(classes.names),
        }

    def facts(self) -> dict[str, Any]:
        """Return what its labels depend on, json-able."""
        return self._facts

    def __call__(self, images: Sequence[np.ndarray], valid: Sequence[np.ndarray]) -> list[Tensor]:
        """Label images of one size.

        Args:
            images: (H, W, 3) each, 0..255.
            valid: (H, W) bool each, True = data.

        Returns:
            (K, H, W) float32 probabilities of each, on the CPU; all 0 where the image holds no data at all.
        """
        nothing = np.zeros(images[0].shape[:2], dtype=bool)
        windows = [WindowData(image, seen, None, nothing) for image, seen in zip(images, valid, strict=True)]
        found = []
        for image, scores in zip(images, self.model(windows), strict=True):
            if scores is None:
                found.append(torch.zeros(len(self.classes), *image.shape[:2]))
            else:
                found.append(self.map.merge(self.model.probabilities(scores), len(self.classes)).cpu())
        return found


def build_labellers(
    configs: Sequence[str],
    weights: Sequence[str],
    *,
    classes: Vocabulary,
    class_maps: Sequence[str] = (),
    device: str = "auto",
) -> list[Labeller]:
    """Build the models of a command line.

    Args:
        configs: ``[LABEL=]FILE`` each; a label defaults to the name of the config.
        weights: as many as configs, or none: then those that the configs name.
        classes: wanted ones.
        class_maps: ``FILE`` for all models, or ``LABEL=FILE`` for one, which goes before.
        device: see `Labeller`.

    Raises:
        UserError: counts differ, a label comes twice or is unknown, or a model is not usable.
    """
    named = [_split(text) for text in configs]
    labels = [label or Path(file).stem for label, file in named]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise UserError(f"two models are called '{twice}'; name them: --config-file first=F second=F")
    if weights and len(weights) != len(configs):
        raise UserError(f"--weights names {len(weights)} files for {len(configs)} configs; give one for each, or none")
    maps = dict(_split(text) for text in class_maps)
    unknown = [label for label in maps if label and label not in labels]
    if unknown:
        raise UserError(f"--class-map names the model '{unknown[0]}'; there are: {', '.join(labels)}")
    chosen: Sequence[str | None] = weights or [None] * len(configs)
    return [
        Labeller(label, config=file, weights=own, classes=classes, class_map=_map_of(label, maps), device=device)
        for label, (_, file), own in zip(labels, named, chosen, strict=True)
    ]


def _map_of(label: str, maps: Mapping[str, str]) -> str | None:
    return maps.get(label, maps.get(""))


def _split(text: str) -> tuple[str, str]:
    """Return label and file of ``LABEL=FILE`` or ``FILE``; the label of the latter is empty."""
    label, equals, file = text.partition("=")
    return (label, file) if equals and not Path(text).exists() else ("", text)
