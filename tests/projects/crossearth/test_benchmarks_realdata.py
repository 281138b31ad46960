"""Real SAR through scripts and loaders of the benchmarks: an AIRSAR scene as AIR-PolSAR-Seg, MSTAR chips as SARBuD."""

import importlib

import numpy as np
import pytest
from PIL import Image

from mmovseg.data.datasets.check import check_dataset
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.projects.crossearth.data.benchmarks import get_benchmark
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.trees_sar_public import stained_colors

pytestmark = pytest.mark.realdata

STORED = {1: "ground", 2: "mountain", 3: "water", 4: "building", 5: "vegetation"}


def samples(code, part, root):
    benchmark = get_benchmark(code)
    reader = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)
    mapper = OpticalSARMapper(
        is_train=part == "train", vocabulary=benchmark.vocabulary(), reader=reader, modality="sar"
    )
    return benchmark, [mapper(item) for item in benchmark.load(part, root=root)]


def levels(benchmark, mapped):
    """Mean amplitude of each class that comes."""
    sar = np.concatenate([item["sar"].numpy()[0].ravel() for item in mapped])
    label = np.concatenate([item["sem_seg"].numpy().ravel() for item in mapped])
    names = benchmark.vocabulary().names
    return {name: float(sar[label == id_].mean()) for id_, name in enumerate(names) if (label == id_).any()}


def test_san_francisco_as_north_and_south(realdata, tmp_path, capsys):
    pauli = np.asarray(Image.open(realdata / "polsf_airsar/pauli_rgb.png").convert("RGB"))
    stored = np.asarray(Image.open(realdata / "polsf_airsar/label2d.png"))
    label = np.full(stored.shape, 255, dtype=np.uint8)
    for value, name in STORED.items():
        label[stored == value] = get_vocabulary("air_polsar").names.index(name)
    half = pauli.shape[1] // 2
    for scene, cut in (("bj", np.s_[:, :half]), ("gz", np.s_[:, half:])):
        folder = tmp_path / "source" / scene / "modified"
        for view, band in (("hh", 0), ("hv", 1), ("vh", 1), ("vv", 2)):
            write_raster(folder / f"{scene}_{view}_amp.tiff", np.ascontiguousarray(pauli[cut][:, :, band]))
        write_raster(folder / f"{scene}_gt_modify.tiff", stained_colors(label[cut], "air_polsar"))
    script = importlib.import_module("prepare_air_polsar")
    script.main(["--source", str(tmp_path / "source"), "--output", str(tmp_path / "sets"), "--tile-size", "256"])
    capsys.readouterr()
    assert check_dataset("air_polsar", root=tmp_path / "sets") == []
    for part in ("train", "test"):
        benchmark, mapped = samples("N2S", part, tmp_path / "sets")
        assert mapped and all(item["sar"].shape == (3, 256, 256) for item in mapped)
        assert "mountain" not in levels(benchmark, mapped)
    benchmark, mapped = samples("F2HH", "train", tmp_path / "sets")
    found = levels(benchmark, mapped)
    assert found["water"] < found["building"]
    red, _, blue = (np.mean([item["sar"].numpy()[band].mean() for item in mapped]) for band in range(3))
    assert red != pytest.approx(blue)  # three polarisations, not one repeated


def test_mstar_chips_as_patches_with_masks(realdata, tmp_path, capsys):
    source = tmp_path / "source"
    for folder in ("images", "Labelimgs"):
        (source / folder).mkdir(parents=True)
    chips = sorted((realdata / "mstar10/val").glob("*/*.jp*g"))[::20]
    for number, path in enumerate(chips):
        chip = np.asarray(Image.open(path).convert("L"))
        (source / "images" / f"{number}.jpg").write_bytes(path.read_bytes())
        target = np.where(chip > np.quantile(chip, 0.98), 255, 0).astype(np.uint8)  # targets are bright
        write_raster(source / "Labelimgs" / f"{number}.png", target)
    script = importlib.import_module("prepare_sarbud")
    script.main(["--source", str(source), "--output", str(tmp_path / "sets"), "--tile-size", "256"])
    capsys.readouterr()
    assert check_dataset("sarbud", root=tmp_path / "sets") == []
    benchmark, train = samples("S2A", "train", tmp_path / "sets")
    _, test = samples("A2S", "test", tmp_path / "sets")
    assert len(train) + len(test) == len(chips) >= 10
    assert all(item["sar"].shape == (3, 256, 256) for item in train + test)  # 128 px, enlarged
    found = levels(benchmark, train)
    assert found["building"] > 2 * found["other"]
