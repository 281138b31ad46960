"""Change pairs from folders: BRIGHT, scenes cut into strips, LoveDA, and what reads them."""

import numpy as np
import pytest
import torch

from mmovseg.data.io import FileReader
from mmovseg.data.mapper import DRAW_KEY, OpticalSARMapper
from mmovseg.data.transforms import RandomCrop, RandomFlip, RandomRotate90
from mmovseg.data.transforms.segmentation import UniformScale
from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.change import ChangeReader, EachDate, load_bright, load_hetero_cd
from mmovseg.projects.codemae.data.loveda import load_loveda
from mmovseg.testing.fakes import write_raster


def write_bright(root, ids, size=32):
    rng = np.random.default_rng(0)
    for number, name in enumerate(ids):
        label = np.zeros((size, size), dtype=np.uint8)
        label[4:12, 4:20] = number % 4
        write_raster(
            root / f"BRIGHT/pre-event/{name}_pre_disaster.tif", rng.integers(1, 255, (size, size, 3), np.uint8)
        )
        write_raster(root / f"BRIGHT/post-event/{name}_post_disaster.tif", rng.integers(1, 255, (size, size), np.uint8))
        write_raster(root / f"BRIGHT/target/{name}_building_damage.tif", label)
    (root / "BRIGHT/train_set.txt").write_text("\n".join(ids) + "\n")


def write_scene(root, scene, second="t2_opt", height=60, width=40):
    rng = np.random.default_rng(1)
    change = np.zeros((height, width), dtype=np.uint8)
    change[20:40] = 255
    change[0, 0] = 34
    bands = (height, width, 3) if second == "t2_opt" else (height, width)
    write_raster(root / f"hetero_cd/{scene}/t1_sar.png", rng.integers(0, 255, bands, np.uint8))
    write_raster(root / f"hetero_cd/{scene}/{second}.png", rng.integers(0, 255, bands, np.uint8))
    write_raster(root / f"hetero_cd/{scene}/change_gt.png", change)


def test_bright_lists_pairs_with_their_disaster(tmp_path):
    write_bright(tmp_path, ["turkey-earthquake_00000001", "la_palma-volcano_00000007"])
    dicts = load_bright("train", root=tmp_path)
    assert [item["source"] for item in dicts] == ["turkey-earthquake", "la_palma-volcano"]
    raw = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)(dicts[1])
    assert raw.optical.shape == raw.sar.shape == (32, 32, 3) and raw.sem_seg.max() == 1
    own = tmp_path / "own.txt"
    own.write_text("la_palma-volcano_00000007_pre_disaster.tif\n")
    (only,) = load_bright(str(own), root=tmp_path, with_labels=False)
    assert only["image_id"] == "la_palma-volcano_00000007" and "sem_seg_file_name" not in only


def test_bright_says_what_is_missing(tmp_path):
    write_bright(tmp_path, ["a_1"])
    with pytest.raises(UserError, match="list of BRIGHT '.*val_set.txt' cannot be read"):
        load_bright("val", root=tmp_path)
    for text, words in (("a_1\na_1\n", "names 'a_1' twice"), ("\n", "is empty"), ("b_2\n", "b_2_pre_disaster.tif")):
        (tmp_path / "BRIGHT/train_set.txt").write_text(text)
        with pytest.raises(UserError, match=words):
            load_bright("train", root=tmp_path)


def test_strips_share_no_pixel_and_cover_all_but_the_gaps(tmp_path):
    write_scene(tmp_path, "shuguang")
    covered = np.zeros((60, 40), dtype=int)
    for part in ("train", "test"):
        for item in load_hetero_cd("shuguang", part, root=tmp_path, strips=3, gap_px=4):
            row, col, height, width = item["window"]
            covered[row : row + height, col : col + width] += 1 if part == "train" else 10
    assert set(np.unique(covered)) == {0, 1, 10}
    rows = covered[:, 0]
    assert (rows[:18] == 1).all() and (rows[22:38] == 10).all() and (rows[42:] == 1).all() and (rows == 0).sum() == 8
    (whole,) = load_hetero_cd("shuguang", "all", root=tmp_path)
    assert "window" not in whole


def test_the_reader_cuts_strips_of_one_kept_scene_and_stacks_dates(tmp_path):
    write_scene(tmp_path, "yellow_C", "t2_sar")
    reader = ChangeReader(FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8"))
    first, second = load_hetero_cd("yellow_C", "train", root=tmp_path, strips=4, gap_px=0)
    one, other = reader(first), reader(second)
    assert one.sar.shape == (15, 40, 2) and one.optical is None and len(reader._kept) == 1
    whole = reader(load_hetero_cd("yellow_C", "all", root=tmp_path)[0])
    assert np.array_equal(whole.sar[30:45], other.sar) and not np.array_equal(whole.sar[..., 0], whole.sar[..., 1])
    single = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8")(
        {"sar_file_name": first["sar_before_file_name"]}
    )
    assert np.array_equal(whole.sar[..., :1], single.sar)
    assert whole.sem_seg[0, 0] == 255 and whole.sem_seg[30, 5] == 1 and whole.sem_seg[50, 5] == 0
    one.sar[:] = 0
    assert reader(first).sar.any()


