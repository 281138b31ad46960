"""Contracts of models that were trained on a mix of sensors."""

from __future__ import annotations

import json

import pytest

from mmovseg.checkpoint.contract import InputContract, ModalityContract, contract_from_dict, contract_of_sources
from mmovseg.data.statistics import ModalityStatistics, SourceStatistics, write_statistics
from mmovseg.errors import UserError

OPTICAL = ModalityContract("any RGB", ("red", "green", "blue"), "uint8", (1.0, 2.0, 3.0), (1.0, 1.0, 1.0))


def sar(unit="db", bands=("HH", "HV"), mean=(-10.0, -20.0), std=(3.0, 4.0), **options):
    return ModalityStatistics(unit, bands, mean, std, **options)


@pytest.fixture
def file(tmp_path):
    def write(**sources):
        path = tmp_path / "s.json"
        table = {
            name: SourceStatistics(1, "made up", sar=found, sensor=f"radar {name}") for name, found in sources.items()
        }
        write_statistics(path, table)
        return str(path)

    return write


def test_sources_are_listed_and_survive_json(file):
    statistics = file(a=sar(clip=(-30.0, 5.0)), b=sar(bands=("VV", "VV"), mean=(20.0, 20.0), std=(5.0, 5.0)))
    contract = contract_of_sources(
        statistics=statistics, bands=("VV", "VH"), optical=OPTICAL, gsd_m=[0.5, 3.0], train_size=256
    )
    assert contract_from_dict(json.loads(json.dumps(contract.to_dict()))) == contract
    first, second = contract.sources
    assert (first.name, first.sar.sensor, first.sar.bands, first.sar.clip) == (
        "a",
        "radar a",
        ("HH", "HV"),
        (-30.0, 5.0),
    )
    assert second.sar.mean == (20.0, 20.0) and contract.optical == OPTICAL and contract.gsd_m == (0.5, 3.0)
    assert (contract.sar.bands, contract.sar.unit) == (("VV", "VH"), "db")
    assert contract.sar.mean == (5.0, 0.0)
    assert contract.sar.std == pytest.approx(((17 + 15**2) ** 0.5, (20.5 + 20**2) ** 0.5), abs=1e-4)


def test_sources_that_are_switched_off_are_not_listed(file):
    mix = [{"name": "a", "dataset": "x"}, {"name": "b", "dataset": "y", "ratio": 0}]
    contract = contract_of_sources(statistics=file(a=sar(), b=sar()), bands=("VV", "VH"), sources=mix)
    assert [source.name for source in contract.sources] == ["a"]
    assert contract.sar.mean == (-10.0, -20.0) and contract.sar.std == (3.0, 4.0)


def test_one_source_alone_is_described_to_the_last_digit(file):
    one = sar(mean=(-10.123456, -20.654321), std=(3.000049, 4.000051), clip=(-30.0, 5.0))
    contract = contract_of_sources(statistics=file(a=one, b=sar()), bands=("VV", "VH"), sources=["a"])
    whole, part = contract.sar, contract.sources[0].sar
    assert (whole.mean, whole.std, whole.clip) == (part.mean, part.std, part.clip) == (one.mean, one.std, one.clip)


def test_a_clip_range_is_stated_for_the_whole_where_all_sources_share_it(file):
    alike = {"clip": (-30.0, 5.0)}
    for other, expected in ((alike, (-30.0, 5.0)), ({"clip": (-30.0, 6.0)}, None), ({}, None)):
        statistics = file(a=sar(**alike), b=sar(**other))
        assert contract_of_sources(statistics=statistics, bands=("VV", "VH")).sar.clip == expected


def test_models_of_one_source_are_described_as_before():
    content = InputContract(optical=OPTICAL, sar=None, gsd_m=(2.5, 2.5)).to_dict()
    assert set(content) == {"optical", "sar", "gsd_m", "train_size"}
    assert contract_from_dict(json.loads(json.dumps(content))).sources == ()


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ({"a": sar()}, {"sources": ["a", "c"]}, "have no SAR of c; they have: a"),
        ({"a": sar(), "b": sar(unit="linear")}, {}, "one unit of SAR for all sources, got: db, linear"),
        ({"a": sar()}, {"bands": ("VV",)}, "source 'a' have 2 SAR bands, not 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(file, sources, options, message):
    with pytest.raises(UserError, match=message):
        contract_of_sources(**({"statistics": file(**sources), "bands": ("VV", "VH")} | options))
