"""Caption records in the layouts of others and back."""

from __future__ import annotations

import hashlib
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.exchange import (
    TABLE_LAYOUTS,
    TableLayout,
    export_csv,
    export_rsicd,
    import_csv,
    import_rsicd,
)
from mmovseg.projects.sartext.captioning.schema import CaptionRecord
from mmovseg.projects.sartext.captioning.shards import ImageRendering, export_webdataset, import_webdataset

TEXTS = (("two ships, one at the top", 'a "harbour"\twith a tab'), ("Schiffe für alle", "a ship", "a ship"), ("x;y",))


@pytest.fixture
def records():
    return [
        CaptionRecord(f"test/{n}.png", f"test/{n}", "made", "annotation", "test", texts, {"facts": {"n": n}})
        for n, texts in enumerate(TEXTS)
    ]


def facts_kept(record):
    return record.image, record.image_id, record.source, record.split, record.captions


@pytest.mark.parametrize("name", TABLE_LAYOUTS)
def test_tables_come_back(tmp_path, records, name):
    path = tmp_path / "captions.csv"
    assert export_csv(path, records, layout=TABLE_LAYOUTS[name]) == 6
    back = import_csv(path, source="made", split="test", route="annotation")
    assert [facts_kept(record) for record in back] == [facts_kept(record) for record in records]
    again = import_csv(path, source="made", split="test", layout=TABLE_LAYOUTS[name])
    assert [record.captions for record in again] == list(TEXTS)


def test_open_clip_reads_the_table(tmp_path, records):
    pandas = pytest.importorskip("pandas")
    export_csv(tmp_path / "a.csv", records)
    table = pandas.read_csv(tmp_path / "a.csv", sep="\t")  # as CsvDataset of open_clip does
    assert table["filepath"].tolist() == ["test/0.png"] * 2 + ["test/1.png"] * 3 + ["test/2.png"]
    assert table["title"].tolist() == [text for texts in TEXTS for text in texts]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"filepath,caption\na.png,\n", "line 2 has an empty caption (image 'a.png')"),
        (b"filepath,caption\na.png\n", "line 2 has too few cells (image 'a.png')"),
        (b"filepath,caption\n,text\n", "line 2 has too few cells"),
        (b"filepath,caption\n", "holds no caption"),
        (b"filepath,caption\na.png,two ships, one at the top\n", "line 2 has 3 cells, the header 2"),
        (b'filepath\ttitle\na.png\t"runway at left\nb.png\ta ship\n', "line 2: a cell has a line break, or quotation"),
        (b'filepath\ttitle\na.png\tx\nb.png\t"runway" at left\n', "line 3: a cell has a line break, or quotation"),
        (b'filepath,caption\na.png,"two\nships"\n', "line 2: a cell has a line break"),
        (b"filepath,caption\na.png,x\nb.png," + 140000 * b"y", "line 3: a cell has a line break, or quotation"),
        (b"photo,caption\na.png,b\n", "has the header 'photo,caption', but needs the columns 'filepath' and 'title'"),
        (b"filepath,caption\na.png,fine\nb.png,f\xfcr\n", "line 3 is not UTF-8 text: it holds the byte 0xfc"),
    ],
)
def test_bad_tables_are_refused(tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(UserError) as caught:
        import_csv(tmp_path / "bad.csv", source="made", split="test")
    assert message in str(caught.value) and "bad.csv" in str(caught.value)


def test_tables_keep_marks_within_a_text_and_foreign_line_ends(tmp_path, records):
    (tmp_path / "a.tsv").write_bytes('filepath\ttitle\r\na.png\ta 3" pipe\u2028or two\r\n\r\n'.encode())
    (record,) = import_csv(tmp_path / "a.tsv", source="made", split="test")
    assert record.captions == ('a 3" pipe\u2028or two',)
    broken = CaptionRecord("a.png", "a", "made", "human", "test", ("one\ntwo",))
    with pytest.raises(UserError, match="a caption of image 'a.png' has a line break"):
        export_csv(tmp_path / "b.tsv", [*records, broken])
    assert not (tmp_path / "b.tsv").exists()


def test_table_options(tmp_path):
    (tmp_path / "a.csv").write_text("id|photo|words\n1|a.png|one \n2|b.png| \n3|a.png|two\n")
    layout = TableLayout("|", "photo", "words")
    with pytest.raises(UserError, match="line 3 has an empty caption"):
        import_csv(tmp_path / "a.csv", layout=layout, source="made", split="test")
    (record,) = import_csv(tmp_path / "a.csv", layout=layout, source="made", split="test", drop_empty=True)
    assert record.image == "a.png" and record.captions == ("one", "two") and record.route == "human"
    with pytest.raises(UserError, match="has no column 'text'; its columns are: id, photo, words"):
        import_csv(tmp_path / "a.csv", layout=TableLayout("|", "photo", "text"), source="made", split="test")
    with pytest.raises(UserError, match="no caption to write"):
        export_csv(tmp_path / "none.csv", [])
    assert not (tmp_path / "none.csv").exists()


def test_rsicd_comes_back(tmp_path, records):
    path = tmp_path / "dataset.json"
    assert export_rsicd(path, records) == 6
    assert [facts_kept(record) for record in import_rsicd(path)] == [facts_kept(record) for record in records]
    content = json.loads(path.read_text())
    assert content["dataset"] == "made"
    assert content["images"][1]["sentids"] == [2, 3, 4]
    assert content["images"][1]["sentences"][0] == {
        "tokens": ["Schiffe", "für", "alle"],
        "raw": "Schiffe für alle",
        "imgid": 1,
        "sentid": 2,
    }
    (moved, *_) = import_rsicd(path, folder="images/", source="other")
    assert (moved.image, moved.image_id, moved.source) == ("images/test/0.png", "images/test/0", "other")


def rsicd(*, twice=False, **changes):
    image = {"filename": "a.png", "split": "test", "sentences": [{"raw": "one ."}]} | changes
    return json.dumps({"images": [image] * (1 + twice), "dataset": "made"}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rsicd(sentences=[{"raw": ""}]), "image 0: caption 1 of image 'a.png' is empty"),
        (rsicd(sentences=[]), "image 0: image 'a.png' has no caption"),
        (rsicd(sentences=None), "('a.png') needs a list 'sentences'"),
        (rsicd(sentences=[{"text": "x"}]), "objects with a text 'raw'"),
        (rsicd(filename=3), "image 0 has no text 'filename'"),
        (rsicd(split=""), "image 0: split is empty"),
        (b'{"images": 3}', "has no list 'images'"),
        (b'{"images": [], "dataset": "made"}', "holds no caption"),
        (b'{"images": [{}]}', "does not name its data set"),
        (rsicd()[:-3], "is not valid JSON"),
        (rsicd().replace(b"one", b"\xff\xfe"), "line 1 is not UTF-8 text"),
        (rsicd(twice=True), "image 1 has the filename 'a.png'"),
    ],
)
def test_bad_rsicd_files_are_refused(tmp_path, content, message):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        import_rsicd(tmp_path / "bad.json")
    assert message in str(caught.value) and "bad.json" in str(caught.value)


