"""Bars of classes: colours say what was seen, heights are means, a picture repeats byte by byte."""

import numpy as np
import pytest
from PIL import Image

from mmovseg.visualization.bars import SEEN_COLOR, UNSEEN_COLOR, BarPanel, ClassBar, draw_class_bars


def panel(number, height=80.0):
    bars = [ClassBar("forest", True, [height]), ClassBar("water", False, [height / 4, height / 4])]
    return BarPanel(f"setting {number}", [*bars, ClassBar("road", False, [])])


def pixels_of(path, color):
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(path) as picture:
        found = np.argwhere((np.asarray(picture.convert("RGB")) == wanted).all(axis=2))
    return found[:, 0], len(found)


def test_the_same_panels_give_the_same_picture_in_rows(tmp_path):
    sizes = {}
    for count in (1, 2, 3):
        for name in ("a", "b"):
            draw_class_bars(
                [panel(i) for i in range(count)], tmp_path / f"{name}{count}.png", columns=2, note="made up"
            )
        assert (tmp_path / f"a{count}.png").read_bytes() == (tmp_path / f"b{count}.png").read_bytes()
        with Image.open(tmp_path / f"a{count}.png") as picture:
            sizes[count] = picture.size
    assert sizes[2][0] > sizes[1][0] + 300 and sizes[2][1] == sizes[1][1]
    assert sizes[3][0] == sizes[2][0] and sizes[3][1] > sizes[2][1] + 300


def test_seen_and_unseen_classes_have_their_colours_and_heights(tmp_path):
    draw_class_bars([panel(0)], tmp_path / "bars.png")
    (seen, many), (unseen, few) = (pixels_of(tmp_path / "bars.png", color) for color in (SEEN_COLOR, UNSEEN_COLOR))
    assert many > 2.5 * few > 1000
    tops = [rows[rows < rows.max() - 60].min() for rows in (seen, unseen)]  # above the legend's patches
    base = unseen[unseen < unseen.max() - 60].max() + 1
    assert (base - tops[0]) / (base - tops[1]) == pytest.approx(4.0, rel=0.03)


def test_mean_and_spread():
    bar = ClassBar("water", False, [20.0, 30.0])
    assert (bar.mean, round(bar.spread, 2)) == (25.0, 7.07)
    assert (ClassBar("x", True, []).mean, ClassBar("x", True, [7.0]).spread) == (0.0, 0.0)


def test_nothing_to_draw_is_an_error(tmp_path):
    for panels in ([], [BarPanel("empty", [])]):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw_class_bars(panels, tmp_path / "none.png")
    assert list(tmp_path.iterdir()) == []
