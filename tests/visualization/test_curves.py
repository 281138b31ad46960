"""Curves: a picture that repeats byte by byte, one legend entry for equal labels, nothing from nothing."""

import pytest
from PIL import Image

from mmovseg.visualization.curves import Curve, CurvePanel, draw_curves


def panel(number):
    values = [60.0, 40.0 - number, 20.0]
    low, high = [value - 2 for value in values], [value + 2 for value in values]
    curves = [Curve("fused", [0, 50, 100], values, low, high, "#0b57d0"), Curve("one", [0], [5], [5], [5], "#188038")]
    return CurvePanel(f"panel {number}", "cover, %", curves)


def test_panels_make_one_picture_that_repeats(tmp_path):
    sizes = {}
    for count in (1, 2):
        for name in ("a", "b"):
            draw_curves(
                [panel(i) for i in range(count)], tmp_path / f"{name}{count}.png", y_label="mIoU, %", note="made up"
            )
        assert (tmp_path / f"a{count}.png").read_bytes() == (tmp_path / f"b{count}.png").read_bytes()
        with Image.open(tmp_path / f"a{count}.png") as picture:
            sizes[count] = picture.size
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    assert sizes[2][0] > sizes[1][0] + 400


def test_nothing_to_draw_is_an_error(tmp_path):
    for panels in ([], [CurvePanel("empty", "x", [])]):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw_curves(panels, tmp_path / "none.png", y_label="y")
    assert list(tmp_path.iterdir()) == []
