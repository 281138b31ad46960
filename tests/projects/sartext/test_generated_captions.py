"""Captions that a model writes: which raster it reads, what the records say, and what the rules make of them."""

import json

import numpy as np
import pytest

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.generated import describe_images, images_of_folder, images_of_set
from mmovseg.projects.sartext.captioning.schema import read_captions, write_captions
from mmovseg.projects.sartext.modeling.norms import PixelNorm
from mmovseg.projects.sartext.search.reading import reading_for
from mmovseg.testing.fakes import write_raster
from tests.projects.sartext.image_text_worker import make
from tools import make_captions
from tools import write_captions as tool

DARK = "a white ship is on the blue sea beside a long bridge and two storage tanks"
BRIGHT = "many green trees and several buildings are near a road and a white storage tank"


def coca(modality):
    options = {"norm": PixelNorm(mean=[0.0] * 3, std=[255.0] * 3), "bands": None} if modality == "optical" else {}
    return make("coca", modality=modality, **options).eval()


def telling(model, key):
    """The model, with a sentence that shows which raster and which image it was asked about."""

    def generate(items):
        return [BRIGHT if float(item[key].float().mean()) > 100 else DARK for item in items]

    model.generate = generate
    return model


@pytest.fixture
def pairs(tmp_path):
    """A prepared set of pairs: the optical image of 1 is dark, of 2 bright; SAR is the other way round."""
    for number, value in ((1, 10), (2, 200)):
        for role, pixel in (("optical", value), ("sar", 210 - value)):
            bands = 3 if role == "optical" else 1
            path = tmp_path / "sets" / "qxs_saropt" / "train" / role / f"{number}.png"
            write_raster(path, np.full((16, 16, bands), pixel, np.uint8))
    return tmp_path / "sets"


def describe(images, model, **options):
    said = []
    reading = reading_for(model.input_contract, model.modality, picked=model.bands)
    options = {"provenance": {"model": "m"}, "show_progress": False, "tell": said.append, **options}
    return list(describe_images(images, model, reading, **options)), said


def test_of_a_pair_the_optical_image_is_described_and_the_record_is_of_the_sar_image(pairs):
    images = images_of_set("qxs_saropt", ["train"], "optical", root=pairs)
    records, said = describe(images, telling(coca("optical"), "image"), batch_size=1)
    assert said == []
    assert [(record.image, record.optical_image, record.captions) for record in records] == [
        ("qxs_saropt/train/sar/1.png", "qxs_saropt/train/optical/1.png", (DARK,)),
        ("qxs_saropt/train/sar/2.png", "qxs_saropt/train/optical/2.png", (BRIGHT,)),
    ]
    assert {(record.route, record.split, record.source) for record in records} == {("model", "train", "qxs_saropt")}
    assert records[0].image_id == "qxs_saropt/train/sar/1" and records[0].provenance == {"model": "m"}


def test_what_a_real_coca_writes_is_what_it_writes_image_by_image(pairs, tmp_path):
    model = coca("optical")
    images = images_of_set("qxs_saropt", ["train"], "optical", root=pairs)
    reading = reading_for(None, "optical")
    alone = [model.generate([reading.read(image.file)])[0] for image in images]
    records, _ = describe(images, model)
    assert [record.captions[0] for record in records] == alone
    assert write_captions(tmp_path / "a.jsonl", records) == 2
    assert read_captions(tmp_path / "a.jsonl") == records


def test_images_that_give_no_caption_are_told_and_left_out(pairs, tmp_path):
    folder = pairs / "qxs_saropt" / "train" / "optical"
    (folder / "0.png").write_bytes(b"no picture")
    model = telling(coca("optical"), "image")
    records, said = describe(images_of_folder(folder, source="mine", split="test"), model)
    assert [(record.image, record.split) for record in records] == [("1.png", "test"), ("2.png", "test")]
    assert len(said) == 1 and said[0].startswith("left out: ") and "0.png" in said[0]
    model.generate = lambda items: [" "] * len(items)
    records, said = describe(images_of_folder(folder, pattern="1*", source="mine", split="test"), model)
    assert records == [] and said == [f"left out: the model wrote nothing of '{folder}/1.png'"]


def test_an_image_that_the_model_refuses_stops_no_other(pairs):
    folder = pairs / "qxs_saropt" / "train" / "optical"
    write_raster(folder / "odd.png", np.full((16, 13, 3), 90, np.uint8))
    model = coca("optical")

    def generate(items):
        for item in items:
            if item["width"] == 13:
                raise UserError(f"'{item['file_name']}' is 13 pixels wide")
        return [DARK] * len(items)

    model.generate = generate
    records, said = describe(images_of_folder(folder, source="mine", split="test"), model)
    assert [record.image for record in records] == ["1.png", "2.png"]
    assert said == [f"left out: '{folder}/odd.png' is 13 pixels wide"]


def test_a_set_without_what_the_model_reads_is_refused(pairs):
    with pytest.raises(UserError, match="data set 'hrsid' has no optical images, which the model reads"):
        images_of_set("hrsid", ["train"], "optical", root=pairs)


def test_the_tool_writes_what_the_rules_take(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "load_image_text_model", lambda *_: telling(coca("optical"), "image"))
    written, rewritten = tmp_path / "optical.jsonl", tmp_path / "sar.jsonl"
    arguments = ["--dataset", "qxs_saropt", "--split", "train", "--root", str(pairs), "--config-file", "c.py"]
    tool.main([*arguments, "--output", str(written), "--quiet"])
    assert "2 of 2 images described" in capsys.readouterr().out
    line = json.loads(written.read_text().splitlines()[0])
    assert line["provenance"]["described"] == "optical" and len(line["provenance"]["weights_sha256"]) == 64
    first = written.read_bytes()
    tool.main([*arguments, "--output", str(written), "--quiet"])
    assert written.read_bytes() == first
    make_captions.main(["rewrite", "--captions", str(written), "--output", str(rewritten)])
    records = read_captions(rewritten)
    assert [record.captions for record in records] == [
        ("a ship is on the sea beside a long bridge and two storage tanks",),
        ("many trees and several buildings are near a road and a storage tank",),
    ]
    assert records[0].image == "qxs_saropt/train/sar/1.png" and records[0].route == "rewriting"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "qxs_saropt"], "--dataset needs --split"),
        (["--folder", ".", "--split", "a", "b"], "a folder is one split, got 2: a, b"),
        (["--folder", "nowhere"], "folder 'nowhere' does not exist"),
        (["--folder", ".", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence_and_no_file(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tool, "load_image_text_model", lambda *_: coca("optical"))
    with pytest.raises(SystemExit) as stopped:
        tool.main([*arguments, "--config-file", "c.py", "--output", "out.jsonl"])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


def test_a_clip_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tool, "load_image_text_model", lambda *_: make("clip"))
    with pytest.raises(SystemExit):
        tool.main(["--folder", str(tmp_path), "--config-file", "c.py", "--output", str(tmp_path / "o.jsonl")])
    assert "'c.py' builds a CLIP, which writes nothing; give a CoCa" in capsys.readouterr().err


def test_a_model_of_sar_describes_sar(pairs):
    model = telling(coca("sar"), "sar")
    images = images_of_set("qxs_saropt", ["train"], "sar", root=pairs)
    assert [image.file.split("/")[-2] for image in images] == ["sar", "sar"]
    model.generate = lambda items: [DARK for item in items if item["sar"].shape[0] == 1]
    records, _ = describe(images, model)
    assert [record.captions for record in records] == [(DARK,), (DARK,)]
