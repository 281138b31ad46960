"""Targets of cross-modal reconstruction: their values on images where these are known, widths, holes."""

import math

import pytest
import torch

from mmovseg.errors import UserError
from mmovseg.projects.codemae.losses import CrossReconstruction, CrossSpec
from mmovseg.projects.codemae.modeling.targets import CrossTarget, to_grey

NAMES = ("grey", "pixel", "spatial", "dual", "median", "hog", "mgf")
PLANES = {"grey": 1, "pixel": 3, "spatial": 3, "dual": 1, "median": 3, "hog": 9, "mgf": 3}


def noise(channels=3, side=32, rows=2):
    return torch.randn(rows, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_planes_size_and_holes(name):
    target = CrossTarget(name, unit_size=8)
    assert target.planes(3) == PLANES[name]
    x = noise()
    values, holds = target(x, sensor="optical")
    assert values.shape == (2, PLANES[name], 32, 32) and values.isfinite().all() and holds is None
    valid = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    valid[0, :, 8:16, 8:16] = False
    values, holds = target(x * valid, valid, sensor="optical")
    assert holds.shape == valid.shape and not (holds & ~valid).any() and holds[1].all()
    again, _ = target(torch.where(valid, x, torch.full_like(x, 2.5)), valid, sensor="optical")
    torch.testing.assert_close(again * holds, values * holds)  # what is not there changes nothing that counts
    assert holds[0].any() or name == "mgf"  # it reaches 17 pixels far


def test_head_of_the_cross_decoder_fits_the_target():
    channels = {"optical": 3, "sar": 2}
    for name in NAMES:
        wide = CrossReconstruction(CrossSpec(target=name), patch=8, in_chans=channels)
        assert wide.num_values == 64 * PLANES[name]
        assert wide.normalise == (name not in ("spatial", "dual"))
    one = CrossReconstruction(CrossSpec(target="pixel"), patch=16, in_chans={"optical": 3, "sar": 3})
    assert one.num_values == 768
    assert CrossReconstruction(CrossSpec(), patch=16, in_chans=channels).num_values == 256
    assert CrossReconstruction(CrossSpec(target="hog"), patch=16, in_chans=channels).num_values == 2304


def test_grey_weighs_colours_and_averages_polarisations():
    x = noise()
    torch.testing.assert_close(to_grey(x, "optical")[:, 0], 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2])
    one = noise(channels=1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(to_grey(one, "sar"), one[:, :1])


def test_spatial_means_are_those_of_a_patch_and_leave_nothing_when_normalised():
    x = noise()
    values, _ = CrossTarget("spatial", unit_size=8)(x, sensor="optical")
    torch.testing.assert_close(values[0, 1, 8:16, 16:24], x[0, 1, 8:16, 16:24].mean().expand(8, 8))
    wide, _ = CrossTarget("spatial", unit_size=8, pool_px=16)(x, sensor="optical")
    torch.testing.assert_close(wide[0, 1, :16, 16:], x[0, 1, :16, 16:].mean().expand(16, 16))
    valid = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    valid[0, :, :4, :8] = False
    half, holds = CrossTarget("dual", unit_size=8)(x * valid, valid, sensor="sar")
    torch.testing.assert_close(half[0, 0, 0, 0], x[0, :, 4:8, :8].mean())
    assert holds.all()  # half of a square is enough for a mean


def test_median_is_that_of_five_by_five_pixels():
    x = noise()
    values, _ = CrossTarget("median", unit_size=8)(x, sensor="optical")
    torch.testing.assert_close(values[1, 2, 10, 20], x[1, 2, 8:13, 18:23].flatten().median())
    speck = torch.zeros(1, 2, 16, 16)
    speck[0, 0, 8, 8] = 100.0
    assert not CrossTarget("median", unit_size=8)(speck, sensor="sar")[0].any()


@pytest.mark.parametrize("angle, bin_number", [(0.0, 0), (45.0, 2), (90.0, 4), (100.0, 5)])
def test_oriented_gradients_of_a_ramp_lie_in_one_bin(angle, bin_number):
    place = torch.arange(32.0) / 16 - 1
    turn = torch.tensor(angle + 1e-3).deg2rad()
    ramp = place[None] * turn.cos() + place[:, None] * turn.sin()
    values, _ = CrossTarget("hog", unit_size=8)(ramp.expand(1, 2, 32, 32), sensor="sar")
    inner = values[0, :, 8:24, 8:24]  # the repeated border bends the outer cells
    assert (inner.argmax(dim=0) == bin_number).all() and inner.max(dim=0).values.min() > 0.99
    torch.testing.assert_close(values.square().sum(dim=1).sqrt(), torch.ones(1, 32, 32))


def test_oriented_gradients_against_a_loop():
    x = noise(channels=1, side=32, rows=1)
    bright = (0.5 + x[0, 0] / 6).clamp(0.01, 1.0).tolist()

    def at(row, column):
        return bright[min(max(row, 0), 31)][min(max(column, 0), 31)]

    expected = torch.zeros(9, 4, 4, dtype=torch.float64)
    for r in range(32):
        for c in range(32):
            across = sum(w * (at(r + k, c + 1) - at(r + k, c - 1)) for k, w in ((-1, 1), (0, 2), (1, 1)))
            down = sum(w * (at(r + 1, c + k) - at(r - 1, c + k)) for k, w in ((-1, 1), (0, 2), (1, 1)))
            bin_number = int(math.atan2(down, across) % math.pi / math.pi * 9)
            off = (r % 16 - 7.5) ** 2 + (c % 16 - 7.5) ** 2
            expected[bin_number, r // 8, c // 8] += math.hypot(across, down) * math.exp(-off / (2 * 8**2))
    expected = expected / expected.square().sum(dim=0).sqrt()
    values, _ = CrossTarget("hog", unit_size=8)(x, sensor="sar")
    torch.testing.assert_close(values[0, :, 4::8, 4::8].double(), expected, rtol=1e-3, atol=1e-3)


def test_ratio_gradient_of_a_step_is_the_logarithm_of_its_ratio():
    step = torch.zeros(1, 1, 64, 64)
    step[..., 32:] = 1.5  # brightness 0.5 and 0.75
    values, _ = CrossTarget("mgf", unit_size=16)(step, sensor="sar")
    assert values[0, 0, 20, 10].item() == pytest.approx(0.0, abs=1e-5)  # 9 pixels reach no step
    expected = torch.tensor(1.5).log().item()
    # left of the edge: the right window holds bright pixels only, the left one dark ones
    assert values[0, :, 32, 31].tolist() == pytest.approx([expected] * 3, rel=1e-4)
    assert values[0, 0, 32, 26].item() < values[0, 1, 32, 26].item() < expected
    torch.testing.assert_close(
        values.transpose(2, 3), CrossTarget("mgf", unit_size=16)(step.transpose(2, 3), sensor="sar")[0]
    )
    bright = CrossTarget("mgf", unit_size=16)(step + 0.3, sensor="sar")[0]
    assert bright[0, 0, 32, 31].item() == pytest.approx(torch.tensor(0.8 / 0.55).log().item(), rel=1e-4)


def test_cells_that_do_not_fill_a_patch_are_refused():
    with pytest.raises(UserError, match="cells of 8 px, which do not fill patches of 4 px"):
        CrossTarget("hog", unit_size=4)
