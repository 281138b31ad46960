import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from detectron2.utils import comm

from mmovseg.evaluation.confusion import ConfusionMatrix


def count_slowly(truth, predicted, rows, columns):
    counts = [[0] * columns for _ in range(rows)]
    for t, p in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if t != 255:
            counts[t][p] += 1
    return np.array(counts)


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (4, 7), (1, 1), (1, 3)])
def test_counts_equal_a_loop_over_pixels(rows, columns):
    rng = torch.Generator().manual_seed(rows + columns)
    matrix, expected = ConfusionMatrix(rows, columns), np.zeros((rows, columns), dtype=int)
    for _ in range(3):
        truth = torch.randint(rows, (13, 17), generator=rng)
        truth[torch.rand(13, 17, generator=rng) < 0.2] = 255
        predicted = torch.randint(columns, (13, 17), generator=rng)
        counted = matrix.update(truth, predicted)
        assert counted == int((truth != 255).sum())
        expected += count_slowly(truth, predicted, rows, columns)
    assert matrix.counts.dtype == np.int64
    np.testing.assert_array_equal(matrix.counts, expected)


def test_an_image_without_labels_counts_nothing():
    matrix = ConfusionMatrix(3)
    assert matrix.update(torch.full((4, 4), 255), torch.zeros(4, 4, dtype=torch.int64)) == 0
    assert matrix.counts.sum() == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_label_dtypes_are_equal(dtype):
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([0, 1, 2, 255]).to(dtype), torch.tensor([0, 2, 2, 1]))
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([3], [0], "label value 3 is outside 0..2"),
        ([-1], [0], "label value -1"),
        ([0], [3], "prediction value 3"),
        ([0, 1], [0], "truth is"),
    ],
)
def test_values_outside_the_axes_are_refused_and_nothing_is_counted(truth, predicted, message):
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.update(torch.tensor(truth), torch.tensor(predicted))
    assert matrix.counts.sum() == 0


def test_reduce_alone_changes_nothing():
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1]), torch.tensor([1, 1]))
    matrix.reduce()
    assert matrix.counts.tolist() == [[0, 1], [0, 1]]


def _reduce_in_process(rank, folder):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    if hasattr(comm, "create_local_process_group"):  # as detectron2's launch does
        comm.create_local_process_group(2)
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1, 1]), torch.tensor([0, rank, 1]))
    matrix.reduce()
    np.save(f"{folder}/{rank}.npy", matrix.counts)
    dist.destroy_process_group()


def test_two_processes_sum_to_the_same_matrix_on_both(tmp_path):
    mp.start_processes(_reduce_in_process, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert np.load(tmp_path / f"{rank}.npy").tolist() == [[2, 0], [1, 3]]