def test_rsicd_can_drop_empty_sentences(tmp_path):
    (tmp_path / "a.json").write_bytes(rsicd(sentences=[{"raw": " "}, {"raw": "one"}]))
    assert [record.captions for record in import_rsicd(tmp_path / "a.json", drop_empty=True)] == [("one",)]


@pytest.fixture
def images(tmp_path, records):
    root = tmp_path / "data"
    (root / "test").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((6, 8), 40 * number + 7, dtype=np.uint8)).save(root / f"test/{number}.png")
    return root


def test_archives_come_back(tmp_path, records, images):
    names = export_webdataset(tmp_path / "wds", records, root=images, shard_size=2)
    assert names == ["000000.tar", "000001.tar"]
    assert import_webdataset(tmp_path / "wds") == records
    with tarfile.open(tmp_path / "wds/000000.tar") as archive:
        assert archive.getnames() == [f"{n:08d}.{suffix}" for n in (0, 1) for suffix in ("png", "txt", "json")]
        assert archive.extractfile("00000001.txt").read().decode() == "Schiffe für alle"
        assert archive.extractfile("00000000.png").read() == (images / "test/0.png").read_bytes()
    export_webdataset(tmp_path / "again", records, root=images, shard_size=2)
    hashes = [[hashlib.sha256((tmp_path / f / n).read_bytes()).hexdigest() for n in names] for f in ("wds", "again")]
    assert hashes[0] == hashes[1]


def test_archives_with_a_sample_a_caption(tmp_path, records, images):
    export_webdataset(tmp_path / "wds", records, root=images, per_caption=True)
    with tarfile.open(tmp_path / "wds/000000.tar") as archive:
        texts = [archive.extractfile(name).read().decode() for name in archive.getnames() if name.endswith(".txt")]
        last = archive.extractfile("00000005.png").read()
    assert texts == [text for group in TEXTS for text in group]
    assert last == (images / "test/2.png").read_bytes()
    assert import_webdataset(tmp_path / "wds") == records


def test_archives_hold_eight_bits(tmp_path, records, images):
    Image.fromarray(np.array([[-30.0, -25.0], [-12.5, 0.0]], dtype=np.float32)).save(images / "test/0.tif")
    Image.fromarray(np.full((2, 2), 9000, dtype=np.uint16)).save(images / "test/1.png")  # 16 bits are not copied
    suffix, content = ImageRendering(sar_unit="db")(images / "test/0.tif")
    (tmp_path / "shown.png").write_bytes(content)
    assert suffix == "png"
    assert np.array(Image.open(tmp_path / "shown.png"))[..., 0].tolist() == [[0, 0], [128, 255]]
    suffix, content = ImageRendering(role="optical")(images / "test/1.png")
    (tmp_path / "shown.png").write_bytes(content)
    assert Image.open(tmp_path / "shown.png").mode == "RGB"
    with pytest.raises(UserError, match="limits in dB must rise"):
        ImageRendering(limits_db=(0.0, 0.0))


def test_bad_archives_are_refused(tmp_path, records, images):
    (images / "test/2.png").unlink()
    with pytest.raises(UserError, match=r"image '.*2\.png' does not exist"):
        export_webdataset(tmp_path / "wds", records, root=images)
    (images / "test/1.png").write_bytes((images / "test/1.png").read_bytes()[:40])
    with pytest.raises(UserError, match=r"1\.png' is damaged|1\.png' is no image"):
        export_webdataset(tmp_path / "wds", records, root=images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    with pytest.raises(UserError, match="there is no caption record"):
        export_webdataset(tmp_path / "wds", [], root=images)
    with pytest.raises(UserError, match="shard_size must be at least 1, got 0"):
        export_webdataset(tmp_path / "wds", records, root=images, shard_size=0)
    with pytest.raises(UserError, match="has no archive"):
        import_webdataset(images)
    (tmp_path / "wds").mkdir()
    (tmp_path / "wds/a.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"a\.tar' is damaged"):
        import_webdataset(tmp_path / "wds")
