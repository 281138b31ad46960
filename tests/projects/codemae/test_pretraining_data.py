"""Pretraining data: pure batches through the loader, crops together or apart, resume, two processes, configs."""

from __future__ import annotations

import itertools
import json
import runpy
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmovseg.config import apply_overrides, get_config, instantiate
from mmovseg.data.build import build_train_loader
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.sample import RawSample
from mmovseg.data.statistics import compute_statistics, read_statistics
from mmovseg.data.transforms import RandomFlip, RandomResizedCrop
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.pretraining import PretrainingMapper, pretraining_dataset
from mmovseg.projects.codemae.data.sources import miniearth_pretraining, ospretrain_pretraining
from mmovseg.testing.trees_ospretrain import write_png, write_tree
from tests.projects.codemae.pretraining_worker import pretrain_loader, work

ROOT = Path(__file__).parents[3]
OSPRETRAIN = "projects/CoDeMAE/configs/common/data_ospretrain.py"


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path / "tree")


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for one, other in zip(itertools.chain(*left), itertools.chain(*right), strict=True):
        assert one["image_id"] == other["image_id"] and one["paired"] == other["paired"]
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["sar"], other["sar"])


def test_batches_of_files_are_pure_and_name_their_sources(tree):
    batches = take(pretrain_loader(tree), 12)
    assert {len({item["paired"] for item in batch}) for batch in batches} == {1}
    for item in itertools.chain(*batches):
        assert item["image"].shape == (3, 16, 16) and item["image"].dtype == torch.uint8
        assert item["sar"].shape == (3, 16, 16) and item["sar"].dtype == torch.float32
        assert 0 <= item["sar"].min() and 1 < item["sar"].max() <= 255, "raw: the model normalises"
        assert item["paired"] == ("+" not in item["image_id"]) == ("sar_source" not in item)
    names = {item["image_id"].split("/")[0] for item in itertools.chain(*batches)}
    assert names == {"QXSLAB_SARPORT", "WHU-OPT-SAR", "Unpaired"}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_iteration_can_be_entered(tree, num_workers):
    whole = take(pretrain_loader(tree), 16)
    loader = pretrain_loader(tree, start_iter=9, num_workers=num_workers)
    assert_same(take(loader, 7), whole[9:])
    loader.set_start_iter(3)
    assert_same(take(loader, 2), whole[3:5])


@pytest.mark.slow
def test_two_processes_never_wait_for_each_other(tree, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(tree), str(tmp_path)), nprocs=2)
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [len(share) for share in shares] == [25, 25]
    for left, right in zip(*shares, strict=True):
        assert left[0] == right[0] == 2 and len(left[1]) == len(right[1]) == 2
        assert len(set(left[1])) == len(set(right[1])) == 1
    assert {left[1] == right[1] for left, right in zip(*shares, strict=True)} == {True, False}
    pairs = [name for step in zip(*shares, strict=True) for share in step if share[1][0] for name in share[2]]
    assert len(set(pairs[:7])) == len(pairs[:7]) == 7, "each pair once over both before any comes again"


def test_a_rank_takes_its_own_batches(tree, monkeypatch):
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
        shares.append(take(pretrain_loader(tree), 12))
    assert {len(batch) for share in shares for batch in share} == {2}
    assert all(len({item["paired"] for item in batch}) == 1 for share in shares for batch in share)
    names = [[item["image_id"] for batch in share for item in batch] for share in shares]
    assert names[0] != names[1]


def read_place(item):
    """A ramp that says where a pixel was; the SAR raster of an unpaired image is larger."""
    optical = np.add.outer(np.arange(40.0), 2.0 * np.arange(48.0))
    sar = np.add.outer(np.arange(64.0), 2.0 * np.arange(50.0)) if "alone" in item else optical
    return RawSample(
        optical=np.repeat(optical[:, :, None], 3, axis=2).astype(np.uint8) if "file_name" in item else None,
        sar=sar[:, :, None].astype(np.float32) if "sar_file_name" in item else None,
    )


def mapper(**options):
    geometry = [RandomResizedCrop(20), RandomFlip()]
    return PretrainingMapper(**({"reader": read_place, "geometry": geometry} | options))


