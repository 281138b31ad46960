"""An encoder by path is refused when it reads something else, and accepted with a warning when normalised otherwise."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint.contract import InputContract, ModalityContract, SourceContract
from mmovseg.checkpoint.encoder_contract import check_encoder_contract
from mmovseg.checkpoint.save import save_weights
from mmovseg.errors import UserError

SAR = ModalityContract("S1", ("VV", "VH"), "db", mean=(-12.0, -18.0), std=(5.0, 5.0), clip=(-35.0, 10.0))
PICTURE = ModalityContract("any", ("amplitude",) * 3, "amplitude8", mean=(120.0,) * 3, std=(60.0,) * 3)
RGB = ModalityContract("any RGB", ("red", "green", "blue"), "uint8", mean=(120.0,) * 3, std=(60.0,) * 3)


@pytest.fixture
def encoder_file(tmp_path):
    """Write an encoder with a contract and return its path; None writes none."""

    def write(sar, optical=None):
        facts = {}
        if sar is not None or optical is not None:
            facts["input_contract"] = json.dumps(InputContract(optical=optical, sar=sar).to_dict())
        save_weights({"w": torch.zeros(1)}, tmp_path / "sar.safetensors", metadata=facts)
        return str(tmp_path / "sar.safetensors")

    return write


def check(path, sar=SAR, **options):
    own = InputContract(optical=RGB, sar=sar) if sar is not None else None
    check_encoder_contract(path, own, **({"role": "sar_encoder", "modality": "sar"} | options))


def test_an_equal_contract_passes_in_silence(encoder_file, caplog):
    check(encoder_file(SAR))
    check(encoder_file(replace(SAR, sensor="another", mean=(-12.0001, -18.0))))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (PICTURE, "with the unit 'amplitude8', not 'db'"),
        (replace(SAR, unit="linear"), "with the unit 'linear', not 'db'"),
        (replace(SAR, bands=("VH", "VV")), r"with 2 bands \(VH, VV\), not 2 \(VV, VH\)"),
        (replace(SAR, bands=("VV",), mean=(0.0,), std=(1.0,)), r"with 1 bands \(VV\), not 2 \(VV, VH\)"),
        (replace(PICTURE, unit="db"), r"with 3 bands \(amplitude, amplitude, amplitude\), not 2"),
    ],
    ids=["unit", "power", "order", "fewer", "more"],
)
def test_another_contract_is_refused_with_file_and_values(encoder_file, theirs, words):
    path = encoder_file(theirs)
    with pytest.raises(UserError, match=f"sar_encoder: '{path}' was trained on sar {words}") as caught:
        check(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"mean": (0.0, 0.0)}, {"std": (5.0, 6.0)}, {"clip": None}, {"clip": (-30.0, 10.0)}], ids=str
)
def test_another_normalisation_is_one_warning(encoder_file, caplog, change):
    path = encoder_file(replace(SAR, **change))
    check(path)
    assert len(caplog.records) == 1
    assert (
        path in caplog.text and "this model normalises with mean (-12, -18), std (5, 5), clip (-35, 10)" in caplog.text
    )


def test_bands_without_a_polarisation_fit_any(encoder_file):
    check(encoder_file(replace(PICTURE, bands=("grey",) * 3)), sar=PICTURE)
    check(encoder_file(replace(SAR, bands=("amplitude",) * 2)))


def test_optical_encoders_are_checked_too(encoder_file):
    options = {"role": "optical_encoder", "modality": "optical"}
    check(encoder_file(None, RGB), **options)
    false_colour = replace(RGB, bands=("SWIR", "NIR", "green"))
    with pytest.raises(UserError, match=r"optical_encoder: .*\(SWIR, NIR, green\), not 3 \(red, green, blue\)"):
        check(encoder_file(None, false_colour), **options)


@pytest.mark.parametrize("start", [None, "timm", "shipped://sar_xs", "clip:nowhere.safetensors", "folded:nowhere.st"])
def test_other_starts_are_not_compared(start):
    check(start, sar=PICTURE)


@pytest.mark.parametrize("folder", ["timm", "timm_encoders", "timm-runs/cmu"])
def test_a_file_in_a_folder_called_timm_is_compared(folder, encoder_file, tmp_path, monkeypatch):
    file = Path(encoder_file(PICTURE))
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(parents=True)
    path = str(file.rename(tmp_path / folder / "sar.safetensors").relative_to(tmp_path))
    with pytest.raises(UserError, match=f"'{path}' was trained on sar with the unit 'amplitude8', not 'db'"):
        check(path)


def test_nothing_is_compared_where_nothing_is_said(encoder_file, tmp_path, caplog):
    check(encoder_file(None), sar=PICTURE)
    check(encoder_file(None, RGB), sar=PICTURE)
    check(encoder_file(SAR), sar=None)
    torch.save({"model": {"w": torch.zeros(1)}}, tmp_path / "x.pth")
    check(str(tmp_path / "x.pth"), sar=PICTURE)
    assert caplog.text == ""


def test_a_broken_contract_is_named(tmp_path):
    path = tmp_path / "broken.safetensors"
    save_weights({"w": torch.zeros(1)}, path, metadata={"input_contract": '{"sar": {"bands": ["VV"]}}'})
    with pytest.raises(UserError, match=f"the input contract in '{path}' cannot be read"):
        check(str(path))


@pytest.fixture
def mix_file(tmp_path):
    """An encoder of two sources, of which `b` is normalised as `SAR` says."""
    sources = (SourceContract("a", sar=replace(SAR, mean=(20.0, 30.0))), SourceContract("b", sar=SAR))
    contract = InputContract(optical=None, sar=replace(SAR, mean=(4.0, 6.0)), sources=sources)
    path = str(tmp_path / "mix.safetensors")
    save_weights({"w": torch.zeros(1)}, path, metadata={"input_contract": json.dumps(contract.to_dict())})
    return path


def test_an_encoder_of_a_mix_asks_for_the_statistics_of_the_data(mix_file, caplog):
    caplog.set_level("INFO")
    check(mix_file)
    assert caplog.text == "", "one source is normalised as the model does"
    check(mix_file, replace(SAR, mean=(0.0, 0.0)))
    (record,) = caplog.records
    said = record.getMessage()
    assert record.levelname == "WARNING" and "\n" not in said
    assert f"sar_encoder: '{mix_file}' was trained on a, b, each normalised by its own statistics" in said
    assert "normalises sar with mean (0, 0), std (5, 5), clip (-35, 10)" in said
    assert "measure your data with tools/compute_statistics.py" in said
    with pytest.raises(UserError, match="with the unit 'db', not 'amplitude8'"):
        check(mix_file, PICTURE)


def test_a_model_that_reads_its_own_data_by_their_statistics_reads_as_a_mix_did(mix_file, encoder_file, caplog):
    caplog.set_level("INFO")
    measured = replace(SAR, mean=(0.0, 0.0))
    own = InputContract(optical=RGB, sar=measured, sources=(SourceContract("mine", sar=measured),))
    check_encoder_contract(mix_file, own, role="sar_encoder", modality="sar")
    assert caplog.text == ""
    check_encoder_contract(encoder_file(SAR), own, role="sar_encoder", modality="sar")
    assert len(caplog.records) == 1, "an encoder with fixed constants still wants those"
