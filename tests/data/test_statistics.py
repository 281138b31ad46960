"""Statistics of sources: streamed figures against NumPy on the whole, files, and the command."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from mmovseg.data.datasets import load_pair_folder, mix_datasets
from mmovseg.data.io import FileReader
from mmovseg.data.readers import SourceReader
from mmovseg.data.sample import RawSample
from mmovseg.data.statistics import (
    RunningStatistics,
    choose_statistics,
    compute_statistics,
    read_statistics,
    shipped_statistics,
    summarise,
    write_statistics,
)
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs

ROOT = Path(__file__).parents[2]


def stream(rasters, valid=None):
    running = RunningStatistics()
    for index, raster in enumerate(rasters):
        running.add(summarise(raster, None if valid is None else valid[index]))
    return running


def test_streamed_figures_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    # parts of unequal size whose means lie far apart: what a wrong merge would get wrong
    rasters = [rng.normal((1000 * part, -50), (3, 9), (5 + part, 7, 2)).astype(np.float32) for part in (0, 3, 1, 0, 2)]
    whole = np.concatenate([raster.reshape(-1, 2) for raster in rasters]).astype(np.float64)
    found = stream(rasters).finish(unit="db", bands=("a", "b"), with_clip=True)
    np.testing.assert_allclose(found.mean, whole.mean(axis=0), rtol=6e-6)
    np.testing.assert_allclose(found.std, whole.std(axis=0), rtol=6e-6)
    np.testing.assert_allclose(found.minimum, whole.min(axis=0), rtol=6e-6)
    np.testing.assert_allclose(found.maximum, whole.max(axis=0), rtol=6e-6)
    for percent, values in found.percentiles.items():
        expected = np.percentile(whole, float(percent), axis=0, method="inverted_cdf")
        np.testing.assert_allclose(values, expected, rtol=1 / 2048)
    assert found.pixels == len(whole)
    assert found.clip == (found.percentiles["0.1"][1], found.percentiles["99.9"][0]), "one range must hold both bands"


def test_whole_numbers_are_exact():
    rasters = [np.random.default_rng(1).integers(0, 256, (9, 11, 3)).astype(np.uint8) for _ in range(3)]
    whole = np.stack(rasters).reshape(-1, 3)
    running = stream(rasters)
    percents = (0.1, 1, 37.5, 50, 99.9, 100)
    expected = np.percentile(whole, percents, axis=0, method="inverted_cdf")
    assert running.percentiles(percents) == [tuple(row) for row in expected.astype(float).tolist()]
    assert running.finish(unit="uint8", bands="rgb", with_clip=False).clip is None


def test_only_valid_pixels_count():
    raster = np.full((4, 4, 2), 7.0, dtype=np.float32)
    raster[0, 0, 1] = np.nan
    raster[1, 1] = 1e9
    valid = np.ones((4, 4), dtype=bool)
    valid[1, 1] = False
    nothing = np.full((3, 3, 2), np.nan, dtype=np.float32)
    found = stream([raster, nothing], [valid, np.ones((3, 3), bool)]).finish(
        unit="db", bands=("a", "b"), with_clip=True
    )
    assert (found.pixels, found.mean, found.std, found.maximum) == (14, (7.0, 7.0), (0.0, 0.0), (7.0, 7.0))
    assert stream([nothing]).finish(unit="db", bands=("a", "b"), with_clip=True) is None


def test_negative_values_keep_their_order():
    values = np.array([-40.0, -20.5, -0.25, 0.0, 0.25, 3.0], dtype=np.float32)
    running = stream([values.reshape(1, 6, 1)])
    found = running.percentiles([100 * (i + 1) / 6 for i in range(6)])
    assert [value for (value,) in found] == values.tolist()


def test_another_number_of_bands_is_refused():
    running = stream([np.zeros((2, 2, 2))])
    with pytest.raises(UserError, match=r"'odd\.tif' has 1 bands, but those before had 2"):
        running.add(summarise(np.zeros((2, 2, 1)), None), source="odd.tif")


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix")
    fakes = {
        "one": write_pairs(folder / "one", count=3, height=16, width=24),
        "two": write_pairs(folder / "two", count=2, height=16, width=16, sar="tif_linear", with_nan=False, seed=1),
    }
    sources = [
        {"name": name, "dataset": load_pair_folder(fake.optical_dir, fake.sar_dir, fake.label_dir)}
        for name, fake in fakes.items()
    ]
    readers = {name: FileReader(**fake.reader_options) for name, fake in fakes.items()}
    readers["two"].sar_polarisations_in = ("VV", "VH")
    return fakes, mix_datasets(sources=sources), SourceReader(readers=readers)


def test_each_source_has_its_own_figures(mix):
    fakes, dataset, reader = mix
    found = compute_statistics(dataset, reader, default_source="none")
    assert list(found) == ["one", "two"] and found["one"].origin == "measured on 3 of 3 pairs"
    for name, fake in fakes.items():
        sar = np.concatenate([truth["sar_db"].reshape(-1, 2) for truth in fake.truth])
        sar = sar[np.isfinite(sar).all(axis=1)].astype(np.float64)
        optical = np.concatenate([truth["optical"].reshape(-1, 3) for truth in fake.truth])
        np.testing.assert_allclose(found[name].sar.mean, sar.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found[name].sar.std, sar.std(axis=0), rtol=1e-5)
        np.testing.assert_allclose(found[name].optical.mean, optical.mean(axis=0), rtol=1e-5)
        assert found[name].sar.pixels == len(sar) and found[name].sar.unit == "db"
    assert found["one"].sar.bands == ("band 1", "band 2") and found["two"].sar.bands == ("VV", "VH")
    assert found["one"].optical.unit == "uint8" and found["one"].optical.clip is None


def test_workers_change_nothing(mix):
    _, dataset, reader = mix
    alone = compute_statistics(dataset, reader, default_source="none")
    assert compute_statistics(dataset, reader, default_source="none", num_workers=2) == alone


def test_a_share_of_each_source_spread_over_it(mix):
    _, dataset, reader = mix
    read = []

    class Watched:
        sar_unit = "db"

        def __call__(self, item):
            read.append(item["image_id"])
            return reader(item)

    found = compute_statistics(dataset, Watched(), default_source="none", max_samples=2)
    assert read == ["one/000000", "one/000001", "two/000000", "two/000001"]
    assert found["one"].origin == "measured on 2 of 3 pairs" and found["two"].samples == 2
    with pytest.raises(UserError, match="at least one pair of each source must be read, got 0"):
        compute_statistics(dataset, reader, default_source="none", max_samples=0)


def test_labels_are_not_read(mix):
    _, dataset, reader = mix
    gone = [{**item, "sem_seg_file_name": "gone.png"} for item in dataset]
    assert compute_statistics(gone, reader, default_source="none")["one"].samples == 3


def test_a_modality_that_is_absent_or_changes_its_unit():
    only_sar = compute_statistics(
        [{"file_name": "a"}], lambda _: RawSample(sar=np.ones((2, 2, 1), np.float32)), default_source="mine"
    )
    assert only_sar["mine"].optical is None and only_sar["mine"].sar.mean == (1.0,)
    units = iter(["linear sigma nought", "dB sigma nought"])

    def reader(_):
        return RawSample(sar=np.ones((2, 2, 1), np.float32), facts={"sar_unit": next(units)})

    with pytest.raises(UserError, match=r"'b' is db .* but source 'mine' began with \('linear sigma nought'"):
        compute_statistics([{"file_name": "a"}, {"file_name": "b"}], reader, default_source="mine")


def test_files_come_back_as_they_were(mix, tmp_path):
    _, dataset, reader = mix
    found = compute_statistics(dataset, reader, default_source="none")
    write_statistics(tmp_path / "s.json", found)
    assert read_statistics(tmp_path / "s.json") == found
    assert list(choose_statistics(tmp_path / "s.json", "sar", ["two"])) == ["two"]
    with pytest.raises(UserError, match="have no sar of three; they have: one, two"):
        choose_statistics(tmp_path / "s.json", "sar", ["one", "three"])
    with pytest.raises(UserError, match=r"'.*s\.txt'"):
        write_statistics(tmp_path / "s.txt", found)


def test_bad_files_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match="'gone' do not exist: .* shipped .*cmu_db"):
        read_statistics("gone")
    with pytest.raises(UserError, match=r"do not exist; measure them: .*/compute_statistics\.py .*gone\.json$"):
        read_statistics(tmp_path / "gone.json")
    (tmp_path / "cut.json").write_text('{"sources": {')
    with pytest.raises(UserError, match=r"cut\.json' holds no statistics"):
        read_statistics(tmp_path / "cut.json")
    (tmp_path / "other.json").write_text('{"sources": {"a": {"samples": 1}}}')
    with pytest.raises(UserError, match=r"other\.json' holds no statistics"):
        read_statistics(tmp_path / "other.json")


@pytest.mark.parametrize("name", ["cmu_amplitude8", "cmu_db"])
def test_shipped_statistics_say_what_is_estimated(name):
    assert name in shipped_statistics()
    table = read_statistics(name)
    assert set(table) == {"spacenet6", "dfc2023", "miniearth"}
    for source in table.values():
        measured = source.origin.startswith("measured on")
        assert measured == (source.samples > 0) == (source.sar.pixels > 0)
        assert measured or source.origin.startswith("estimated, not measured here")
        assert source.sensor and min(source.sar.std) > 0


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compute_statistics.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "tools" / "compute_statistics.py"), run_name="__main__")


def test_the_command_measures_a_registered_set_and_a_config(tmp_path, monkeypatch, capsys):
    fake = write_pairs(tmp_path / "spacenet6" / "train", count=2, height=16, width=16, sar="png8")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    out = tmp_path / "s.json"
    command(monkeypatch, "--dataset", "spacenet6_train", "--sar-unit-in", "amplitude8", "--quiet", "--output", out)
    first = json.loads(out.read_text())["sources"]
    assert first["spacenet6"]["sar"]["unit"] == "amplitude8" and first["spacenet6"]["samples"] == 2
    assert "spacenet6" in capsys.readouterr().out
    (tmp_path / "c.py").write_text(
        "from mmovseg.config import get_config\n"
        "dataloader = get_config('common/data/miniearth.py').dataloader\n"
        "dataloader.train.dataset.num_scenes = 2\n"
        "dataloader.train.dataset.size = 32\n"
    )
    command(monkeypatch, "--config-file", tmp_path / "c.py", "--update", "--quiet", "--output", out)
    both = read_statistics(out)
    assert set(both) == {"spacenet6", "miniearth"} and both["miniearth"].sar.bands == ("VV", "VH")
    optical = np.concatenate([truth["optical"].reshape(-1, 3) for truth in fake.truth])
    np.testing.assert_allclose(both["spacenet6"].optical.mean, optical.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "miniearth_train", "--output", "s.csv"), "--output is 's.csv'"),
        (("--dataset", "gone_train", "--output", "s.json"), "unknown data set 'gone_train'"),
        (("--dataset", "miniearth_train", "--output", "s.json", "a=1"), "'a=1' need --config-file"),
    ],
)
def test_the_command_refuses(arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, *arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err