def test_a_pair_is_moved_as_one_and_unpaired_images_apart():
    apart = []
    for draw in range(12):
        pair = mapper()({"file_name": "a", "sar_file_name": "a", "image_id": "a", "_draw": draw})
        np.testing.assert_allclose(pair["image"][0].numpy(), pair["sar"][0].numpy(), atol=0.6)
        other = {"sar_file_name": "s", "image_id": "s", "source": "two"}
        item = mapper()({"file_name": "a", "image_id": "a", "source": "one", "sar_from": other, "_draw": draw})
        assert (item["paired"], item["image_id"], item["source"], item["sar_source"]) == (False, "a+s", "one", "two")
        assert item["image"].shape[1:] == item["sar"].shape[1:] == (20, 20)
        apart.append(float((item["image"][0] - item["sar"][0]).abs().mean()))
    assert min(apart) > 1.0, "the same numbers would have made the same crop"


def test_unpaired_rasters_may_differ_in_size_and_a_reading_repeats():
    item = {
        "file_name": "a",
        "image_id": "a",
        "sar_from": {"sar_file_name": "s", "image_id": "s", "alone": 1},
        "_draw": 5,
    }
    one, two, other = mapper()(dict(item)), mapper()(dict(item)), mapper(seed=1)(dict(item))
    assert torch.equal(one["sar"], two["sar"]) and not torch.equal(one["sar"], other["sar"])


def test_unpaired_rasters_keep_their_own_gaps():
    def read(item):
        raw = read_place(item)
        part = "optical" if raw.sar is None else "sar"
        valid = np.ones(getattr(raw, part).shape[:2], dtype=bool)
        valid[:, : {"optical": 5, "sar": 25}[part]] = False
        setattr(raw, f"{part}_valid", valid)
        return raw

    other = {"sar_file_name": "s", "image_id": "s", "alone": 1}
    item = mapper(reader=read, geometry=[])({"file_name": "a", "image_id": "a", "sar_from": other, "_draw": 0})
    assert (~item["valid"]).sum() == 40 * 5 and (~item["sar_valid"]).sum() == 64 * 25


def test_a_pair_without_its_partner_is_refused():
    with pytest.raises(UserError, match="^pair 'a' lacks its SAR raster$"):
        mapper()({"file_name": "a", "image_id": "a", "_draw": 0})


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        (
            (2, 3, 2),
            {},
            "^there are 3 unpaired optical images but 2 unpaired SAR images; .* set dataset.unequal=repeat",
        ),
        ((2, 3, 3), {"unequal": "cut"}, "^unequal must be refuse or repeat, got 'cut'$"),
        ((2, 0, 3), {}, "^the pretraining data list no unpaired optical images"),
        ((2, None, 3), {}, "^the pretraining data have unpaired SAR images but no unpaired optical ones$"),
        ((0, None, None), {}, "^the pretraining data list no pairs"),
        ((None, None, None), {}, "^the pretraining data have neither pairs nor unpaired images$"),
    ],
)
def test_bad_parts_are_one_sentence(counts, options, message):
    keys = ({"file_name": "a", "sar_file_name": "a"}, {"file_name": "a"}, {"sar_file_name": "a"})
    parts = [None if count is None else [key] * count for count, key in zip(counts, keys, strict=True)]
    with pytest.raises(UserError, match=message):
        pretraining_dataset(paired=parts[0], unpaired_optical=parts[1], unpaired_sar=parts[2], **options)


def test_a_sample_without_its_raster_is_named():
    with pytest.raises(UserError, match="^sample 'x/1' of the pretraining data has no sar_file_name$"):
        pretraining_dataset(paired=[{"file_name": "a", "image_id": "x/1"}])


