"""`mmovseg predict`: options become what they say; maps, lists, dry runs, Ctrl-C, several processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import predict_scene
import pytest
import rasterio

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.scene.arguments import argument_parser, read_prompts, scene_inputs, scene_options
from mmovseg.inference.scene.failures import plain_errors
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.rasters import SceneInputs
from mmovseg.testing.malformed import read, rewrite, write_good_files

ROOT = Path(__file__).resolve().parents[2]
PAIR = ("--optical", "{0}/optical.tif", "--sar", "{0}/sar.tif", "--device", "cpu")


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    write_good_files(folder)
    return folder


@pytest.fixture
def run(rasters, capsys):
    """Run the tool; `{0}` in arguments is the folder of the rasters; returns (status, stdout, stderr)."""

    def run_it(*words, pair=PAIR, prompts="water, road, forest"):
        status = None
        try:
            status = predict_scene.main([str(word).format(rasters) for word in (*pair, "--prompts", prompts, *words)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run_it


def parse(*words):
    return argument_parser().parse_args(["--prompts", "water, road", *words])


def test_what_is_not_said_stays_as_the_software_has_it():
    args = parse("--sar", "b.tif")
    assert scene_inputs(args) == SceneInputs(sar="b.tif")
    assert scene_options(args) == SceneOptions()


def test_every_option_arrives():
    args = parse(
        *("--optical", "a.tif", "--sar", "b.tif", "--cloud-mask", "c.tif", "--clouds", "withhold"),
        *("--optical-bands", "4", "3", "2", "--optical-range", "-5", "3000", "--optical-nodata", "0"),
        *("--sar-bands", "2", "1", "--sar-unit", "linear", "--sar-nodata", "nan"),
        *("--optical-resampling", "average", "--sar-resampling", "nearest"),
        *("--tile", "96", "--overlap", "0.5", "--margin", "8", "--batch", "3", "--gsd", "2.5", "--anchor", "scene"),
        *("--confidence", "--probabilities", "--polygons", "p.gpkg", "--min-area", "100", "--simplify", "5"),
        *("--modality", "sar", "--precision", "bfloat16", "--override-contract", "--overwrite", "--restart"),
        *("--dry-run", "--quiet", "--picture", "p.png"),
    )
    inputs = scene_inputs(args)
    assert np.isnan(inputs.sar_nodata)
    assert (inputs.optical, inputs.sar, inputs.cloud_mask) == ("a.tif", "b.tif", "c.tif")
    assert (inputs.optical_bands, inputs.optical_range, inputs.optical_nodata) == ((4, 3, 2), (-5.0, 3000.0), 0.0)
    assert (inputs.sar_bands, inputs.sar_unit) == ((2, 1), "linear")
    assert (inputs.optical_resampling, inputs.sar_resampling) == ("average", "nearest")
    assert scene_options(args) == SceneOptions(
        **{"tile": 96, "overlap": 0.5, "margin": 8, "batch": 3, "gsd": 2.5, "anchor": "scene", "clouds": "withhold"},
        **{"confidence": True, "probabilities": True, "quality": True, "polygons": "p.gpkg"},
        **{"min_area_m2": 100.0, "simplify_m": 5.0, "modality": "sar", "precision": "bfloat16"},
        **{
            "override_contract": True,
            "overwrite": True,
            "restart": True,
            "dry_run": True,
            "show_progress": False,
            "picture": "p.png",
        },
    )


@pytest.mark.parametrize(
    ("words", "quality"),
    [
        (("--cloud-mask", "c.tif"), True),
        ((), False),
        (("--quality",), True),
        (("--cloud-mask", "c.tif", "--no-quality"), False),
    ],
)
def test_a_cloud_mask_asks_for_quality(words, quality):
    assert scene_options(parse("--optical", "a.tif", *words)).quality is quality


def test_prompts_come_from_text_a_list_or_a_vocabulary(tmp_path):
    assert read_prompts("water,  solar farm ") == ["water", "solar farm"]
    names = tmp_path / "names.txt"
    names.write_text("\ufeff# land cover\nwater\n\nsolar farm, road,  # two in a line\n", encoding="utf-8")
    assert read_prompts(f"@{names}") == ["water", "solar farm", "road"]
    file = tmp_path / "v.json"
    file.write_text(
        json.dumps({"name": "mine", "classes": [{"name": "water", "color": [0, 0, 255]}, {"name": "road"}]})
    )
    vocabulary = read_prompts(str(file))
    assert isinstance(vocabulary, Vocabulary) and vocabulary.names == ["water", "road"]
    assert vocabulary.colors[0] == (0, 0, 255)


def test_an_overlong_name_is_refused():
    assert read_prompts("water, " + "a" * 200)[1] == "a" * 200
    with pytest.raises(UserError, match="201 characters"):
        read_prompts("water, " + "a" * 201)


def test_a_pair_becomes_a_map(run, tmp_path, rasters):
    output = tmp_path / "new folder" / "map.tif"
    status, out, err = run("--output", output, "--confidence", "--quality")
    assert (status, err) == (0, "")
    assert "knows the made-up world MiniEarth and not the real one" in out and "hectares" in out
    assert out.count("MiniEarth") == 1
    with rasterio.open(output) as product, rasterio.open(rasters / "optical.tif") as source:
        assert (product.crs, product.transform, product.shape) == (source.crs, source.transform, source.shape)
        assert set(np.unique(product.read(1))) <= {0, 1, 2}
        assert product.tags(1)["CLASS_1"] == "road"
    names = {"map.tif", "map.confidence.tif", "map.quality.tif", "map.json"}
    assert {path.name for path in output.parent.iterdir()} == names
    assert set(json.loads((output.parent / "map.json").read_text())["classes"]) >= {"water", "road", "forest"}


def test_a_second_call_has_nothing_to_do_and_another_one_is_refused(run, tmp_path):
    output = tmp_path / "map.tif"
    assert run("--output", output, "--quiet") == (0, "", "")
    before = output.read_bytes()
    status, out, _ = run("--output", output)
    assert status == 0 and "is there already" in out and output.read_bytes() == before
    status, _, err = run("--output", output, prompts="water, city")
    assert status == 2 and "map.tif" in err and "--overwrite" in err and err.count("\n") == 1
    assert output.read_bytes() == before
    assert run("--output", output, "--overwrite", "--quiet", prompts="water, city")[0] == 0
    with rasterio.open(output) as product:
        assert product.tags(1)["CLASS_1"] == "city"


def test_a_dry_run_writes_nothing(run, tmp_path):
    status, out, _ = run("--output", tmp_path / "map.tif", "--dry-run")
    assert status == 0 and "windows" in out and "memory" in out
    assert list(tmp_path.iterdir()) == []


def test_polygons_are_written(run, tmp_path):
    status, *_ = run("--output", tmp_path / "m.tif", "--polygons", tmp_path / "p.geojson", "--quiet", "--min-area", 50)
    assert status == 0
    features = json.loads((tmp_path / "p.geojson").read_text())["features"]
    assert {feature["properties"]["class"] for feature in features} <= {"water", "road", "forest"}
    assert features and min(feature["properties"]["area_ha"] for feature in features) >= 0.005


def test_a_list_goes_on_past_a_bad_scene(run, tmp_path, rasters):
    (tmp_path / "pairs.csv").write_text(
        f"optical,sar,name\n{rasters}/optical.tif,{rasters}/sar.tif,a\n{rasters}/optical.tif,{tmp_path}/gone.tif,b\n"
    )
    words = ("--list", tmp_path / "pairs.csv", "--output-dir", tmp_path / "maps", "--device", "cpu", "--quiet")
    status, _, err = run(*words, pair=())
    assert status == 1 and "Traceback" not in err
    assert len(list((tmp_path / "maps").rglob("*.tif"))) == 1
    assert "gone.tif" in (tmp_path / "maps" / "summary.json").read_text()


def test_threads_are_set_for_the_model(run, tmp_path, monkeypatch):
    import torch

    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    assert run("--output", tmp_path / "map.tif", "--threads", 3, "--quiet", "--dry-run")[0] == 0
    assert seen[-1] == 3


def test_what_disks_and_memory_do_becomes_one_sentence():
    for error, sentence in (
        (OSError(28, "No space left on device", "/x/map.tif"), "'/x/map.tif': No space left on device; make room"),
        (MemoryError("Unable to allocate 9 GiB"), "not enough memory (Unable to allocate 9 GiB); give smaller --tile"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory for the model"),
        (rasterio.errors.RasterioIOError("Read failed"), "a raster cannot be read or written: Read failed"),
    ):
        with pytest.raises(UserError) as told, plain_errors():
            raise error
        assert sentence in str(told.value)
    with pytest.raises(RuntimeError, match="a fault of our own"), plain_errors():
        raise RuntimeError("a fault of our own")


@pytest.fixture(scope="module")
def larger(rasters, tmp_path_factory):
    """The pair, repeated to 30 times its area, so that mapping takes a while."""
    folder = tmp_path_factory.mktemp("larger")
    for name in ("optical.tif", "sar.tif"):
        (folder / name).write_bytes((rasters / name).read_bytes())
        rewrite(folder / name, np.tile(read(rasters / name), (6, 5, 1)))
    return folder


def command_line(folder, output, *words):
    fixed = ["-m", "mmovseg.cli", "predict", *[word.format(folder) for word in PAIR], "--prompts", "water, road"]
    return [*fixed, "--output", str(output), "--tile", "64", *words]


@pytest.mark.slow
def test_ctrl_c_keeps_the_parts_and_the_same_command_goes_on(larger, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = tmp_path / "map.tif"
    process = subprocess.Popen(
        [sys.executable, *command_line(larger, output)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # what is started in the background, as these tests may be, has been told not to listen to Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    parts = Path(f"{output}.parts")
    deadline = time.monotonic() + 300
    while not list(parts.glob("*.tif")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith("stopped: the finished parts of the map are kept")
    assert "Traceback" not in err and parts.is_dir() and not output.exists()
    for target in (output, tmp_path / "whole.tif"):
        subprocess.run([sys.executable, *command_line(larger, target)], cwd=ROOT, check=True, env=environment)
    assert not parts.exists()
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.slow
def test_torchrun_gives_the_same_file_and_one_refusal(larger, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for target, launcher in (("one", []), ("two", torchrun)):
        words = command_line(larger, tmp_path / f"{target}.tif")
        subprocess.run([sys.executable, *launcher, *words], cwd=ROOT, check=True, env=environment, capture_output=True)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
    words = command_line(larger, tmp_path / "bad.tif", "--sar-unit", "linear")
    done = subprocess.run(
        [sys.executable, *torchrun, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0 and len(lines) == 1 and "sar.tif" in lines[0]
    assert not (tmp_path / "bad.tif").exists()
