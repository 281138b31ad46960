"""A tree laid out as OSPretrain-1M: what becomes a source, what is left out, and what is wrong with a bad one."""

from __future__ import annotations

import collections
import logging
import shutil

import numpy as np
import pytest

from mmovseg.data.datasets.ospretrain import load_ospretrain
from mmovseg.data.statistics import read_statistics
from mmovseg.errors import UserError
from mmovseg.testing.trees_ospretrain import write_png, write_tree


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree", inner=True)


def names(dicts):
    return [item["image_id"] for item in dicts]


def test_every_folder_is_a_source_with_the_exclusions_of_the_release(tree):
    pairs = load_ospretrain(tree)
    assert names(pairs) == [
        *(f"QXSLAB_SARPORT/a{i}" for i in (1, 2, 3, 4)),
        *(f"SpaceNet6/s{i}" for i in (1, 2, 3)),
        "WHU-OPT-SAR/w1",
        "WHU-OPT-SAR/w2",
    ]
    assert pairs[0]["source"] == "QXSLAB_SARPORT"
    assert pairs[0]["file_name"] == str(tree / "QXSLAB_SARPORT" / "RGB" / "a1.png")
    assert pairs[0]["sar_file_name"] == str(tree / "QXSLAB_SARPORT" / "SAR" / "a1.png")


def test_exclusions_are_options(tree):
    everything = load_ospretrain(tree, exclude=None, exclude_lists=None)
    assert {"PIE-RGB-SAR/p1", "WHU-OPT-SAR/w3"} <= set(names(everything)) and len(everything) == 11
    assert names(load_ospretrain(tree, include=["PIE-RGB-SAR"])) == ["PIE-RGB-SAR/p1"]
    without = load_ospretrain(tree, exclude=["SpaceNet6"], exclude_lists={"QXSLAB_SARPORT": ["train"]})
    assert names(without) == ["PIE-RGB-SAR/p1", "QXSLAB_SARPORT/a4", *(f"WHU-OPT-SAR/w{i}" for i in (1, 2, 3))]


def test_unpaired_images_have_sources_of_their_own(tree):
    optical, sar = (load_ospretrain(tree, part=f"unpaired_{key}") for key in ("optical", "sar"))
    assert collections.Counter(item["source"] for item in optical) == {"Unpaired": 3, "FAIR1M": 2}
    assert collections.Counter(item["source"] for item in sar) == {"Unpaired": 3, "SARDet": 2}
    assert all("sar_file_name" not in item for item in optical) and all("file_name" not in item for item in sar)
    assert names(load_ospretrain(tree, part="unpaired_sar", include=["SARDet"])) == ["SARDet/u3", "SARDet/u4"]


def test_a_name_in_a_list_left_out_stays_out(tree):
    (tree / "WHU-OPT-SAR" / "train.txt").write_text("w1\nw3\nw1.png\n\nw2.png\n")
    assert names(load_ospretrain(tree, include=["WHU-OPT-SAR"])) == ["WHU-OPT-SAR/w1", "WHU-OPT-SAR/w2"]


def test_a_list_that_cannot_be_left_out_is_a_warning(tree, caplog):
    for name in ("train", "test"):
        (tree / "WHU-OPT-SAR" / f"{name}.txt").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(load_ospretrain(tree, include=["WHU-OPT-SAR"])) == 3
    assert "WHU-OPT-SAR' has no list files: all is taken, also what ('test',) would leave out" in caplog.text
    caplog.clear()
    load_ospretrain(tree, include=["SpaceNet6"])
    assert not caplog.records


def test_names_may_hold_folders_dots_and_other_suffixes(tree):
    source = tree / "Mine"
    for modality in ("RGB", "SAR"):
        shutil.copy(tree / "SpaceNet6" / modality / "s1.png", write_to(source / modality / "city" / "1.5m_7.png"))
    assert names(load_ospretrain(tree, include=["Mine"])) == ["Mine/city/1.5m_7"]
    (source / "train.txt").write_text("city/1.5m_7.tif\n")
    assert names(load_ospretrain(tree, include=["Mine"])) == ["Mine/city/1.5m_7"]


