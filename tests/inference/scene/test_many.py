"""Many scenes: one that fails stops no other, and the same call goes on where the last one ended."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmovseg.errors import UserError
from mmovseg.inference.scene import many, processes
from mmovseg.inference.scene.lists import SceneJob
from mmovseg.inference.scene.many import deal, predict_scenes, summary_csv
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.rasters import SceneInputs
from mmovseg.testing.fakes import write_raster


class FakePredictor:
    """Knows how to check prompts, and nothing else."""

    def ask_for(self, prompts):
        names = [name.strip() for name in prompts.split(",")]
        if not all(names):
            raise UserError("an empty name")
        return type("Names", (list,), {"names": names})(names)


def _map(predictor, inputs, prompts, output, *, options):
    """Stand in for `predict_scene`: fails as the optical path says, else writes a map once."""
    assert processes.world_size() == 1 and not options.show_progress
    for word, error in (
        ("damaged", UserError("raster is\ndamaged")),
        ("full", OSError(28, "No space left on device", "map.tif")),
        ("bug", KeyError("oops")),
        ("stop", KeyboardInterrupt()),
    ):
        if word in inputs.optical:
            raise error
    if options.dry_run:
        return {"plan": {"tile": 64}, "facts": {}, "estimate": {"seconds": 3.2, "memory_mib": 100.0}}
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("map")
    classes = {
        "water": {"value": 0, "pixels": 5, "hectares": 1.25},
        "road": {"value": 1, "pixels": 0, "hectares": None},
    }
    return {"classes": classes, "facts": {"warnings": ["half of it is cloud"]}}


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(many, "predict_scene", _map)
    names = ("a", "damaged", "c", "full", "bug")
    return [SceneJob(name, SceneInputs(optical=f"{name}.tif"), tmp_path / "maps" / f"{name}.tif") for name in names]


def test_failures_are_recorded_and_the_rest_goes_on(jobs, tmp_path, capsys):
    summary = predict_scenes(FakePredictor(), jobs, "water, road")
    assert {key: summary[key] for key in ("mapped", "there", "failed")} == {"mapped": 2, "there": 0, "failed": 3}
    assert [scene["status"] for scene in summary["scenes"]] == ["mapped", "failed", "mapped", "failed", "failed"]
    errors = [scene.get("error", "") for scene in summary["scenes"]]
    assert errors[1] == r"raster is\ndamaged" and "No space left on device" in errors[3]
    assert errors[4].startswith("unexpected KeyError") and "Traceback" in summary["scenes"][4]["traceback"]
    assert (tmp_path / "maps/a.tif").exists() and (tmp_path / "maps/c.tif").exists()
    out = capsys.readouterr().out
    assert "[2/5] damaged: failed: raster is" in out and "5 scenes: 2 mapped, 0 there, 3 failed" in out
    assert "note: half of it is cloud" in out and out.count("damaged: raster is") == 1


def test_summary_files_say_the_same(jobs, tmp_path):
    summary = predict_scenes(FakePredictor(), jobs, "water, road", options=SceneOptions(show_progress=False))
    assert json.loads((tmp_path / "maps/summary.json").read_text()) == summary
    text = (tmp_path / "maps/summary.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert text == summary_csv(summary) and [row["scene"] for row in rows] == ["a", "damaged", "c", "full", "bug"]
    assert (rows[0]["water (ha)"], rows[0]["road (ha)"], rows[0]["error"]) == ("1.2500", "", "")
    assert rows[1]["status"] == "failed" and rows[1]["water (ha)"] == ""


def test_a_second_call_leaves_what_is_there(jobs, capsys):
    quiet = SceneOptions(show_progress=False)
    predict_scenes(FakePredictor(), jobs[:1], "water, road", options=quiet)
    summary = predict_scenes(FakePredictor(), jobs[:3], "water, road", options=quiet)
    assert [scene["status"] for scene in summary["scenes"]] == ["there", "failed", "mapped"]
    assert capsys.readouterr().out == ""


def test_dry_run_plans_and_writes_nothing(jobs, tmp_path, capsys):
    summary = predict_scenes(FakePredictor(), jobs[:2], "water, road", options=SceneOptions(dry_run=True))
    assert (summary["planned"], summary["failed"], summary["files"]) == (1, 1, [])
    assert "[1/2] a: about 3 s and 100 MiB" in capsys.readouterr().out and list(tmp_path.iterdir()) == []


def test_an_interruption_stops_all(jobs, tmp_path):
    stopped = [jobs[0], SceneJob("s", SceneInputs(optical="stop"), tmp_path / "maps/s.tif"), jobs[2]]
    with pytest.raises(KeyboardInterrupt):
        predict_scenes(FakePredictor(), stopped, "water, road")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ("water", SceneOptions(), "'water' alone would win everywhere"),
        ("water,,road", SceneOptions(), "an empty name"),
        ("water, road", SceneOptions(polygons="p.gpkg"), "'p.gpkg' cannot be asked for many scenes"),
    ],
)
def test_what_is_wrong_for_all_is_said_once(jobs, tmp_path, prompts, options, message):
    with pytest.raises(UserError, match=message):
        predict_scenes(FakePredictor(), jobs, prompts, options=options)
    with pytest.raises(UserError, match="no scenes"):
        predict_scenes(FakePredictor(), [], "water, road")
    assert list(tmp_path.iterdir()) == []


def _jobs(folder, *names, cloud_mask=None):
    return [
        SceneJob(name, SceneInputs(optical=f"in/{name}.tif", cloud_mask=cloud_mask), folder / f"{name}.tif")
        for name in names
    ]


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (("a", "summary"), {}, "summary.json' would be written by the summary of all and by scene 'summary'"),
        (("a", "a"), {}, "a.tif' would be written by scene 'a' and by scene 'a'"),
        (("a", "a.confidence"), {"confidence": True}, "a.confidence.tif' would be written by scene 'a' and by"),
        (("a.probabilities", "a"), {"probabilities": True}, "by scene 'a.probabilities' and by scene 'a'"),
        (("a", "a.quality"), {"quality": True}, "a.quality.tif' would be written"),
    ],
)
def test_scenes_whose_files_collide_are_refused(tmp_path, monkeypatch, names, options, words):
    monkeypatch.setattr(many, "predict_scene", _map)
    with pytest.raises(UserError, match=words):
        predict_scenes(FakePredictor(), _jobs(tmp_path / "m", *names), "water, road", options=SceneOptions(**options))
    assert list(tmp_path.iterdir()) == []
    if options:
        predict_scenes(FakePredictor(), _jobs(tmp_path / "m", *names), "water, road")
    with pytest.raises(UserError, match="a.quality.tif"):  # a cloud mask asks for it
        predict_scenes(FakePredictor(), _jobs(tmp_path, "a", "a.quality", cloud_mask="c.tif"), "water, road")


def test_no_scene_writes_over_a_raster_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(many, "predict_scene", _map)
    jobs = [
        SceneJob("a", SceneInputs(optical=str(tmp_path / "o.tif")), tmp_path / "b.tif"),
        SceneJob("b", SceneInputs(sar=str(tmp_path / "b.tif")), tmp_path / "c.tif"),
    ]
    with pytest.raises(UserError, match="b.tif' of scene 'b' is an input and would be written over by scene 'a'"):
        predict_scenes(FakePredictor(), jobs, "water, road", options=SceneOptions(overwrite=True))


@pytest.mark.parametrize("name", ["summary.json", "summary.csv"])
def test_a_summary_of_somebody_else_stays(jobs, tmp_path, name):
    path = tmp_path / "maps" / name
    path.parent.mkdir()
    for content in ("precious", "{}"):
        path.write_text(content)
        with pytest.raises(UserError, match=f"{name}' is where the summary goes"):
            predict_scenes(FakePredictor(), jobs, "water, road")
        assert path.read_text() == content and list(path.parent.iterdir()) == [path]
    predict_scenes(FakePredictor(), jobs, "water, road", options=SceneOptions(overwrite=True))
    predict_scenes(FakePredictor(), jobs, "water, road")  # its own is no obstacle
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=f"{name}' is a folder"):
        predict_scenes(FakePredictor(), jobs, "water, road")


@pytest.mark.parametrize("hands", [1, 2, 3, 7])
def test_each_scene_is_dealt_once_and_evenly(hands):
    sizes = [5, 0, 90, 30, 30, 30, 1, 0]
    dealt = deal(sizes, hands)
    assert sorted(index for hand in dealt for index in hand) == list(range(len(sizes)))
    assert all(hand == sorted(hand) for hand in dealt)
    heaviest = max(sum(sizes[index] for index in hand) for hand in dealt)
    assert heaviest <= max(90, sum(sizes) / hands + max(sizes) / 2)


def test_size_of_a_scene_is_that_of_its_map(tmp_path):
    path = write_raster(tmp_path / "o.tif", np.zeros((6, 7, 3), dtype=np.uint8))
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0")
    inputs = [
        SceneInputs(optical=str(path)),
        SceneInputs(sar=str(path)),
        SceneInputs(optical=str(broken)),
        SceneInputs(),
    ]
    assert [many._pixels(SceneJob("x", item, Path("x.tif"))) for item in inputs] == [42, 42, 0, 0]


_SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import test_many
from pathlib import Path
from mmovseg.engine import launch
from mmovseg.inference.scene import many
from mmovseg.inference.scene.lists import SceneJob
from mmovseg.inference.scene.rasters import SceneInputs
many.predict_scene = test_many._map
launch.join_torchrun("cpu")
names = ("a", "damaged", "c", "d", "e")
jobs = [SceneJob(name, SceneInputs(optical=name), Path({output!r}) / (name + ".tif")) for name in names]
summary = many.predict_scenes(test_many.FakePredictor(), jobs, "water, road")
assert [scene["name"] for scene in summary["scenes"]] == list(names) and summary["failed"] == 1
launch.leave()
"""


@pytest.mark.slow  # starts two processes
def test_two_processes_share_the_scenes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.format(folder=str(Path(__file__).parent), output=str(tmp_path / "maps")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "[process 1: 1/2]" in done.stdout and done.stdout.count("5 scenes: 4 mapped, 0 there, 1 failed") == 1
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert names == {"a.tif", "c.tif", "d.tif", "e.tif", "summary.json", "summary.csv"}
