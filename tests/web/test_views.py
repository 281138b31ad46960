"""Pictures of a comfortable size and a legend that repeats what was typed as text only."""

from __future__ import annotations

import re

import numpy as np

from mmovseg.data.vocabulary import ClassEntry, Vocabulary
from mmovseg.web.views import (
    Share,
    enlarge,
    legend_html,
    message_html,
    prediction_views,
    shrink_labels,
    view_shape,
)

VOCABULARY = Vocabulary(
    "two", (ClassEntry("water", color=(0, 0, 255)), ClassEntry("<b onload=x>'", color=(9, 8, 7), seen=False))
)


def test_small_images_are_repeated_and_large_ones_shrunk():
    image = np.arange(64 * 100 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 100, 3)
    large = enlarge(image)
    assert large.shape == (320, 500, 3)
    np.testing.assert_array_equal(large[2::5, 2::5], image)
    assert view_shape(2000, 4000) == (512, 1024) and view_shape(30, 40) == (30, 40)


def test_shrunk_labels_hold_no_value_that_was_not_there():
    labels = np.where(np.arange(3000)[:, None] < 1500, 3, 200).repeat(2000, axis=1).astype(np.uint8)
    shrunk = shrink_labels(labels)
    assert shrunk.shape == view_shape(3000, 2000) and set(np.unique(shrunk)) == {3, 200}
    assert abs((shrunk == 3).mean() - 0.5) < 0.01


def test_no_data_shows_the_image_in_the_overlay_and_white_in_the_map():
    base = np.full((1, 3, 3), 100, np.uint8)
    over, plain = prediction_views(base, np.array([[0, 1, 255]], np.uint8), VOCABULARY)
    np.testing.assert_array_equal(plain[0], [(0, 0, 255), (9, 8, 7), (255, 255, 255)])
    np.testing.assert_array_equal(over[0, 2], base[0, 2])
    assert (over[0, 0] == [45, 45, 185]).all()


def test_the_legend_counts_mapped_pixels_and_escapes_names():
    text = legend_html(VOCABULARY, [Share(30, 1234.5, 0.25), Share(10, 0.123)])
    rows = re.findall(r"<tr data-name='(.*?)' data-percent='(.*?)'>(.*?)</tr>", text)
    assert [row[:2] for row in rows] == [("water", "75.0"), ("&lt;b onload=x&gt;&#x27;", "25.0")]
    assert "<b onload" not in text and "unseen" not in rows[0][2] and "unseen" in rows[1][2]
    assert "#0000ff" in rows[0][2] and "25.0 %" in rows[0][2] and "1,234" in rows[0][2]
    assert "0.12" in rows[1][2] and "true share" in text and "hectares" in text


def test_the_legend_leaves_out_what_nobody_knows():
    text = legend_html(VOCABULARY, [Share(0), Share(0)])
    assert "hectares" not in text and "true share" not in text and text.count("0.0 %</td>") == 2


def test_messages_are_text():
    assert message_html("a <i>b</i>") == "<div class='message note' role='status'>A &lt;i&gt;b&lt;/i&gt;</div>"
    assert "role='alert'" in message_html("x", is_error=True)
