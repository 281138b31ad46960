"""The automatic checks of caption files."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace

import pytest
from make_captions import main

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.checks import command
from mmovseg.projects.sartext.captioning.checks.dataset import CheckOptions, check_records, drop_found, scene_of
from mmovseg.projects.sartext.captioning.checks.findings import (
    Statements,
    check_language,
    check_length,
    count_tokens_with_clip,
)
from mmovseg.projects.sartext.captioning.checks.near_duplicates import group_near, jaccard, minhash, normalise, shingles
from mmovseg.projects.sartext.captioning.checks.report import format_report, make_report
from mmovseg.projects.sartext.captioning.lexicon import load_lexicon
from mmovseg.projects.sartext.captioning.rewriting.lexicon import default_lexicon
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, read_captions, write_captions

GOOD = "two ships lie in the harbor beside a long bridge"
NEAR = GOOD + " today"


def make(image_id, *captions, split="train", route="human", **provenance):
    return CaptionRecord(f"{image_id}.png", image_id, "made", route, split, captions, provenance)


def check(*records, **options):
    return check_records(
        records,
        lexicon=default_lexicon(),
        count_tokens=lambda text: len(text.split()),
        options=CheckOptions(**options),
    )


def found(result):
    return [(one.kind, one.record, one.caption) for one in result.findings]


def test_good_captions_have_no_finding():
    assert found(check(make("a", GOOD), make("b", "a road runs along the river"))) == []


@pytest.mark.parametrize(
    ("count", "kind"), [(4, "short"), (5, None), (74, None), (75, "long"), (76, "long")], ids=lambda value: str(value)
)
def test_length_counts_start_and_end_for_the_context(count, kind):
    problem = check_length(count, shortest=5, longest=76)
    assert (problem[0] if problem else None) == kind


@pytest.mark.parametrize(
    ("caption", "says"),
    [
        ("Zwei Schiffe liegen neben der Brücke", "no small English word"),
        ("два корабля in the port", "the letter 'д'"),
        ("four airplanes parked neatly", None),
        ("a café beside the river", None),
        (GOOD, None),
    ],
)
def test_language(caption, says):
    assert check_language(caption, default_lexicon()) == says


def test_words_and_repeats_in_an_image():
    result = check(
        make("a", GOOD, "Two ships lie in the harbor, beside a long bridge.", NEAR, "a red ship lies in the port")
    )
    assert found(result) == [
        ("banned word", 0, 3),
        ("duplicate in image", 0, 1),
        ("near duplicate in image", 0, 2),
    ]
    kept = list(drop_found([make("a", "x", "y", "z", "w")], result.findings))
    assert kept[0].captions == ("x", "z")  # nearly equal captions of an image stay


def facts_record(image_id, caption, ships=2):
    facts = {"objects": {"ship": {"count": ships}}}
    return make(image_id, caption, route="annotation", classes=["ship", "bridge"], facts=facts)


def test_statements_are_compared_with_the_annotation():
    right = facts_record("a", "there are two ships in the image")
    wrong = facts_record("b", "there are three ships and one bridge in the image")
    result = check(right, wrong)
    assert found(result) == [("count", 1, 0), ("noun", 1, 0)]
    total = result.statements["annotation"]
    assert (total.nouns, total.wrong_nouns, total.counts) == (3, 1, 3)
    assert total.noun_precision == pytest.approx(2 / 3)
    assert Statements().noun_precision is None
    assert Statements().count_accuracy is None


def test_a_route_without_its_facts_is_refused():
    with pytest.raises(UserError, match="record 1 .image 'a.png'. is of the route 'annotation' without facts"):
        check(make("a", GOOD, route="annotation"))


def test_captions_are_read_with_the_lexicon_they_were_made_with(tmp_path, capsys, quick_tokens):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"nouns": {"ship": {"singular": ["hull"], "plural": ["hulls"]}}}))
    facts = {"objects": {"ship": {"count": 2}}}
    made = {"facts": facts, "classes": ["ship"], "lexicon": load_lexicon(own).sha256[:12]}
    write_captions(tmp_path / "a.jsonl", [make("a", "there are three hulls in the image", route="annotation", **made)])
    with pytest.raises(SystemExit):
        main(["check", "--captions", str(tmp_path / "a.jsonl")])
    error = capsys.readouterr().err
    assert f"record 1 (image 'a.png') was made with the lexicon '{made['lexicon']}', which is not the shipped" in error
    main(["check", "--captions", str(tmp_path / "a.jsonl"), "--lexicon", str(own)])
    assert "annotation: 100.00 % of 1 nouns are annotated, 0.00 % of 1 counts are right" in capsys.readouterr().out
    shipped = facts_record("a", "there are two ships in the image")
    shipped.provenance["lexicon"] = load_lexicon().sha256[:12]
    assert found(check(shipped)) == []


def test_the_cap_keeps_so_many_of_a_split():
    records = [
        make(f"{number}", GOOD if number % 2 else NEAR, split="test" if number > 7 else "train") for number in range(12)
    ]
    result = check(*records, cap=3)
    over = [one.record for one in result.findings if one.kind == "over the cap"]
    assert (sum(one < 8 for one in over), sum(one >= 8 for one in over)) == (5, 1)
    assert result.groups == [(12, NEAR)]
    assert result.distinct == 2
    again = check(*records[::-1], cap=3)
    assert {11 - one.record for one in again.findings} == set(over)  # whatever the order of the file
    assert found(check(*records, cap=None)) == []


def test_leakage_leaves_the_test_split_alone():
    names = ["s1_01", "s1_02", "s2_01", "s2_02", "s3_01"]
    splits = ["train", "test", "train", "train", "val"]
    records = [make(name, f"{GOOD} {name}", split=split) for name, split in zip(names, splits, strict=True)]
    result = check(*records, scene_pattern=r"(?P<scene>s\d)_", near=1.0)
    assert found(result) == [("split leakage", 0, None)]
    assert [one.image_id for one in drop_found(records, result.findings)] == names[1:]
    assert result.scenes == 3
    assert check(*records).scenes == 0
    told = [make(name, GOOD, split=split, scene="x") for name, split in zip(names[1::3], ("val", "train"), strict=True)]
    assert found(check(*told)) == [("split leakage", 1, None)]


def test_an_image_in_two_splits_leaks():
    one = make("a", GOOD)
    result = check(one, make("a", "a road runs along the river", split="test"))
    assert found(result) == [("split leakage", 0, None)]
    assert result.findings[0].message == "image 'a.png' is in the splits test, train"
    assert found(check(one, replace(one, source="other", split="test"), cap=None)) == []
    # sets that number the images of each split anew: an equal name is no shared scene
    told = [
        replace(make("a", f"{GOOD} {split}", split=split, scene="7"), image=f"{split}/7.png")
        for split in ("train", "test")
    ]
    assert found(check(*told, near=1.0)) == []


def test_bad_patterns_are_refused():
    record = make("a", GOOD)
    with pytest.raises(UserError, match="is no regular expression"):
        scene_of(record, "(")
    with pytest.raises(UserError, match="has no group"):
        scene_of(record, "(a)")
    with pytest.raises(UserError, match="fits no image_id, for example 'a'"):
        check(record, scene_pattern="(?P<scene>x)")


def test_missing_images_are_found(tmp_path):
    (tmp_path / "a.png").touch()
    result = check(make("a", GOOD), make("b", "a road runs along the river"), root=tmp_path)
    assert found(result) == [("missing image", 1, None)]


def slow_groups(texts, threshold):
    """Groups by comparing every pair, grown until nothing changes."""
    groups = list(range(len(texts)))
    parts = [shingles(normalise(text)) for text in texts]
    changed = True
    while changed:
        changed = False
        for a, b in itertools.combinations(range(len(texts)), 2):
            if groups[a] != groups[b] and jaccard(parts[a], parts[b]) >= threshold:
                groups = [min(groups[a], groups[b]) if one in (groups[a], groups[b]) else one for one in groups]
                changed = True
    return groups


CHAINS = (118, 119, 120)  # the second splits where a bucket keeps one member a group


def test_groups_equal_a_slow_loop():
    rng = random.Random(0)
    words = "two three ships planes road river near beside long wide bridge harbor town forest field".split()
    texts = []
    for _ in range(30):
        base = rng.choices(words, k=14)
        texts.append(" ".join(base))
        for _ in range(rng.randint(0, 3)):
            texts.append(" ".join([*base, *rng.choices(words, k=rng.randint(0, 2))]))
    rng.shuffle(texts)
    assert group_near(texts, threshold=0.8) == slow_groups(texts, 0.8)
    for seed in CHAINS:  # each text is near to the next and to no other
        rng = random.Random(seed)
        words = [f"w{rng.randrange(10**6)}" for _ in range(28)]
        chain = [" ".join(words[start : start + 12]) for start in range(0, 16, 2)]
        rng.shuffle(chain)
        assert group_near(chain, threshold=0.6) == slow_groups(chain, 0.6) == len(chain) * [0]
    assert group_near(["A  b!", "a b", "c"], threshold=0.8) == [0, 0, 2]


def test_minhash_estimates_the_jaccard_index():
    rng = random.Random(1)
    first = frozenset(str(rng.random()) for _ in range(60))
    second = frozenset(sorted(first)[:40]) | frozenset(str(rng.random()) for _ in range(20))
    estimate = float((minhash(first) == minhash(second)).mean())
    assert estimate == pytest.approx(jaccard(first, second), abs=0.15)


def test_the_report_counts_and_shows():
    records = [make("a", GOOD, "a red ship in the port"), make("b", "x")]
    report = make_report(["f.jsonl"], records, check(*records))
    assert report["captions"] == 3
    assert report["checks"]["short"]["count"] == 1
    assert report["checks"]["banned word"]["examples"] == [
        {"image_id": "a", "caption": "a red ship in the port", "message": "red (colour)"}
    ]
    assert report["by_source_and_route"] == {"made, human": {"images": 2, "captions": 3, "with a finding": 2}}
    text = format_report(report)
    assert "only equal images were looked for: no scene is known" in text
    assert "a red ship in the port: red (colour)" in text


@pytest.fixture
def quick_tokens(monkeypatch):
    """Words for tokens: the tokenizer of CLIP takes seconds to import."""
    monkeypatch.setattr(command, "count_tokens_with_clip", lambda: lambda text: len(text.split()))


@pytest.mark.slow
def test_tokens_are_those_of_clip():
    from open_clip import get_tokenizer

    count, tokenizer = count_tokens_with_clip(), get_tokenizer("ViT-B-16")
    texts = ["a ship", "a ship.", "harbour harbour", "unmovseg"]
    ids = tokenizer(texts)
    assert [count(text) for text in texts] == ((ids != 0).sum(dim=1) - 2).tolist() == [2, 3, 2, 5]  # less start and end


def test_the_command_reports_and_fixes(tmp_path, capsys, quick_tokens):
    path, report, fixed = tmp_path / "a.jsonl", tmp_path / "r.json", tmp_path / "b.jsonl"
    write_captions(path, [make("a", GOOD, "a road"), make("b", "a brown dog sits on the lawn of the park")])
    main(["check", "--captions", str(path), "--report", str(report), "--fix", str(fixed)])
    assert [(one.image_id, one.captions) for one in read_captions(fixed)] == [("a", (GOOD,))]
    first = json.loads(report.read_text())
    assert (first["checks"]["short"]["count"], first["checks"]["banned word"]["count"]) == (1, 1)
    assert "1 captions of 1 images left" in capsys.readouterr().out
    main(["check", "--captions", str(fixed), "--report", str(report)])
    assert all(one["count"] == 0 for one in json.loads(report.read_text())["checks"].values())


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--min-tokens", "0"], "leave no length"),
        (["--max-tokens", "6"], "leave no length"),
        (["--near", "0"], "--near must be above 0"),
        (["--cap", "-1"], "--cap at least 0"),
        (["--fix", "x.jsonl"], "nothing is left for --fix"),
    ],
)
def test_bad_options_are_refused(tmp_path, monkeypatch, capsys, quick_tokens, extra, says):
    monkeypatch.chdir(tmp_path)
    write_captions("a.jsonl", [make("a", "red")])
    with pytest.raises(SystemExit):
        main(["check", "--captions", "a.jsonl", *extra])
    assert says in capsys.readouterr().err
    assert not (tmp_path / "x.jsonl").exists()
