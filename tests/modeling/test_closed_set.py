"""Models with a class list of their own: windows, sizes and the classes that are asked for."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from mmovseg.errors import UserError
from mmovseg.modeling.meta_arch.closed_set import ClosedSetModel, build_part, on_padded, window_starts
from mmovseg.testing.checks import tiny_vocabulary

CLASSES = tiny_vocabulary(3, 0)


class Halving(Backbone):
    """Means of 2x2 pixels; `divisibility` is what it says of itself."""

    def __init__(self, divisibility=4):
        super().__init__()
        self.divisibility = divisibility

    @property
    def size_divisibility(self):
        return self.divisibility

    def output_shape(self):
        return {"half": ShapeSpec(channels=3, stride=2)}

    def forward(self, x):
        return {"half": nn.functional.avg_pool2d(x, 2)}


class Plain(ClosedSetModel):
    """Scores are the first view's channels plus the second view's single one, at half the size."""

    sizes: list

    def __init__(self, encoder=None, *, window=None, window_stride=None, windows_at_once=3):
        super().__init__(
            encoder or Halving(),
            vocabulary=CLASSES,
            window=window,
            window_stride=window_stride,
            windows_at_once=windows_at_once,
            input_contract=None,
        )
        self.sizes = []

    def _score(self, images):
        self.sizes.append(tuple(images[0].shape))
        return self.encoder(images[0])["half"] + self.encoder(images[1])["half"]

    def answer(self, images, inputs):
        return list(self._score_each(images, inputs))


def views(height, width, count=1):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(count, channels, height, width, generator=generator) for channels in (3, 1)]


def asking(*sizes, **more):
    return [{"image": torch.zeros(3, *size), **more} for size in sizes]


def test_every_view_is_padded_to_what_the_encoder_divides_by_and_scores_come_back_at_the_size_of_each_input():
    model = Plain()
    scores = model.answer(views(10, 13, count=2), asking((10, 13), (6, 9)))
    assert model.sizes == [(2, 3, 12, 16)]
    assert [tuple(score.shape) for score in scores] == [(3, 10, 13), (3, 6, 9)]
    assert tuple(model.answer(views(8, 8), asking((8, 8), height=20, width=30))[0].shape) == (3, 20, 30)


def test_an_encoder_that_takes_any_size_says_0():
    model = Plain(Halving(0))
    model.answer(views(10, 14), asking((10, 14)))
    assert model.sizes == [(1, 3, 10, 14)]


def test_windows_are_cut_from_all_views_alike_and_averaged_where_they_overlap():
    images = views(20, 28)
    model = Plain(window=12, window_stride=8)
    found = model.answer(images, asking((20, 28)))[0]
    total, count = torch.zeros(3, 20, 28), torch.zeros(20, 28)
    for top in (0, 8):
        for left in (0, 8, 16):
            parts = [image[:, :, top : top + 12, left : left + 12] for image in images]
            total[:, top : top + 12, left : left + 12] += Plain().answer(parts, asking((12, 12)))[0]
            count[top : top + 12, left : left + 12] += 1
    assert torch.allclose(found, total / count, atol=1e-6)
    assert [size[0] for size in model.sizes] == [3, 3]  # windows_at_once


def test_window_starts():
    assert window_starts(1024, 512, 256) == (0, 256, 512)
    assert window_starts(1000, 512, 256) == (0, 256, 488)
    assert window_starts(300, 512, 256) == (0,)
    for stride in (100, 600):
        with pytest.raises(UserError, match=f"window_stride is {stride}"):
            window_starts(1024, 512, stride)
    with pytest.raises(UserError, match="window_stride is 5"):
        Plain(window=12, window_stride=5)


def test_classes_are_found_by_name_or_synonym_in_the_order_asked_for():
    model = Plain()
    vocabulary = tiny_vocabulary(3, 0)
    reversed_ = type(vocabulary)(name="asked", classes=vocabulary.classes[::-1], source="tiny")
    assert model._asked(asking((8, 8), vocabulary=reversed_)) == [2, 1, 0]
    assert model._asked(asking((8, 8))) == [0, 1, 2]
    with pytest.raises(UserError, match="no class 'city'; it was trained on: meadow, forest, desert"):
        model._asked(asking((8, 8), vocabulary=tiny_vocabulary(4, 0)))
    with pytest.raises(UserError, match="labels of training are of meadow, forest, desert, city"):
        model._check_training(asking((8, 8), vocabulary=tiny_vocabulary(4, 0)))
    model._check_training(asking((8, 8), vocabulary=vocabulary))


def test_an_argument_that_a_part_does_not_have_is_named():
    with pytest.raises(UserError, match="Halving got an unexpected keyword argument 'divisor'"):
        build_part(Halving, {"divisor": 2})
    assert build_part(Halving, {"divisibility": 2}).divisibility == 2


def test_labels_end_as_ignored_where_the_image_is_padding():
    target = on_padded(torch.zeros(1, 5, 6, dtype=torch.int64), torch.zeros(1, 3, 8, 8))
    assert target.shape == (1, 8, 8)
    assert (target[:, :5, :6] == 0).all() and (target[:, 5:] == 255).all() and (target[:, :, 6:] == 255).all()
