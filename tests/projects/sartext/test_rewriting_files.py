"""Rewriting whole caption files: records, the gate for pairs, the SAR vocabulary and the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from make_captions import main
from PIL import Image

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.rewriting.pair_gate import edge_agreement
from mmovseg.projects.sartext.captioning.rewriting.records import Account, RewritingOptions, rewrite_records
from mmovseg.projects.sartext.captioning.rewriting.report import pairs_table, sample_pairs
from mmovseg.projects.sartext.captioning.rewriting.rules import CaptionRewriter
from mmovseg.projects.sartext.captioning.rewriting.sar_terms import add_sar_term, load_sar_terms, verify_terms
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, read_captions, write_captions

CAPTIONS = (
    "a red house with two cars stands near a long river .",
    "a blue house with two cars stands near a long river .",
    "the water is green .",
    "the road .",
)


@pytest.fixture
def record():
    return CaptionRecord("optical/a.png", "a", "made", "human", "train", CAPTIONS)


def edges(seed, size=96):
    """An image of bright and dark rectangles, (size, size) in 0..1."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size), 0.5)
    for _ in range(12):
        row, col = rng.integers(0, size - 30, 2)
        image[row : row + rng.integers(12, 30), col : col + rng.integers(12, 30)] = rng.uniform()
    return image


def test_a_record_keeps_what_the_rules_leave(record):
    accounts: dict[str, Account] = {}
    (done,) = rewrite_records([record], CaptionRewriter(), accounts)
    assert done.captions == ("a house with two cars stands near a long river",)
    assert (done.route, done.split, done.source) == ("rewriting", "train", "made")
    assert done.provenance["rules"] == [["colour"]]
    assert done.provenance["facts"] == {"original": [0]}
    account = accounts["made"]
    assert account.outcomes == {"duplicate": 1, "nothing left": 1, "short": 1}
    assert (account.captions, account.kept, account.images, account.images_kept) == (4, 1, 1, 1)
    assert account.share_kept(1) == 0.75
    assert account.share_kept() == 0.25


def test_a_record_keeps_its_source_scene(record):
    (done,) = rewrite_records([replace(record, provenance={"scene": "P0001"})], CaptionRewriter(), {})
    assert done.provenance["scene"] == "P0001"


def test_duplicates_stay_if_asked_for(record):
    options = RewritingOptions(keep_duplicates=True)
    (done,) = rewrite_records([record], CaptionRewriter(), {}, options=options)
    assert len(done.captions) == 2
    assert done.provenance["facts"]["original"] == [0, 1]


def test_the_gate_leaves_out_pairs_that_do_not_agree(record):
    accounts: dict[str, Account] = {}
    options = RewritingOptions(min_agreement=0.2)
    other = replace(record, image="optical/b.png", image_id="b")
    scores = {"a": 0.25, "b": 0.15}
    check = lambda one: scores[one.image_id]  # noqa: E731
    done = list(rewrite_records([record, other], CaptionRewriter(), accounts, options=options, check_pair=check))
    assert [one.image_id for one in done] == ["a"]
    assert done[0].provenance["facts"]["edge_agreement"] == 0.25
    assert accounts["made"].rejected_pairs == 1
    assert accounts["made"].outcomes["pair rejected"] == 4


def test_edges_of_one_place_agree_and_of_two_places_do_not():
    rng = np.random.default_rng(0)
    scene, other = edges(1), edges(2)
    optical = np.repeat(255 * scene[:, :, None], 3, axis=2)
    turned = 20 * (1 - scene) - 20 + rng.normal(0, 1.0, scene.shape)  # bright and dark changed round
    turned[:10, :10] = np.nan
    same = edge_agreement(optical, turned)
    wrong = edge_agreement(optical, 20 * other - 20 + rng.normal(0, 1.0, scene.shape))
    assert same > 0.3
    assert abs(wrong) < 0.2


def test_pairs_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match=r"\(4, 4\) pixels and the SAR image \(4, 5\)"):
        edge_agreement(np.zeros((4, 4, 3)), np.zeros((4, 5)))
    with pytest.raises(UserError, match="no edges can be compared in a pair of 64x64"):
        edge_agreement(np.zeros((64, 64, 3)), np.full((64, 64), np.nan))


def water_scene(water_db):
    labels = np.zeros((20, 20), dtype=np.int64)
    labels[:, 10:] = 1
    sar_db = np.random.default_rng(0).normal(-10, 3, labels.shape)
    sar_db[labels == 1] = water_db + np.random.default_rng(1).normal(0, 0.5, 200)
    return sar_db, labels


