"""The 22 benchmarks: the table is the paper's, and every one loads on small trees with labels of its own classes."""

import json
from collections import Counter

import numpy as np
import pytest

from mmovseg.data.datasets import catalog
from mmovseg.data.datasets.sar_sets import SAR_SETS
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError
from mmovseg.projects.crossearth.data.benchmarks import (
    benchmark_vocabulary,
    get_benchmark,
    list_benchmarks,
    load_benchmark,
    paper_figures,
)
from mmovseg.projects.crossearth.data.unification import label_map, read_unification
from mmovseg.testing.trees_sar import fake_sar_tiles, write_sar_tree

CODES = list_benchmarks()
REPORTED_MEANS = {  # method: mean over the 12 benchmarks with one gap, over the 10 others, as the paper prints them
    "S12-MoCo": (25.6, 16.3),
    "S12-DINO": (30.5, 20.6),
    "S12-MAE": (21.0, 18.3),
    "DOFA": (26.8, 17.5),
    "SatMAE": (30.7, 20.0),
    "ScaleMAE": (28.2, 16.7),
    "RemoteCLIP": (21.0, 12.8),
    "MTP": (44.7, 13.1),
    "DINOv2-L": (55.5, 24.3),
    "DINOv3-L": (53.0, 21.7),
    "SARATR-X": (49.3, 15.8),
    "CrossEarth-SAR-S": (59.7, 24.8),
    "CrossEarth-SAR-B": (61.1, 25.4),
    "CrossEarth-SAR-L": (61.9, 27.7),
    "CrossEarth-SAR-L*": (62.7, 28.5),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_sar_tree(tmp_path_factory.mktemp("sets"), count=2, size=48)


def test_the_table_is_the_papers():
    assert len(CODES) == len(set(CODES)) == 22
    table = [get_benchmark(code) for code in CODES]
    counts = Counter(benchmark.gap for benchmark in table)
    assert counts == {
        "region": 4,
        "polarisation": 4,
        "complex": 4,
        "region+polarisation": 2,
        "region+platform": 2,
        "region+band": 2,
        "region+polarisation+band": 2,
        "region+platform+band": 2,
    }
    assert [benchmark.num_gaps for benchmark in table] == [1] * 12 + [2] * 6 + [3] * 4
    for one, other in zip(CODES[::2], CODES[1::2], strict=True):  # every pair of domains in both directions
        first, second = get_benchmark(one), get_benchmark(other)
        assert (first.source, first.target) == (second.target, second.source)
    for benchmark in table:
        assert len(benchmark.vocabulary()) == max(benchmark.num_classes, 2), benchmark.code
        assert benchmark.vocabulary().names == sorted(benchmark.vocabulary().names)
        assert benchmark.vocabulary().unseen_ids == []


def test_numbers_of_images_agree_with_those_of_the_sets():
    reported = {entry.name: entry.facts.pairs for entry in SAR_SETS}
    typos = {"O2D", "W2D"}  # the paper gives DDHR 1,567 test images there and 1,566 elsewhere
    for code in CODES:
        benchmark = get_benchmark(code)
        if benchmark.source.region is None:
            assert benchmark.num_train == reported[benchmark.source.dataset]["train"], code
            expected = reported[benchmark.target.dataset]["test"] + (code in typos)
            assert benchmark.num_test == expected, code
    north, south = get_benchmark("S2N"), get_benchmark("N2S")
    assert south.num_train + north.num_train == reported["air_polsar"]["train"]
    assert south.num_test + north.num_test == reported["air_polsar"]["test"]


def test_reported_figures_have_the_reported_means():
    figures = paper_figures()
    assert list(figures) == list(REPORTED_MEANS)
    for method, means in REPORTED_MEANS.items():
        assert list(figures[method]) == CODES
        for codes, mean in zip((CODES[:12], CODES[12:]), means, strict=True):
            assert abs(np.mean([figures[method][code] for code in codes]) - mean) <= 0.051, method
    assert get_benchmark("R2C(r)").reported["CrossEarth-SAR-L"] == 73.6
    assert get_benchmark("A2S").reported["RemoteCLIP"] == 2.7


def test_names_of_benchmarks():
    assert get_benchmark("cr2r") is get_benchmark("C(r)2R") and get_benchmark("C(r)2R").slug == "Cr2R"
    assert list_benchmarks("region+band") == ["S2A", "A2S"]
    with pytest.raises(UserError, match="unknown benchmark 'X2Y'; known: N2S, S2N"):
        get_benchmark("X2Y")
    with pytest.raises(UserError, match="unknown gap 'season'; known: region, polarisation"):
        list_benchmarks("season")
    assert get_benchmark("S2A").metric == "IoU-building" and get_benchmark("F2A").metric == "mIoU"
    assert benchmark_vocabulary("S2A").names == ["building", "other"]


@pytest.mark.parametrize("code", CODES)
def test_every_benchmark_gives_samples_of_its_classes(root, code):
    benchmark = get_benchmark(code)
    vocabulary = benchmark.vocabulary()
    reader = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)
    for part, domain in (("train", benchmark.source), ("test", benchmark.target)):
        items = benchmark.load(part, root=root)
        stored = {tile.stem: tile for tile in fake_sar_tiles(domain.dataset, count=2, size=48)}
        assert {item["source"] for item in items} == {domain.name}
        assert all(stored[item["image_id"]].split == part for item in items)
        mapper = OpticalSARMapper(is_train=part == "train", vocabulary=vocabulary, reader=reader, modality="sar")
        shown = set()
        for item in items:
            mapped = mapper(item)
            assert "image" not in mapped and mapped["sar"].shape == (3, 48, 48)
            shown |= set(mapped["sem_seg"].unique().tolist())
        assert shown - {255} == set(range(len(vocabulary))), code