def test_a_window_out_of_the_scene_is_named(tmp_path):
    write_scene(tmp_path, "shuguang")
    (item,) = load_hetero_cd("shuguang", "all", root=tmp_path)
    reader = ChangeReader(FileReader(sar_unit_in="amplitude8"))
    with pytest.raises(UserError, match=r"window \[50, 0, 20, 20\] .* 60x40 pixels"):
        reader({**item, "window": (50, 0, 20, 20)})


def test_dates_of_different_sizes_are_named(tmp_path):
    write_scene(tmp_path, "yellow_B", "t2_sar")
    write_raster(tmp_path / "hetero_cd/yellow_B/t1_sar.png", np.ones((30, 40), dtype=np.uint8))
    (item,) = load_hetero_cd("yellow_B", "all", root=tmp_path)
    with pytest.raises(UserError, match="t1_sar.png' is .30, 40, 1. but its later date"):
        ChangeReader(FileReader(sar_unit_in="amplitude8"))(item)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("paris", "train"), "no scene 'paris'"),
        (("shuguang", "val"), "got 'val'"),
        (("shuguang", "train"), "t1_sar.png' does not exist"),
    ],
)
def test_unknown_scenes_are_named(tmp_path, arguments, words):
    with pytest.raises(UserError, match=words):
        load_hetero_cd(*arguments, root=tmp_path)


def test_too_many_strips_are_refused(tmp_path):
    write_scene(tmp_path, "shuguang")
    with pytest.raises(UserError, match="60 pixels of 'shuguang' cannot make 12 strips with gaps of 8"):
        load_hetero_cd("shuguang", "train", root=tmp_path, strips=12)


def test_geometry_moves_both_dates_and_the_label_together(tmp_path):
    rng = np.random.default_rng(2)
    marks = np.kron(rng.integers(0, 2, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    for name in ("t1_sar", "t2_sar"):
        write_raster(tmp_path / f"hetero_cd/yellow_B/{name}.png", (50 + 150 * marks).astype(np.uint8))
    write_raster(tmp_path / "hetero_cd/yellow_B/change_gt.png", (255 * marks).astype(np.uint8))
    (item,) = load_hetero_cd("yellow_B", "all", root=tmp_path)
    mapper = OpticalSARMapper(
        is_train=True,
        vocabulary=closed_vocabulary("change"),
        reader=ChangeReader(FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8")),
        geometry=[UniformScale(0.8, 1.6), RandomCrop(40), RandomFlip(vertical=True), RandomRotate90()],
    )
    for draw in range(6):
        found = mapper({**item, DRAW_KEY: draw})
        before, after = found["sar"]
        assert torch.equal(before, after)
        agree = (before > 125) == (found["sem_seg"] == 1)
        assert agree.float().mean() > 0.9  # borders are interpolated


def test_photometry_is_drawn_for_each_date():
    def brighter(image, rng):
        return image + np.float32(rng.uniform(1, 10))

    stack = np.zeros((4, 4, 6), dtype=np.float32)
    found = EachDate(brighter)(stack, np.random.default_rng(0))
    assert found.shape == stack.shape and len(np.unique(found[..., :3])) == len(np.unique(found[..., 3:])) == 1
    assert found[0, 0, 0] != found[0, 0, 3]
    with pytest.raises(UserError, match="3 channels cannot be 2 dates"):
        EachDate(brighter)(stack[..., :3], np.random.default_rng(0))


def write_loveda(root):
    numbers = iter(range(100))
    for split in ("Train", "Val", "Test"):
        for area in ("Urban", "Rural"):
            number, place = next(numbers), root / "LoveDA" / split / area
            write_raster(place / f"images_png/{number}.png", np.full((16, 16, 3), number, dtype=np.uint8))
            if split != "Test":
                label = np.arange(16, dtype=np.uint8)[:, None].repeat(16, axis=1) % 8
                write_raster(place / f"masks_png/{number}.png", label)


def test_loveda_counts_classes_from_zero_and_ignores_no_data(tmp_path):
    write_loveda(tmp_path)
    dicts = load_loveda("trainval", root=tmp_path)
    assert [item["image_id"] for item in dicts] == ["0", "1", "2", "3"]
    raw = FileReader()(dicts[0])
    assert raw.sem_seg[0, 0] == 255 and raw.sem_seg[1, 0] == 0 and raw.sem_seg[7, 0] == 6
    test = load_loveda("test", root=tmp_path, areas=["Rural"])
    assert [item["image_id"] for item in test] == ["5"] and "sem_seg_file_name" not in test[0]


@pytest.mark.parametrize(
    ("split", "options", "words"),
    [
        ("dev", {}, "no split 'dev'"),
        ("train", {"areas": ["Coast"]}, "no area 'Coast'"),
        ("train", {}, "does not exist"),
    ],
)
def test_loveda_says_what_is_wrong(tmp_path, split, options, words):
    with pytest.raises(UserError, match=words):
        load_loveda(split, root=tmp_path, **options)
