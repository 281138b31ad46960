"""Order of training samples, exact resume, sharing between processes, and complete evaluation."""

import collections
import itertools

import numpy as np
import pytest
import torch

from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.sample import RawSample
from mmovseg.data.samplers import DrawOrder, ResumableBatchSampler
from mmovseg.data.transforms import RandomFlip, RandomRotation
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError

DATASET = [{"file_name": f"{index}.png", "image_id": str(index), "height": 12, "width": 12} for index in range(7)]


def read(dataset_dict):
    value = int(dataset_dict["image_id"])
    optical = np.arange(12 * 12 * 3).reshape(12, 12, 3).astype(np.uint8) // 4 + value
    return RawSample(optical=optical.astype(np.uint8), sem_seg=np.full((12, 12), value % 7))


def mapper(is_train=True):
    return OpticalSARMapper(
        is_train=is_train,
        vocabulary=get_vocabulary("miniearth"),
        reader=read,
        geometry=[RandomFlip(), RandomRotation(20)] if is_train else [],
        clouds=CloudSynthesizer(),
    )


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


def assert_same(left, right):
    assert len(left) == len(right)
    for one, other in zip(itertools.chain(*left), itertools.chain(*right), strict=True):
        assert one["image_id"] == other["image_id"]
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["sem_seg"], other["sem_seg"])


def test_every_epoch_is_a_new_permutation():
    order = DrawOrder(7, seed=3)
    epochs = [[order[draw] for draw in range(7 * epoch, 7 * epoch + 7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert order[0] == epochs[0][0], "going back gives the same"
    assert [DrawOrder(7, seed=4)[draw] for draw in range(7)] != epochs[0]


@pytest.mark.parametrize("start", [1, 5, 23])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_starting_at_an_iteration_equals_skipping_there(start, num_workers):
    whole = take(build_train_loader(dataset=DATASET, mapper=mapper(), batch_size=3, seed=1), start + 2)
    options = {"dataset": DATASET, "mapper": mapper(), "batch_size": 3, "seed": 1, "num_workers": num_workers}
    assert_same(take(build_train_loader(**options, start_iter=start), 2), whole[start:])
    if num_workers == 0:
        loader = build_train_loader(**options)
        loader.set_start_iter(start)
        assert_same(take(loader, 2), whole[start:])
        assert_same(take(loader, 2), whole[start:])


@pytest.mark.parametrize("world_size", [2, 3])
def test_union_over_processes_is_the_batch_of_one(world_size):
    def batches(rank, count):
        sampler = ResumableBatchSampler(7, batch_size=6, seed=5, start_iter=2, rank=rank, world_size=count)
        return list(itertools.islice(iter(sampler), 5))

    alone = batches(0, 1)
    shares = [batches(rank, world_size) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        union = [draw for share in shares for draw in share[step]]
        assert sorted(union) == batch and {len(share[step]) for share in shares} == {6 // world_size}


def test_loader_takes_rank_and_world_size(monkeypatch):
    whole = take(build_train_loader(dataset=DATASET, mapper=mapper(), batch_size=4), 3)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
        shares.append(take(build_train_loader(dataset=DATASET, mapper=mapper(), batch_size=4), 3))
        with pytest.raises(UserError, match="batch size 3 .* 2 processes"):
            build_train_loader(dataset=DATASET, mapper=mapper(), batch_size=3)
    merged = [[left[0], right[0], left[1], right[1]] for left, right in zip(*shares, strict=True)]
    assert_same(merged, whole)


def test_each_draw_is_augmented_anew():
    batches = take(build_train_loader(dataset=DATASET[:1], mapper=mapper(), batch_size=2), 3)
    images = [item["image"] for item in itertools.chain(*batches)]
    assert all(not torch.equal(left, right) for left, right in itertools.combinations(images, 2))


def test_loader_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    take(build_train_loader(dataset=DATASET, mapper=mapper(), batch_size=2), 2)
    list(build_test_loader(dataset=DATASET, mapper=mapper(False)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_evaluation_sees_every_sample_once_in_order(batch_size):
    loader = build_test_loader(dataset=DATASET, mapper=mapper(False), batch_size=batch_size)
    batches = list(loader)
    assert [item["image_id"] for batch in batches for item in batch] == [str(index) for index in range(7)]
    assert len(batches) == len(loader) == -(-7 // batch_size)


def test_evaluation_is_shared_without_repeats(monkeypatch):
    counts = collections.Counter()
    for rank in range(3):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
        for batch in build_test_loader(dataset=DATASET, mapper=mapper(False), batch_size=2):
            counts.update(item["image_id"] for item in batch)
    assert counts == {str(index): 1 for index in range(7)}


def test_the_data_set_is_not_changed():
    take(build_train_loader(dataset=DATASET, mapper=mapper(), batch_size=3), 3)
    assert all("_draw" not in item for item in DATASET)


@pytest.mark.parametrize("build", [build_test_loader, build_train_loader])
def test_empty_data_set_is_refused(build):
    options = {"batch_size": 1} if build is build_train_loader else {}
    with pytest.raises(UserError, match="empty"):
        build(dataset=[], mapper=mapper(), **options)


def read_or_fail(dataset_dict):
    if dataset_dict["image_id"] == "4":
        raise UserError("file '4.png' is damaged")
    return read(dataset_dict)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("build", [build_test_loader, build_train_loader])
def test_bad_input_is_one_sentence_also_from_a_worker(build, num_workers):
    failing = OpticalSARMapper(is_train=False, vocabulary=get_vocabulary("miniearth"), reader=read_or_fail)
    loader = build(dataset=DATASET, mapper=failing, batch_size=2, num_workers=num_workers)
    with pytest.raises(UserError) as caught:
        take(loader, 6)
    assert str(caught.value) == "file '4.png' is damaged"
