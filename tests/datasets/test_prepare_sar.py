"""Data sets of SAR alone: from the trees of their publishers to prepared tiles, checked, counted and loaded."""

import importlib

import check_data
import numpy as np
import pytest
import rasterio

from mmovseg.data.datasets import catalog, get_dataset
from mmovseg.data.datasets.check import check_dataset
from mmovseg.data.datasets.manifest import read_manifest
from mmovseg.data.prepare import read_split_list
from mmovseg.data.prepare.splits import split_by_share
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.testing import trees_sar_public as public
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.trees import fake_scenes, write_tree
from mmovseg.testing.trees_sar import fake_sar_tiles


@pytest.fixture
def run(tmp_path, capsys):
    def run_it(script, *arguments, source=None):
        sources = source if isinstance(source, list) else [source or tmp_path / "source"]
        status = 0
        try:
            main = importlib.import_module(f"prepare_{script}").main
            main(["--source", *map(str, sources), "--output", str(tmp_path / "sets"), *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run_it


def pixels(path):
    with rasterio.open(path) as file:
        return file.read().transpose(1, 2, 0).squeeze()


def stems(root, split, role="label"):
    return sorted(path.stem for path in (root / split / role).iterdir())


def test_air_scenes_become_tiles_without_overlap(run, tmp_path):
    public.write_air_polsar(tmp_path / "source")
    status, out, _ = run("air_polsar", "--tile-size", 32)
    root = tmp_path / "sets/air_polsar"
    # 6 tiles a scene: 80 % of the 6 of the north and of the 12 of the south, rounded down
    assert status == 0 and "train 13, test 5; 18 tiles written" in out
    north = [stem for stem in stems(root, "train") if stem.startswith("bj_")]
    assert len(north) == 4 and "bj_r00032_c00064" in {*north, *stems(root, "test")}
    assert check_dataset("air_polsar", root=tmp_path / "sets") == []
    scenes = public.air_scenes()
    for split in ("train", "test"):
        for stem in stems(root, split):
            scene, row, col = stem.split("_")
            cut = np.s_[int(row[1:]) : int(row[1:]) + 32, int(col[1:]) : int(col[1:]) + 32]
            np.testing.assert_array_equal(pixels(root / split / "label" / f"{stem}.png"), scenes[scene].label[cut])
            for view, whole in scenes[scene].views.items():
                np.testing.assert_array_equal(pixels(root / split / f"sar_{view}" / f"{stem}.png"), whole[cut])
    assert read_split_list(root / "test.txt") == stems(root, "test")
    assert read_manifest(root)["made_by"]["split"] == "drawn"


def test_air_tiles_keep_their_split(run, tmp_path, monkeypatch):
    public.write_air_polsar(tmp_path / "source", form="tiles")
    status, out, _ = run("air_polsar", "--tile-size", 32)
    root = tmp_path / "sets/air_polsar"
    assert status == 0 and "train 6, test 6" in out and "some ids" not in out
    assert check_dataset("air_polsar", root=tmp_path / "sets") == []
    for tile in fake_sar_tiles("air_polsar", count=2, size=32):
        np.testing.assert_array_equal(pixels(root / tile.split / f"label/{tile.stem}.png"), tile.label)
        assert not (root / tile.split / "sar_hh_real").exists()
    monkeypatch.setattr(catalog, "_chosen_root", tmp_path / "sets")
    assert len(get_dataset("air_polsar_test", view="vv_amp", regions=["gz"])) == 2


def test_air_scenes_in_one_folder_keep_their_own_labels(run, tmp_path):
    public.write_air_polsar(tmp_path / "source")
    folder = tmp_path / "source/AIR-PolSAR-Seg-2.0"
    for name in ("SH", "GZ"):
        for path in (folder / name / "modified").iterdir():
            path.rename(folder / "BJ/modified" / path.name)
    assert run("air_polsar", "--tile-size", 32)[0] == 0
    root, scenes = tmp_path / "sets/air_polsar", public.air_scenes()
    for path in root.glob("*/label/*_r00000_c00000.png"):
        np.testing.assert_array_equal(pixels(path), scenes[path.stem[:2]].label[:32, :32])
    for name in ("sh", "gz"):
        (folder / f"BJ/modified/{name}_gt_modify.tiff").unlink()
    assert "has renderings of the scene 'gz' but no label" in run("air_polsar", "--tile-size", 32)[2]
    (folder / "BJ/modified/bj_gt_modify.tiff").rename(folder / "BJ/modified/all_gt_modify.tiff")
    assert "all_gt_modify.tiff' could be the label of 'bj' and of 'gz'" in run("air_polsar", "--tile-size", 32)[2]


def test_air_faults_are_explained(run, tmp_path):
    (tmp_path / "source").mkdir()
    assert "neither scenes" in run("air_polsar")[2]
    folder = public.write_air_polsar(tmp_path / "source") / "AIR-PolSAR-Seg-2.0/GZ/modified"
    (folder / "gz_vh_amp.tiff").rename(tmp_path / "gz_vh_amp.tiff")
    assert "scene 'gz' in" in (err := run("air_polsar")[2]) and "no amplitude of VH" in err
    (tmp_path / "gz_vh_amp.tiff").rename(folder / "gz_vh_amp.tiff")
    (folder / "gz_gt_modify.tiff").rename(tmp_path / "gt.tiff")
    assert "has renderings of the scene 'gz' but no label" in run("air_polsar")[2]
    # colours of another data set: more than half of the pixels have none of the palette
    write_raster(folder / "gz_gt_modify.tiff", np.full((67, 101, 3), 128, np.uint8))
    assert "100% of its pixels have none of the colours" in run("air_polsar", "--tile-size", 32)[2]
    write_raster(folder / "gz_gt_modify.tiff", np.full((67, 101), 1, np.uint8))
    assert "holds numbers" in run("air_polsar", "--tile-size", 32)[2]
    assert "--label-order names 'sea'" in run("air_polsar", "--label-order", "sea")[2]


def test_air_numbers_and_unknown_scenes(run, tmp_path):
    """Labels may be numbers in a stated order, and a table may say which scene a tile is of."""
    vocabulary = get_vocabulary("air_polsar").names
    for split, stem in (("train", "7"), ("train", "8"), ("val", "9")):
        folder = tmp_path / "source" / split
        for number, name in enumerate(("hh", "hv", "vh", "vv")):
            write_raster(
                folder / name / f"{stem}_{name}_amp.tiff", np.full((32, 32), 10 * number + int(stem), np.uint8)
            )
        write_raster(folder / "gt" / f"{stem}.tiff", np.full((32, 32), 2, np.uint8))
    options = ("--tile-size", 32, "--label-order", "building, ,water")
    status, out, _ = run("air_polsar", *options)
    assert status == 0 and "some ids do not say their scene" in out
    assert stems(tmp_path / "sets/air_polsar", "train") == ["xx_7", "xx_8"]
    (tmp_path / "regions.csv").write_text("7,bj\n8,sh\n9,gz\n")
    (tmp_path / "sets").rename(tmp_path / "before")
    status, out, _ = run("air_polsar", *options, "--regions", tmp_path / "regions.csv")
    root = tmp_path / "sets/air_polsar"
    assert status == 0 and "some ids" not in out and stems(root, "train") == ["bj_7", "sh_8"]
    assert set(np.unique(pixels(root / "test/label/gz_9.png"))) == {vocabulary.index("water")}
    assert pixels(root / "test/sar_full_amp/gz_9.png")[0, 0].tolist() == [9, 19, 39]  # HH, HV, VV
    (tmp_path / "regions.csv").write_text("7,mars\n")
    assert "line 1 is '7,mars'" in run("air_polsar", *options, "--regions", tmp_path / "regions.csv")[2]


def test_ddhr_is_enlarged_and_has_a_sixth_class(run, tmp_path, capsys):
    public.write_ddhr(tmp_path / "source", count=6)
    status, out, _ = run("ddhr_sar", "--tile-size", 32)
    assert status == 0 and out.count("train 5, test 1") == 2  # 4.8, rounded up
    for name in ("ddhr_korea", "ddhr_shandong"):
        assert check_dataset(name, root=tmp_path / "sets") == []
        for number, tile in enumerate(fake_sar_tiles(name, count=6, size=16)[:6], 1):
            (path,) = (tmp_path / "sets" / name).glob(f"*/label/{number}.png")
            other = get_vocabulary("ddhr_sar").names.index("other")
            expected = np.where(tile.label == 255, other, tile.label)
            np.testing.assert_array_equal(pixels(path), expected.repeat(2, axis=0).repeat(2, axis=1))
            sar = pixels(path.parents[1] / "sar" / path.name)
            assert sar.shape == (32, 32) and abs(sar.mean() - tile.views[""].mean()) < 4
    path = next((tmp_path / "sets/ddhr_korea/train/sar").iterdir())
    path.unlink()
    assert check_data.main(["ddhr_sar", "--root", str(tmp_path / "sets"), "--quiet"]) == 1  # both regions
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"missing_sar: {path.with_suffix('.*')}: the pair '{path.stem}' has no sar raster")
    assert lines[-1].startswith("ddhr_shandong: pairs: train 5, test 1; no fault")


def test_ddhr_options(run, tmp_path):
    public.write_ddhr(tmp_path / "source")
    order = "road, building, greenery, water, farmland"
    options = ("--regions", "shandong", "--shandong-label-order", order, "--unlabelled", "ignore", "--native-size")
    assert run("ddhr_sar", *options)[0] == 0
    assert not (tmp_path / "sets/ddhr_korea").exists()
    names = get_vocabulary("ddhr_sar").names
    swapped = np.arange(256)
    swapped[[names.index("building"), names.index("road")]] = names.index("road"), names.index("building")
    swapped[names.index("other")] = 255
    for number, tile in enumerate(fake_sar_tiles("ddhr_shandong", count=5, size=16)[:5], 1):
        (path,) = (tmp_path / "sets/ddhr_shandong").glob(f"*/label/{number}.png")
        np.testing.assert_array_equal(pixels(path), swapped[tile.label])
    assert "must name each of building, road" in run("ddhr_sar", "--korea-label-order", "sea")[2]
    (tmp_path / "source/DDHR-DATA/shandong").rename(tmp_path / "source/DDHR-DATA/jinan")
    assert "the source has no region shandong" in run("ddhr_sar", "--regions", "shandong")[2]
    status, out, _ = run("ddhr_sar", "--regions", "korea", "--native-size")
    assert status == 0 and "ddhr_korea: train 4, test 1" in out
    found = run("ddhr_sar", "--shandong-folder", "jinan/256_cloud", "--regions", "shandong", "--native-size")
    assert found[0] == 2 and "was begun with enlarged" not in found[2] and "was begun with label_order" in found[2]
    assert "are of one region" in run("ddhr_sar", "--train-list", "a", "--test-list", "b")[2]


def test_fusar_images_stay_together(run, tmp_path):
    public.write_fusar_map(tmp_path / "source")
    status, out, _ = run("fusar_map", "--tile-size", 32)
    root = tmp_path / "sets/fusar_map"
    assert status == 0 and "train 16, test 4" in out and check_dataset("fusar_map", root=tmp_path / "sets") == []
    assert len({stem.rsplit("_r", 1)[0] for stem in stems(root, "test")}) == 1
    other = get_vocabulary("fusar_map").names.index("other")
    for number, tile in enumerate(fake_sar_tiles("fusar_map", count=5, size=64)[:5], 1):
        (path,) = root.glob(f"*/label/Jiujiang_01_02_01_{number:02d}_{number:03d}_r00000_c00032.tif")
        np.testing.assert_array_equal(pixels(path), np.where(tile.label == 255, other, tile.label)[:32, 32:])
        np.testing.assert_array_equal(pixels(path.parents[1] / "sar" / path.name), tile.views[""][:32, 32:])


def test_fusar_lists_and_faults(run, tmp_path):
    public.write_fusar_map(tmp_path / "source")
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("".join(f"Jiujiang_01_02_01_{n:02d}_SAR_{n:03d}.tif\n" for n in (1, 2)))
    test.write_text("Jiujiang_01_02_01_03_LAB_003.tif\n")
    status, out, _ = run("fusar_map", "--tile-size", 32, "--train-list", train, "--test-list", test)
    assert status == 0 and "train 8, test 4" in out
    assert run("fusar_map", "--tile-size", 32)[2].count("was begun with train_share") == 1
    test.write_text("Jiujiang_01_02_01_99_LAB_099.tif\n")
    assert "name 'Jiujiang_01_02_01_99_099', which" in run("fusar_map", "--train-list", train, "--test-list", test)[2]
    assert (
        "name 'Jiujiang_01_02_01_01_001' in train and in test"
        in (run("fusar_map", "--train-list", train, "--test-list", train)[2])
    )
    assert "belong together" in run("fusar_map", "--train-list", train)[2]
    (tmp_path / "source/FUSAR-Map/LAB_1024/Jiujiang_01_02_01_02_LAB_002.tif").unlink()
    assert "has no partner: no label raster of 'Jiujiang_01_02_01_02_002'" in run("fusar_map")[2]


def test_oem_is_cut_in_four_and_keeps_its_place(run, tmp_path):
    write_tree("oem_thick", tmp_path / "source", layout="public", count=3, size=64)
    status, out, _ = run("oem_sar", "--tile-size", 32)
    root = tmp_path / "sets/oem_sar"
    assert status == 0 and "train 9, test 3" in out  # 9.6 tiles, rounded down
    assert check_dataset("oem_sar", root=tmp_path / "sets") == []
    for scene in (scene for scene in fake_scenes("oem_thick", count=3, size=64) if scene.split == "train"):
        (path,) = root.glob(f"*/label/TrainArea_{scene.number}_r00032_c00000.tif")
        np.testing.assert_array_equal(pixels(path), scene.label[32:, :32])
        with rasterio.open(path.parents[1] / "sar" / path.name) as file:
            assert file.transform.f == scene.place["transform"].f - 16 and file.crs == scene.place["crs"]
    (tmp_path / "sets").rename(tmp_path / "before")
    assert "train 8, test 4" in run("oem_sar", "--tile-size", 32, "--split-by", "image")[1]
    assert len({stem.split("_r")[0] for stem in stems(root, "test")}) == 1


@pytest.mark.parametrize("zipped", [False, True])
def test_sarbud_masks(run, tmp_path, zipped):
    source = public.write_sarbud(tmp_path / "source", zipped=zipped)
    status, out, _ = run("sarbud", "--tile-size", 32, source=source)
    assert status == 0 and "train 4, test 1" in out and check_dataset("sarbud", root=tmp_path / "sets") == []
    names = get_vocabulary("sarbud").names
    for number, tile in enumerate(fake_sar_tiles("sarbud", count=5, size=16)[:5], 1):
        (path,) = (tmp_path / "sets/sarbud").glob(f"*/label/p{number}.png")
        expected = np.where(tile.label == names.index("building"), names.index("building"), names.index("other"))
        np.testing.assert_array_equal(pixels(path)[::2, ::2], expected)


def test_whu_follows_the_division(run, tmp_path):
    public.write_whu_opt_sar(tmp_path / "source")
    status, out, _ = run("whu_opt_sar", "--tile-size", 32)
    root = tmp_path / "sets/whu_opt_sar"
    assert status == 0 and "train 16, test 4" in out  # 40 px: 2 x 2 tiles, the last moved back
    assert {stem.split("_")[0] for stem in stems(root, "test")} == {"NH49E001005"}
    assert check_dataset("whu_opt_sar", root=tmp_path / "sets") == []
    for number, tile in enumerate(fake_sar_tiles("whu_opt_sar", count=5, size=40)[:5], 1):
        (path,) = root.glob(f"*/label/NH49E0010{number:02d}_r00008_c00000.tif")
        np.testing.assert_array_equal(pixels(path), tile.label[8:, :32])
    (tmp_path / "sets").rename(tmp_path / "before")
    division = tmp_path / "source/WHU-OPT-SAR/The division of the dataset.txt"
    text = division.read_text()
    for changed, message in (
        ("a.tif\ntrain:\n", "has 'a.tif' before a line 'train:'"),
        ("train:\na.tif\n", "needs the parts 'train:' and 'test:', it has: train"),
        (text + "NH50E000000.tif\n", "name 'NH50E000000', which the download does not have (1 in all)"),
    ):
        division.write_text(changed)
        assert message in run("whu_opt_sar", "--tile-size", 32)[2]
    division.unlink()
    assert "has no file 'The division of the dataset.txt'" in run("whu_opt_sar", "--tile-size", 32)[2]
    assert "train 16, test 4" in run("whu_opt_sar", "--tile-size", 32, "--random-split")[1]


def test_lists_of_another_data_set_are_not_overwritten(run, tmp_path):
    public.write_whu_opt_sar(tmp_path / "source")
    foreign = tmp_path / "sets/whu_opt_sar/train.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("p1\n")
    status, _, err = run("whu_opt_sar", "--tile-size", 32)
    assert status == 2 and "train.txt' is not of this script and would be lost" in err
    assert foreign.read_text() == "p1\n" and len(list(foreign.parent.iterdir())) == 1


def test_values_of_more_than_8_bits_need_a_range(run, tmp_path):
    folder = public.write_whu_opt_sar(tmp_path / "source", size=32) / "WHU-OPT-SAR/sar"
    for path in folder.iterdir():
        stored = np.full((32, 32), 100, np.uint16)
        stored[0, :4] = (0, 340, 500, 900)
        write_raster(path, stored)
    assert "holds uint16 from 0 to 900, not 8 bits; say which" in run("whu_opt_sar", "--tile-size", 32)[2]
    assert run("whu_opt_sar", "--tile-size", 32, "--sar-range", 100, 500)[0] == 2  # another setting of a begun folder
    (tmp_path / "sets").rename(tmp_path / "before")
    assert run("whu_opt_sar", "--tile-size", 32, "--sar-range", 100, 500)[0] == 0
    sar = pixels(next((tmp_path / "sets/whu_opt_sar/train/sar").iterdir()))
    assert sar.dtype == np.uint8 and sar[0, :5].tolist() == [0, 153, 255, 255, 0]
    for options, message in (
        (("--sar-range", 5, 5), "--sar-range must ascend, got 5.0 5.0"),
        (("--tile-size", 0), "--tile-size must be at least 1, got 0"),
        (("--train-share", 1), "--train-share must lie between 0 and 1, got 1.0"),
    ):
        assert message in run("whu_opt_sar", *options)[2]


def test_a_killed_run_goes_on_and_ends_alike(run, tmp_path):
    public.write_fusar_map(tmp_path / "source")
    assert run("fusar_map", "--tile-size", 32)[0] == 0
    root = tmp_path / "sets/fusar_map"
    whole = (root / "manifest.json").read_bytes()
    for path in sorted(root.glob("*/sar/*"))[:3]:
        path.unlink()
    (root / "manifest.json").unlink()
    status, out, _ = run("fusar_map", "--tile-size", 32)
    assert status == 0 and "3 tiles written, 17 were there" in out
    assert (root / "manifest.json").read_bytes() == whole


def test_shares_give_the_papers_numbers():
    def counts(number, rounding):
        parts = split_by_share(map(str, range(number)), rounding=rounding)
        return tuple(len(part) for part in parts.values())

    assert counts(750, "down") == (600, 150) and counts(792, "down") == (633, 159)  # AIR-PolSAR-Seg-2.0
    assert counts(6145, "up") == (4916, 1229) and counts(7831, "up") == (6265, 1566)  # DDHR-SK
    assert counts(17332, "down") == (13865, 3467) and counts(25000, "down") == (20000, 5000)  # OEM, SARBuD
    assert counts(610, "down") == (488, 122)  # FUSAR-Map, four tiles each
    first = split_by_share("abcdefghij", seed=3)
    assert first == split_by_share("jihgfedcba", seed=3) != split_by_share("abcdefghij", seed=4)
    assert sorted(first["train"] + first["test"]) == list("abcdefghij")
