"""Tiling, label codes, split lists, sources, pairing: what prepare scripts are built from."""

import tarfile
import zipfile

import numpy as np
import pytest
from rasterio.transform import Affine

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.prepare import (
    LabelCode,
    Layer,
    Tile,
    choose_split,
    find_folder,
    find_optional,
    index_by_stem,
    open_sources,
    pair_files,
    read_layer,
    read_split_list,
    split_stems,
    tile_grid,
    write_layer,
)
from mmovseg.data.prepare.pairs import as_rgb8, cloud_maker, drop_equal_bands
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_raster

GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_tiles_cover_a_scene():
    assert tile_grid(4, 6, 2, edge="drop") == [Tile(row, col, 2, 2) for row in (0, 2) for col in (0, 2, 4)]
    covered = np.zeros((7, 10), dtype=int)
    for tile in tile_grid(7, 10, 4):
        covered[tile.row : tile.row + 4, tile.col : tile.col + 4] += 1
    assert covered.min() == 1 and len(tile_grid(7, 10, 4, edge="drop")) == 2
    assert [tile.col for tile in tile_grid(4, 10, 4, stride=3)] == [0, 3, 6]
    assert Tile(512, 0, 256, 256).name == "r00512_c00000"
    for height, size, message in ((3, 4, "smaller than a tile of 4"), (4, 0, "must be at least 1")):
        with pytest.raises(UserError, match=message):
            tile_grid(height, 8, size)


def test_label_codes_read_numbers_and_colours():
    code = LabelCode(ids={0: 255, 1: 0, 2: 3}, colors={(0, 0, 0): 255, (255, 0, 128): 0, (1, 2, 3): 3})
    stored = np.array([[0, 1], [2, 1]])
    colors = np.array([[0, 0, 0, 255], [255, 0, 128, 255], [1, 2, 3, 0]], dtype=np.uint8)
    expected = np.array([[255, 0], [3, 0]], dtype=np.uint8)
    for array in (stored.astype(np.uint8), stored.astype(float), colors[stored], colors[stored][:, :, :3]):
        decoded = code.decode(Layer(array, transform=Affine.scale(2)), "l.png")
        assert decoded.array.dtype == np.uint8 and decoded.transform == Affine.scale(2)
        np.testing.assert_array_equal(decoded.array, expected)
    for array, message in (
        (np.array([[5]]), "'l.png' has the value 5; known: 0, 1, 2"),
        (np.array([[0.5]]), "has the value 0.5"),
        (np.full((1, 1, 3), 7), r"has the colour \(7, 7, 7\); known: \(0, 0, 0\), \(255, 0, 128\)"),
        (np.zeros((1, 1, 2)), "has 2 bands"),
    ):
        with pytest.raises(UserError, match=message):
            code.decode(Layer(array), "l.png")
    with pytest.raises(UserError, match="stores classes as colours"):
        LabelCode(colors={(0, 0, 0): 0}).decode(Layer(stored), "l.png")
    with pytest.raises(UserError, match="stores classes as numbers"):
        LabelCode(ids={0: 0}).decode(Layer(colors[stored]), "l.png")


def test_spoiled_colours_take_the_nearest_class():
    code = LabelCode(colors={(255, 0, 0): 0, (255, 0, 60): 1, (0, 0, 0): 255}, tolerance=30)
    stored = np.array([[[255, 0, 0], [250, 9, 16], [252, 2, 45], [255, 0, 31], [230, 10, 0], [9, 9, 9]]], np.uint8)
    # 30 away from the first; 20 from the second; 29 from the second; 35 from the first; 27 from black, which is ignored
    assert code.decode(Layer(stored), "l.png").array.tolist() == [[0, 0, 1, 1, 255, 255]]
    with pytest.raises(UserError, match=r"label 'l.png': 67% of its pixels have none of the colours \(255, 0, 0\)"):
        code.decode(Layer(np.array([[[99, 99, 99], [98, 99, 99], [255, 0, 0]]], np.uint8)), "l.png")
    half = np.array([[[99, 99, 99], [255, 0, 0]]], np.uint8)
    assert code.decode(Layer(half), "l.png").array.tolist() == [[255, 0]]
    with pytest.raises(UserError, match=r"has the colour \(99, 99, 99\)"):
        LabelCode(colors=code.colors).decode(Layer(half), "l.png")


