"""BLEU, ROUGE-L and CIDEr-D against hand-computed cases, and against `pycocoevalcap` where it is installed."""

from __future__ import annotations

import math
import random

import pytest

from mmovseg.projects.sartext.evaluation.caption_metrics import (
    bleu,
    cider_d,
    longest_common_subsequence,
    rouge_l,
)

Words = list[str]


def words(*texts: str) -> list[Words]:
    return [text.split() for text in texts]


def test_bleu_of_a_short_caption_by_hand() -> None:
    scores = bleu(words("the cat sat"), [words("the cat sat down")])
    brevity = math.exp(1 - 4 / 3)
    expected = [brevity, brevity, brevity, brevity * (1e-15 / 1e-9) ** 0.25]  # no 4-gram: COCO's constants
    assert [score.corpus for score in scores] == pytest.approx(expected, rel=1e-8)


def test_bleu_counts_a_word_no_more_often_than_a_reference_has_it() -> None:
    assert bleu(words("the the the the"), [words("the cat", "a the the dog")])[0].corpus == pytest.approx(2 / 4)


def test_bleu_of_a_corpus_sums_counts_and_takes_the_nearest_length() -> None:
    # 2 of 2 words and 1 of 4; lengths: 2 nearest to 2, and of 3 and 5, as near to 4, the shorter: no brevity penalty
    scores = bleu(words("a b", "a x y z"), [words("a b", "a b c d e f"), words("a q r", "a q r s t")])
    assert scores[0].corpus == pytest.approx(3 / 6)
    assert scores[0].images == pytest.approx((1.0, 1 / 4))
    # with 5 instead of 3 the text of 6 words would be too short for 7
    longer = bleu(words("a b", "a x y z"), [words("a b"), words("a q r s t")])
    assert longer[0].corpus == pytest.approx(3 / 6 * math.exp(1 - 7 / 6))


def test_rouge_takes_precision_and_recall_from_the_best_reference_each() -> None:
    # common: "a c d" (3 of 4 and 3 of 5 words) and "b" (1 of 1)
    score = rouge_l(words("a b c d"), [words("a c d e f", "b")])
    precision, recall = 3 / 4, 1.0
    assert score.corpus == pytest.approx((1 + 1.44) * precision * recall / (recall + 1.44 * precision))
    assert rouge_l(words("", "a"), [words("b"), words("a")]).images == (0.0, 1.0)


def test_longest_common_subsequence_allows_gaps_but_keeps_the_order() -> None:
    assert longest_common_subsequence("a x b y c".split(), "c a b c".split()) == 3
    assert longest_common_subsequence("a b".split(), "b a".split()) == 1
    assert longest_common_subsequence([], ["a"]) == 0


def test_cider_by_hand() -> None:
    references = [words("a b"), words("c d")]
    # every n-gram is in one of two images; a caption equal to its reference reaches 1 in 2 of 4 orders
    assert cider_d(words("a b", "c d"), references).corpus == pytest.approx(5.0)
    longer = cider_d(words("a b c", "a b"), references)
    expected = 10 / 4 * math.exp(-1 / 72) * (2 / math.sqrt(3 * 2) + 1 / math.sqrt(2))
    assert longer.images == pytest.approx((expected, 0.0))


def test_cider_ignores_what_every_image_has_and_punishes_repetition() -> None:
    references = [words("a ship"), words("a lake"), words("a road")]
    assert cider_d(words("a", "lake", "a a"), references).images == pytest.approx((0.0, 2.5 * math.exp(-1 / 72), 0.0))
    once = cider_d(words("a ship", "a", "a"), references).images[0]
    assert cider_d(words("a ship ship ship", "a", "a"), references).images[0] < once


def test_scores_do_not_depend_on_the_order_of_images_or_references() -> None:
    candidates, references = _random_corpus(30, seed=3)
    turned = candidates[::-1], [own[::-1] for own in references[::-1]]
    for metric in (cider_d, rouge_l):
        assert metric(*turned).corpus == pytest.approx(metric(candidates, references).corpus)
        assert metric(*turned).images == pytest.approx(metric(candidates, references).images[::-1])
    assert bleu(*turned)[3].corpus == pytest.approx(bleu(candidates, references)[3].corpus)


def test_a_missing_reference_is_told() -> None:
    with pytest.raises(ValueError, match="image number 1 has no reference"):
        bleu(words("a", "b"), [words("a"), []])
    with pytest.raises(ValueError, match="need candidates with references, got 0 and 0"):
        cider_d([], [])


@pytest.mark.parametrize("seed", [0, 1])
def test_scores_equal_those_of_the_reference_code(seed: int) -> None:
    bleu_of = pytest.importorskip("pycocoevalcap.bleu.bleu").Bleu
    rouge_of = pytest.importorskip("pycocoevalcap.rouge.rouge").Rouge
    cider_of = pytest.importorskip("pycocoevalcap.cider.cider").Cider
    candidates, references = _random_corpus(200, seed=seed)
    given = {index: [" ".join(text) for text in own] for index, own in enumerate(references)}
    found = {index: [" ".join(text)] for index, text in enumerate(candidates)}
    theirs, images = bleu_of(4).compute_score(given, found, verbose=0)
    ours = bleu(candidates, references)
    assert [score.corpus for score in ours] == pytest.approx(theirs, abs=1e-6)
    for score, wanted in zip(ours, images, strict=True):
        assert score.images == pytest.approx(tuple(wanted), abs=1e-6)
    for metric, reference in ((rouge_l, rouge_of()), (cider_d, cider_of())):
        corpus, each = reference.compute_score(given, found)
        assert metric(candidates, references).corpus == pytest.approx(corpus, abs=1e-6)
        assert metric(candidates, references).images == pytest.approx(tuple(each), abs=1e-6)


def _random_corpus(images: int, *, seed: int) -> tuple[list[Words], list[list[Words]]]:
    """Return captions over few words with references of other lengths, some captions empty."""
    rng = random.Random(seed)
    references = [
        [[rng.choice("abcdefgh") for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(1, 5))]
        for _ in range(images)
    ]
    candidates = [[word for word in rng.choice(own) if rng.random() > 0.2] for own in references]
    return candidates, references
