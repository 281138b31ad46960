"""Retrieval of captions and images: against a slow count, at its limits, and as an evaluator."""

import itertools
import json
from fractions import Fraction

import pytest
import torch

from mmovseg.errors import UserError
from mmovseg.evaluation.retrieval import expected_hits
from mmovseg.projects.sartext.evaluation import retrieval
from mmovseg.projects.sartext.evaluation.retrieval import caption_recalls, expected_hits_of_any
from mmovseg.projects.sartext.evaluation.retrieval_evaluator import RetrievalEvaluator
from mmovseg.projects.sartext.modeling.losses import text_keys


def slow_hit(scores, right, k):
    """Share of the orders of tied candidates in which a right one is among the first k, by going through them all."""
    best = max(score for score, good in zip(scores, right, strict=True) if good)
    better = sum(score > best for score in scores)
    tied = [good for score, good in zip(scores, right, strict=True) if score == best]
    orders = list(itertools.permutations(tied))
    return float(Fraction(sum(any(order[: max(k - better, 0)]) for order in orders), len(orders)))


def slow_recalls(images, texts, owners, captions, top):
    """All figures one query at a time; embeddings are whole numbers of one length, so dot products are exact."""
    found = {}
    for prefix in ("", "text-aware "):
        rows = {"I2T": [], "T2I": []}
        for image in range(len(images)):
            own = {captions[t] for t in range(len(texts)) if owners[t] == image}
            right = [captions[t] in own if prefix else owners[t] == image for t in range(len(texts))]
            rows["I2T"].append(([int(images[image] @ text) for text in texts], right))
        for t in range(len(texts)):
            holders = {owners[u] for u in range(len(texts)) if captions[u] == captions[t]} if prefix else {owners[t]}
            rows["T2I"].append(
                ([int(image @ texts[t]) for image in images], [i in holders for i in range(len(images))])
            )
        for way, queries in rows.items():
            for k in top:
                found[f"{prefix}{way} R@{k}"] = 100 * sum(slow_hit(*query, k) for query in queries) / len(queries)
        found[f"{prefix}mean recall"] = sum(found[f"{prefix}{way} R@{k}"] for way in rows for k in top) / 6
    return found


@pytest.mark.parametrize("cells", [4_000_000, 20])
@pytest.mark.parametrize("seed", range(6))
def test_recalls_equal_a_slow_count_with_ties_and_equal_captions(seed, cells, monkeypatch):
    monkeypatch.setattr(retrieval, "_CELLS", cells)  # 20: two queries at a time
    rng = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (16, 4), generator=rng) * 2 - 1  # of length 2 all, with many ties
    captions = ["a ship", "two ships", "A ship ", "a bridge", "the sea", "a bridge", "a ship", "fog", "ice"]
    owners = [0, 0, 1, 2, 3, 4, 5, 5, 5]
    images, texts = signs[:6], signs[6:15]
    texts[2], texts[6], texts[5] = texts[0], texts[0], texts[3]  # equal texts have equal embeddings
    found = caption_recalls(images.float(), texts.float(), torch.tensor(owners), text_keys(captions), top=(1, 2, 4))
    same = [caption.strip().lower() for caption in captions]
    expected = slow_recalls(images, texts, owners, same, (1, 2, 4))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert set(found) - set(expected) == {"chance mean recall", "text-aware chance mean recall"}


def test_one_right_candidate_is_counted_as_the_product_counts():
    rng = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (30, 12), generator=rng).double()
    truth = torch.randint(0, 12, (30,), generator=rng)
    positives = torch.nn.functional.one_hot(truth, 12).bool()
    torch.testing.assert_close(
        expected_hits_of_any(scores, positives, top=(1, 3, 12)), expected_hits(scores, top=(1, 3, 12), truth=truth)
    )


