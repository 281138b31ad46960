"""Losses of sets of masks: against transformers, against loops, and what ignored pixels may not do."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from mmovseg.errors import UserError
from mmovseg.projects.crossearth.losses.masks import MaskLoss, _Truth, sample_points

CLASSES, QUERIES = 4, 6
WEIGHTS = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 4.0, "no_object_weight": 0.2}
POINTS = {"num_points": 60, "oversample_ratio": 2.5, "importance_ratio": 0.7}


def outputs(count=2, grid=(8, 8), num=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(count, QUERIES, CLASSES + 1, generator=rng).requires_grad_(),
            (3 * torch.randn(count, QUERIES, *grid, generator=rng)).requires_grad_(),
        )
        for _ in range(num)
    ]


def blobs(count=2, size=(16, 16), seed=1):
    """Labels in blocks of 4 pixels, of 3 of the 4 classes in the first image."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, CLASSES, (count, size[0] // 4, size[1] // 4), generator=rng)
    coarse[0][coarse[0] == 3] = 1
    return coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)


def library_losses(answers, target):
    """Weighted sums by kind as `transformers` has them; ignored pixels are in no mask."""
    config = Mask2FormerConfig(
        num_labels=CLASSES,
        class_weight=WEIGHTS["class_weight"],
        mask_weight=WEIGHTS["mask_weight"],
        dice_weight=WEIGHTS["dice_weight"],
        no_object_weight=WEIGHTS["no_object_weight"],
        train_num_points=POINTS["num_points"],
        oversample_ratio=POINTS["oversample_ratio"],
        importance_sample_ratio=POINTS["importance_ratio"],
    )
    labels = [image.unique()[image.unique() != 255] for image in target]
    masks = [(image == own[:, None, None]).float() for image, own in zip(target, labels, strict=True)]
    # in our order: the library scores the last output first
    parts = [Mask2FormerLoss(config, {})(mask, logits, masks, labels) for logits, mask in answers]
    kinds = {"class": "cross_entropy", "mask": "mask", "dice": "dice"}
    return {
        f"loss_{kind}": WEIGHTS[f"{kind}_weight"] * sum(part[f"loss_{name}"] for part in parts)
        for kind, name in kinds.items()
    }


def gradients(losses, answers):
    flat = [tensor for pair in answers for tensor in pair]
    return torch.autograd.grad(sum(losses.values()), flat)