def test_sar_terms_hold_only_where_the_image_bears_them_out():
    terms = load_sar_terms()
    found = verify_terms(*water_scene(-22.0), ["field", "water"], terms=terms)
    assert list(found) == ["a dark smooth area"]
    assert found["a dark smooth area"] == pytest.approx(-6, abs=0.3)
    assert verify_terms(*water_scene(-12.0), ["field", "water"], terms=terms) == {}  # wind on the water
    assert verify_terms(*water_scene(-22.0), ["water", "field"], terms=terms) == {}
    sar_db, labels = water_scene(-22.0)
    labels[:, 10:] = np.where(np.arange(200).reshape(20, 10) < 4, 1, 2)  # too little of it to be measured
    assert verify_terms(sar_db, labels, ["field", "water", "road"], terms=terms) == {}
    assert list(verify_terms(*water_scene(-4.0), ["field", "building"], terms=terms)) == ["bright returns"]


def test_sar_terms_are_added_to_what_the_caption_names():
    terms = load_sar_terms()
    dark, bright = "a dark smooth area", "bright returns"
    assert add_sar_term("a road along the river", [dark], terms=terms) == (
        "a road along the river, and the river appears as a dark smooth area",
        dark,
    )
    assert add_sar_term("two ponds", [dark], terms=terms)[0] == "two ponds, and the ponds appear as dark smooth areas"
    assert add_sar_term("a factory by a lake", [bright], terms=terms)[1] == bright
    assert add_sar_term("a road in the forest", [dark, bright], terms=terms) == ("a road in the forest", None)
    lexicon = CaptionRewriter().lexicon
    assert not lexicon.find_banned("two ponds, and the ponds appear as dark smooth areas")


def test_pairs_are_drawn_from_what_was_kept_and_changed(record):
    rewriter = CaptionRewriter()
    records = [
        record,
        replace(record, image="b", image_id="b", captions=("many trees are planted along the long road",)),
    ]
    pairs = sample_pairs(records, rewriter, count=10, seed=0)
    assert sorted(pair[1] for pair in pairs) == sorted(CAPTIONS[:2])
    assert pairs == sample_pairs(records[::-1], rewriter, count=10, seed=0)
    assert len(sample_pairs(records, rewriter, count=1, seed=0)) == 1
    assert pairs_table([("made", "a  |", "b")]).splitlines()[-1] == "| 1 | made | a \\| | b |"


@pytest.fixture
def files(tmp_path, record):
    """A caption file, with images of both sensors and a label map."""
    for folder in ("optical", "sar", "labels"):
        (tmp_path / folder).mkdir()
    scene = edges(3)
    Image.fromarray((255 * np.repeat(scene[:, :, None], 3, axis=2)).astype(np.uint8)).save(tmp_path / "optical/a.png")
    sar = (255 * scene).astype(np.uint8)
    labels = np.zeros(sar.shape, dtype=np.uint8)
    labels[50:] = 1
    sar[50:] = 9
    Image.fromarray(sar).save(tmp_path / "sar/a.tif")
    Image.fromarray(labels).save(tmp_path / "labels/a.png")
    write_captions(tmp_path / "in.jsonl", [record])
    return tmp_path


def test_the_command_writes_captions_and_pairs(files, capsys):
    command = ["rewrite", "--captions", str(files / "in.jsonl"), "--output", str(files / "out.jsonl")]
    command += ["--pairs", str(files / "pairs.md"), "--root", str(files), "--sar-folder", "sar", "--pair-gate"]
    main([*command])
    first = (files / "out.jsonl").read_bytes()
    (done,) = read_captions(files / "out.jsonl")
    assert (done.image, done.optical_image) == ("sar/a.tif", "optical/a.png")
    assert done.provenance["facts"]["edge_agreement"] > 0.03
    assert "made: 1 of 4 captions kept (25.0 %" in capsys.readouterr().out
    assert "| 1 | made |" in (files / "pairs.md").read_text()
    text = (files / "pairs.md").read_text()
    (files / "pairs.md").write_text(text.replace("# Captions before", "# Read by hand\n\nCaptions before"))
    main([*command])
    assert (files / "out.jsonl").read_bytes() == first
    assert (files / "pairs.md").read_text() == text.replace("# Captions before", "# Read by hand\n\nCaptions before")
    with pytest.raises(SystemExit):
        main([*command[:-1], "--pair-gate", "0.999"])
    assert "left no caption" in capsys.readouterr().err
    assert (files / "out.jsonl").read_bytes() == first


