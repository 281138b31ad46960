import numpy as np
import pytest
from PIL import Image

from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.testing.checks import tiny_vocabulary
from mmovseg.visualization.confusion import draw_confusion
from mmovseg.visualization.figure import add_legend, legend_height_in, new_figure
from mmovseg.visualization.heatmaps import HeatmapScene, draw_heatmaps, heat_overlay, response
from mmovseg.visualization.panels import PanelRow, draw_panels, share_right

WORDS = tiny_vocabulary(seen=3, unseen=2)


def some_row(seed=0, **changes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, (24, 32))
    truth[0] = 255
    row = PanelRow(
        optical=rng.uniform(0, 255, (24, 32, 3)),
        sar_db=rng.normal(-15, 4, (24, 32, 2)),
        cloud_alpha=rng.uniform(0, 1, (24, 32)),
        truth=truth,
        predictions={"fused": rng.integers(0, 5, (24, 32))},
    )
    for key, value in changes.items():
        setattr(row, key, value)
    return row


def has_color(path, color):
    return bool((np.asarray(Image.open(path).convert("RGB")) == color).all(-1).any())


def test_panels_hold_each_colour_and_are_the_same_bytes_twice(tmp_path):
    for name in ("a.png", "b.png"):
        draw_panels([some_row(), some_row(1)], tmp_path / name, vocabulary=WORDS, title="two scenes")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert all(has_color(tmp_path / "a.png", color) for color in WORDS.colors)
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


def test_columns_nobody_fills_are_left_out(tmp_path):
    draw_panels([some_row()], tmp_path / "five.png", vocabulary=WORDS)
    draw_panels([some_row(sar_db=None, cloud_alpha=None)], tmp_path / "three.png", vocabulary=WORDS)
    draw_panels([some_row(sar_db=None), some_row(1, optical=None)], tmp_path / "mixed.png", vocabulary=WORDS)
    widths = [Image.open(tmp_path / f"{name}.png").width for name in ("five", "three", "mixed")]
    assert widths[1] < widths[0] == widths[2]


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_panels([], tmp_path / "x.png", vocabulary=WORDS)
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_heatmaps([], tmp_path / "x.png", vocabulary=WORDS)
    assert not list(tmp_path.iterdir())


def test_share_right_leaves_out_255():
    assert share_right(np.array([0, 1, 1]), np.array([0, 2, 255])) == 50
    assert share_right(np.array([0]), np.array([255])) is None


def test_legend_underlines_the_unseen_classes_and_no_others():
    figure = new_figure(8, 2)
    add_legend(figure, WORDS)
    texts = {text.get_text(): text for text in figure.legends[0].get_texts()}
    spans = sorted(tuple(line.get_xdata()) for line in figure.artists)
    renderer = figure.canvas.get_renderer()
    boxes = [texts[name].get_window_extent(renderer).transformed(figure.transFigure.inverted()) for name in WORDS.names]
    assert len(spans) == 2
    for span, box in zip(spans, boxes[3:], strict=True):
        assert span == pytest.approx((box.x0, box.x1))


@pytest.mark.parametrize(("name", "width"), [("dfc2023", 5.2), ("oem", 4.0), ("miniearth", 4.0), ("spacenet6", 2.0)])
def test_a_legend_of_long_names_stays_on_the_figure(name, width):
    figure = new_figure(width, 4)
    add_legend(figure, get_vocabulary(name))
    box = figure.legends[0].get_window_extent(figure.canvas.get_renderer()).transformed(figure.transFigure.inverted())
    assert box.x0 >= 0 and box.x1 <= 1
    assert box.height * 4 + 0.22 <= legend_height_in(get_vocabulary(name), width) + 0.01


def test_heatmaps_of_any_size_and_range_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    maps = {"global_similarity": rng.normal(size=(5, 3, 4)), "scores": 1000 * rng.normal(size=(5, 24, 32))}
    row = some_row()
    scene = HeatmapScene(image=row.optical, maps=maps, prompts=[0, 4], truth=row.truth)
    for name in ("a.png", "b.png"):
        draw_heatmaps([scene], tmp_path / name, vocabulary=WORDS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    everything = {**maps, "dense_similarity": maps["scores"], "fused": maps["scores"]}
    draw_heatmaps([HeatmapScene(row.optical, everything, [0, 4])], tmp_path / "all.png", vocabulary=WORDS)
    assert Image.open(tmp_path / "all.png").width > Image.open(tmp_path / "a.png").width


def test_response_against_others_removes_what_all_prompts_share():
    rng = np.random.default_rng(0)
    maps, shared = rng.normal(size=(3, 4, 5)), 100 * rng.normal(size=(4, 5))
    for k in range(3):
        left = response(maps + shared, k, against_others=True)
        np.testing.assert_allclose(left, maps[k] - maps.mean(0), atol=1e-9)
    np.testing.assert_array_equal(response(maps, 1, against_others=False), maps[1])
    np.testing.assert_array_equal(response(maps[:1], 0, against_others=True), maps[0])


def test_heat_is_brightest_where_the_map_is_highest():
    values = np.zeros((4, 4))
    values[3, 0] = 5
    shown = heat_overlay(np.full((40, 40, 3), 90, np.uint8), values).sum(-1)
    assert shown[37, 2] == shown.max() and shown[2, 37] == shown.min()


@pytest.mark.parametrize("size", [1, 7, 40])
def test_confusion_of_any_size_is_drawn(tmp_path, size):
    names = [f"class {i}" for i in range(size)]
    counts = np.diag(np.arange(size))  # the first class has no pixel
    draw_confusion(counts, tmp_path / "c.png", row_names=names, column_names=names, unseen={names[-1]}, title="t")
    assert min(Image.open(tmp_path / "c.png").size) > 200