def test_unequal_counts_may_repeat(tree):
    write_png(tree / "Unpaired" / "SAR" / "more.png", np.zeros((20, 20)))
    with pytest.raises(UserError, match="^there are 5 unpaired optical images but 6 unpaired SAR images"):
        ospretrain_pretraining(root=tree)
    options = ["dataloader.train.dataset.unequal=repeat", "dataloader.train.dataset.use=unpaired"]
    dataset = instantiate(config(tree, *options, "dataloader.train.dataset.exclude=[]").dataloader.train.dataset)
    assert (dataset.num_pairs, dataset.num_optical, dataset.num_sar) == (0, 5, 6)


def test_a_part_that_is_not_in_use_is_not_looked_for(tree):
    assert ospretrain_pretraining(root=tree, use="unpaired").num_pairs == 0
    (tree / "Unpaired").rename(tree / ".gone")
    assert ospretrain_pretraining(root=tree, use="paired").num_pairs == 9
    with pytest.raises(UserError, match="^no unpaired optical source of '.*' is in use; it has: none$"):
        ospretrain_pretraining(root=tree)
    with pytest.raises(UserError, match="as one of both, paired, unpaired, not 'pairs'"):
        ospretrain_pretraining(root=tree, use="pairs")


def config(tree, *overrides):
    options = [f"dataloader.train.dataset.root={tree}", "dataloader.train.batch_size=4"]
    return apply_overrides(get_config(OSPRETRAIN), [*options, "dataloader.train.num_workers=0", *overrides])


def test_the_config_reads_the_tree_with_the_constants_of_each_source(tree):
    found = config(tree, "dataloader.train.mapper.geometry.0.size=32")
    batches = take(instantiate(found.dataloader.train), 8)
    optical, sar = instantiate(found.optical_norm), instantiate(found.sar_norm)
    item = next(item for item in itertools.chain(*batches) if item["source"] == "WHU-OPT-SAR")
    assert optical.for_item(item).mean.flatten().tolist() == pytest.approx([41.7945, 38.9385, 32.13], rel=1e-5)
    assert sar.for_item(item).std.flatten().tolist() == pytest.approx([48.7305] * 3, rel=1e-5)
    contract = instantiate(found.input_contract)
    assert len(contract.sources) == 15 and contract.sources[-1].optical.mean == (98.5575, 104.984, 92.616)
    assert contract.optical.unit == "uint8" and contract.sar.bands == ("amplitude",) * 3
    assert {item["paired"] for item in itertools.chain(*batches)} == {True, False}


def test_one_source_can_give_each_image(tree):
    """`sar_source` goes before `source` where SAR is normalised, and only there."""
    found = config(tree)
    item = {"source": "WHU-OPT-SAR", "sar_source": "Unpaired"}
    assert instantiate(found.sar_norm).for_item(item).mean[0].item() == pytest.approx(44.319, rel=1e-5)
    assert instantiate(found.optical_norm).for_item(item).mean[0].item() == pytest.approx(41.7945, rel=1e-5)


def test_a_new_folder_needs_no_code_but_its_statistics(tree, tmp_path, monkeypatch, capsys):
    for name in ("m1", "m2", "m3"):
        for modality, level in (("RGB", (10, 20, 30)), ("SAR", 40)):
            write_png(
                tree / "Mine" / modality / f"{name}.png", np.full((20, 20, 3) if modality == "RGB" else (20, 20), level)
            )
    with pytest.raises(
        UserError, match="^source 'Mine' has no optical statistics in 'ospretrain'; measure them: .*--base"
    ):
        instantiate(config(tree).dataloader.train.dataset)
    out = tmp_path / "mine.json"
    command = ["--config-file", OSPRETRAIN, "--base", "ospretrain", "--quiet", "--output", str(out)]
    overrides = [f"dataloader.train.dataset.root={tree}", "dataloader.train.dataset.include=[Mine]"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        sys, "argv", ["compute_statistics.py", *command, *overrides, "dataloader.train.dataset.use=paired"]
    )
    runpy.run_path(str(ROOT / "tools" / "compute_statistics.py"), run_name="__main__")
    table = read_statistics(out)
    assert (
        len(table) == 16 and table["Mine"].optical.mean == (10.0, 20.0, 30.0) and table["Mine"].sar.mean == (40.0,) * 3
    )
    assert table["Mine"].origin == "measured on 3 of 3 pairs" and "Mine" in capsys.readouterr().out
    dataset = instantiate(config(tree, f"dataloader.train.dataset.statistics={out}").dataloader.train.dataset)
    assert dataset.num_pairs == 12


