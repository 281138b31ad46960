"""Several data sets as one: ratios, epochs, resume, ids, readers by source, and what is refused."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
import torch

from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.datasets import load_pair_folder, mix_datasets
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.readers import ConvertedSar, SourceReader
from mmovseg.data.sample import RawSample
from mmovseg.data.samplers import DrawOrder, MixOrder
from mmovseg.data.sar import convert_sar
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs


def pairs(count, name="p"):
    return [{"file_name": f"{name}{index}.tif", "image_id": str(index)} for index in range(count)]


def mix(*ratios, sizes=(6, 2), **options):
    sources = [
        {"name": "abcdef"[i], "dataset": pairs(size, "abcdef"[i]), "ratio": ratio}
        for i, (size, ratio) in enumerate(zip(sizes, ratios, strict=True))
    ]
    return mix_datasets(sources=sources, **options)


def drawn(dataset, count, seed=0, start=0):
    order = dataset.order(seed)
    return [dataset[order[draw]]["image_id"] for draw in range(start, start + count)]


def test_without_ratios_an_epoch_takes_every_pair_once():
    dataset = mix(None, None)
    epochs = [drawn(dataset, 8, start=8 * epoch) for epoch in range(3)]
    assert [item["image_id"] for item in dataset] == [f"a/{i}" for i in range(6)] + ["b/0", "b/1"]
    assert all(sorted(epoch) == sorted(item["image_id"] for item in dataset) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3 and dataset[7]["source"] == "b"


@pytest.mark.parametrize(("ratios", "expected"), [((1, 1), (4, 4)), ((0.9, 0.3), (6, 2)), ((1e6, 1), (8, 1))])
def test_ratios_hold_exactly_in_every_epoch(ratios, expected):
    dataset = mix(*ratios)
    assert tuple(part.quota for part in dataset.parts) == expected
    length = sum(expected)
    for epoch in range(5):
        counts = collections.Counter(name[0] for name in drawn(dataset, length, start=epoch * length))
        assert (counts["a"], counts["b"]) == expected


def test_a_source_repeats_no_pair_before_all_were_drawn():
    dataset = mix(1, 3)
    names = drawn(dataset, 240)
    for source, size in (("a", 6), ("b", 2)):
        own = [name for name in names if name.startswith(source)]
        rounds = [own[first : first + size] for first in range(0, len(own) - size + 1, size)]
        assert len(rounds) > 5 and all(len(set(turn)) == size for turn in rounds)


def test_a_draw_does_not_depend_on_those_before():
    dataset = mix(2, 3, sizes=(7, 5))
    whole = drawn(dataset, 100, seed=4)
    order = dataset.order(4)
    jumps = [73, 5, 99, 0, 48, 47]
    assert [dataset[order[draw]]["image_id"] for draw in jumps] == [whole[draw] for draw in jumps]
    assert drawn(dataset, 100, seed=5) != whole and drawn(mix(2, 3, sizes=(7, 5)), 100, seed=4) == whole


def test_the_order_within_a_source_is_its_own():
    """What a source is mixed with moves its turns, but not which of its pairs comes first."""
    alone = [name for name in drawn(mix(1, 0), 6)]
    mixed = [name for name in drawn(mix(1, 2, sizes=(6, 9)), 40) if name.startswith("a")][:6]
    assert mixed == alone and mix(1, 0).parts[0].size == 6 and len(mix(1, 0)) == 6


def test_the_epoch_may_be_longer_than_the_pairs():
    dataset = mix(2, 1, epoch_size=300)
    assert [part.quota for part in dataset.parts] == [200, 100] and len(dataset) == 8


def test_one_part_of_everything_is_the_plain_order_in_kind():
    order = MixOrder([5], [5], [9], seed=1)
    plain = DrawOrder(5, (1, 9))
    assert [order[draw] for draw in range(20)] == [plain[draw] for draw in range(20)]


def read_names(dataset_dict):
    return RawSample(optical=np.zeros((4, 4, 3), np.uint8), sar=np.zeros((4, 4, 1), np.float32))


def mapper(**options):
    return OpticalSARMapper(**({"is_train": True, "vocabulary": None, "reader": read_names} | options))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_draws_by_ratio_and_resumes(num_workers):
    dataset = mix(1, 1, sizes=(6, 2))
    options = {"dataset": dataset, "mapper": mapper(), "batch_size": 4, "seed": 3}
    whole = list(itertools.islice(iter(build_train_loader(**options)), 6))
    names = [item["image_id"] for batch in whole for item in batch]
    assert names == drawn(dataset, 24, seed=3) and {item["source"] for item in whole[0]} <= {"a", "b"}
    later = iter(build_train_loader(**options, start_iter=4, num_workers=num_workers))
    assert [item["image_id"] for batch in itertools.islice(later, 2) for item in batch] == names[16:]


def test_processes_share_a_batch_of_the_mix(monkeypatch):
    options = {"dataset": mix(1, 1), "mapper": mapper(), "batch_size": 4}
    alone = [item["image_id"] for item in next(iter(build_train_loader(**options)))]
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
        shares.append([item["image_id"] for item in next(iter(build_train_loader(**options)))])
    assert [name for pair in zip(*shares, strict=True) for name in pair] == alone


def test_a_test_loader_sees_the_mix_once():
    items = [item for batch in build_test_loader(dataset=mix(1, 9), mapper=mapper(is_train=False)) for item in batch]
    assert [item["image_id"] for item in items] == [item["image_id"] for item in mix(None, None)]


def test_a_registered_set_by_name_and_one_that_is_switched_off():
    sources = [
        {"name": "small", "dataset": "miniearth_train", "options": {"num_scenes": 3, "size": 32}},
        {"name": "gone", "dataset": "spacenet6_train", "ratio": 0},
    ]
    dataset = mix_datasets(sources=sources)
    assert [item["image_id"] for item in dataset] == [f"small/miniearth_train_{i:06d}" for i in range(3)]
    assert dataset[0]["height"] == 32 and [part.name for part in dataset.parts] == ["small"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no source with a ratio above 0"),
        ([{"name": "a", "dataset": pairs(1), "ratio": 0}], "no source with a ratio above 0"),
        ([{"name": "a", "dataset": pairs(1), "weight": 1}], "no key 'weight'; known: name, dataset, options, folder"),
        ([{"name": "a.b", "dataset": pairs(1)}], "name without a dot or slash, got 'a.b'"),
        ([{"name": "a"}], "'a' of the mix needs either a dataset or a folder"),
        ([{"name": "a", "dataset": pairs(1), "folder": {"optical_dir": "x"}}], "either a dataset or a folder"),
        (
            [{"name": "a", "folder": {"optical": "x"}}],
            "folder of source 'a' has no option 'optical'; known: optical_dir",
        ),
        ([{"name": "a", "folder": {"optical_dir": "gone"}}], "folder 'gone' does not exist"),
        ([{"name": "a", "dataset": []}], "'a' of the mix is empty"),
        ([{"name": "a", "dataset": pairs(1), "ratio": -1}], "'a' of the mix has the ratio -1"),
        ([{"name": "a", "dataset": pairs(1), "ratio": float("nan")}], "'a' of the mix has the ratio nan"),
        ([{"name": "a", "dataset": pairs(1) * 2}], "image_id '0' more than once"),
        ([{"name": "a", "dataset": pairs(1)}] * 2, "names the source 'a' more than once"),
        ([{"name": "a", "dataset": pairs(1), "options": {"size": 3}}], "'a' of the mix has options"),
        ([{"name": "a", "dataset": "gone_train"}], "unknown data set 'gone_train'"),
        (
            [{"name": "a", "dataset": pairs(1), "ratio": 1}, {"name": "b", "dataset": pairs(1)}],
            "source 'b' of the mix has no ratio, but another one has",
        ),
    ],
)
def test_a_wrong_mix_is_refused(sources, message):
    with pytest.raises(UserError, match=message):
        mix_datasets(sources=sources)


def test_an_epoch_must_hold_all_sources():
    with pytest.raises(UserError, match="an epoch of 1 draws cannot hold the 2 sources"):
        mix(1, 1, epoch_size=1)


def test_readers_go_by_source_and_units_meet(tmp_path):
    db = write_pairs(tmp_path / "db", count=1, sar="tif_db", with_nan=False)
    linear = write_pairs(tmp_path / "linear", count=1, sar="tif_linear", with_nan=False)
    sources = [
        {"name": "one", "dataset": load_pair_folder(db.optical_dir, db.sar_dir)},
        {"name": "two", "dataset": load_pair_folder(linear.optical_dir, linear.sar_dir)},
    ]
    reader = SourceReader(
        readers={
            "one": FileReader(),
            "two": FileReader(sar_unit_in="linear", sar_polarisations_in=("VV", "VH"), sar_polarisations=("VH", "VV")),
        }
    )
    first, second = (mapper(reader=reader)(item | {"_draw": 0}) for item in mix_datasets(sources=sources))
    np.testing.assert_allclose(first["sar"].numpy(), db.truth[0]["sar_db"].transpose(2, 0, 1), atol=1e-4)
    np.testing.assert_allclose(
        second["sar"].numpy(), linear.truth[0]["sar_db"][:, :, ::-1].transpose(2, 0, 1), atol=1e-4
    )
    assert (first["source"], second["source"], reader.sar_unit) == ("one", "two", "db")
    with pytest.raises(UserError, match="source 'three'; there are readers for: one, two"):
        reader({"file_name": "x.tif", "source": "three"})
    with pytest.raises(UserError, match="is of source 'None'"):
        reader({"file_name": "x.tif"})


def test_readers_of_different_units_are_refused():
    with pytest.raises(UserError, match="one unit, got: a db, b amplitude8"):
        SourceReader(readers={"a": FileReader(), "b": FileReader(sar_unit="amplitude8")})
    with pytest.raises(UserError, match="at least one source"):
        SourceReader(readers={})


def test_converted_sar_changes_unit_and_bands():
    (item,) = mix_datasets(
        sources=[{"name": "m", "dataset": "miniearth_train", "options": {"num_scenes": 1, "size": 32}}]
    )
    plain = MiniEarthReader()(item)
    reader = ConvertedSar(
        reader=MiniEarthReader(),
        sar_unit="amplitude8",
        sar_polarisations_in=("VV", "VH"),
        sar_polarisations=("VH", "VH", "VV"),
    )
    sar = reader(item).sar
    expected = convert_sar(plain.sar, unit_in="db", unit_out="amplitude8")
    np.testing.assert_array_equal(sar, expected[:, :, [1, 1, 0]])
    assert SourceReader(readers={"m": reader}).sar_unit == "amplitude8"
    without = ConvertedSar(reader=lambda _: RawSample(optical=np.zeros((2, 2, 3), np.uint8)))
    assert without({}).sar is None
    with pytest.raises(UserError, match="unknown SAR unit 'dB'"):
        ConvertedSar(reader=MiniEarthReader(), sar_unit="dB")
    with pytest.raises(UserError, match="pick the polarisations VV, name those"):
        ConvertedSar(reader=MiniEarthReader(), sar_polarisations=("VV",))


def test_unlabelled_folders_give_pairs_without_labels(tmp_path):
    fake = write_pairs(tmp_path, count=2)
    sources = [
        {"name": "mine", "folder": {"optical_dir": str(fake.optical_dir), "sar_dir": str(fake.sar_dir)}},
        {"name": "off", "folder": {"optical_dir": "gone"}, "ratio": 0},
    ]
    loader = build_train_loader(
        dataset=mix_datasets(sources=sources),
        mapper=mapper(reader=SourceReader(readers={"mine": FileReader()})),
        batch_size=2,
    )
    batch = next(iter(loader))
    assert all({"image", "sar", "valid", "sar_valid", "source"} <= set(item) for item in batch)
    assert all({"sem_seg", "vocabulary"}.isdisjoint(item) for item in batch)
    assert all(torch.isfinite(item["sar"]).all() for item in batch)
