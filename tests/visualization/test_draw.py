import numpy as np
import pytest

from mmovseg.visualization.draw import color_labels, normalize_map, optical_to_rgb, overlay, sar_to_rgb


def test_sar_limits_are_fixed_and_not_stretched_per_image():
    dark, bright = np.full((2, 2, 2), -20.0), np.full((2, 2, 2), -20.0)
    bright[0, 0] = 10
    assert (sar_to_rgb(dark)[1, 1] == sar_to_rgb(bright)[1, 1]).all()


def test_one_polarisation_is_grey_between_its_limits():
    sar = np.array([[-25.0, -12.5, 0.0, 30.0, -60.0]])
    shown = sar_to_rgb(sar)
    assert shown.dtype == np.uint8
    assert shown[0, :, 0].tolist() == [0, 128, 255, 255, 0]
    assert (shown[..., 0] == shown[..., 1]).all() and (shown[..., 0] == shown[..., 2]).all()


def test_false_colour_is_vv_vh_and_their_difference():
    assert sar_to_rgb(np.array([[[-12.5, -19.5]]]))[0, 0].tolist() == [128, 128, round(255 * 7 / 15)]


def test_limits_of_ones_own_show_the_first_channel_in_grey():
    uncalibrated = np.array([[[20.0, 90.0], [25.0, 0.0], [40.0, 50.0]]])
    shown = sar_to_rgb(uncalibrated, limits_db=(20, 30))
    assert shown[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_nan_and_invalid_sar_are_black():
    sar = np.full((1, 3, 2), -5.0)
    sar[0, 0, 1] = np.nan
    shown = sar_to_rgb(sar, valid=np.array([[True, False, True]]))
    assert shown[0, 0].tolist() == shown[0, 1].tolist() == [0, 0, 0]
    assert shown[0, 2].any()


def test_optical_takes_three_bands_or_repeats_one():
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4) * 20
    assert optical_to_rgb(image)[0, 0].tolist() == [0, 20, 40]
    assert optical_to_rgb(image).max() == 255
    assert optical_to_rgb(image[..., :1])[0, 1].tolist() == [80, 80, 80]


def test_labels_take_their_colour_and_255_is_white():
    shown = color_labels(np.array([[0, 1, 255]], dtype=np.uint8), [(1, 2, 3), (4, 5, 6)])
    assert shown.tolist() == [[[1, 2, 3], [4, 5, 6], [255, 255, 255]]]
    with pytest.raises(ValueError, match="label 2 has no colour"):
        color_labels(np.array([[2]]), [(1, 2, 3), (4, 5, 6)])


def test_overlay_blends_linearly():
    image, colors = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8)
    assert [int(overlay(image, colors, share)[0, 0, 0]) for share in (0, 0.25, 1)] == [0, 50, 200]
    with pytest.raises(ValueError, match="1.5"):
        overlay(image, colors, 1.5)


def test_maps_are_stretched_to_0_1_whatever_their_range():
    values = np.linspace(-700, 900, 1000).reshape(40, 25)
    stretched = normalize_map(values)
    assert (stretched.min(), stretched.max()) == (0, 1)
    assert stretched.flat[500] == pytest.approx(0.5, abs=0.01)
    assert normalize_map(np.full((3, 3), 4.0)).tolist() == np.zeros((3, 3)).tolist()