@pytest.mark.parametrize("ignored", [False, True])
def test_value_and_gradient_are_those_of_transformers_on_the_same_points(ignored):
    target, answers = blobs(), outputs()
    if ignored:
        target[:, :5, :7] = 255
    torch.manual_seed(3)
    expected = library_losses(answers, target)
    torch.manual_seed(3)
    found = MaskLoss(CLASSES, **WEIGHTS, **POINTS, ignored_pixels="negative")(answers, target)
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5)
    for one, other in zip(gradients(found, answers), gradients(expected, answers), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_where_every_pixel_is_labelled_the_option_makes_no_difference():
    losses = []
    for option in ("exclude", "negative"):
        torch.manual_seed(0)
        losses.append(MaskLoss(CLASSES, **POINTS, ignored_pixels=option)(outputs(), blobs()))
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


def test_matching_is_the_cheapest_of_all_assignments():
    """Costs by loops over pairs, at all points the same, and every permutation tried."""
    loss, target = MaskLoss(CLASSES, **WEIGHTS, num_points=50), blobs(1)
    target[:, 4:9, 2:12] = 255
    truth = _Truth(target, CLASSES, exclude=True)
    classes, masks = (tensor.detach() for tensor in outputs(1, num=1)[0])
    torch.manual_seed(5)
    image, query, category = loss.match(classes, masks, truth)
    torch.manual_seed(5)
    table_found = loss.costs(classes, masks, truth)[0]
    torch.manual_seed(5)
    points = torch.rand(1, 50, 2)
    share = sample_points((target != 255).float()[:, None], points)[0, 0]
    present = [int(c) for c in target.unique() if c != 255]

    def cost(q, k):
        y = sample_points((target == k).float()[:, None], points)[0, 0] / share.clamp_min(1e-6)
        x = sample_points(masks[:, q : q + 1], points)[0, 0]
        cross = (
            sum(w * F.binary_cross_entropy_with_logits(a, b) for a, b, w in zip(x, y, share, strict=True)) / share.sum()
        )
        p = x.sigmoid()
        dice = 1 - (2 * (p * y * share).sum() + 1) / ((p * share).sum() + (y * share).sum() + 1)
        return float(5 * cross + 4 * dice - 2 * classes[0, q].softmax(0)[k])

    table = {(q, k): cost(q, k) for q in range(QUERIES) for k in present}
    for (q, k), value in table.items():
        assert table_found[q, k].item() == pytest.approx(value, rel=1e-4)
    best = min(
        itertools.permutations(range(QUERIES), len(present)),
        key=lambda order: sum(table[q, k] for q, k in zip(order, present, strict=True)),
    )
    assert image.tolist() == [0] * len(present)
    assert dict(zip(category.tolist(), query.tolist(), strict=True)) == dict(zip(present, best, strict=True))


def test_mask_losses_are_divided_by_the_number_of_masks_of_the_batch():
    """One image with one class beside one with three: the mean is over four masks and not over two images."""
    loss = MaskLoss(CLASSES, **WEIGHTS, num_points=400)
    target = torch.zeros(2, 16, 16, dtype=torch.int64)
    target[1, :8] = 1
    target[1, 8:, :8] = 2
    target[1, 8:, 8:] = 3
    zeros = torch.zeros(2, QUERIES, 4, 4)
    found = loss([(torch.zeros(2, QUERIES, CLASSES + 1), zeros)], target)
    assert found["loss_mask"].item() == pytest.approx(5 * 0.693147, rel=1e-5)  # logit 0 everywhere: ln 2 each
    assert found["loss_class"].item() == pytest.approx(2 * 1.609438, rel=1e-5)  # ln 5, whatever the weights
    alone = [loss([(torch.zeros(1, QUERIES, CLASSES + 1), zeros[:1])], target[i : i + 1])["loss_dice"] for i in (0, 1)]
    assert found["loss_dice"].item() == pytest.approx((alone[0].item() + 3 * alone[1].item()) / 4, abs=0.05)


def test_queries_without_a_class_are_to_say_so_and_weigh_less():
    loss = MaskLoss(CLASSES, class_weight=1.0, no_object_weight=0.2, num_points=10)
    target = torch.ones(1, 8, 8, dtype=torch.int64)
    logits = torch.full((1, QUERIES, CLASSES + 1), -20.0)
    logits[0, 0, 1] = 20.0
    logits[0, 1:, CLASSES] = 20.0
    masks = torch.zeros(1, QUERIES, 8, 8)
    assert loss([(logits, masks)], target)["loss_class"].item() == pytest.approx(0, abs=1e-6)
    logits[0, 1] = 0.0  # one of the five others undecided: 0.2 ln 5 over 1 + 5 * 0.2
    assert loss([(logits, masks)], target)["loss_class"].item() == pytest.approx(0.2 * 1.609438 / 2, rel=1e-4)


def test_ignored_pixels_have_no_influence_and_no_gradient():
    """What a mask says deep inside an ignored area neither changes the loss nor is moved by it."""
    target = blobs(size=(32, 32))
    target[:, 8:24, 8:24] = 255
    masks = torch.randn(2, QUERIES, 32, 32, requires_grad=True)
    other = masks.detach().clone()
    other[:, :, 10:22, 10:22] = 50.0
    classes = torch.randn(2, QUERIES, CLASSES + 1)
    gradient, values = {}, {}
    for option in ("exclude", "negative"):
        # no point is chosen by what the mask says, so that both see the same points
        loss = MaskLoss(CLASSES, num_points=3000, importance_ratio=0.0, ignored_pixels=option)
        values[option] = []
        for given in (masks, other):
            torch.manual_seed(0)
            total = sum(loss([(classes, given)], target).values())
            values[option].append(total.item())
            if given is masks:
                gradient[option] = torch.autograd.grad(total, masks)[0][:, :, 10:22, 10:22].abs().sum().item()
    assert values["exclude"][0] == pytest.approx(values["exclude"][1], rel=1e-6)
    assert gradient["exclude"] == 0
    assert values["negative"][1] > 1.2 * values["negative"][0] and gradient["negative"] > 0


def test_excluded_pixels_give_the_loss_of_the_rest_alone():
    """The right half ignored, all points uniform: the loss of the left half by itself, up to the draw of points."""
    torch.manual_seed(0)
    target, masks = blobs(1, (64, 64)), 2 * torch.randn(1, QUERIES, 64, 64)
    classes = torch.randn(1, QUERIES, CLASSES + 1)
    half = target.clone()
    half[:, :, 32:] = 255
    loss = MaskLoss(CLASSES, num_points=60_000, importance_ratio=0.0)
    found, expected = loss([(classes, masks)], half), loss([(classes, masks[..., :32])], target[..., :32])
    assert found["loss_mask"].item() == pytest.approx(expected["loss_mask"].item(), rel=0.01)
    assert found["loss_dice"].item() == pytest.approx(expected["loss_dice"].item(), rel=0.01)


def test_undecided_points_lie_where_the_mask_is_undecided_and_labelled():
    loss = MaskLoss(CLASSES, num_points=100, oversample_ratio=20, importance_ratio=1.0)
    masks = torch.full((1, 1, 32, 32), 9.0)
    masks[..., 12:20] = 0.1  # undecided in the middle columns
    target = torch.zeros(1, 32, 32, dtype=torch.int64)
    target[:, :16] = 255  # and labelled in the lower half
    points = loss._undecided_points(masks, _Truth(target, CLASSES, exclude=True), torch.tensor([0]))[0]
    assert points.shape == (100, 2)
    assert points[:, 0].min() > 11 / 32 and points[:, 0].max() < 21 / 32
    assert points[:, 1].min() > 15 / 32
    free = loss._undecided_points(masks, _Truth(target, CLASSES, exclude=False), torch.tensor([0]))[0]
    assert free[:, 1].min() < 0.1


def test_an_image_without_any_label_gives_no_mask_loss_and_all_queries_nothing_to_say():
    target, answers = blobs(), outputs(num=1)
    target[:] = 255
    losses = MaskLoss(CLASSES, **POINTS)(answers, target)
    assert losses["loss_mask"].item() == 0 and losses["loss_dice"].item() == 0
    classes, masks = gradients(losses, answers)
    expected = F.cross_entropy(answers[0][0].flatten(0, 1), torch.full((2 * QUERIES,), CLASSES))
    assert losses["loss_class"].item() == pytest.approx(2 * expected.item(), rel=1e-5)
    assert classes.abs().sum() > 0 and torch.equal(masks, torch.zeros_like(masks))  # a gradient, of zeros


def test_a_query_that_is_not_finite_is_matched_last():
    classes, masks = (tensor.detach() for tensor in outputs(1, num=1)[0])
    masks[0, 0], masks[0, 1] = torch.nan, torch.inf
    loss = MaskLoss(CLASSES, **POINTS)
    _, query, _ = loss.match(classes, masks, _Truth(blobs(1), CLASSES, exclude=True))
    assert not {0, 1} & set(query.tolist())


def test_counts_are_those_of_all_processes(monkeypatch):
    """As if another process had three times what this one has: both means are over the average of the two."""
    answers, target = outputs(num=1), blobs()
    torch.manual_seed(0)
    alone = MaskLoss(CLASSES, **POINTS)(answers, target)
    monkeypatch.setattr("mmovseg.projects.crossearth.losses.masks.global_mean_weight", lambda own: own * (1 + 3) / 2)
    torch.manual_seed(0)
    shared = MaskLoss(CLASSES, **POINTS)(answers, target)
    for name in alone:
        assert shared[name].item() == pytest.approx(alone[name].item() / 2, rel=1e-5)


def test_points_are_read_as_by_interpolation():
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    points = torch.tensor([[[0.5 / 4, 0.5 / 3], [1.5 / 4, 2.5 / 3], [1.0 / 4, 1.0 / 3], [0.0, 0.5 / 3]]])
    assert torch.allclose(sample_points(maps, points)[0, 0], torch.tensor([0.0, 9.0, 2.5, 0.0]), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ignored_pixels": "drop"}, "ignored_pixels of the mask losses is 'drop'"),
        ({"num_points": 0}, "num_points >= 1"),
        ({"oversample_ratio": 0.5}, "oversample_ratio >= 1"),
        ({"importance_ratio": 1.5}, r"importance_ratio in \[0, 1\]"),
    ],
)
def test_bad_settings_are_named(settings, words):
    with pytest.raises(UserError, match=words):
        MaskLoss(CLASSES, **settings)


def test_a_label_that_is_no_class_is_named():
    target = blobs()
    target[0, 3, 3] = 9
    with pytest.raises(UserError, match="a label is 9, but the model has 4 classes"):
        MaskLoss(CLASSES)(outputs(), target)
