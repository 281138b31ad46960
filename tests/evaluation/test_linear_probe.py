import pytest
import torch

from mmovseg.errors import UserError
from mmovseg.evaluation.linear_probe import LinearProbe, fit_linear_probe, patch_class_counts, resize_labels


def problem(n=300, channels=4, classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, generator=rng) * torch.tensor([1.0, 20.0, 0.1, 3.0]) + 5
    truth = (x @ torch.randn(channels, classes, generator=rng) + torch.randn(n, classes, generator=rng)).argmax(1)
    counts = torch.randint(0, 4, (n, classes), generator=rng).float()
    counts[torch.arange(n), truth] += 6
    return x, counts


def fit(x, y, **settings):
    return fit_linear_probe([x], [y], channels=x.shape[1], num_classes=y.shape[1], **settings)


def test_the_probe_is_the_minimum_of_the_pixel_loss():
    """Gradient descent on the loss written out pixel by pixel: one row a labelled pixel, its patch's features."""
    x, counts = problem(n=60)
    probe = fit(x, counts, l2=1e-2)
    rows = torch.repeat_interleave(torch.arange(60), counts.sum(dim=1).long())
    labels = torch.cat([torch.repeat_interleave(torch.arange(3), row.long()) for row in counts])
    pixels = x[rows].double()
    scaled = (pixels - pixels.mean(dim=0)) / pixels.std(dim=0, correction=0)
    weight = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.05)
    for step in range(1200):
        loss = torch.nn.functional.cross_entropy(scaled @ weight + bias, labels) + 0.5e-2 * weight.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 900:
            optimizer.param_groups[0]["lr"] = 1e-3
    assert probe.converged
    mine = torch.nn.functional.cross_entropy(pixels @ probe.weight + probe.bias, labels)
    assert float(mine) == pytest.approx(probe.loss, rel=1e-9)
    expected = (scaled @ weight + bias).softmax(dim=1).detach()
    torch.testing.assert_close((pixels @ probe.weight + probe.bias).softmax(dim=1), expected, atol=2e-3, rtol=0)


def test_without_information_the_probe_gives_the_class_shares():
    counts = torch.tensor([[8.0, 4.0, 4.0], [0.0, 12.0, 4.0]])
    probe = fit(torch.full((2, 5), 3.0), counts)
    expected = torch.tensor([8.0, 16.0, 8.0], dtype=torch.float64) / 32
    torch.testing.assert_close(probe.bias.softmax(dim=0), expected, atol=1e-4, rtol=0)
    assert torch.equal(probe.weight, torch.zeros(5, 3, dtype=torch.float64))
    assert probe.loss == pytest.approx(float(-(expected * expected.log()).sum()), abs=1e-6)


def test_scale_shift_and_mixing_of_channels_do_not_change_the_answer():
    x, counts = problem()
    other = x * torch.tensor([1e3, 1e-3, 7.0, 1.0]) - 50
    first, second = fit(x, counts), fit(other, counts)
    torch.testing.assert_close(
        x.double() @ first.weight + first.bias, other.double() @ second.weight + second.bias, atol=2e-2, rtol=1e-3
    )


def test_separable_classes_stay_finite_and_are_learned():
    x = torch.eye(3).repeat(20, 1)
    counts = 16 * torch.eye(3).repeat(20, 1)
    probe = fit(x, counts)
    assert probe.converged and bool(torch.isfinite(probe.weight).all())
    assert torch.equal((x.double() @ probe.weight + probe.bias).argmax(1), counts.argmax(1))


def test_the_parts_do_not_matter():
    x, counts = problem()
    whole = fit(x, counts)
    parts = fit_linear_probe([x[:100], x[100:]], [counts[:100], counts[100:]], channels=4, num_classes=3)
    assert torch.equal(whole.weight, parts.weight) and torch.equal(whole.bias, parts.bias)


def test_patches_without_labels_do_not_count():
    x, counts = problem()
    junk = torch.cat([x, torch.full((10, 4), 1e4)]), torch.cat([counts, torch.zeros(10, 3)])
    assert torch.equal(fit(*junk).weight, fit(x, counts).weight)


def test_a_stronger_penalty_gives_smaller_weights():
    x, counts = problem()
    sizes = [float(fit(x, counts, l2=l2).weight.norm()) for l2 in (1e-4, 1e-2, 1.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_probe_that_was_stopped_says_so():
    x, counts = problem()
    stopped = fit(x, counts, max_iterations=1)
    assert not stopped.converged and stopped.loss > fit(x, counts).loss


def test_no_labels_and_features_that_are_not_finite_are_refused():
    x, counts = problem()
    with pytest.raises(UserError, match="no labelled patch"):
        fit(x, torch.zeros_like(counts))
    with pytest.raises(UserError, match="no labelled patch"):
        fit_linear_probe([], [], channels=4, num_classes=3)
    x[5, 1] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        fit(x, counts)


def test_class_counts_equal_a_loop_over_pixels():
    labels = torch.randint(0, 4, (10, 13))
    labels[labels == 3] = 255
    counts = patch_class_counts(labels, num_classes=3, patch_size=4, grid=(3, 4))
    expected = torch.zeros(3, 4, 3)
    for row in range(10):
        for column in range(13):
            if labels[row, column] != 255:
                expected[row // 4, column // 4, labels[row, column]] += 1
    assert torch.equal(counts, expected)


def test_a_grid_that_does_not_cover_the_labels_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        patch_class_counts(torch.zeros(10, 10), num_classes=2, patch_size=4, grid=(2, 3))


def stripes():
    """A probe of two channels that are the two classes, and a map whose columns are class 0, 1, 1, 0."""
    probe = LinearProbe(torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0.0, 1, True)
    maps = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]])[:, None].expand(2, 3, 4)
    return probe, maps


def test_prediction_covers_the_view_and_drops_padding():
    probe, maps = stripes()
    predicted = probe.predict(maps, patch_size=4, view=(10, 13), size=(10, 13))
    expected = torch.tensor([0, 1, 1, 0]).repeat_interleave(4)[:13].expand(10, 13)
    assert torch.equal(predicted, expected)


def test_prediction_is_brought_to_the_size_of_the_labels():
    probe, maps = stripes()
    predicted = probe.predict(maps, patch_size=4, view=(12, 16), size=(24, 32))
    assert torch.equal(predicted, torch.tensor([0, 1, 1, 0]).repeat_interleave(8).expand(24, 32))


def test_labels_are_resized_to_the_nearest_pixel():
    labels = torch.tensor([[0, 1], [2, 255]])
    assert torch.equal(resize_labels(labels, (4, 4)), labels.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert torch.equal(resize_labels(resize_labels(labels, (6, 10)), (2, 2)), labels)
    assert resize_labels(labels, (2, 2)) is labels
