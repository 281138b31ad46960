import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.inference.scene import parts
from mmovseg.inference.scene.layers import label_layer
from mmovseg.testing.scene_maps import (
    blocky_labels,
    limit_file_size,
    map_arrays,
    map_grid,
    map_store,
    write_parts,
)

SHAPE = (330, 210)
ARRAYS = map_arrays(blocky_labels(SHAPE))
ALL = {0, 1, 2, 3}


def new_store(folder, **options):
    return map_store(folder / "map.tif", map_grid(SHAPE), **options)


def finished(folder, **options):
    store = new_store(folder, **options)
    store.begin()
    write_parts(store, ARRAYS)
    return store.finish({"SENSOR": "test"})


def run_and_kill(folder, script):
    """Run code on the store of `folder` in another process until it kills itself."""
    code = (
        "import os, signal\nfrom pathlib import Path\n"
        "from mmovseg.inference.scene import parts\n"
        "from mmovseg.testing.scene_maps import *\n"
        f"arrays = map_arrays(blocky_labels({SHAPE}))\n"
        f"store = map_store({str(folder / 'map.tif')!r}, map_grid({SHAPE}))\n"
        "def die(*arguments):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"store.begin()\n{script}"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def test_parts_become_files_and_their_folder_goes(tmp_path):
    store = new_store(tmp_path)
    assert store.begin() == set()
    write_parts(store, ARRAYS, [2, 0])
    write_parts(store, ARRAYS, [3, 1])
    paths = store.finish({"SENSOR": "test"})
    assert [path.name for path in paths] == ["map.tif", "map.confidence.tif", "map.quality.tif"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    for path, name in zip(paths, ARRAYS, strict=True):
        with rasterio.open(path) as source:
            assert np.array_equal(source.read(1), ARRAYS[name])
            assert source.tags()["SENSOR"] == "test"
            assert source.tags()[parts.PLAN_TAG] == store.digest
    assert store.finish({}) == paths


def test_cut_and_order_do_not_show_in_the_bytes(tmp_path):
    first = finished(tmp_path / "a")
    store = new_store(tmp_path / "b", rows=47)
    store.begin()
    write_parts(store, ARRAYS, list(reversed(range(len(store.part_rows)))))
    second = store.finish({"SENSOR": "test"})
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_finished_parts_are_known_after_an_interruption(tmp_path):
    store = new_store(tmp_path)
    store.begin()
    write_parts(store, ARRAYS, [1, 3])
    store.close()
    again = new_store(tmp_path)
    assert again.begin() == {1, 3}
    assert again.notes == []
    write_parts(again, ARRAYS, [0, 2])
    assert [path.read_bytes() for path in again.finish({"SENSOR": "test"})] == [
        path.read_bytes() for path in finished(tmp_path / "unbroken")
    ]


def test_killed_while_writing_a_part(tmp_path):
    run_and_kill(tmp_path, "write_parts(store, arrays, [0])\nparts.os.replace = die\nwrite_parts(store, arrays, [1])")
    folder = tmp_path / "map.tif.parts"
    assert len(list(folder.glob("*.tmp"))) == 1
    store = new_store(tmp_path)
    assert store.begin() == {0}
    assert not list(folder.glob("*.tmp"))
    store.close()


def test_killed_between_the_layers_of_a_part(tmp_path):
    script = (
        "write = parts.PartStore._write_part\n"
        "def second(self, path, index, layer, array):\n"
        "    die() if layer.name == 'confidence' else write(self, path, index, layer, array)\n"
        "parts.PartStore._write_part = second\nwrite_parts(store, arrays, [0])"
    )
    run_and_kill(tmp_path, script)
    assert (tmp_path / "map.tif.parts" / "part-00000.labels.tif").exists()
    assert new_store(tmp_path).begin() == set()


@pytest.mark.parametrize("where", ["while joining", "between the files"])
def test_killed_while_finishing(tmp_path, where):
    hook = {
        "while joining": "import mmovseg.inference.scene.cog as cog\ncog.read_every_block = die\n",
        "between the files": (
            "put = parts._put\n"
            "def once(temporary, path):\n    put(temporary, path)\n    parts._put = die\n"
            "parts._put = once\n"
        ),
    }[where]
    run_and_kill(tmp_path, f"write_parts(store, arrays)\n{hook}store.finish({{'SENSOR': 'test'}})")
    assert not (tmp_path / "map.tif").exists()
    assert (tmp_path / "map.quality.tif").exists() == (where == "between the files")
    store = new_store(tmp_path)
    assert store.begin() == ALL
    assert not store.complete
    paths = store.finish({"SENSOR": "test"})
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in finished(tmp_path / "unbroken")]


def test_killed_before_the_parts_were_removed(tmp_path):
    store = new_store(tmp_path)
    store.begin()
    write_parts(store, ARRAYS)
    shutil.copytree(store.folder, tmp_path / "kept")
    store.finish({})
    shutil.copytree(tmp_path / "kept", store.folder)
    again = new_store(tmp_path)
    assert again.begin() == ALL
    assert again.complete
    assert not again.folder.exists()


@pytest.mark.parametrize("damage", ["cut", "bits", "empty", "another plan", "another place", "one layer missing"])
def test_damaged_parts_are_dropped(tmp_path, damage):
    store = new_store(tmp_path)
    store.begin()
    write_parts(store, ARRAYS)
    store.close()
    victim = store.folder / "part-00002.confidence.tif"
    content = bytearray(victim.read_bytes())
    if damage == "cut":
        victim.write_bytes(content[: len(content) // 2])
    elif damage == "bits":
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    elif damage == "empty":
        victim.write_bytes(b"")
    elif damage == "another plan":
        other = new_store(tmp_path / "other", plan={"tile": 128})
        other.begin()
        write_parts(other, ARRAYS, [2])
        shutil.copy(other.folder / victim.name, victim)
    elif damage == "another place":
        shutil.copy(store.folder / "part-00001.confidence.tif", victim)
    else:
        victim.unlink()
    again = new_store(tmp_path)
    assert again.begin() == {0, 1, 3}
    assert not list(again.folder.glob("part-00002.*"))
    expected = [] if damage == "one layer missing" else [f"1 damaged parts in '{again.folder}' are computed again"]
    assert again.notes == expected
    again.close()


def test_finished_output_of_the_same_plan_is_kept(tmp_path):
    paths = finished(tmp_path)
    before = [path.stat().st_mtime_ns for path in paths]
    store = new_store(tmp_path)
    assert store.begin() == ALL
    assert store.complete
    assert store.finish({}) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    again = new_store(tmp_path)
    assert again.begin(overwrite=True) == set()
    assert not again.complete
    again.close()
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.parametrize("name", ["map.tif", "map.confidence.tif"])
@pytest.mark.parametrize("content", ["another plan", "another file"])
def test_other_output_is_only_replaced_when_told(tmp_path, name, content):
    paths = finished(tmp_path, plan={"tile": 128})
    for path in paths:
        if path.name != name:
            path.unlink()
    if content == "another file":
        (tmp_path / name).write_text("mine")
    kept = (tmp_path / name).read_bytes()
    with pytest.raises(UserError, match=f"{name}' exists and was made from other inputs .*--overwrite"):
        new_store(tmp_path).begin()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == kept
    (tmp_path / (name + ".aux.xml")).write_text("<PAMDataset/>")
    store = new_store(tmp_path)
    assert store.begin(overwrite=True) == set()
    write_parts(store, ARRAYS)
    assert sorted(tmp_path.iterdir()) != sorted(store.finish({}))
    assert sorted(tmp_path.iterdir()) == sorted(store.files)


def test_parts_of_another_plan_are_only_thrown_away_when_told(tmp_path):
    store = new_store(tmp_path, plan={"tile": 128, "model": {"name": "xs"}})
    store.begin()
    write_parts(store, ARRAYS, [0])
    store.close()
    other = new_store(tmp_path, plan={"tile": 256, "model": {"name": "b"}})
    with pytest.raises(UserError, match=r"plan\.tile was 128, is 256.*--restart") as error:
        other.begin()
    assert "plan.model.name was xs, is b" in str(error.value)
    other.close()
    assert new_store(tmp_path, plan={"tile": 128, "model": {"name": "xs"}}).begin() == {0}
    assert other.begin(restart=True) == set()
    assert [path.name for path in sorted(other.folder.iterdir())] == ["lock", "plan.json"]
    other.close()
    assert not other.folder.exists()


def test_a_folder_of_somebody_else_keeps_its_files(tmp_path):
    folder = tmp_path / "map.tif.parts"
    folder.mkdir()
    (folder / "letter.txt").write_text("keep")
    finished(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_two_runs_do_not_write_one_output(tmp_path):
    store = new_store(tmp_path)
    store.begin()
    code = (
        f"from mmovseg.testing.scene_maps import *\nmap_store({str(tmp_path / 'map.tif')!r}, map_grid({SHAPE})).begin()"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True)
    assert b"UserError: another run is writing" in ended.stderr
    assert json.loads((store.folder / "plan.json").read_text())["plan"] == {"tile": 64}
    write_parts(store, ARRAYS)
    store.finish({})


def test_a_lock_that_was_removed_meanwhile_keeps_nobody_out(tmp_path, monkeypatch):
    """A run ends between the moments in which the next one opens the lock file and locks it."""
    store, lock_of = new_store(tmp_path), parts.fcntl.flock
    calls = []

    def late(file, how):
        if not calls:
            (store.folder / "lock").unlink()
        calls.append(file)
        lock_of(file, how)

    monkeypatch.setattr(parts.fcntl, "flock", late)
    store.begin()
    assert len(calls) == 2
    with (store.folder / "lock").open("ab") as other, pytest.raises(BlockingIOError):
        lock_of(other, parts.fcntl.LOCK_EX | parts.fcntl.LOCK_NB)
    store.close()


def test_the_lock_file_goes_while_it_is_held(tmp_path, monkeypatch):
    store, there = new_store(tmp_path), []
    store.begin()
    release = parts.PartStore._release
    monkeypatch.setattr(
        parts.PartStore, "_release", lambda self: (there.append((self.folder / "lock").exists()), release(self))
    )
    store.discard()
    assert there == [False] and not store.folder.exists()


@pytest.mark.parametrize("name", ["letter.tmp", "plan.json.mine"])
def test_temporary_files_of_somebody_else_stay(tmp_path, name):
    store = new_store(tmp_path)
    store.begin()
    write_parts(store, ARRAYS, [0])
    store.close()
    (store.folder / name).write_text("keep")
    (store.folder / "plan.json.tmp").write_text("{")
    again = new_store(tmp_path)
    assert again.begin() == {0}
    assert (again.folder / name).exists() and not (again.folder / "plan.json.tmp").exists()
    write_parts(again, ARRAYS, [1, 2, 3])
    again.finish({})
    assert [path.name for path in again.folder.iterdir()] == [name]


def test_close_leaves_the_parts_of_others_alone(tmp_path):
    store = new_store(tmp_path)
    store.folder.mkdir()
    (store.folder / "plan.json").write_text("{}")
    store.close()
    assert (store.folder / "plan.json").exists()


def test_missing_parts_are_a_mistake_of_the_caller(tmp_path):
    store = new_store(tmp_path)
    store.begin()
    write_parts(store, ARRAYS, [0, 2])
    with pytest.raises(ValueError, match="2 parts are not written yet, the first is 1"):
        store.finish({})
    wrong = {**ARRAYS, "labels": ARRAYS["labels"].astype(np.uint16)}
    with pytest.raises(ValueError, match="labels"):
        write_parts(store, wrong, [1])
    with pytest.raises(ValueError, match="do not follow"):
        parts.PartStore(tmp_path / "x.tif", map_grid((9, 9)), store.layers, plan={}, part_rows=[(0, 4), (5, 9)])


def test_bad_outputs_are_refused_and_nothing_is_left(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    folder = tmp_path / "folder.tif"
    folder.mkdir()
    source = tmp_path / "map.confidence.tif"
    source.write_bytes(b"an input")
    (tmp_path / "link.tif").symlink_to(source)
    cases = {
        file / "map.tif": "Not a directory",
        folder: "is a folder",
        tmp_path / "map.png": "must end in .tif",
        tmp_path / "map.tif": "map.confidence.tif' is an input",
        tmp_path / "link.tif": "link.tif' is an input",
        Path("/proc/nowhere/map.tif"): "cannot be written: No such file or directory",
        tmp_path / ("x" * 300 + ".tif"): "File name too long",
    }
    before = sorted(tmp_path.rglob("*"))
    for path, words in cases.items():
        with pytest.raises(UserError, match=words) as error:
            map_store(path, map_grid(SHAPE), inputs=[source]).begin(overwrite=True)
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        new_store(tmp_path).begin()
    tmp_path.chmod(0o700)


def test_a_parts_folder_in_the_way(tmp_path):
    (tmp_path / "map.tif.parts").write_text("")
    with pytest.raises(UserError, match="is in the way"):
        new_store(tmp_path).begin()


def test_too_little_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    need = new_store(tmp_path).disk_need()
    assert 2 * 3 * SHAPE[0] * SHAPE[1] < need.upper < 3 * 3 * SHAPE[0] * SHAPE[1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, need.expected - 1))
    with pytest.raises(UserError, match="not enough room for"):
        new_store(tmp_path).begin()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, need.expected + 1))
    store = new_store(tmp_path)
    store.begin()
    assert len(store.notes) == 1 and "may run full" in store.notes[0]


def test_a_part_that_cannot_be_written_leaves_nothing(tmp_path, capfd):
    store = new_store(tmp_path)
    store.begin()
    write_parts(store, ARRAYS, [0])
    before = sorted(store.folder.iterdir())
    with limit_file_size(1000), pytest.raises(UserError, match=r"part-00001.labels.tif' cannot be written: "):
        write_parts(store, ARRAYS, [1])
    assert sorted(store.folder.iterdir()) == before
    assert capfd.readouterr().err == ""
    write_parts(store, ARRAYS, [1])
    store.close()


@pytest.mark.parametrize("size", [0, 1000, 6000, 12_000])
def test_a_finish_that_cannot_write_leaves_the_parts_and_can_be_repeated(tmp_path, capfd, size):
    shape = (330, 700)  # wide enough for overviews, which are written to a file of their own first
    store = map_store(tmp_path / "map.tif", map_grid(shape))
    store.begin()
    write_parts(store, map_arrays(blocky_labels(shape, block=2)))
    before = sorted(store.folder.iterdir())
    with limit_file_size(size), pytest.raises(UserError, match=r"what is computed is kept in '.*map.tif.parts'"):
        store.finish({})
    assert capfd.readouterr().err == ""
    assert sorted(store.folder.iterdir()) == before
    assert list(tmp_path.iterdir()) == [store.folder]
    assert len(store.finish({})) == 3


def test_a_scene_of_one_pixel(tmp_path):
    grid = map_grid((1, 1))
    store = map_store(tmp_path / "map.tif", grid, [label_layer(vocabulary_from_names("land, sea"))])
    store.begin()
    store.write(0, {"labels": np.ones((1, 1), dtype=np.uint8)})
    with rasterio.open(store.finish({})[0]) as source:
        assert source.read().tolist() == [[[1]]]
