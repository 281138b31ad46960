"""Figure 5 of the MM-OVSeg paper for any model of ours: where each stage of the fusion looks for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import LazyCall
from omegaconf import DictConfig
from torch import Tensor

from mmovseg.config import instantiate
from mmovseg.config.instantiate import TARGET, resolve_target
from mmovseg.data.datasets.catalog import TABLE, get_dataset
from mmovseg.data.sample import Modality, ModelInput
from mmovseg.data.sar import SarUnit
from mmovseg.data.vocabulary import Vocabulary, get_vocabulary, vocabulary_from_names
from mmovseg.engine.evaluation import choose_modality, test_nodes
from mmovseg.engine.scenes import LOOK_THROUGH, choose_prompts, choose_scenes
from mmovseg.errors import UserError
from mmovseg.layers.conv import resize
from mmovseg.visualization.draw import sar_to_rgb
from mmovseg.visualization.heatmaps import HeatmapScene

PROMPTS_PER_SCENE = 4  # as in Figure 5: two seen and two unseen


def scenes_of(
    config: DictConfig,
    *,
    dataset: str | None = None,
    image_ids: Sequence[str] | None = None,
    samples: int = 1,
    modality: Modality = "both",
) -> tuple[Vocabulary, list[ModelInput]]:
    """Return the label space of a test set and scenes of it, as the config's test mapper gives them.

    Args:
        config: with a test loader; its data set is changed in place when another one is named.
        dataset: registered data set, for example ``miniearth_test``; None = the config's.
        image_ids: these scenes, in this order; None = `samples` scenes chosen by `choose_scenes` among the first 150.
        samples: how many.
        modality: which images the model sees.

    Raises:
        UserError: the config tests nothing, or the data set or a scene is not there.
    """
    nodes = list(test_nodes(config).values())
    if not nodes:
        raise UserError("the config has no dataloader.test, so there are no test scenes; give --optical or --sar")
    loader, evaluator = nodes[0]
    if dataset is not None:
        choose_dataset(loader, dataset)
    if modality != "both":
        choose_modality(config, loader, evaluator, modality)
    dicts = list(instantiate(loader.dataset))
    mapper = instantiate(loader.mapper)
    if mapper.vocabulary is None:
        raise UserError("the test mapper of the config has no vocabulary, so there are no classes to ask for")
    if image_ids is None:
        items = [mapper(dict(scene)) for scene in dicts[: max(LOOK_THROUGH, samples)]]
        return mapper.vocabulary, [items[i] for i in choose_scenes(items, mapper.vocabulary, samples)]
    by_id = {str(scene.get("image_id")): scene for scene in dicts}
    for name in image_ids:
        if name not in by_id:
            raise UserError(
                f"'{dataset or 'the test set'}' has no image '{name}'; its first ones are {', '.join(list(by_id)[:3])}"
            )
    return mapper.vocabulary, [mapper(dict(by_id[name])) for name in image_ids]


def choose_dataset(loader: DictConfig, name: str) -> None:
    """Point a test loader at a registered data set, and its mapper at the class list of it."""
    node = loader.dataset
    if TARGET in node and resolve_target(node[TARGET]) is get_dataset:
        node.name = name
    else:
        loader.dataset = LazyCall(get_dataset)(name=name)
    words = loader.mapper.get("vocabulary")
    for entry in TABLE:
        if name in (f"{entry.name}_{split}" for split in entry.splits) and words is not None:
            if resolve_target(words[TARGET]) is get_vocabulary:
                words.dataset = entry.vocabulary


def ask_with(vocabulary: Vocabulary, prompts: Sequence[str] | str | None) -> tuple[Vocabulary, list[int] | None]:
    """Return what to ask for and which of it to draw.

    A prompt that the label space knows, also as a synonym, takes the place of its class, so that labels keep their
    meaning; another one is added at the end. The classes that nobody named are asked for too, since a response is
    shown against those of all prompts.

    Args:
        vocabulary: the label space.
        prompts: comma-separated or listed; None = the label space as it is, and each scene chooses what is drawn.

    Raises:
        UserError: no names, an empty name, or one given twice.
    """
    if prompts is None:
        return vocabulary, None
    wanted = vocabulary_from_names(prompts, like=vocabulary, source="--prompts")
    entries = list(vocabulary.classes)
    drawn: list[int] = []
    for entry in wanted.classes:
        place = vocabulary.find(entry.name)
        if place is None or place in drawn:
            entries.append(entry)
            place = len(entries) - 1
        elif vocabulary.classes[place].name.casefold() != entry.name.casefold():
            entries[place] = entry
        drawn.append(place)
    return Vocabulary(name="custom", classes=tuple(entries), source="--prompts"), drawn


def explain_scenes(
    model: Any,
    items: Sequence[ModelInput],
    *,
    vocabulary: Vocabulary,
    drawn: Sequence[int] | None = None,
    sar_unit: SarUnit = "db",
) -> list[HeatmapScene]:
    """Run the model and return what `draw_heatmaps` draws.

    Args:
        model: of MM-OVSeg.
        items: one or several scenes of any size.
        vocabulary: what to ask for. Label ids of the items are positions in it.
        drawn: indices of the prompts to draw in every scene; None = those that `choose_prompts` finds in each.
        sar_unit: unit of `sar` in the items.

    Raises:
        UserError: the model cannot be asked for the stages of a fusion.
    """
    if not hasattr(model, "explain"):
        raise UserError(f"a {type(model).__name__} has no stages of fusion to draw; give a config of MM-OVSeg")
    scenes = []
    for item in items:
        (stages,) = model.explain([{**item, "vocabulary": vocabulary}])
        image, sar, label = item.get("image"), item.get("sar"), item.get("sem_seg")
        size = (image if image is not None else item["sar"]).shape[-2:]
        valid = item.get("sar_valid")
        scenes.append(
            HeatmapScene(
                image=_hwc(image) if image is not None else None,
                maps={name: _without_padding(maps, (size[0], size[1]), model) for name, maps in stages.items()},
                prompts=choose_prompts(item, vocabulary, PROMPTS_PER_SCENE) if drawn is None else drawn,
                truth=label.numpy() if label is not None else None,
                sar=sar_to_rgb(_hwc(sar), valid.numpy() if valid is not None else None, unit=sar_unit)
                if sar is not None
                else None,
            )
        )
    return scenes


def _hwc(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _without_padding(maps: Tensor, size: tuple[int, int], model: Any) -> np.ndarray:
    """(K, h, w) over the padded input -> (K, H, W) over the image, or as it was when nothing was padded."""
    multiple = int(model.multiple)
    padded = tuple(-(-side // multiple) * multiple for side in size)
    if padded == size:
        return maps.numpy()
    whole: Tensor = resize(maps[None], (padded[0], padded[1]))[0]
    return whole[:, : size[0], : size[1]].numpy()
