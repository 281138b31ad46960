import convert_checkpoint
import pytest
import torch
from safetensors.torch import load_file

from mmovseg.checkpoint.tables import SOURCES
from mmovseg.testing.checkpoints import fake_state, tiny_table


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    table = tiny_table("dino")
    monkeypatch.setitem(SOURCES, "dino", lambda: (table,))
    torch.save({"model": fake_state(table), "iteration": 1}, tmp_path / "in.pth")
    return tmp_path / "in.pth"


def run(*arguments):
    convert_checkpoint.main([str(argument) for argument in arguments])


def test_there_and_back(checkpoint, tmp_path, capsys):
    run(checkpoint, tmp_path / "out.safetensors", "--source", "dino", "--modality", "sar")
    said = capsys.readouterr().out
    assert "42 tensors read, 42 written, 0 constants" in said
    assert "beside the weights, not read (1): iteration" in said
    assert f"load it with TimmEncoder(name='tiny', weights='{tmp_path / 'out.safetensors'}')" in said
    run(tmp_path / "out.safetensors", tmp_path / "back.pth", "--source", "dino", "--reverse")
    assert "42 tensors read, 42 written" in capsys.readouterr().out
    before, after = (torch.load(file, weights_only=True)["model"] for file in (checkpoint, tmp_path / "back.pth"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert set(load_file(tmp_path / "out.safetensors")) == set(before)


def test_what_does_not_fit_is_listed_and_ends_with_one_sentence(checkpoint, tmp_path, capsys):
    state = torch.load(checkpoint, weights_only=True)["model"]
    renamed = {name.replace("blocks.2.norm1", "blocks.2.ln_1"): tensor for name, tensor in state.items()}
    torch.save({"model": renamed}, tmp_path / "renamed.pth")
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "renamed.pth", tmp_path / "out.safetensors", "--source", "dino")
    assert caught.value.code == 2
    *lines, sentence = capsys.readouterr().err.splitlines()
    assert lines == [
        "that the table does not know: blocks.2.ln_1.weight (48,)",
        "that the table does not know: blocks.2.ln_1.bias (48,)",
        "missing: blocks.2.norm1.weight",
        "missing: blocks.2.norm1.bias",
    ]
    assert sentence.startswith(f"error: checkpoint '{tmp_path / 'renamed.pth'}' does not fit source 'dino' (tiny), ")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "no.pth", tmp_path / "out.safetensors", "--source", "mmovseg_vitb16")
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"error: checkpoint '{tmp_path / 'no.pth'}' does not exist\n"


def test_an_unknown_source_lists_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run("in.pth", "out.safetensors", "--source", "yolo")
    assert caught.value.code == 2
    assert "mmovseg_vitb16" in capsys.readouterr().err