def write_to(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def break_list(tree):
    (tree / "QXSLAB_SARPORT" / "train.txt").write_text("\n \n")


def break_name(tree):
    (tree / "QXSLAB_SARPORT" / "train.txt").write_text("a1\na9\n")


def break_partner(tree):
    (tree / "SpaceNet6" / "SAR" / "s2.png").unlink()


def break_folder(tree):
    shutil.rmtree(tree / "SpaceNet6" / "SAR")


def break_twins(tree):
    shutil.copy(tree / "SpaceNet6" / "SAR" / "s2.png", tree / "SpaceNet6" / "SAR" / "s2.tif")


def break_emptied(tree):
    for modality in ("RGB", "SAR"):
        for file in (tree / "SpaceNet6" / modality).iterdir():
            file.unlink()


def break_lists(tree):
    (tree / "WHU-OPT-SAR" / "train.txt").unlink()


def break_unpaired(tree):
    for file in (tree / "Unpaired" / "RGB" / "FAIR1M").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_list, r"^list '.*QXSLAB_SARPORT/train\.txt' is empty"),
        (break_name, r"^source 'QXSLAB_SARPORT' has no raster 'a9' in '.*RGB' \(1 of 3 are missing there\)$"),
        (break_partner, r"^source 'SpaceNet6' has no raster 's2' in '.*SAR' \(1 of 3 are missing there\)$"),
        (break_folder, r"^source '.*SpaceNet6' has a folder RGB alone; .* belong into '.*Unpaired/RGB/SpaceNet6'$"),
        (break_twins, r"^folder '.*SAR' has two rasters named 's2': s2\.\w+, s2\.\w+$"),
        (break_emptied, r"^source '.*SpaceNet6' has no raster \("),
        (break_lists, r"^source '.*WHU-OPT-SAR' has no name left: its lists test are left out$"),
        (break_unpaired, r"^unpaired source '.*FAIR1M' has no raster"),
    ],
)
def test_a_bad_tree_is_one_sentence(tree, break_it, message):
    break_it(tree)
    with pytest.raises(UserError, match=message):
        load_ospretrain(tree)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "gone"}, "^pretraining data 'gone' do not exist"),
        ({"part": "pairs"}, "no part 'pairs'; known: paired, unpaired_optical, unpaired_sar"),
        (
            {"include": ["Mine"]},
            "has no source 'Mine', which include names; it has: FAIR1M, PIE-RGB-SAR, QXSLAB_SARPORT, SARDet",
        ),
        ({"exclude": ["YESeg-OPT-SAR", "SpaceNet"]}, "has no source 'SpaceNet', which exclude names; it has: FAIR1M"),
        ({"exclude_lists": {"DDHR": ["test"], "WHU": ["test"]}}, "no source 'WHU', which exclude_lists names; it has"),
        ({"include": ["FAIR1M"]}, "^no paired source of '.*' is in use; it has: PIE-RGB-SAR, QXS"),
        (
            {"exclude_lists": {"SpaceNet6": ["dev"]}},
            "exclude_lists of 'SpaceNet6' has 'dev'; lists are train, val, test",
        ),
    ],
)
def test_bad_options_are_one_sentence(tree, options, message):
    with pytest.raises(UserError, match=message):
        load_ospretrain(**({"root": tree} | options))


def test_the_tree_lies_below_the_folder_of_the_data_sets(tree, monkeypatch):
    tree.rename(tree.parent / "OSPretrain-1M")
    write_png(tree.parent / "OSPretrain-1M" / "notes" / "x.png", np.zeros((4, 4)))  # no source: neither RGB nor SAR
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tree.parent))
    assert len(load_ospretrain()) == 9


def test_the_shipped_statistics_are_those_of_the_release():
    table = read_statistics("ospretrain")
    assert len(table) == 15 and all(source.origin.startswith("reported") for source in table.values())
    whu, unpaired = table["WHU-OPT-SAR"], table["Unpaired"]
    assert whu.optical.mean == pytest.approx((41.7945, 38.9385, 32.13)) and whu.optical.std[2] == pytest.approx(17.9265)
    assert unpaired.sar.mean == pytest.approx((44.319,) * 3) and unpaired.sar.std == pytest.approx((56.763,) * 3)
    assert {source.sar.unit for source in table.values()} == {"amplitude8"}
