import pytest
import torch

from mmovseg.evaluation.similarity import LinearCKA


def linear_cka(first, second):
    cka = LinearCKA()
    cka.update(first, second)
    return cka.value()


def hsic_slowly(k, l):  # noqa: E741
    """Song et al. (2012), eq. 4: the mean over all ordered quadruples of different samples."""
    n = len(k)
    total, number = 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]))
                        number += 1
    return total / number


def test_cka_equals_the_mean_over_all_quadruples_of_samples():
    x = torch.randn(7, 3, dtype=torch.float64)
    y = x[:, :2] + torch.randn(7, 2, dtype=torch.float64) + 4
    k, l = x @ x.T, y @ y.T  # noqa: E741
    expected = hsic_slowly(k, l) / (hsic_slowly(k, k) * hsic_slowly(l, l)) ** 0.5
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-10)


def test_rotation_scale_and_shift_change_nothing():
    x = torch.randn(200, 6)
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1.0, abs=1e-5)


def test_unrelated_features_are_about_zero_even_with_more_channels_than_samples():
    """The plain estimate would say about 0.8 here."""
    values = [linear_cka(torch.randn(60, 200), torch.randn(60, 200)) for _ in range(20)]
    assert abs(sum(values) / 20) < 0.03
    assert max(map(abs, values)) < 0.2


def test_closed_form_of_a_shared_part():
    """x = s, y = (s, as much noise): HSIC of both is |cov(x, y)|^2 = c, of y with itself 2 c, so CKA = 1 / sqrt(2)."""
    shared = torch.randn(40_000, 4)
    y = torch.cat([shared, torch.randn(40_000, 4)], dim=1)
    assert linear_cka(shared, y) == pytest.approx(0.5**0.5, abs=0.01)


def test_parts_and_processes_add_up():
    x, y = torch.randn(90, 5), torch.randn(90, 4)
    y[:, 0] += x[:, 0]
    first, second = LinearCKA(), LinearCKA()
    for part, cka in ((slice(0, 10), first), (slice(10, 40), first), (slice(40, 90), second)):
        cka.update(x[part], y[part])
    first.add_state(second.state)
    first.add_state(LinearCKA().state)
    assert first.samples == 90
    assert first.value() == pytest.approx(linear_cka(x, y))


def test_a_large_common_mean_does_not_spoil_the_value():
    x = torch.randn(500, 4, dtype=torch.float64)
    y = x + torch.randn(500, 4, dtype=torch.float64)
    assert linear_cka(x + 100, y - 100) == pytest.approx(linear_cka(x, y), rel=1e-4)


def test_too_few_samples_or_no_spread_give_none():
    assert linear_cka(torch.randn(3, 2), torch.randn(3, 2)) is None
    assert linear_cka(torch.ones(50, 3) * 0.7, torch.randn(50, 3)) is None
    assert LinearCKA().value() is None


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="3 samples against 4"):
        LinearCKA().update(torch.ones(3, 2), torch.ones(4, 2))
