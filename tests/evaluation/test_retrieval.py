import itertools

import pytest
import torch

from mmovseg.evaluation.alignment import AlignmentCounter
from mmovseg.evaluation.retrieval import chance_recall, expected_hits, patch_hits, recall_at


def recall_slowly(queries, gallery, k):
    """Sort the gallery for each query; the right entry stands at its mean rank among equals over all orders."""
    hits = 0.0
    for i, query in enumerate(queries):
        scores = [float(query @ entry / (query.norm() * entry.norm())) for entry in gallery]
        better = sum(score > scores[i] + 1e-6 for score in scores)
        tied = [j for j, score in enumerate(scores) if abs(score - scores[i]) <= 1e-6]
        orders = list(itertools.permutations(tied))
        hits += sum(better + order.index(i) < k for order in orders) / len(orders)
    return 100 * hits / len(queries)


@pytest.mark.parametrize("k", [1, 2, 5, 30])
def test_recall_equals_a_loop_over_sorted_candidates(k):
    queries, noise = torch.randn(23, 6), torch.randn(23, 6)
    gallery = queries + noise
    gallery[3] = gallery[4] = gallery[5]  # ties, also with the right one
    queries[7] = queries[8]
    assert recall_at(queries, gallery, top=(k,))[k] == pytest.approx(recall_slowly(queries, gallery, k))


def test_recall_by_hand():
    # Row i is the query of scene i. Its own scene is 1st, 2nd, tied with one other for the 1st place, and last.
    similarity = torch.tensor(
        [[0.9, 0.1, 0.2, 0.3], [0.8, 0.7, 0.1, 0.2], [0.1, 0.6, 0.6, 0.2], [0.5, 0.6, 0.7, 0.1]], dtype=torch.float64
    )
    hits = expected_hits(similarity, top=(1, 2, 3, 4))
    assert hits.tolist() == [[1, 0, 0.5, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_queries_may_name_their_candidate():
    similarity = torch.tensor([[0.1, 0.9], [0.2, 0.3], [0.5, 0.4]])
    assert expected_hits(similarity, top=(1,), truth=torch.tensor([1, 0, 0])).tolist() == [[1, 0, 1]]


def test_equal_features_are_found_and_scale_does_not_matter():
    features = torch.randn(50, 8)
    assert recall_at(features, 3.0 * features) == {1: 100.0, 5: 100.0, 10: 100.0}


def test_one_answer_for_every_image_is_chance():
    same = torch.randn(1, 8).expand(40, 8)
    for first, second in ((same, torch.randn(40, 8)), (torch.randn(40, 8), same), (same, same)):
        assert recall_at(first, second) == pytest.approx(chance_recall(40))


def test_rounding_does_not_break_ties():
    features = torch.randn(1, 64).repeat(30, 1)
    nearly = features * (1 + 1e-7 * torch.randn(30, 64))
    assert recall_at(nearly, nearly) == pytest.approx(chance_recall(30))


def test_unrelated_features_are_near_chance():
    recall = recall_at(torch.randn(400, 16), torch.randn(400, 16))
    assert recall[1] < 1.5 and recall[10] == pytest.approx(2.5, abs=2.0)


def test_a_gallery_smaller_than_k_gives_everything():
    features = torch.randn(3, 4)
    assert recall_at(features, -features)[5] == 100.0
    assert chance_recall(3) == {1: pytest.approx(100 / 3), 5: 100.0, 10: 100.0}


def test_no_scene_unequal_shapes_and_nan_are_refused():
    for first, second in ((torch.zeros(0, 3), torch.zeros(0, 3)), (torch.ones(2, 3), torch.ones(2, 4))):
        with pytest.raises(ValueError, match="need pairs"):
            recall_at(first, second)
    with pytest.raises(ValueError, match="NaN"):
        recall_at(torch.full((2, 3), torch.nan), torch.ones(2, 3))
    with pytest.raises(ValueError, match="only 2 candidates"):
        expected_hits(torch.zeros(3, 2), top=(1,))


def test_patches_that_find_their_own_place_are_counted():
    student = torch.eye(4)
    teacher = torch.eye(4)[[0, 1, 3, 2]]  # two of four are exchanged
    assert patch_hits(student, teacher) == (2.0, 4)
    assert patch_hits(torch.randn(9, 4), torch.ones(9, 4)) == (pytest.approx(1.0), 9)  # chance: one an image
    assert patch_hits(torch.zeros(0, 4), torch.zeros(0, 4)) == (0.0, 0)


def count(maps, gallery=3, **settings):
    counter = AlignmentCounter(gallery)
    for student, teacher, valid in maps:
        counter.update(student, teacher, valid, global_features=None, **settings)
    return counter


def images(number, channels=5, grid=(3, 4), noise=0.5):
    made = []
    for _ in range(number):
        teacher = torch.randn(channels, *grid)
        made.append((teacher + noise * torch.randn_like(teacher), teacher, torch.rand(grid) < 0.7))
    return made


def test_only_valid_patches_enter_any_metric():
    made = images(4)
    spoilt = [
        (torch.where(valid, student, 1e3), torch.where(valid, teacher, -7.0), valid) for student, teacher, valid in made
    ]
    names = ("sar", "optical")
    assert count(made).metrics(names) == pytest.approx(count(spoilt).metrics(names))


def test_joined_counts_equal_those_of_one_process_and_keep_the_first_scenes():
    made = images(7)
    whole = count(made).metrics(("sar", "optical"))
    parts = AlignmentCounter.joined([count(made[:2]), count(made[2:])])
    assert parts.metrics(("sar", "optical")) == pytest.approx(whole)
    torch.testing.assert_close(torch.stack([scene[0] for scene in parts.scenes]), scene_means(made[:3]))
    assert whole["chance R@1"] == pytest.approx(100 / 3)
    assert whole["chance patch accuracy"] == pytest.approx(100 * 7 / sum(int(valid.sum()) for *_, valid in made))


def scene_means(made):
    return torch.stack([student[:, valid].mean(dim=1) for student, _, valid in made])


def test_global_features_stand_for_the_scene_when_there_are_some():
    counter = AlignmentCounter(8)
    for index, (student, teacher, valid) in enumerate(images(6)):
        token = torch.eye(6)[index]
        counter.update(student, teacher, valid, global_features=(token, token))
    assert counter.metrics(("a", "b"))["R@1 a->b"] == 100.0


def test_widths_may_differ_for_cka_alone():
    counter = count([(torch.randn(3, 4, 4), torch.randn(5, 4, 4), torch.ones(4, 4, dtype=torch.bool))])
    metrics = counter.metrics(("sar", "optical"))
    assert metrics["CKA"] is not None
    assert metrics["R@1 sar->optical"] is None and metrics["patch accuracy"] is None