def test_split_lists(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(
        "﻿a.png\n\nsub/b.tif\nC:\\x\\c\nv1.2\nD:/GF2/7.jpg D:/GF3/7.jpg D:/label/7.png\nmy area.tif\n", "utf-8"
    )
    assert read_split_list(path) == ["a", "b", "c", "v1.2", "7", "my area"]
    for text, message in (("a\nb\na\n", "names 'a' more than once"), ("\n", "names no file")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_split_list(path)
    with pytest.raises(UserError, match="absent.*cannot be read"):
        read_split_list(tmp_path / "absent")


def test_a_drawn_split_depends_on_names_and_seed_only():
    stems = [str(number) for number in range(4865)]
    split = split_stems(stems)
    assert (len(split["train"]), len(split["val"])) == (2433, 2432)  # as PIE-RGB-SAR was halved
    assert split == split_stems(reversed(stems)) and split != split_stems(stems, seed=1)
    assert set(split["train"]).isdisjoint(split["val"])
    assert len(split_stems(stems, train_share=0.9)["val"]) == 486
    assert split_stems(["a"], train_share=0.0) == {"train": [], "val": ["a"]}
    with pytest.raises(UserError, match="share of train must lie within 0..1, got 2"):
        split_stems(stems, train_share=2)


def test_published_lists_must_fit(tmp_path):
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("a\nb\n")
    val.write_text("c\n")
    options = {"random_split": False, "seed": 0, "hint": "see there"}
    lists = {"train": train, "val": val}
    assert choose_split("abcd", lists, **options) == {"train": ["a", "b"], "val": ["c"]}
    with pytest.raises(UserError, match="names 'c', which the download does not have"):
        choose_split("ab", lists, **options)
    with pytest.raises(UserError, match=r"no split list was found for: val; .*see there.*--random-split"):
        choose_split("abc", lists | {"val": None}, **options)
    val.write_text("b\n")
    with pytest.raises(UserError, match="name 'b' in train and in val"):
        choose_split("abc", lists, **options)
    assert choose_split("abcd", {}, **(options | {"random_split": True})) == split_stems("abcd")


def test_folders_are_found_at_any_depth(tmp_path):
    for name in ("Wrap/Data/RGB", "Wrap/Data/train/rgb", "Wrap/__MACOSX/rgb", "Wrap/.hidden/sar"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "Wrap/Data/train.txt").write_text("a")
    roots = [tmp_path]
    assert find_folder(roots, "rgb", what="optical") == tmp_path / "Wrap/Data/RGB"
    assert find_folder(roots, "nothing", "train/RGB", what="optical") == tmp_path / "Wrap/Data/train/rgb"
    assert find_optional(roots, "sar", what="SAR") is None
    assert find_optional(roots, "train.txt", what="list", file=True) == tmp_path / "Wrap/Data/train.txt"
    with pytest.raises(UserError, match=r"the SAR: no folder 'sar' or 'SAR2' in '.*'"):
        find_folder(roots, "sar", "SAR2", what="the SAR")
    (tmp_path / "Wrap/Other/rgb").mkdir(parents=True)
    with pytest.raises(UserError, match="optical: both '.*Data/RGB' and '.*Other/rgb' could be it"):
        find_folder(roots, "rgb", what="optical")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar"])
def test_archives_are_unpacked_once(tmp_path, suffix):
    source = write_raster(tmp_path / "data/rgb/1.png", GRAY)
    archive = tmp_path / f"set{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.write(source, "set/rgb/1.png")
    else:
        with tarfile.open(archive, "w:gz" if suffix == ".tar.gz" else "w") as file:
            file.add(source, "set/rgb/1.png")
    folder, same = open_sources([archive, tmp_path / "data"], tmp_path / "unpacked")
    assert same == tmp_path / "data"
    unpacked = find_folder([folder], "rgb", what="") / "1.png"
    np.testing.assert_array_equal(read_layer(unpacked).array, GRAY)
    time = unpacked.stat().st_mtime_ns
    assert open_sources([archive], tmp_path / "unpacked") == [folder] and unpacked.stat().st_mtime_ns == time
    # the tar is cut behind its only member: without a look at its end it would pass for whole
    archive.write_bytes(archive.read_bytes()[: 1024 + 512 if suffix == ".tar" else archive.stat().st_size // 2])
    with pytest.raises(UserError, match=f"set{suffix}' cannot be unpacked.*name the folder"):
        open_sources([archive], tmp_path / "elsewhere")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_bad_sources_are_explained(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("../../escape.txt", "x")
    (tmp_path / "set.rar").write_bytes(b"x")
    for name, message in (
        ("evil.zip", "leads outside"),
        ("set.rar", "neither a folder nor a zip or tar archive; unpack it and name the folder"),
        ("absent.zip", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            open_sources([tmp_path / name], tmp_path / "unpacked")


def test_files_are_paired_by_stem(tmp_path):
    for name in ("rgb/a.png", "rgb/b.png", "sar/a.tif", "sar/b.tif"):
        write_raster(tmp_path / name, GRAY)
    folders = {"optical": tmp_path / "rgb", "sar": tmp_path / "sar"}
    assert pair_files(folders)["b"] == {"optical": tmp_path / "rgb/b.png", "sar": tmp_path / "sar/b.tif"}
    (tmp_path / "sar/b.tif").unlink()
    with pytest.raises(UserError, match=r"rgb/b.png' has no partner named 'b\.\*' in '.*sar' \(1 of 2"):
        pair_files(folders)


def test_stems_without_their_affixes(tmp_path):
    for name in ("SAR_1_x.tif", "2.tif"):
        write_raster(tmp_path / name, GRAY)
    assert sorted(index_by_stem(tmp_path, strip=("SAR_", "_x"))) == ["1_x", "2"]
    write_raster(tmp_path / "2.png", GRAY)
    with pytest.raises(UserError, match=r"two rasters for '2': 2\.png, 2\.tif"):
        index_by_stem(tmp_path)
    with pytest.raises(UserError, match="has no raster"):
        index_by_stem(tmp_path, suffixes=(".jp2",))
    with pytest.raises(UserError, match="does not exist"):
        index_by_stem(tmp_path / "absent")


def test_windows_keep_their_place(tmp_path):
    path = write_raster(tmp_path / "a.tif", np.dstack([GRAY, GRAY + 100]), nodata=7)
    layer = read_layer(path, tile=Tile(1, 2, 2, 2), bands=(2,))
    np.testing.assert_array_equal(layer.array, GRAY[1:, 2:] + 100)
    assert layer.transform == Affine(10, 0, 600020, 0, -10, 5699990) and layer.nodata == 7 and layer.size == (2, 2)
    copy = read_layer(write_layer(tmp_path / "out", "a", layer))
    assert copy.transform == layer.transform and copy.crs == layer.crs and copy.nodata == 7
    assert write_layer(tmp_path / "out", "b", Layer(GRAY)).suffix == ".png"
    assert write_layer(tmp_path / "out", "c", Layer(np.dstack([GRAY, GRAY]))).suffix == ".tif"
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    for options, message in (
        ({"tile": Tile(2, 0, 2, 2)}, "is 3x4 pixels, too small for the window"),
        ({"bands": (3,)}, "has 2 bands, no band 3"),
    ):
        with pytest.raises(UserError, match=message):
            read_layer(path, **options)
    with pytest.raises(UserError, match="does not exist"):
        read_layer(tmp_path / "absent.tif")
    whole = write_layer(tmp_path / "out", "b", Layer(np.zeros((64, 64), np.uint8)))
    whole.write_bytes(whole.read_bytes()[:-12])
    with pytest.raises(UserError, match="lacks the end of a PNG"):
        read_layer(whole)


def test_rasters_are_brought_to_form():
    rgba = np.dstack([GRAY] * 4)
    assert as_rgb8(Layer(rgba), "x").array.shape == (3, 4, 3)
    assert drop_equal_bands(Layer(rgba)).array.shape == (3, 4)
    assert drop_equal_bands(Layer(np.dstack([GRAY, GRAY + 1]))).array.shape == (3, 4, 2)
    for array in (GRAY, np.dstack([GRAY] * 3).astype(np.uint16)):
        with pytest.raises(UserError, match=r"'x' has [13] bands of uint(8|16); RGB of 8 bit"):
            as_rgb8(Layer(array), "x")


def test_cloud_generators():
    assert isinstance(cloud_maker("own", "thin"), CloudSynthesizer)
    with pytest.raises(UserError, match="unknown cloud generator 'gimp'; known: own, satellite-cloud-generator"):
        cloud_maker("gimp", "thin")
    with pytest.raises(UserError, match="no clouds of kind 'clear'"):
        cloud_maker("satellite-cloud-generator", "clear")
