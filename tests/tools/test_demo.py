import json

import demo
import numpy as np
import pytest
import run_demo
from PIL import Image

from mmovseg.engine import demo as demo_engine
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.models import write_random_xs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_random_xs(tmp_path_factory.mktemp("xs"))


@pytest.fixture
def run(files, tmp_path, capsys):
    """Run tools/demo.py in this process; returns (exit status, stdout, stderr)."""

    def run_it(*arguments):
        output = ["--output", str(tmp_path / "out.png")] if "--output" not in arguments else []
        model = ["--config-file", str(files[0]), "--weights", str(files[1]), "--device", "cpu"]
        status = 0
        try:
            demo.main([*model, *output, *(str(argument) for argument in arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run_it


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("rasters"), np.random.default_rng(0)
    grey = rng.integers(0, 255, (32, 40, 1), dtype=np.uint8)
    return {
        "rgb": write_raster(folder / "x.png", rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)),
        "wide": write_raster(folder / "wide.png", rng.integers(0, 9000, (32, 40, 3), dtype=np.uint16)),
        "sar8": write_raster(folder / "y.png", np.repeat(grey, 3, axis=2)),
        "db": write_raster(folder / "y.tif", rng.normal(-15, 4, (32, 40, 2)).astype(np.float32)),
        "three": write_raster(folder / "three.tif", rng.normal(-15, 4, (32, 40, 3)).astype(np.float32)),
        "power": write_raster(folder / "power.tif", rng.uniform(0, 0.3, (32, 40, 2)).astype(np.float32)),
        "bright": write_raster(folder / "bright.tif", rng.integers(15000, 55000, (32, 40, 3), dtype=np.uint16)),
        "complex": write_raster(folder / "slc.tif", (rng.normal(0, 0.2, (32, 40, 2)) * (1 + 1j)).astype(np.complex64)),
        "faint": write_raster(folder / "faint.tif", rng.normal(-70, 4, (32, 40, 2)).astype(np.float32)),
        "small": write_raster(folder / "small.tif", rng.normal(-15, 4, (32, 39, 2)).astype(np.float32)),
    }


def test_a_pair_of_8_bit_files_is_drawn_enlarged(run, rasters, tmp_path):
    status, out, _ = run("--optical", rasters["rgb"], "--sar", rasters["sar8"], "--prompts", "water, road")
    assert status == 0
    width, height = Image.open(tmp_path / "out.png").size
    assert width >= 400 and width / height == pytest.approx(40 / 32)
    assert "as amplitude8" in out and "one polarisation, the model wants 2" in out
    shares = [float(line.split()[-1].rstrip("%")) for line in out.splitlines() if line.startswith(("water", "road"))]
    assert sum(shares) == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize(
    "given",
    [
        ("--optical", "wide"),
        ("--sar", "db"),
        ("--sar", "power", "--sar-unit", "linear"),
        ("--sar", "three", "--sar-bands", "1", "3"),
        ("--optical", "rgb", "--sar", "small", "--modality", "optical"),
    ],
    ids=" ".join,
)
def test_one_image_is_enough_and_units_and_bands_can_be_said(run, rasters, tmp_path, given):
    status, out, err = run(*(rasters.get(word, word) for word in given), "--prompts", "water, road, airport")
    assert (status, err) == (0, "")
    assert "airport" in out and (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "no image to segment"),
        (("--optical", "rgb", "--modality", "sar"), "no image to segment for modality 'sar'"),
        (("--optical", "missing.png"), "'missing.png' does not exist"),
        (("--optical", "rgb", "--sar", "small"), "must have one size"),
        (("--sar", "power"), "give --sar-unit"),
        (("--sar", "three"), "has 3 bands, the model wants 2"),
        (("--optical", "bright"), "would be almost all white; give --optical-range"),
        (("--sar", "power", "--sar-unit=db"), "look like linear power; give --sar-unit linear"),
        (("--sar", "complex", "--sar-unit=db"), "look like linear power; give --sar-unit linear"),
        (("--sar", "faint"), "check --sar-unit, --sar-bands and calibration, or go on with --override-contract"),
        (("--optical", "rgb", "--max-size", "0"), "--max-size) must be at least 1, got 0"),
        (("--optical", "rgb", "--opacity", "2"), "--opacity must lie in 0..1, got 2"),
        (("--optical", "rgb", "--output", "out.gif"), "'out.gif' must end in"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_gets_one_sentence_and_no_output(run, rasters, tmp_path, given, message):
    status, _, err = run(*(rasters.get(word, word) for word in given), "--prompts", "water, road")
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--optical", "--sar"])
def test_an_input_is_not_drawn_over(run, rasters, option):
    rasters = {"--optical": rasters["rgb"], "--sar": rasters["db"]}
    before = rasters[option].read_bytes()
    given = [word for pair in rasters.items() for word in pair]
    status, _, err = run(*given, "--prompts", "water", "--output", rasters[option], "--weights", "gone.safetensors")
    assert (
        status == 2 and err == f"error: '{rasters[option]}' is an input and would be written over; give another name\n"
    )
    assert rasters[option].read_bytes() == before


@pytest.mark.parametrize("given", [("--optical", "bright"), ("--sar", "faint")], ids=" ".join)
def test_what_looks_wrong_is_drawn_on_demand_with_a_note(run, rasters, tmp_path, given):
    given = [rasters.get(word, word) for word in given]
    status, out, err = run(*given, "--override-contract", "--prompts", "water, road")
    assert (status, err) == (0, "") and (tmp_path / "out.png").is_file()
    assert out.count("note: ") == 1 and str(given[1]) in out


@pytest.mark.parametrize(
    ("prompts", "message"),
    [("", "no class names"), ("water,,road", "empty class name at position 2"), ("water, Water", "more than once")],
)
def test_bad_prompts_are_told(run, rasters, prompts, message):
    status, _, err = run("--optical", rasters["rgb"], "--prompts", prompts)
    assert status == 2 and message in err


def test_a_missing_checkpoint_is_told(rasters, files, capsys):
    with pytest.raises(SystemExit) as stop:
        arguments = ["--optical", str(rasters["rgb"]), "--prompts", "water", "--weights", "gone.safetensors"]
        demo.main([*arguments, "--config-file", str(files[0])])
    assert stop.value.code == 2
    assert "'gone.safetensors' does not exist" in capsys.readouterr().err


def test_run_demo_leaves_summary_and_pictures(tmp_path, capsys):
    for modality in ("both", "optical", "sar"):
        write_random_xs(tmp_path, modality, with_weights=False)
    output = tmp_path / "demo"
    output.mkdir()
    (output / "mine.txt").write_text("kept")
    settings = demo_engine.DemoSettings(
        output, max_iter=1, num_scenes=6, config_pattern=str(tmp_path / "demo_{modality}.yaml")
    )
    demo_engine.run_demo(settings)
    summary = json.loads((output / "summary.json").read_text())
    for name in ("fused", "optical", "sar", "permuted", "fused_without_sar", "fused_without_optical"):
        assert set(summary[name]) == {"mIoU", "mIoU-seen", "mIoU-unseen", "hIoU"}
        assert all(0 <= value <= 100 for value in summary[name].values())
    assert summary["seconds"] > 0 and summary["provenance"]["images"] == 6
    assert len({summary["checkpoints"][name] for name in ("fused", "optical", "sar")}) == 3
    result = json.loads((output / "fused" / "eval" / "miniearth_test" / "both-clean" / "result.json").read_text())
    assert summary["fused"]["mIoU"] == result["mIoU"]
    assert min(Image.open(output / "panel.png").size) > 600
    assert min(Image.open(output / "heatmaps.png").size) > 600
    assert (output / "mine.txt").read_text() == "kept"
    out = capsys.readouterr().out
    assert "control: fused, class names permuted" in out and "step 5 of 5" in out


@pytest.mark.parametrize(("option", "value"), [("--max-iter", "0"), ("--num-scenes", "-3")])
def test_run_demo_refuses_nonsense(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_demo.main([option, value, "--output", str(tmp_path / "x")])
    assert stop.value.code == 2
    assert f"{option} must be at least 1, got {value}" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
