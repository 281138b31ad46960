"""Normalisation by source: each input by its own constants, and what is refused."""

from __future__ import annotations

import pytest
import torch

from mmovseg.data.statistics import ModalityStatistics, SourceStatistics, write_statistics
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm, SourceNorm, norm_of_sources
from mmovseg.modeling.meta_arch.batching import batch_view

NORMS = {"a": {"mean": (-10.0, -20.0), "std": (5.0, 4.0)}, "b": {"mean": (30.0, 20.0), "std": (10.0, 8.0)}}


def build(**options):
    return SourceNorm(norms={name: PixelNorm(**norm) for name, norm in NORMS.items()}, **options)


def item(source, value):
    sample = {"sar": torch.full((2, 4, 4), float(value)), "file_name": f"{source}.tif"}
    return sample if source is None else sample | {"source": source}


def test_each_input_gets_the_constants_of_its_source():
    view = batch_view([item("a", 0.0), item("b", 0.0)], "sar", "sar_valid", build(), 4)
    assert view.x[:, :, 0, 0].tolist() == [[2.0, 5.0], [-3.0, -2.5]] and view.valid is None


def test_one_norm_is_the_same_for_all_sources():
    norm = PixelNorm(**NORMS["a"])
    assert norm.for_item({"source": "anything"}) is norm and norm.device.type == "cpu"


def test_padding_and_holes_are_the_mean_of_the_source():
    small = item("b", 50.0) | {"sar": torch.full((2, 3, 4), 50.0)}
    holed = item("a", 0.0) | {"sar_valid": torch.tensor([[False] * 4] + [[True] * 4] * 3)}
    view = batch_view([small, holed], "sar", "sar_valid", build(), 4)
    assert view.x[0, 0].tolist() == [[2.0] * 4] * 3 + [[0.0] * 4]
    assert (view.x[1, :, 0] == 0).all() and not view.valid[1, 0, 0].any() and not view.valid[0, 0, 3].any()


def test_an_input_without_a_source_takes_the_default():
    norm = build(default="b")
    assert norm.for_item({}) is norm.for_item({"source": "b"}) is not norm.for_item({"source": "a"})


def test_what_has_no_statistics_is_refused():
    with pytest.raises(UserError, match=r"'c\.tif' is of source 'c'; there are statistics of: a, b"):
        batch_view([item("c", 0.0)], "sar", "sar_valid", build(), 4)
    with pytest.raises(UserError, match="'None.tif' names no source"):
        batch_view([item(None, 0.0)], "sar", "sar_valid", build(), 4)
    with pytest.raises(UserError, match="at least one source"):
        SourceNorm(norms={})
    with pytest.raises(UserError, match="same number of channels, got: a 2, c 1"):
        SourceNorm(norms={"a": PixelNorm(**NORMS["a"]), "c": PixelNorm(mean=(0.0,), std=(1.0,))})
    with pytest.raises(UserError, match="default source 'c' is none of: a, b"):
        build(default="c")


def test_other_channels_than_the_constants_are_refused_by_name():
    wrong = item("a", 0.0) | {"sar": torch.zeros(1, 4, 4)}
    with pytest.raises(UserError, match=r"'sar' of 'a\.tif' does not fit the model: expected 2 channels, got 1"):
        batch_view([wrong], "sar", "sar_valid", build(), 4)


def test_constants_are_no_weights_but_move_along():
    norm = build()
    assert norm.state_dict() == {} and norm.to(torch.device("meta")).device.type == "meta"


def test_constants_come_from_a_file_of_statistics(tmp_path):
    sources = {
        name: SourceStatistics(1, "made up", sar=ModalityStatistics("db", ("VV", "VH"), clip=(-40.0, 45.0), **norm))
        for name, norm in NORMS.items()
    }
    write_statistics(tmp_path / "s.json", sources)
    norm = norm_of_sources(statistics=str(tmp_path / "s.json"), default="b")
    assert norm.sources == ("a", "b") and norm.for_item({}).clip == (-40.0, 45.0)
    view = batch_view([item("a", 0.0), item("b", 100.0)], "sar", "sar_valid", norm, 4)
    assert view.x[:, 0, 0, 0].tolist() == [2.0, 1.5]
    assert norm_of_sources(statistics=str(tmp_path / "s.json"), sources=["b"]).sources == ("b",)
    flat = ModalityStatistics("db", ("VV",), mean=(1.0,), std=(0.0,))
    write_statistics(tmp_path / "flat.json", {"a": SourceStatistics(1, "made up", sar=flat)})
    with pytest.raises(UserError, match=r"flat\.json': a sar channel of source 'a' has the deviation 0"):
        norm_of_sources(statistics=str(tmp_path / "flat.json"))


@pytest.mark.parametrize(("name", "channels"), [("cmu_db", 2), ("cmu_amplitude8", 3)])
def test_shipped_constants_are_norms(name, channels):
    norm = norm_of_sources(statistics=name)
    assert len(norm.for_item({"source": "dfc2023"}).mean) == channels


def test_a_source_may_have_any_name():
    norm = PixelNorm(**NORMS["a"])
    assert SourceNorm(norms={"train": norm, "v1.0": norm}).for_item({"source": "v1.0"}) is norm