def test_views_and_regions(root):
    def folders(code, part, **options):
        return {item["sar_file_name"].split("/")[-2] for item in load_benchmark(code, part=part, root=root, **options)}

    def scenes(code, part, **options):
        return {item["image_id"][:2] for item in load_benchmark(code, part=part, root=root, **options)}

    assert folders("VV2F", "train") == {"sar_vv_amp"} and folders("VV2F", "test") == {"sar_full_amp"}
    assert folders("VV2F", "train", polarisation="hv") == {"sar_vv_amp"}  # it is the gap
    assert folders("C(r)2R", "train") == {"sar_hh_real"} and folders("C(r)2R", "test") == {"sar_hh_amp"}
    assert folders("R2C(i)", "test", polarisation="vv") == {"sar_vv_imag"}
    assert folders("F2A", "test", polarisation="full") == {"sar_full_amp"} and folders("F2A", "train") == {"sar"}
    assert scenes("N2S", "train") == {"bj"} and scenes("N2S", "test") == {"sh", "gz"}
    assert scenes("S2N", "train", regions={"south": ["gz"]}) == {"gz"} and scenes("A2F", "train") == {"bj", "sh", "gz"}
    with pytest.raises(UserError, match="no tile of the region xx: its ids begin otherwise.*prepare_air_polsar"):
        load_benchmark("N2S", part="train", root=root, regions={"north": ["xx"]})
    with pytest.raises(UserError, match="unknown region 'west'; known: north, south"):
        load_benchmark("N2S", part="train", root=root, regions={"west": ["bj"]})
    with pytest.raises(UserError, match="unknown polarisation 'rh'; known: hh, hv, vh, vv, full"):
        load_benchmark("N2S", part="train", root=root, polarisation="rh")
    with pytest.raises(UserError, match="'air_polsar' has no view 'full_real' here; it has: hh_real"):
        load_benchmark("C(r)2R", part="train", root=root, polarisation="full")
    with pytest.raises(UserError, match="parts train and test, got 'val'"):
        load_benchmark("N2S", part="val", root=root)


def test_a_missing_set_names_its_script(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_chosen_root", None)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(UserError, match=r"'oem_sar_train' is not there: .*oem_sar/train/sar'.*prepare_oem_sar.py"):
        load_benchmark("O2D", part="train")
    write_sar_tree(tmp_path, names=["oem_sar"], count=1, size=16)
    assert len(load_benchmark("O2D", part="train")) == 1


def test_unification_covers_every_class():
    for classes, parts in read_unification().items():
        for name in parts:
            mapped = label_map(classes, name)
            assert set(mapped) == {*range(len(get_vocabulary(name))), 255}
            assert set(mapped.values()) - {255} <= set(range(len(get_vocabulary(classes))))
    cover6, oem = get_vocabulary("crossearth_cover6").names, get_vocabulary("oem").names
    mapped = label_map("crossearth_cover6", "oem")
    assert cover6[mapped[oem.index("rangeland")]] == "greenery" and cover6[mapped[oem.index("bare land")]] == "other"
    assert label_map("crossearth_air5", "air_polsar")[get_vocabulary("air_polsar").names.index("mountain")] == 255
    with pytest.raises(UserError, match="no benchmark unifies these classes"):
        label_map("crossearth_air6", "oem")


def test_own_class_table(root, tmp_path):
    own = tmp_path / "own.json"
    table = dict(read_unification()["crossearth_cover5"]["air_polsar"])
    own.write_text(
        json.dumps({"crossearth_cover5": {"air_polsar": table | {"mountain": "vegetation", "unlabelled": "other"}}})
    )
    names = get_vocabulary("crossearth_cover5").names
    mapped = load_benchmark("F2A", part="test", root=root, unification=own)[0]["label_map"]
    assert names[mapped[2]] == "vegetation" and names[mapped[255]] == "other"
    (item, *_) = load_benchmark("F2A", part="test", root=root, unification=own)
    label = FileReader(sar_unit_in="amplitude8")(item).sem_seg
    assert (label[:2] == names.index("other")).all()  # the rows without a label
    assert load_benchmark("A2F", part="test", root=root, unification=own)[0]["label_map"][255] == 255


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must be JSON of the form"),
        ('{"crossearth_cover5": {"air_polsar": {"water": 3}}}', "must be JSON of the form"),
        ('{"cover": {}}', "unknown benchmark vocabulary 'cover'; known: crossearth_air6"),
        ('{"crossearth_cover5": {"oem": {}}}', "unknown class list 'oem' under 'crossearth_cover5'; known: air_polsar"),
        ('{"crossearth_cover5": {"air_polsar": {"water": "water"}}}', "lacks the class 'building'; give null"),
        ("sea", "names the class 'sea'; the data set has: building"),
        ("lake", "maps 'water' to 'lake'; the benchmark has: building"),
    ],
)
def test_bad_class_tables_are_explained(tmp_path, content, message):
    own = tmp_path / "own.json"
    table = dict(read_unification()["crossearth_cover5"]["air_polsar"])
    changed = {"sea": table | {"sea": "water"}, "lake": table | {"water": "lake"}}
    if content in changed:
        content = json.dumps({"crossearth_cover5": {"air_polsar": changed[content]}})
    own.write_text(content)
    with pytest.raises(UserError, match=message):
        label_map("crossearth_cover5", "air_polsar", path=own)
    with pytest.raises(UserError, match="absent.json' cannot be read"):
        read_unification(tmp_path / "absent.json")
