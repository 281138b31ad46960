"""Assert helpers and small made-up inputs shared by all tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmovseg.data.sample import IGNORE_LABEL, Modality, ModelInput, Prediction
from mmovseg.data.vocabulary import ClassEntry, Vocabulary, distinct_colors


def assert_same_state(
    first: Mapping[str, Tensor] | nn.Module, second: Mapping[str, Tensor] | nn.Module, *, atol: float = 0.0
) -> None:
    """Fail unless two state dicts (or modules) have the same keys, shapes, dtypes and values, NaN equal to NaN.

    The message names every key that differs in presence, or the key with the largest difference.
    """
    a = first.state_dict() if isinstance(first, nn.Module) else first
    b = second.state_dict() if isinstance(second, nn.Module) else second
    assert set(a) == set(b), f"only in first: {sorted(set(a) - set(b))}; only in second: {sorted(set(b) - set(a))}"
    worst_key, worst = "", 0.0
    for key in a:
        x, y = a[key], b[key]
        assert x.shape == y.shape, f"{key}: shape {tuple(x.shape)} against {tuple(y.shape)}"
        assert x.dtype == y.dtype, f"{key}: dtype {x.dtype} against {y.dtype}"
        if torch.equal(torch.nan_to_num(x), torch.nan_to_num(y)) and torch.equal(torch.isnan(x), torch.isnan(y)):
            continue
        gap = float((x.double() - y.double()).abs().max())
        if not gap <= worst:  # also when gap is NaN
            worst_key, worst = key, gap
    assert worst <= atol, f"{worst_key} differs by {worst:g}, more than {atol:g}"


@torch.no_grad()
def assert_scored_as_alone(model: nn.Module, inputs: Sequence[ModelInput], *, atol: float = 1e-5) -> None:
    """Fail unless a model scores inputs of any size in one batch as it scores each by itself, in their order.

    Args:
        model: in evaluation mode, answers with `sem_seg`.
        inputs: at least two.
        atol: by which scores may differ.
    """
    together = model(inputs)
    assert len(together) == len(inputs)
    for item, found in zip(inputs, together, strict=True):
        alone = model([item])[0]["sem_seg"]
        torch.testing.assert_close(found["sem_seg"], alone, atol=atol, rtol=0)


def tiny_vocabulary(seen: int = 3, unseen: int = 2, *, name: str = "clean") -> Vocabulary:
    """Return a vocabulary of invented words, seen first, each with one synonym (`lake` and `lake area`)."""
    words = ("meadow", "forest", "desert", "city", "lake", "street", "harbour", "glacier", "orchard", "quarry")
    if seen + unseen > len(words):
        raise ValueError(f"at most {len(words)} classes, got {seen + unseen}")
    entries = tuple(
        ClassEntry(name=word, synonyms=(f"{word} area",), color=color, seen=i < seen)
        for i, (word, color) in enumerate(zip(words[: seen + unseen], distinct_colors(seen + unseen), strict=True))
    )
    return Vocabulary(name=name, classes=entries, source="tiny")


def random_inputs(
    vocabulary: Vocabulary,
    sizes: Sequence[tuple[int, int]] = ((64, 64), (64, 64)),
    *,
    modality: Modality = "both",
    polarisations: int = 2,
    labels: int | None = None,
    ignore_share: float = 0.1,
    cloudy: bool = True,
    seed: int = 0,
) -> list[ModelInput]:
    """Return model inputs as the mapper would yield them, filled with seeded noise.

    Args:
        vocabulary: goes into every item.
        sizes: (H, W) of each item.
        modality: which of `image` (0..255) and `sar` (dB) exist.
        polarisations: channels of `sar`.
        labels: labels are drawn from 0 .. labels-1; None means the length of `vocabulary`.
        ignore_share: share of label pixels set to 255.
        cloudy: add `cloud_alpha`.
        seed: the same seed gives the same inputs.
    """
    rng = torch.Generator().manual_seed(seed)
    items: list[ModelInput] = []
    for i, (height, width) in enumerate(sizes):
        sem_seg = torch.randint(len(vocabulary) if labels is None else labels, (height, width), generator=rng)
        sem_seg[torch.rand(height, width, generator=rng) < ignore_share] = IGNORE_LABEL
        item = ModelInput(
            sem_seg=sem_seg,
            height=height,
            width=width,
            image_id=f"{i:03d}",
            file_name=f"random/{i:03d}",
            vocabulary=vocabulary,
        )
        if modality != "sar":
            item["image"] = 255 * torch.rand(3, height, width, generator=rng)
            item["valid"] = torch.ones(height, width, dtype=torch.bool)
            if cloudy:
                item["cloud_alpha"] = torch.full((height, width), float(torch.rand((), generator=rng)))
        if modality != "optical":
            item["sar"] = -15 + 4 * torch.randn(polarisations, height, width, generator=rng)
            item["sar_valid"] = torch.ones(height, width, dtype=torch.bool)
        items.append(item)
    return items


def scores_for(labels: Tensor, num_classes: int, *, margin: float = 1.0) -> Prediction:
    """Return a prediction whose argmax is `labels` (H, W); `labels` must lie in 0 .. num_classes-1."""
    one_hot = nn.functional.one_hot(labels.long(), num_classes)
    return Prediction(sem_seg=margin * one_hot.permute(2, 0, 1).float())
