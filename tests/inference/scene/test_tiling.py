import numpy as np
import pytest
import torch
from rasterio.transform import Affine

from mmovseg.errors import UserError
from mmovseg.inference.scene.blend import BandBlender, Rows, quality_of
from mmovseg.inference.scene.layers import BOTH, NEITHER, ONLY_OPTICAL, ONLY_SAR
from mmovseg.inference.scene.tiling import consecutive, lattice_phase, make_axis, make_tiling, share

AXES = [
    (100, 32, 8, 0, 0),
    (100, 32, 8, 2, 5),
    (97, 32, 16, 4, 31),
    (33, 32, 16, 0, 3),
    (32, 32, 8, 0, 0),
    (5, 32, 8, 0, 0),
    (64, 32, 0, 0, 0),
]


@pytest.mark.parametrize("size, tile, overlap, margin, phase", AXES)
def test_windows_cover_every_pixel_with_weight(size, tile, overlap, margin, phase):
    axis = make_axis(size, tile=tile, overlap=overlap, margin=margin, phase=phase)
    total = np.zeros(size)
    for index, start in enumerate(axis.starts):
        assert 0 <= start <= size - axis.tile
        total[start : start + axis.tile] += axis.weights(index)
    assert total.min() > 0.4
    inside = total[tile : size - tile]
    assert np.allclose(inside, 1, atol=1e-6)  # away from the edges only windows of the lattice, which add up to one


def test_the_lattice_is_that_of_the_map_whatever_the_cut():
    whole = Affine(10, 0, 500_000, 0, -10, 6_000_000)
    cut = whole @ Affine.translation(37, 51) if hasattr(Affine, "__matmul__") else whole * Affine.translation(37, 51)
    stride = 24
    starts = []
    for transform, height, width in ((whole, 300, 300), (cut, 200, 200)):
        phase = lattice_phase(transform, stride, "map")
        tiling = make_tiling(height, width, tile=32, overlap=8, margin=0, batch=4, phase=phase)
        starts.append((tiling.rows.starts, tiling.columns.starts))
    for axis, offset, size in ((0, 51, 200), (1, 37, 200)):
        inner = {start + offset for start in starts[1][axis] if 32 <= start <= size - 64}
        assert inner and inner <= set(starts[0][axis])
    assert lattice_phase(cut, stride, "scene") == (0, 0)
    assert lattice_phase(Affine.rotation(30), stride, "map") == (0, 0)


def test_margin_pixels_of_an_inner_edge_count_nothing():
    axis = make_axis(100, tile=32, overlap=12, margin=4)
    weights = axis.weights(1)
    assert (weights[:4] == 0).all() and (weights[-4:] == 0).all()
    assert (axis.weights(0)[:12] == 1).all()  # the edge of the scene is no seam


@pytest.mark.parametrize(
    "tile, overlap, margin, word",
    [(0, 0, 0, "tile"), (32, 17, 0, "overlap"), (32, -1, 0, "overlap"), (32, 8, 4, "margin"), (32, 0, 1, "margin")],
)
def test_impossible_tilings_are_refused(tile, overlap, margin, word):
    with pytest.raises(UserError, match=f"the {word} is"):
        make_axis(100, tile=tile, overlap=overlap, margin=margin)


def test_parts_end_where_a_window_row_starts_and_cover_the_scene():
    tiling = make_tiling(1000, 100, tile=64, overlap=16, margin=0, batch=4, phase=(7, 0), part_rows=200)
    rows = [row for part in tiling.parts for row in range(*part)]
    assert rows == list(range(1000))
    assert all(part[0] in (0, *tiling.rows.starts) for part in tiling.parts)
    assert len(tiling.parts) == 5


def test_parts_are_shared_without_gaps_or_overlap():
    indices = [0, 1, 2, 5, 6, 9, 10]
    shares = [share(indices, rank=rank, world_size=3) for rank in range(3)]
    assert sum(shares, []) == indices
    assert [list(run) for run in consecutive(indices)] == [[0, 1, 2], [5, 6], [9, 10]]
    assert consecutive([]) == []


def _copy(rows):
    return rows and Rows(rows.first, rows.scores.clone(), rows.quality.copy())


def _blend(tiling, scores, *, first_row=0, last_row=None):
    """Blend windows cut out of `scores` and return rows from `first_row` on."""
    last_row = tiling.rows.size if last_row is None else last_row
    blender = BandBlender(tiling, num_classes=len(scores), device=torch.device("cpu"), first_row=first_row)
    done = []
    for row in tiling.rows.covering(first_row, last_row):
        done.append(_copy(blender.advance(row)))
        top = tiling.rows.starts[row]
        for column, left in enumerate(tiling.columns.starts):
            window = scores[:, top : top + tiling.rows.tile, left : left + tiling.columns.tile]
            blender.add(row, column, window)
            blender.mark(row, left, np.full(window.shape[1:], BOTH, np.uint8))
    done.append(_copy(blender.finish()))
    return [rows for rows in done if rows is not None]


@pytest.mark.parametrize("overlap, margin, phase", [(8, 0, (0, 0)), (16, 4, (3, 11)), (0, 0, (0, 0)), (16, 0, (13, 2))])
def test_blending_windows_of_one_map_gives_the_map(overlap, margin, phase):
    scores = torch.randn(3, 150, 131, generator=torch.Generator().manual_seed(0))
    tiling = make_tiling(150, 131, tile=32, overlap=overlap, margin=margin, batch=3, phase=phase)
    rows = _blend(tiling, scores)
    assert [r.first for r in rows] == sorted({r.first for r in rows})
    blended = torch.cat([r.scores for r in rows], dim=1)
    assert torch.allclose(blended, scores, atol=1e-5)
    assert all((r.quality == BOTH).all() for r in rows)


def test_a_run_that_starts_in_the_middle_sums_the_same_numbers_in_the_same_order():
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(2, 200, 90, generator=generator)
    tiling = make_tiling(200, 90, tile=32, overlap=12, margin=2, batch=3, phase=(5, 9))
    noise = {}

    def noisy(row, column, window):  # windows that disagree, as those of a model do
        key = (row, column)
        if key not in noise:
            noise[key] = torch.randn(window.shape, generator=torch.Generator().manual_seed(row * 100 + column))
        return window + noise[key]

    def run(first_row):
        blender = BandBlender(tiling, num_classes=2, device=torch.device("cpu"), first_row=first_row)
        done = []
        for row in tiling.rows.covering(first_row, 200):
            done.append(_copy(blender.advance(row)))
            top = tiling.rows.starts[row]
            for column, left in enumerate(tiling.columns.starts):
                blender.add(row, column, noisy(row, column, scores[:, top : top + 32, left : left + 32]))
        done.append(_copy(blender.finish()))
        return torch.cat([rows.scores for rows in done if rows is not None], dim=1)

    whole = run(0)
    for first_row in (tiling.rows.starts[3], 57, 199):
        assert torch.equal(run(first_row), whole[:, first_row:])


def test_quality_says_who_saw_the_ground():
    yes, no = np.array([[True]]), np.array([[False]])
    cases = [(yes, yes, no, BOTH), (yes, yes, yes, ONLY_SAR), (no, yes, None, ONLY_SAR), (yes, no, None, ONLY_OPTICAL)]
    cases += [
        (yes, no, yes, NEITHER),
        (no, no, None, NEITHER),
        (None, yes, None, ONLY_SAR),
        (yes, None, None, ONLY_OPTICAL),
    ]
    for optical, sar, clouded, expected in cases:
        assert quality_of(optical, sar, clouded, (1, 1))[0, 0] == expected
