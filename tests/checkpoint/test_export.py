import export_weights
import pytest
import torch

from mmovseg.checkpoint import file_sha256, load_weights, read_metadata, read_state, save_weights
from mmovseg.checkpoint.export import export_part
from mmovseg.errors import UserError


def whole_model():
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {"student": torch.nn.ModuleDict({"model": torch.nn.Linear(2, 3)}), "student_norm": torch.nn.LayerNorm(2)}
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "run.safetensors"
    save_weights(whole_model(), path, metadata={"seed": "3", "config_file": "sar_xs.py"})
    return path


def test_a_part_loads_into_the_module_it_was(source, tmp_path):
    target = tmp_path / "part.safetensors"
    assert export_part(source, target, part="student.model", facts={"command": "make zoo"}) == 2
    fresh = torch.nn.Linear(2, 3)
    load_weights(fresh, target)
    assert torch.equal(fresh.weight, whole_model()["student"]["model"].weight)
    facts = read_metadata(target)
    assert (facts["seed"], facts["command"], facts["exported_part"]) == ("3", "make zoo", "student.model")
    assert facts["source_sha256"] == file_sha256(source)


def test_half_precision_halves_the_tensors(source, tmp_path):
    assert export_part(source, tmp_path / "half.safetensors", half=True) == 4
    assert {tensor.dtype for tensor in read_state(tmp_path / "half.safetensors")[0].values()} == {torch.float16}


def test_an_unknown_part_is_refused_with_those_there_are(source, tmp_path):
    with pytest.raises(UserError, match=r"run.safetensors' has no part 'teacher'; it has: student.model, student_norm"):
        export_part(source, tmp_path / "x.safetensors", part="teacher")
    assert not (tmp_path / "x.safetensors").exists()


def test_the_source_is_not_written_over(source):
    before = source.read_bytes()
    with pytest.raises(UserError, match=r"run.safetensors' would overwrite the checkpoint that 'student.model' is tak"):
        export_part(source, source, part="student.model")
    assert source.read_bytes() == before


def test_the_command(source, tmp_path, capsys):
    target = tmp_path / "out" / "sar.safetensors"
    export_weights.main(["--checkpoint", str(source), "--part", "student.model", "--output", str(target), "--half"])
    assert f"wrote 2 tensors of 'student.model' to {target}" in capsys.readouterr().out
    assert read_metadata(target)["config_file"] == "sar_xs.py"
    with pytest.raises(SystemExit) as stop:
        export_weights.main(["--checkpoint", str(tmp_path / "gone.pth"), "--output", str(target)])
    assert stop.value.code == 2
    assert f"'{tmp_path / 'gone.pth'}' does not exist" in capsys.readouterr().err