def test_a_model_that_says_nothing_reaches_chance_and_a_perfect_one_all_that_can_be_known():
    captions = [f"scene {n // 2}" for n in range(40)]  # every text twice
    owners, keys = torch.arange(40), text_keys(captions)
    found = caption_recalls(torch.ones(40, 3), torch.ones(40, 3), owners, keys)
    for prefix in ("", "text-aware "):
        assert found[f"{prefix}mean recall"] == pytest.approx(found[f"{prefix}chance mean recall"])
    assert found["chance mean recall"] == pytest.approx((1 + 5 + 10) / 3 / 40 * 100)
    assert found["text-aware I2T R@1"] == pytest.approx(100 * 2 / 40)
    known = torch.eye(20).repeat_interleave(2, dim=0)
    perfect = caption_recalls(known, known, owners, keys)
    assert perfect["text-aware mean recall"] == pytest.approx(100.0)
    assert perfect["I2T R@1"] == perfect["T2I R@1"] == pytest.approx(50.0)
    assert perfect["I2T R@5"] == pytest.approx(100.0)


def test_bad_similarities_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        expected_hits_of_any(torch.tensor([[float("nan"), 1.0]]), torch.ones(1, 2, dtype=torch.bool), top=(1,))
    with pytest.raises(ValueError, match="no right candidate"):
        expected_hits_of_any(torch.ones(2, 2), torch.tensor([[True, False], [False, False]]), top=(1,))


def batch(start, count):
    inputs = [{"image_id": str(n), "captions": [f"text {n}", "the sea"]} for n in range(start, start + count)]
    rows = torch.eye(12)
    outputs = [
        {"image_embedding": rows[n], "text_embeddings": torch.stack([rows[n], rows[11]])}
        for n in range(start, start + count)
    ]
    return inputs, outputs


def test_the_evaluator_writes_what_it_counted(tmp_path):
    evaluator = RetrievalEvaluator(
        dataset_name="a set", modality="sar", loader="sar", output_dir=str(tmp_path), provenance={"seed": 3}
    )
    evaluator.process(*batch(0, 4))
    evaluator.reset()
    for start in (0, 4):
        evaluator.process(*batch(start, 4))
    metrics = evaluator.evaluate()["retrieval"]
    assert metrics["I2T R@1"] == pytest.approx(100.0)
    # "the sea" belongs to all eight, so its own image is first in one of eight orders; the other texts are found
    assert metrics["T2I R@1"] == pytest.approx(100 * (8 + 1) / 16)
    assert metrics["text-aware T2I R@1"] == pytest.approx(100.0)
    report = json.loads((tmp_path / "eval/a_set/retrieval-sar/result.json").read_text())
    assert report["metrics"] == metrics and report["modality"] == "sar" and report["loader"] == "sar"
    assert report["gallery"] == {"images": 8, "captions": 16, "distinct captions": 9, "captions that repeat": 8}
    assert report["provenance"]["seed"] == 3 and report["provenance"]["images"] == 8
    rows = json.loads((tmp_path / "eval/a_set/retrieval-sar/per_image.json").read_text())
    assert rows[5] == {"image_id": "5", "captions": ["text 5", "the sea"], "nearest": "text 5"}


def test_what_cannot_be_retrieved_is_told():
    evaluator = RetrievalEvaluator(dataset_name="s")
    inputs, outputs = batch(0, 1)
    with pytest.raises(UserError, match="the test loader of 's' gave no sample"):
        evaluator.evaluate()
    with pytest.raises(UserError, match="'0' has no caption to retrieve"):
        evaluator.process([{"image_id": "0"}], outputs)
    with pytest.raises(UserError, match="needs image_embedding and text_embeddings.*answers with: sem_seg"):
        evaluator.process(inputs, [{"sem_seg": torch.zeros(1)}])
    outputs[0]["image_embedding"][0] = float("nan")
    with pytest.raises(ValueError, match="'0': an embedding holds a value that is not finite"):
        evaluator.process(inputs, outputs)
