"""Per-class maps in portions: everything once, bounded, and with the scores of one pass."""

from __future__ import annotations

import pytest
import torch

from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.modeling.fusion import passes
from mmovseg.modeling.fusion.passes import plan_passes
from tests.modeling.conftest import build_xs, make_inputs
from tests.modeling.released_parts import small_model
from tests.modeling.test_released_model import NAMES


def images_of(model, items):
    with torch.no_grad():
        return [found["sem_seg"] for found in model(items)]


@pytest.mark.parametrize(("images", "classes"), [(1, 1), (16, 3), (3, 40), (2, 847)])
@pytest.mark.parametrize("chunk", [None, 1, 16])
def test_every_map_is_in_one_portion_and_portions_are_bounded(images, classes, chunk):
    head = torch.nn.Identity().eval()
    grid = (384, 384)
    planned = plan_passes(head, images, classes, grid, chunk)
    seen = torch.zeros(images, classes)
    largest = 0
    for rows, names in planned:
        for chosen in names:
            seen[rows, chosen] += 1
            largest = max(largest, seen[rows, chosen].numel())
    assert (seen == 1).all()
    assert largest <= max(chunk or 1, passes.PIXELS_AT_ONCE // (384 * 384))
    assert plan_passes(head.train(), images, classes, grid, chunk) == [(slice(0, images), [slice(0, classes)])]


@pytest.mark.parametrize("name", ["paper", "released"])
@pytest.mark.parametrize("modality", ["both", "optical", "sar"])
def test_portions_change_nothing_but_memory(name, modality, monkeypatch):
    torch.manual_seed(0)
    model = build_xs() if name == "paper" else small_model(head={"window": 3, "class_padding": 8})
    model.eval()
    items = make_inputs(3, modality=modality, vocabulary=NAMES)
    for item in items:
        if "sar" in item:
            item["sar"] = item["sar"][:1].expand(len(model.sar_norm.mean), -1, -1)
    whole, stages = images_of(model, items), model.explain(items)
    for pixels in (1, 64 * 64 * 2, 64 * 64 * 10):  # one map; two classes of an image; two images
        monkeypatch.setattr(passes, "PIXELS_AT_ONCE", pixels)
        for one, other in zip(images_of(model, items), whole, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        for one, other in zip(model.explain(items), stages, strict=True):
            assert one.keys() == other.keys()
            for stage in one:
                torch.testing.assert_close(one[stage], other[stage], atol=1e-5, rtol=1e-5)


def test_raw_scores_are_those_that_are_resized():
    model = build_xs().eval()
    items = make_inputs(2, 60, 50)
    with torch.no_grad():
        raw, covered = model.raw_scores(items)
        scores = model(items)
    assert covered == (60, 52) and raw.shape == (2, 7, 30, 26) and raw.dtype == torch.float32
    full = torch.nn.functional.interpolate(raw, size=covered, mode="bilinear", align_corners=False)
    for one, found in zip(full, scores, strict=True):
        torch.testing.assert_close(found["sem_seg"], one[:, :60, :50])


def test_scores_of_many_classes_that_are_resized_twice():
    model = build_xs().eval()
    names = ", ".join(f"class {n}" for n in range(37))
    items = make_inputs(1, vocabulary=vocabulary_from_names(names))
    with torch.no_grad():
        plain = model(items)[0]["sem_seg"]
        items[0]["height"], items[0]["width"] = 100, 90
        found = model(items)[0]["sem_seg"]
    expected = torch.nn.functional.interpolate(plain[None], size=(100, 90), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected)
