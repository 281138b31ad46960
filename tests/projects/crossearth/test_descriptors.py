"""The three descriptors against closed forms, and what missing pixels, channels and units do to them."""

from __future__ import annotations

import math

import pytest
import torch

from mmovseg.errors import UserError
from mmovseg.projects.crossearth.modeling.descriptors import SARDescriptors


def described(x: torch.Tensor, valid: torch.Tensor | None = None, **options) -> list[float]:
    """The raw values [H, ENL, R] of one image (H, W)."""
    return SARDescriptors(**options).raw(x[None, None], None if valid is None else valid[None])[0].tolist()


def stripes(size: int = 64) -> torch.Tensor:
    """Vertical bars of 8 pixels, bright and dark."""
    return 20.0 + 200.0 * (torch.arange(size) // 8 % 2).float().expand(size, size)


def speckle(looks: int, scale: float, *, size: int = 256, seed: int = 0) -> torch.Tensor:
    """Amplitude of gamma speckle: its power has mean scale^2 and `looks` looks."""
    torch.manual_seed(seed)
    power = torch.distributions.Gamma(float(looks), float(looks)).sample((size, size))
    return scale * power.sqrt()


def test_a_constant_image():
    entropy, looks, rough = described(torch.full((48, 48), 100.0), eps=1e-4)
    assert entropy == 0.0 and rough == pytest.approx(0.0, abs=1e-8)
    assert looks == pytest.approx(math.log(101) ** 2 / 1e-4, rel=1e-3)


@pytest.mark.parametrize("weighting", ["count", "magnitude"])
@pytest.mark.parametrize("turned", [False, True])
def test_stripes_have_two_signed_directions_and_one_unsigned(weighting, turned):
    image = stripes().T.contiguous() if turned else stripes()
    # 7 inner edges of two pixel columns each, 4 towards bright and 3 towards dark
    shares = torch.tensor([4 / 7, 3 / 7])
    expected = -float((shares * shares.log()).sum())
    assert described(image, weighting=weighting)[0] == pytest.approx(expected, abs=1e-5)
    assert described(image, weighting=weighting, angle="unsigned")[0] == pytest.approx(0.0, abs=1e-6)


def test_looks_and_roughness_of_stripes():
    low, high = math.log(21), math.log(221)
    _, looks, rough = described(stripes(), block=8)
    variance = ((high - low) / 2) ** 2  # half of the pixels, and of the blocks, are bright
    assert looks == pytest.approx(((high + low) / 2) ** 2 / (variance + 1e-6), rel=1e-4)
    assert rough == pytest.approx(variance, rel=1e-4)
    assert described(stripes(), block=16)[2] == pytest.approx(0.0, abs=1e-8)  # every block has half of each


@pytest.mark.parametrize("looks", [1, 4, 16])
def test_looks_of_gamma_speckle(looks):
    # Amplitude is the root of power, and 1 + A is A here: X' = ln A has the mean ln(scale) + (psi(L) - ln L) / 2 and
    # the variance psi'(L) / 4.
    scale = 1e5
    value = torch.tensor(float(looks))
    mean = math.log(scale) + float(torch.digamma(value) - value.log()) / 2
    variance = float(torch.special.polygamma(1, value)) / 4
    entropy, found, rough = described(speckle(looks, scale), weighting="count")
    assert found == pytest.approx(mean**2 / variance, rel=0.02)
    assert entropy == pytest.approx(math.log(36), abs=5e-3)  # no direction is preferred
    # means of 32x32 blocks of independent pixels vary by a thousandth of the pixels' variance
    assert rough == pytest.approx(variance / 1024, rel=0.5)


def test_magnitudes_tell_speckle_from_structure_where_counts_do_not():
    textured = speckle(16, 100.0) * torch.where(torch.arange(256) // 32 % 2 == 0, 1.0, 4.0)
    plain = speckle(16, 100.0)
    gaps = {w: described(plain, weighting=w)[0] - described(textured, weighting=w)[0] for w in ("count", "magnitude")}
    assert gaps["magnitude"] > 2 * gaps["count"] > 0


def test_missing_pixels_change_nothing():
    image = speckle(4, 100.0, size=128)
    valid = torch.ones(128, 128, dtype=torch.bool)
    valid[:, 64:] = False
    holed = image.clone()
    holed[:, 64:] = 0.0
    # the last column with data has no neighbour at the right, so its directions are not those of the image's border
    inner = SARDescriptors(block=16).raw(image[None, None, :, :64])[0]
    found = SARDescriptors(block=16).raw(holed[None, None], valid[None])[0]
    torch.testing.assert_close(found[1:], inner[1:], rtol=1e-4, atol=1e-6)
    assert float(found[0]) == pytest.approx(float(inner[0]), abs=0.01)
    # the edge of the hole would be the strongest of all
    assert float(SARDescriptors().raw(holed[None, None])[0, 0]) < float(found[0]) - 0.2


def test_values_that_are_not_finite_count_as_missing():
    image = speckle(4, 100.0, size=64)
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[10:20, 30:50] = False
    broken = image.clone()
    broken[~valid] = torch.nan
    broken[12, 33] = torch.inf
    assert described(broken) == pytest.approx(described(image, valid), rel=1e-5)


def test_an_image_without_data_gives_numbers():
    options = SARDescriptors(block=8)
    nothing = torch.zeros(1, 16, 16, dtype=torch.bool)
    assert options.raw(torch.rand(1, 1, 16, 16), nothing)[0].tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(options(torch.rand(1, 1, 16, 16), nothing)).all()


def test_blocks_with_less_than_half_of_their_pixels_are_left_out():
    image = torch.full((20, 16), 10.0)
    image[16:] = 1000.0  # a quarter of a block
    assert described(image, block=16)[2] == 0.0
    image = torch.full((24, 16), 10.0)
    image[16:] = 1000.0  # half of one
    assert described(image, block=16)[2] == pytest.approx((math.log(1001 / 11) / 2) ** 2, rel=1e-5)


def test_images_of_a_batch_do_not_mix():
    x = torch.stack([speckle(1, 50.0, size=64), stripes(), torch.full((64, 64), 9.0)])[:, None]
    together = SARDescriptors(block=16)(x)
    for number in range(3):
        torch.testing.assert_close(together[number], SARDescriptors(block=16)(x[number : number + 1])[0])


def test_channels():
    one, two = speckle(1, 50.0, size=64, seed=1), stripes()
    x = torch.stack([one, two])[None]
    values = [SARDescriptors(block=16, channels=mode).raw(x)[0] for mode in ("mean", "first", "luminance")]
    single = [SARDescriptors(block=16).raw(image[None, None])[0] for image in (one, two, (one + two) / 2)]
    torch.testing.assert_close(values[0], (single[0] + single[1]) / 2)
    torch.testing.assert_close(values[1], single[0])
    torch.testing.assert_close(values[2], single[2])


def test_units_and_signs():
    amplitude = speckle(4, 80.0, size=64)
    assert described(-amplitude) == pytest.approx(described(amplitude))  # |X|: the sign of a real part does not count
    decibel = 20 * torch.log10(amplitude / 50)
    assert described(decibel, unit="db", gain=50.0) == pytest.approx(described(amplitude), rel=1e-4)


def test_normalisation():
    x = speckle(4, 100.0, size=64)[None, None]
    raw = SARDescriptors(norm="none")(x)[0]
    assert torch.equal(raw, SARDescriptors().raw(x)[0])
    bounded = SARDescriptors(norm="bounded")(x)[0]
    expected = [float(raw[0]) / math.log(36), math.log1p(float(raw[1])), math.sqrt(float(raw[2]))]
    assert bounded.tolist() == pytest.approx(expected, rel=1e-5)
    affine = SARDescriptors(mean=(0.5, 3.0, 0.0), std=(0.5, 0.01, 1.0))(x)[0]
    assert affine.tolist() == pytest.approx([(expected[0] - 0.5) / 0.5, 3.0, expected[2]], rel=1e-4)


def test_float32_under_autocast_and_no_graph():
    x = speckle(4, 100.0, size=64)[None, None].requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = SARDescriptors()(x)
    assert values.dtype == torch.float32 and not values.requires_grad
    assert torch.equal(values, SARDescriptors()(x))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(angle="half"), "angle"),
        (dict(weighting="area"), "weighting"),
        (dict(norm="zscore"), "norm"),
        (dict(unit="linear"), "unit"),
        (dict(channels="all"), "channels"),
        (dict(num_bins=1), "num_bins"),
        (dict(std=(1.0, 0.0, 1.0)), "positive stds"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        SARDescriptors(**options)