def test_the_command_adds_sar_terms_that_hold(files):
    (files / "names.json").write_text(json.dumps({"classes": [{"name": "field"}, {"name": "water"}]}))
    command = ["rewrite", "--captions", str(files / "in.jsonl"), "--output", str(files / "out.jsonl")]
    command += ["--root", str(files), "--sar-folder", "sar", "--sar-terms", str(files / "labels")]
    main([*command, "--vocabulary", str(files / "names.json")])
    (done,) = read_captions(files / "out.jsonl")
    text = "a house with two cars stands near a long river, and the river appears as a dark smooth area"
    assert done.captions == (text,)
    assert done.provenance["rules"] == [["colour", "sar term"]]
    assert done.provenance["facts"]["sar_terms"]["a dark smooth area"] < -3
    (files / "labels/a.png").unlink()
    with pytest.raises(SystemExit):
        main([*command, "--vocabulary", str(files / "names.json")])


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ([], "nothing to write"),
        (["--output", "x.jsonl", "--min-content-words", "0"], "must be at least 1"),
        (["--output", "x.jsonl", "--split", "val"], "has no split 'val'; it has: train"),
        (["--output", "x.jsonl", "--sar-folder", "sar"], "say with --root"),
        (["--output", "x.jsonl", "--pair-gate"], "say with --root"),
        (["--output", "x.jsonl", "--sar-terms", "labels"], "needs --vocabulary"),
        (["--output", "x.jsonl", "--banned", "none.json"], "'none.json' cannot be read"),
    ],
)
def test_bad_options_are_refused(files, monkeypatch, capsys, extra, says):
    monkeypatch.chdir(files)
    with pytest.raises(SystemExit) as stopped:
        main(["rewrite", "--captions", "in.jsonl", *extra])
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (files / "x.jsonl").exists()


def test_other_layouts_are_read(tmp_path, capsys):
    (tmp_path / "test_caps.txt").write_text(5 * "a red house with two cars stands near a river\n")
    (tmp_path / "test_filename.txt").write_text("a.jpg\n")
    (tmp_path / "t.csv").write_text("filepath,caption\nb.jpg,two red bridges cross the wide river near a town\n")
    paths = [f"one={tmp_path}/test_caps.txt", f"{tmp_path}/t.csv"]
    main(["rewrite", "--captions", *paths, "--split", "test", "--output", str(tmp_path / "out.jsonl")])
    first, second = read_captions(tmp_path / "out.jsonl")
    assert (first.source, first.image_id, len(first.captions)) == ("one", "a", 1)
    assert (second.source, second.captions) == ("t", ("two bridges cross the wide river near a town",))
    with pytest.raises(SystemExit):
        main(["rewrite", "--captions", str(tmp_path / "t.csv"), "--output", str(tmp_path / "x.jsonl")])
    assert "does not say its split" in capsys.readouterr().err


def test_the_json_of_rsicd_takes_a_source_and_leaves_empty_captions_out(tmp_path):
    sentences = [{"raw": ""}, {"raw": "two red bridges cross the wide river near a town"}]
    images = [{"filename": "a.jpg", "split": "test", "sentences": sentences}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "dataset": "rsicd"}))
    for name, source in (("mine=", "mine"), ("", "rsicd")):
        main(["rewrite", "--captions", f"{name}{tmp_path}/a.json", "--output", str(tmp_path / "out.jsonl")])
        (done,) = read_captions(tmp_path / "out.jsonl")
        assert (done.source, done.captions) == (source, ("two bridges cross the wide river near a town",))


def test_twins_are_rasters_found_by_name_and_split(files, record, capsys):
    def rewrite(folder, *records):
        write_captions(files / "in.jsonl", records)
        command = ["rewrite", "--captions", str(files / "in.jsonl"), "--output", str(files / "out.jsonl")]
        main([*command, "--root", str(files), "--sar-folder", folder])
        return [one.image for one in read_captions(files / "out.jsonl")]

    def refused(*arguments):
        with pytest.raises(SystemExit):
            rewrite(*arguments)
        return capsys.readouterr().err

    odd = replace(record, image="optical/tile[1].png", image_id="tile")
    (files / "sar/a.aux.xml").touch()
    (files / "sar/a.xml").touch()
    (files / "sar/tile[1].tif").write_bytes((files / "sar/a.tif").read_bytes())
    assert rewrite("sar", record, odd) == ["sar/a.tif", "sar/tile[1].tif"]
    pair = [replace(record, image=f"{split}/optical/1.png", image_id=split, split=split) for split in ("train", "val")]
    for split, suffix in (("train", "tif"), ("val", "png")):
        (files / split / "sar").mkdir(parents=True)
        (files / split / f"sar/1.{suffix}").write_bytes((files / "sar/a.tif").read_bytes())
    assert rewrite("{split}/sar", *pair) == ["train/sar/1.tif", "val/sar/1.png"]
    error = refused("train/sar", *pair)
    assert "'train/optical/1.png' and 'val/optical/1.png' would both get" in error
    assert "with {split} in --sar-folder" in error
    assert "has no SAR twin of 'optical/b.png'" in refused("sar", replace(record, image="optical/b.png"))
    (files / "sar/a.png").touch()
    assert "has two rasters for 'a': a.png, a.tif" in refused("sar", record)
