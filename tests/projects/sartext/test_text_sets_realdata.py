"""Captions and pairs of the real data sets through the loaders; skipped where the samples are not at hand."""

import importlib
import json
import logging
import shutil

import pytest

from mmovseg.data.io import FileReader
from mmovseg.errors import UserError
from mmovseg.projects.sartext.data.check import inspect_text_set
from mmovseg.projects.sartext.data.precomp import import_precomp
from mmovseg.projects.sartext.data.sets import find_text_set, load_text_set

pytestmark = pytest.mark.realdata

COUNTS = {("rsicd", "test"): 1093, ("rsitmd", "test"): 452, ("ucm", "test"): 210, ("sydney", "test"): 58}
COUNTS |= {("ucm", "train"): 1680, ("sydney", "train"): 497}
READER = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)


@pytest.mark.parametrize(("name", "split"), COUNTS)
def test_the_text_files_have_five_captions_an_image(realdata, name, split):
    records = import_precomp(realdata / "captions/text" / f"{name}_precomp", split, source=name)
    assert len(records) == COUNTS[name, split] and {len(record.captions) for record in records} == {5}
    reported = find_text_set(name).facts.pairs
    assert len(records) == reported[split]
    assert len({record.image_id for record in records}) == len(records)


def test_empty_captions_of_rsitmd_are_told_of(realdata, caplog):
    folder = realdata / "captions/text/rsitmd_precomp"
    with pytest.raises(UserError, match=r"train_caps.txt' line 9631 is an empty caption \(image 'mountain_2378.tif'\)"):
        import_precomp(folder, "train", source="rsitmd")
    with caplog.at_level(logging.WARNING):
        records = import_precomp(folder, "train", source="rsitmd", drop_empty=True)
    said = [message for message in caplog.messages if "of 5 captions of" in message]
    assert len(records) == 4291 - 4 and len(said) == 4 and all("it is left out" in message for message in said)


def test_real_captions_keep_their_images(realdata, tmp_path, capsys):
    """Three UCM images and the RSICD one, laid out as published."""
    listed = json.loads((realdata / "captions/image_captions.json").read_text())
    for name, layout in (("ucm", "UCM_captions/imgs"), ("rsicd", "RSICD_images")):
        chosen = [entry for entry in listed if entry["image"].startswith(name)]
        images = []
        for entry in chosen:
            file = entry.get("ucm_index", entry["image"].split("/")[1])
            (tmp_path / name / layout).mkdir(parents=True, exist_ok=True)
            shutil.copy(realdata / "captions" / entry["image"], tmp_path / name / layout / file)
            sentences = [{"raw": text} for text in entry["captions"]]
            images.append({"filename": file, "split": "test", "sentences": sentences})
        path = tmp_path / name / ("UCM_captions/dataset.json" if name == "ucm" else "dataset_rsicd.json")
        path.write_text(json.dumps({"dataset": name, "images": images}))
        main = importlib.import_module(f"prepare_{name}").main
        main(["--source", str(tmp_path / name), "--output", str(tmp_path / "sets")])
        items = load_text_set(name, "test", root=tmp_path / "sets")
        assert [item["captions"] for item in items] == [entry["captions"] for entry in chosen]
        for item in items:
            sample = READER(item)
            assert sample.optical.shape == ((256, 256, 3) if name == "ucm" else (224, 224, 3)) and sample.sar is None
            assert sample.captions == item["captions"]
        assert inspect_text_set(find_text_set(name), splits=["test"], root=tmp_path / "sets").faults == []


def test_pairs_of_qxs_saropt(realdata, tmp_path):
    main = importlib.import_module("prepare_qxs_saropt").main
    main(["--source", str(realdata / "qxs_saropt"), "--output", str(tmp_path), "--test-share", "0.3"])
    items = [item for split in ("train", "val", "test") for item in load_text_set("qxs_saropt", split, root=tmp_path)]
    assert len(items) == 14
    for item in items:
        sample = READER(item)
        assert sample.optical.shape == sample.sar.shape == (256, 256, 3)
        assert sample.sar.min() >= 0 and sample.sar.max() <= 255
        assert item["image_id"] in item["file_name"] and item["image_id"] in item["sar_file_name"]
    near = [
        split
        for split in ("train", "val", "test")
        for i in load_text_set("qxs_saropt", split, root=tmp_path)
        if i["image_id"] in ("16604", "16607", "16634")
    ]
    assert len(near) == 3 and len(set(near)) == 1  # of one block
    assert inspect_text_set(find_text_set("qxs_saropt"), root=tmp_path).faults == []
