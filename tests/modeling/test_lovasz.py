"""The Lovász-softmax loss against its definition."""

import pytest
import torch

from mmovseg.modeling.losses import lovasz_softmax


def slow_lovasz(logits, target):
    """The extension written as in the paper: sort the errors of a class, add what each takes off the Jaccard index."""
    probabilities = logits.softmax(dim=1).movedim(1, 0).flatten(1)
    truth = target.flatten()
    keep = truth != 255
    probabilities, truth = probabilities[:, keep], truth[keep]
    losses = []
    for c in truth.unique():
        member = truth == c
        errors = [float(1 - p) if m else float(p) for p, m in zip(probabilities[c], member, strict=True)]
        order = sorted(range(len(errors)), key=lambda i: -errors[i])
        loss = jaccard = 0.0
        for count in range(1, len(order) + 1):
            mispredicted = torch.zeros_like(member)
            mispredicted[order[:count]] = True
            found = member ^ mispredicted
            now = 1 - float((found & member).sum()) / float((member | mispredicted).sum())
            loss, jaccard = loss + errors[order[count - 1]] * (now - jaccard), now
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("classes", [2, 4])
def test_it_equals_the_definition(classes):
    logits, target = torch.randn(2, classes, 4, 5), torch.randint(classes, (2, 4, 5))
    target[0, :2] = 255
    assert float(lovasz_softmax(logits, target)) == pytest.approx(slow_lovasz(logits, target), abs=1e-5)


def test_hard_predictions_cost_one_minus_the_iou_of_each_class():
    target = torch.tensor([[[0, 0, 0, 0, 1, 1, 2, 2]]])
    found = torch.tensor([[[0, 0, 1, 1, 1, 1, 0, 2]]])
    logits = 200.0 * torch.nn.functional.one_hot(found, 4).permute(0, 3, 1, 2).float()
    ious = (2 / 5, 2 / 4, 1 / 2)
    assert float(lovasz_softmax(logits, target)) == pytest.approx(1 - sum(ious) / 3, abs=1e-5)


def test_ignored_pixels_have_no_gradient_and_logits_come_to_the_grid_of_the_labels():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    target = torch.randint(3, (1, 8, 8))
    lovasz_softmax(logits, target).backward()
    assert logits.grad.abs().sum() > 0
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.randint(3, (1, 4, 4))
    target[0, :2] = 255
    lovasz_softmax(logits, target).backward()
    assert logits.grad[0, :, :2].abs().sum() == 0 and logits.grad[0, :, 2:].abs().sum() > 0


def test_without_labels_it_is_zero_and_still_in_the_graph():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = lovasz_softmax(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_descending_it_raises_the_iou_of_a_rare_class():
    torch.manual_seed(0)
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[0, 3, 3:5] = 1
    logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
    first = lovasz_softmax(logits, target).item()
    optimizer = torch.optim.SGD([logits], lr=5.0)
    for _ in range(60):
        optimizer.zero_grad()
        lovasz_softmax(logits, target).backward()
        optimizer.step()
    assert lovasz_softmax(logits, target).item() < 0.2 < first
    assert torch.equal(logits.argmax(dim=1), target)
