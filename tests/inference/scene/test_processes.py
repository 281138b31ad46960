"""Maps of MiniEarth by the shipped model: alone, in two processes, killed and gone on with."""

import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rasterio
import torch.distributed as dist

from mmovseg.data.miniearth.scenes import write_miniearth_scene
from mmovseg.inference.scene import processes

ROOT = Path(__file__).parents[3]
NAMES = "water, road, forest"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "pair"
    write_miniearth_scene(
        folder, height=1400, width=320, clouds="varied", cloud_cover=0.4, sar_crs="EPSG:32633", sar_gsd_m=5.0
    )
    return folder


def command(scene, output, *, processes=1):
    start = [sys.executable, "-m", "mmovseg.cli"]
    if processes > 1:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        start += ["-m", "mmovseg.cli"]
    arguments = ["--optical", scene / "optical.tif", "--sar", scene / "sar.tif", "--prompts", NAMES, "--output", output]
    return [*map(str, [*start, "predict", *arguments, "--confidence", "--cloud-mask", scene / "cloud_mask.tif"])]


def environment():
    # one thread each: sums over more threads may end in other last bits
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(*arguments, **options):
    done = subprocess.run(
        command(*arguments, **options), env=environment(), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def same(first, second):
    for suffix in (".tif", ".confidence.tif", ".quality.tif"):
        a, b = (path.with_name(path.stem + suffix) for path in (first, second))
        assert a.read_bytes() == b.read_bytes(), suffix
        with rasterio.open(a) as left, rasterio.open(b) as right:
            assert left.tags() == right.tags()


def test_processes_wait_for_each_other_longer_than_their_group(monkeypatch):
    made, new_group = [], dist.new_group
    monkeypatch.setattr(dist, "new_group", lambda **options: (made.append(options), new_group(**options))[1])
    monkeypatch.setattr(processes, "world_size", lambda: 2)  # as far as it concerns whether to talk at all
    short = datetime.timedelta(seconds=5)
    for _ in range(2):  # a process may run again in another group
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=short)
        try:
            assert processes.on_main(lambda: "done") == "done"
            processes.together(lambda: None)
            assert processes.gather(3) == [3]
        finally:
            dist.destroy_process_group()
    assert made == 2 * [{"backend": "gloo", "timeout": processes.PATIENCE}]
    assert processes.PATIENCE == datetime.timedelta(days=2)


@pytest.mark.slow
def test_two_processes_and_a_killed_one_give_the_file_of_one(scene, tmp_path):
    alone, shared, killed = (tmp_path / name / "map.tif" for name in ("alone", "shared", "killed"))
    out = run(scene, alone)
    assert "windows" in out and "hectares" in out
    run(scene, shared, processes=2)
    same(alone, shared)
    process = subprocess.Popen(
        command(scene, killed), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    parts = killed.with_name("map.tif.parts")
    deadline = time.monotonic() + 200
    while len(list(parts.glob("part-*.labels.tif"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    # the first part is whole then, with all its layers, and three of five are still to come
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists() and 2 <= len(list(parts.glob("part-*.labels.tif"))) < 5
    assert "going on" in run(scene, killed)
    same(alone, killed)
    assert not parts.exists()
