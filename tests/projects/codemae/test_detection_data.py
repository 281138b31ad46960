"""The targets of MiniEarth as dataset dicts."""

import json

import numpy as np
import pytest

from mmovseg.data.datasets.coco_boxes import load_coco_boxes
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.miniearth.export import write_miniearth_folder
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.detection import load_miniearth_boxes


def test_scenes_of_miniearth_hold_their_category_in_turns_and_nothing_else_than_the_picture():
    scenes = load_miniearth_boxes("val", num_scenes=6, size=64)
    assert scenes[:3] == load_miniearth_boxes("val", num_scenes=3, size=64)
    names = ("aircraft", "ship", "vehicle")
    places = set()
    for number, scene in enumerate(scenes):
        seen = MiniEarthReader()(scene).facts["targets"]
        assert [names[a["category_id"]] for a in scene["annotations"]] == [target["category"] for target in seen]
        assert [list(a["bbox"]) for a in scene["annotations"]] == [target["box"] for target in seen]
        assert number % 3 in {a["category_id"] for a in scene["annotations"]}
        places.add((scene["world"]["row"], scene["world"]["col"]))
    assert len(places) == 6
    assert not places & {(s["world"]["row"], s["world"]["col"]) for s in load_miniearth_boxes("test", num_scenes=6)}


def test_only_wanted_categories_are_annotated():
    scenes = load_miniearth_boxes("val", num_scenes=2, size=64, categories=["ship"])
    assert all(scene["annotations"] for scene in scenes)
    assert {a["category_id"] for scene in scenes for a in scene["annotations"]} == {0}


def test_what_miniearth_cannot_give_is_refused():
    for options, sentence in (
        ({"categories": ["tank"]}, "has no category 'tank'; it has: aircraft, ship, vehicle"),
        ({"size": 1024}, "got num_scenes 500 of size 1024"),
        ({"num_scenes": 0}, "got num_scenes 0 of size 128"),
        ({"split": "all"}, "has no split 'all'"),
    ):
        with pytest.raises(UserError, match=sentence):
            load_miniearth_boxes(**{"split": "val", **options})


def test_a_written_folder_of_miniearth_is_a_coco_set_of_either_sensor(tmp_path):
    write_miniearth_folder(tmp_path / "world", splits=("val",), num_scenes=2, size=64)
    folder = tmp_path / "world" / "val"
    names = ("aircraft", "ship", "vehicle")
    options = {"optical_dir": folder / "optical", "sar_dir": folder / "sar"}
    found = load_coco_boxes(folder / "targets.json", categories=names, keep_empty=False, **options)
    given = json.loads((folder / "targets.json").read_text())["annotations"]
    assert sum(len(item["annotations"]) for item in found) == len(given) > 0
    for modality, key in (("optical", "image"), ("sar", "sar")):
        mapper = OpticalSARMapper(is_train=False, vocabulary=None, reader=FileReader(), modality=modality)
        item = mapper(dict(found[0]))
        assert item[key].shape[1:] == (64, 64) and len(item["instances"]) == len(found[0]["annotations"])
        np.testing.assert_allclose(item["instances"].gt_boxes.tensor, [a["bbox"] for a in found[0]["annotations"]])
