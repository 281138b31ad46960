"""Reconstruction: its formula against a slow loop, pixels without data, sensors of different channels."""

import pytest
import torch

from mmovseg.errors import UserError
from mmovseg.projects.codemae.losses import CrossReconstruction, CrossSpec, MaskedReconstruction
from mmovseg.projects.codemae.losses.patches import from_patches, to_patches
from mmovseg.projects.codemae.losses.silence import silenced, zero_of

P, CHANNELS = 4, {"optical": 3, "sar": 2}


def images(rows=2):
    torch.manual_seed(0)
    return {sensor: torch.randn(rows, c, 8, 12) for sensor, c in CHANNELS.items()}


def answers(rows=2, planes=3):
    torch.manual_seed(1)
    return {sensor: torch.randn(rows, 6, P * P * planes) for sensor in CHANNELS}


MASK = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 0]], dtype=torch.bool)
ALL = {"optical": None, "sar": None}


def patch(image, number):
    """Pixels of one patch as a list of (row, column, channel) values."""
    row, column = divmod(number, 3)
    cut = image[:, row * P : row * P + P, column * P : column * P + P]
    return torch.tensor([float(cut[c, y, x]) for y in range(P) for x in range(P) for c in range(len(image))])


def normalised(values):
    return (values - values.mean()) / (values.var(unbiased=True) + 1e-6).sqrt()


def test_patches_lie_row_column_channel_and_come_back():
    image = images()["optical"]
    patches = to_patches(image, P)
    assert patches.shape == (2, 6, 16, 3)
    assert torch.equal(patches[1, 4].flatten(), patch(image[1], 4))
    assert torch.equal(from_patches(patches, (2, 3)), image)


def test_masked_reconstruction_is_the_formula():
    x, said = images(), answers()
    errors = []
    for sensor, channels in CHANNELS.items():
        for b in range(2):
            for i in range(6):
                if MASK[b, i]:
                    given = said[sensor][b, i].view(P * P, 3)[:, :channels].flatten()
                    errors.append(float((given - normalised(patch(x[sensor][b], i))).square().mean()))
    loss = MaskedReconstruction(patch=P)(said, x, MASK, ALL)
    assert len(errors) == 2 * int(MASK.sum())
    assert loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_visible_patches_and_pixels_without_data_are_no_target():
    x, said = images(), answers()
    valid = {"optical": None, "sar": torch.ones(2, 1, 8, 12, dtype=torch.bool)}
    valid["sar"][0, :, :4, :6] = False  # patch 0 whole, of patch 1 two columns of four; both of the first row
    loss = MaskedReconstruction(patch=P)
    mask = torch.zeros_like(MASK)
    mask[0, :2] = True

    def at(value, place):
        changed = {sensor: image.clone() for sensor, image in x.items()}
        changed["sar"][place] = value
        return loss(said, changed, mask, valid).item()

    first = loss(said, x, mask, valid).item()
    assert at(1e6, (0, 0, 2, 3)) == pytest.approx(first, rel=1e-6)  # no data
    assert at(1e6, (0, 0, 2, 8)) == pytest.approx(first, rel=1e-6)  # patch 2 is visible
    assert at(5.0, (0, 0, 2, 7)) != pytest.approx(first, rel=1e-4)
    # by hand: optical patches 0 and 1 whole, SAR patch 1 by half
    expected = [(said["optical"][0, i] - normalised(patch(x["optical"][0], i))).square().mean() for i in (0, 1)]
    there = patch(x["sar"][0], 1).view(P, P, 2)[:, 2:].flatten()
    half = (said["sar"][0, 1].view(P, P, 3)[:, 2:, :2].flatten() - normalised(there)).square().mean()
    assert first == pytest.approx(float((expected[0] + expected[1] + 0.5 * half) / 2.5), rel=1e-5)


def test_nothing_to_reconstruct_gives_zero_and_zero_gradients():
    x, said = images(), {sensor: values.requires_grad_() for sensor, values in answers().items()}
    valid = {sensor: torch.zeros(2, 1, 8, 12, dtype=torch.bool) for sensor in CHANNELS}
    loss = MaskedReconstruction(patch=P)(said, x, MASK, valid)
    loss.backward()
    assert loss.item() == 0.0 and not said["sar"].grad.any()


def cross(**options):
    return CrossReconstruction(CrossSpec(**options), patch=P, in_chans=CHANNELS)


def test_rows_of_optical_images_are_compared_with_sar_and_the_other_way_round():
    x, said = images(), answers(planes=1)
    grey = 0.299 * x["optical"][:, 0] + 0.587 * x["optical"][:, 1] + 0.114 * x["optical"][:, 2]
    wanted = {"optical": x["sar"].mean(dim=1, keepdim=True), "sar": grey[:, None]}
    errors = [
        (said[sensor][b, i] - normalised(patch(wanted[sensor][b], i))).square().mean()
        for sensor in CHANNELS
        for b in range(2)
        for i in range(6)
        if MASK[b, i]
    ]
    loss = cross()
    assert loss.num_values == P * P and loss.sources == ("optical", "sar")
    assert loss(said, x, MASK, ALL).item() == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)
    one = cross(directions="sar_to_optical")
    assert one.sources == ("sar",)
    half = torch.stack(errors[len(errors) // 2 :]).mean()
    assert one({"sar": said["sar"]}, x, MASK, ALL).item() == pytest.approx(float(half), rel=1e-5)


def test_cross_targets_without_data_do_not_count():
    x, said = images(), answers(planes=1)
    valid = {"optical": None, "sar": torch.ones(2, 1, 8, 12, dtype=torch.bool)}
    valid["sar"][:] = False
    only_sar_rows = cross(directions="sar_to_optical")({"sar": said["sar"]}, x, MASK, ALL)
    assert cross()(said, x, MASK, valid).item() == pytest.approx(only_sar_rows.item(), rel=1e-6)


def test_unknown_options_are_refused_by_name():
    with pytest.raises(UserError, match="cross.target is 'gray' but must be one of grey, pixel, spatial"):
        CrossSpec(target="gray")
    with pytest.raises(UserError, match="cross.directions is 'one'"):
        CrossSpec(directions="one")


def test_a_loss_that_does_not_count_is_exactly_zero_whatever_its_numbers_are():
    loss = torch.tensor(float("nan"), requires_grad=True)
    assert (0.0 * loss).isnan()  # what multiplying by 0 leaves
    off = silenced(loss)
    off.backward()
    assert off.item() == 0.0 and loss.grad.item() == 0.0
    weight = torch.nn.Parameter(torch.tensor([float("nan"), float("inf"), 1.0]))
    none = zero_of([weight])
    none.backward()
    assert none.item() == 0.0 and torch.equal(weight.grad, torch.zeros(3))
    assert not zero_of([torch.nn.Parameter(torch.ones(2), requires_grad=False)]).requires_grad
