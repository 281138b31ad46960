"""Data sets by name, from folders and from tables."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mmovseg.data.datasets import catalog
from mmovseg.data.datasets.catalog import get_dataset, known_datasets, register_all, register_pairs
from mmovseg.data.datasets.folders import load_pair_csv, load_pair_folder, load_pair_jsonl
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs, write_raster
from mmovseg.testing.trees import fake_scenes, tree_names, write_tree


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs", count=3, height=8, width=8)


def test_folders_are_paired_by_stem(pairs):
    dicts = load_pair_folder(pairs.optical_dir, pairs.sar_dir, pairs.label_dir)
    assert dicts == pairs.dicts
    (pairs.optical_dir / "notes.txt").write_text("not a raster")
    (pairs.sar_dir / "000001.tif.aux.xml").write_text("<x/>")
    assert load_pair_folder(pairs.optical_dir, pairs.sar_dir, pairs.label_dir) == pairs.dicts
    assert load_pair_folder(pairs.optical_dir, pairs.sar_dir, pattern="*2.*") == [
        {key: value for key, value in pairs.dicts[2].items() if key != "sem_seg_file_name"}
    ]
    assert set(load_pair_folder(None, pairs.sar_dir)[0]) == {"sar_file_name", "image_id"}


def test_missing_partner_and_twins_are_named(pairs):
    Path(pairs.dicts[1]["sar_file_name"]).unlink()
    with pytest.raises(UserError, match=r"optical/000001\.png' has no partner.*sar' \(1 of 3"):
        load_pair_folder(pairs.optical_dir, pairs.sar_dir)
    with pytest.raises(UserError, match=r"optical/000001\.png|label/000001\.png"):
        load_pair_folder(pairs.optical_dir, pairs.sar_dir, pairs.label_dir)
    shutil.copy(pairs.dicts[0]["file_name"], pairs.optical_dir / "000000.jpg")
    with pytest.raises(UserError, match="two rasters named '000000': 000000.jpg, 000000.png"):
        load_pair_folder(pairs.optical_dir)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere' does not exist"):
        load_pair_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no raster"):
        load_pair_folder(tmp_path)
    with pytest.raises(UserError, match="needs a folder"):
        load_pair_folder(None, None, tmp_path)


def test_csv(pairs, tmp_path):
    table = tmp_path / "pairs" / "pairs.csv"
    table.write_text(
        "file_name,sar_file_name,gsd_m,caption\noptical/000000.png,sar/000000.tif,10,a field\noptical/000001.png,,,\n"
    )
    first, second = load_pair_csv(table)
    expected = {key: pairs.dicts[0][key] for key in ("file_name", "sar_file_name")}
    assert first == expected | {"image_id": "1", "gsd_m": 10.0, "caption": "a field"}
    assert second == {"file_name": pairs.dicts[1]["file_name"], "image_id": "2"}
    assert load_pair_csv(shutil.copy(table, tmp_path / "t.csv"), root=tmp_path / "pairs")[0] == first
    assert FileReader()(first).captions == ["a field"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,sar\noptical/000000.png,x\n", "row 1 has the unknown column 'sar'"),
        ("file_name\noptical/9.png\n", r"row 1 names '.*optical/9\.png', which does not exist"),
        ("file_name,gsd_m\noptical/000000.png,ten\n", "row 1 has 'ten' as gsd_m"),
        ("file_name,image_id\noptical/000000.png,a\noptical/000001.png,a\n", "image_id 'a' more than once"),
        ("file_name\n", "lists no pair"),
        ("image_id\nx\n", "row 1 names neither"),
        ("file_name\noptical/000000.png,extra\n", "unknown column"),
    ],
)
def test_bad_tables_are_explained(pairs, text, message):
    table = pairs.optical_dir.parent / "t.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=message):
        load_pair_csv(table)


def test_jsonl(pairs):
    table = pairs.optical_dir.parent / "t.jsonl"
    table.write_text(json.dumps({"file_name": "optical/000000.png", "captions": ["a", "b"], "image_id": "x"}) + "\n\n")
    assert load_pair_jsonl(table) == [
        {"file_name": pairs.dicts[0]["file_name"], "image_id": "x", "captions": ["a", "b"]}
    ]
    table.write_text('{"file_name": \n')
    with pytest.raises(UserError, match="line 1 is not valid JSON"):
        load_pair_jsonl(table)
    table.write_text("[1]\n")
    with pytest.raises(UserError, match="line 1 is not a JSON object"):
        load_pair_jsonl(table)
    for load in (load_pair_csv, load_pair_jsonl):
        with pytest.raises(UserError, match="absent.*cannot be read"):
            load(table.parent / "absent")


def test_registering_is_lazy_and_idempotent():
    code = (
        "import mmovseg.data.datasets as d; from detectron2.data import DatasetCatalog as c; before = len(c);"
        "d.register_all(); after = len(c); d.register_all();"
        "print('miniearth_test' in c, after - before == len(d.known_datasets()), len(c) == after)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 3


@pytest.mark.parametrize("name", known_datasets())
def test_metadata_follows_the_vocabulary(name):
    register_all()
    metadata = MetadataCatalog.get(name)
    vocabulary = get_vocabulary(metadata.vocabulary)
    assert metadata.stuff_classes == vocabulary.names and metadata.ignore_label == 255
    assert [tuple(color) for color in metadata.stuff_colors] == vocabulary.colors


def test_miniearth_by_name():
    dicts = get_dataset("miniearth_val", num_scenes=3, size=32)
    assert len(dicts) == 3 and dicts[0]["height"] == 32 and "world" in dicts[0]
    assert len({item["image_id"] for item in dicts}) == 3
    with pytest.raises(UserError, match="miniearth_val.*scenes"):
        get_dataset("miniearth_val", scenes=3)


def test_folder_data_sets_are_found_under_the_root(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(UserError, match=r"ddhr_ch/val/optical_cloud' or .*DDCH/val/rgb_clouds'; .*prepare_ddhr"):
        get_dataset("ddhr_ch_val")
    written = write_pairs(tmp_path / "ddhr_ch" / "val", count=2, height=8, width=8)
    written.optical_dir.rename(tmp_path / "ddhr_ch/val/optical_cloud")
    dicts = get_dataset("ddhr_ch_val")
    assert [item["image_id"] for item in dicts] == ["000000", "000001"]
    assert dicts[0]["file_name"] == str(tmp_path / "ddhr_ch/val/optical_cloud/000000.png")
    register_all(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="elsewhere"):
        get_dataset("ddhr_ch_val")


RELEASED = [name for name in tree_names() if name.startswith(("pie", "ddhr", "oem"))]


@pytest.mark.parametrize("name", RELEASED)
def test_the_authors_download_gives_the_same_labels(tmp_path, monkeypatch, name):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    vocabulary = get_vocabulary(catalog.dataset_entry(name).vocabulary)
    scenes = fake_scenes(name, count=2)
    for layout in ("release", "own"):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(write_tree(name, tmp_path / layout, layout=layout, count=2)))
        for split in catalog.dataset_entry(name).splits:
            items, truth = get_dataset(f"{name}_{split}"), [scene for scene in scenes if scene.split == split]
            assert len(items) == 2
            mapper = OpticalSARMapper(
                is_train=False, vocabulary=vocabulary, reader=FileReader(sar_unit_in="amplitude8")
            )
            for item, scene in zip(items, truth, strict=True):
                label = mapper(item)["sem_seg"].numpy()
                known = np.isin(scene.label, vocabulary.seen_ids) if "label_map" in item else scene.label != 255
                np.testing.assert_array_equal(label, np.where(known, scene.label, 255))
                assert mapper(item)["sar"].shape[1:] == label.shape
            assert ("label_map" in items[0]) == (layout == "release" and split == "train")
            training = OpticalSARMapper(is_train=True, vocabulary=vocabulary, reader=mapper.reader)(items[0])
            assert set(training["sem_seg"].unique().tolist()) <= {*range(len(vocabulary.seen_ids)), 255}


def test_label_numbers_can_be_stated(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(write_tree("pie_cloud", tmp_path, layout="release", count=2)))
    assert get_dataset("pie_cloud_train")[0]["label_map"] == {0: 0, 1: 1, 2: 4, 3: 5}
    assert "label_map" not in get_dataset("pie_cloud_train", labels="full")[0]
    assert get_dataset("pie_cloud_val", labels="seen")[0]["label_map"] == {0: 0, 1: 1, 2: 4, 3: 5}
    with pytest.raises(UserError, match="labels must be auto, full or seen, got 'none'"):
        get_dataset("pie_cloud_val", labels="none")
    # a full label in a folder that is registered as seen-only is refused, not misread
    write_raster(tmp_path / "PIE_RGBSAR/train/D2masks6/1.png", np.full((32, 32), 5, np.uint8))
    with pytest.raises(UserError, match=r"D2masks6/1.png' has the value 5, which the label map does not list"):
        FileReader(sar_unit_in="amplitude8")(get_dataset("pie_cloud_train")[0])


def test_thin_validation_where_the_release_registers_it(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    root = write_tree("oem_thin", tmp_path, layout="release", count=2)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    for folder in ("rgb_cloud_thin", "D2masks"):
        (root / "OEM/val" / folder).rename(root / "OEM" / folder)
    items = get_dataset("oem_thin_val")
    assert items[0]["file_name"] == str(root / "OEM/rgb_cloud_thin/3.png") and len(items) == 2
    assert items[0]["sar_file_name"] == str(root / "OEM/val/imgs/3.png")


def test_own_layout_goes_before_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for layout in ("release", "own"):
        write_tree("ddhr_sk", tmp_path, layout=layout, count=2)
        folder = "DDSK/train/rgb_clouds" if layout == "release" else "ddhr_sk/train/optical_cloud"
        assert folder in get_dataset("ddhr_sk_train")[0]["file_name"]


def test_own_data_by_name(pairs):
    load = partial(load_pair_folder, pairs.optical_dir, pairs.sar_dir, pairs.label_dir)
    register_pairs("mine_test", load, vocabulary=get_vocabulary("miniearth"))
    try:
        assert get_dataset("mine_test") == pairs.dicts
        assert MetadataCatalog.get("mine_test").stuff_classes == get_vocabulary("miniearth").names
        with pytest.raises(UserError, match="'mine_test' is registered already"):
            register_pairs("mine_test", load, vocabulary=get_vocabulary("miniearth"))
        with pytest.raises(UserError, match="takes no options"):
            get_dataset("mine_test", size=3)
    finally:
        DatasetCatalog.remove("mine_test")
        MetadataCatalog.remove("mine_test")


def test_unknown_name_lists_the_known():
    with pytest.raises(UserError, match="'mars_test'; known: miniearth_train"):
        get_dataset("mars_test")
