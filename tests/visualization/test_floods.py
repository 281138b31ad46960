"""The picture of a flood product shows both dates and says how many hectares each class covers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmovseg.inference.flood import CLASSES, FLOODED
from mmovseg.visualization.floods import draw_flood, show_date


def size_of(path):
    with Image.open(path) as image:
        return image.size


def test_the_picture_is_the_same_each_time_and_grows_with_the_earlier_date(tmp_path):
    after = np.full((40, 60, 3), 120, np.uint8)
    product = np.zeros((40, 60), np.uint8)
    product[10:20, 10:30] = FLOODED
    options = dict(after=after, classes=CLASSES, hectares={"flooded": 2.0, "dry": 22.0})
    for name in ("a.png", "b.png"):
        draw_flood(tmp_path / name, product, before=after // 2, **options)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    draw_flood(tmp_path / "one.png", product, before=None, **options)
    assert size_of(tmp_path / "a.png")[0] > size_of(tmp_path / "one.png")[0] > 800
    with Image.open(tmp_path / "one.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    flooded = np.round(0.4 * 120 + 0.6 * np.array(CLASSES[FLOODED][1]))
    counts = [(np.abs(pixels - color).max(axis=1) <= 1).sum() for color in (flooded, [120, 120, 120])]
    # the flood covers 200 of 2,400 pixels of the map; the image after shows once more in full
    assert counts[0] / counts[1] == pytest.approx(200 / (2200 + 2400), rel=0.05)


def test_a_date_without_images_cannot_be_shown():
    with pytest.raises(ValueError, match="needs an optical or a SAR image"):
        show_date(None, None, sar_unit="db")
    assert show_date(None, np.full((4, 5, 2), -10.0, np.float32), sar_unit="db").shape[:2] == (4, 5)