def test_unpaired_sources_are_measured_apart(tmp_path, monkeypatch):
    tree, out = write_tree(tmp_path / "tree", inner=True), tmp_path / "all.json"
    for number in (3, 4):
        write_png(tree / "Unpaired" / "SAR" / "SARDet" / f"u{number}.png", np.full((20, 20), 99))
    with pytest.raises(UserError, match="^source 'FAIR1M' has no optical statistics in 'ospretrain'"):
        instantiate(config(tree).dataloader.train.dataset)
    monkeypatch.chdir(ROOT)
    unpaired = "dataloader.train.dataset.use=unpaired"
    command = ["--config-file", OSPRETRAIN, "--quiet", "--output", str(out), f"dataloader.train.dataset.root={tree}"]
    monkeypatch.setattr(sys, "argv", ["compute_statistics.py", *command, unpaired])
    runpy.run_path(str(ROOT / "tools" / "compute_statistics.py"), run_name="__main__")
    table = read_statistics(out)
    assert set(table) == {"Unpaired", "FAIR1M", "SARDet"}
    assert table["SARDet"].optical is None and table["SARDet"].sar.mean == (99.0,) * 3 and table["FAIR1M"].sar is None
    assert table["SARDet"].origin == "measured on 2 of 2 images"
    found = config(tree, f"dataloader.train.dataset.statistics={out}", unpaired)
    items = list(itertools.chain(*take(instantiate(found.dataloader.train), 12)))
    assert {item["source"] for item in items} == {"Unpaired", "FAIR1M"}
    assert {item["sar_source"] for item in items} == {"Unpaired", "SARDet"}
    contract = instantiate(found.input_contract)
    assert [part.name for part in contract.sources if part.sar is None] == ["FAIR1M"]


def test_miniearth_gives_scenes_and_chips():
    dataset = miniearth_pretraining(num_pairs=4, num_chips=3)
    assert (dataset.num_pairs, dataset.num_optical, dataset.num_sar) == (4, 3, 3)
    assert [item["source"] for item in dataset] == ["scenes"] * 4 + ["chips"] * 6
    assert miniearth_pretraining(use="paired", num_pairs=4).num_optical == 0
    assert miniearth_pretraining(use="unpaired", num_chips=3).num_pairs == 0


def test_a_generated_chip_counts_for_its_own_sensor_alone():
    dataset = miniearth_pretraining(num_pairs=2, num_chips=3)
    measured = compute_statistics(dataset, MiniEarthReader(), default_source="none")
    assert measured["scenes"].optical.pixels == measured["scenes"].sar.pixels == 2 * 64 * 64
    assert measured["chips"].optical.pixels == measured["chips"].sar.pixels == 3 * 64 * 64
    assert measured["chips"].origin == "measured on 6 of 6 images"


def test_the_miniearth_config_gives_both_kinds():
    found = get_config("projects/CoDeMAE/configs/common/data_miniearth.py")
    found.dataloader.train.dataset.num_pairs, found.dataloader.train.dataset.num_chips = 4, 3
    found.dataloader.train.batch_size = 3
    items = list(itertools.chain(*take(instantiate(found.dataloader.train), 6)))
    assert {item["paired"] for item in items} == {True, False}
    assert all(item["image"].shape == (3, 64, 64) and item["sar"].shape == (2, 64, 64) for item in items)
    norm = instantiate(found.sar_norm)
    assert abs(float(norm(torch.stack([item["sar"] for item in items])).mean())) < 1


def test_a_loader_that_is_asked_for_no_pure_batches_is_what_it_was():
    items = [{"file_name": str(index), "sar_file_name": "s", "image_id": str(index)} for index in range(5)]
    plain = build_train_loader(dataset=items, mapper=mapper(), batch_size=5, seed=3)
    order = np.random.default_rng([3, 0]).permutation(5)
    assert [item["image_id"] for item in next(iter(plain))] == [str(index) for index in order]
