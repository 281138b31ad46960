import numpy as np
import plot_attention
import pytest
from PIL import Image

from mmovseg.testing.fakes import write_raster
from mmovseg.testing.models import write_random_xs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_random_xs(tmp_path_factory.mktemp("xs"))


@pytest.fixture
def run(files, tmp_path, capsys):
    """Run tools/plot_attention.py in this process; returns (exit status, stdout, stderr)."""

    def run_it(*arguments, weights=files[1]):
        model = ["--config-file", str(files[0]), "--weights", str(weights), "--device", "cpu"]
        output = ["--output", str(tmp_path / "out.png")] if "--output" not in arguments else []
        status = 0
        try:
            plot_attention.main([*model, *output, *map(str, arguments)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run_it


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pair"), np.random.default_rng(0)
    return {
        "rgb": write_raster(folder / "x.tif", rng.integers(0, 255, (50, 40, 3), dtype=np.uint8)),
        "sar": write_raster(folder / "y.tif", rng.normal(-15, 4, (50, 40, 2)).astype(np.float32)),
    }


def size(path):
    return Image.open(path).size


def test_scenes_are_drawn_and_equal_twice(run, tmp_path):
    few = ("--prompts", "water", "dataloader.test.dataset.num_scenes=3")
    status, out, err = run("--samples", 2, *few)
    assert (status, err) == (0, "") and "scenes: miniearth_test_" in out
    first, two = (tmp_path / "out.png").read_bytes(), size(tmp_path / "out.png")
    run("--samples", 2, *few)
    assert (tmp_path / "out.png").read_bytes() == first
    run("--image-ids", "miniearth_test_000001", "--raw", *few)
    one = size(tmp_path / "out.png")
    assert one[0] == two[0] and one[1] < two[1]


@pytest.mark.parametrize(("given", "columns"), [(("rgb", "sar"), 6), (("rgb",), 5), (("sar",), 5)])
def test_a_pair_of_geotiffs_is_drawn(run, pair, tmp_path, given, columns):
    options = {"rgb": "--optical", "sar": "--sar"}
    arguments = [word for name in given for word in (options[name], pair[name])]
    status, out, err = run(*arguments, "--prompts", "water, road, airport")
    assert (status, err) == (0, "")
    # 1.57 inches a column beside 1.2 of margins, 150 dots an inch
    assert size(tmp_path / "out.png")[0] == pytest.approx((1.57 * columns + 1.2) * 150, abs=2)


@pytest.mark.parametrize("name", ["x.png", "x.PNG"])
def test_an_input_is_not_drawn_over(run, tmp_path, name):
    optical = write_raster(tmp_path / "x.png", np.ones((8, 8, 3), np.uint8))
    before = optical.read_bytes()
    model_is_not_looked_at = {"weights": "gone.safetensors"}
    given = ("--optical", optical, "--prompts", "water", "--output", tmp_path / name)
    status, _, err = run(*given, **model_is_not_looked_at)
    assert status == 2 and "is an input and would be written over" in err
    assert optical.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--optical", "rgb"), "a pair of files needs --prompts"),
        (("--optical", "rgb", "--prompts", "water", "--samples", "2"), "--samples chooses test scenes and excludes"),
        (("--samples", "0"), "--samples must be at least 1, got 0"),
        (("--samples", "1", "--image-ids", "x"), "exclude each other"),
        (("--dataset", "mars"), "unknown data set 'mars'"),
        (("--image-ids", "x"), "has no image 'x'"),
        (("--prompts", "water, water"), "more than once"),
        (("--output", "out.jpg"), "--output 'out.jpg' must end in .png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_gets_one_sentence_and_no_output(run, pair, tmp_path, given, message):
    status, _, err = run(*(pair.get(word, word) for word in given))
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not list(tmp_path.iterdir())
