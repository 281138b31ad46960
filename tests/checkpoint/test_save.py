import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from mmovseg.checkpoint import atomic_write, read_metadata, save_weights
from mmovseg.errors import UserError

SCRIPT = """
import sys, torch
from mmovseg.checkpoint import save_weights
state = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
save_weights(state, sys.argv[1], metadata={name: "\\u00e9" + name for name in "qwertyuiop"})
"""


def test_same_content_gives_same_bytes_in_another_process(tmp_path):
    state = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
    save_weights(state, tmp_path / "here.safetensors", metadata={name: "é" + name for name in "poiuytrewq"})
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "there.safetensors")], check=True)
    assert (tmp_path / "here.safetensors").read_bytes() == (tmp_path / "there.safetensors").read_bytes()
    assert read_metadata(tmp_path / "here.safetensors")["q"] == "éq"


def test_dtype_changes_floating_tensors_only(tmp_path):
    save_weights({"w": torch.ones(2), "n": torch.tensor(3)}, tmp_path / "w.safetensors", dtype=torch.float16)
    state = load_file(tmp_path / "w.safetensors")
    assert state["w"].dtype is torch.float16
    assert state["n"].dtype is torch.int64


def test_tied_weights_and_views_are_saved_in_full(tmp_path):
    base = torch.arange(6.0).reshape(2, 3)
    save_weights({"one": base, "same": base, "transposed": base.T, "row": base[1]}, tmp_path / "w.safetensors")
    state = load_file(tmp_path / "w.safetensors")
    assert torch.equal(state["same"], base)
    assert torch.equal(state["transposed"], base.T)
    assert torch.equal(state["row"], base[1])


def test_frozen_parameters_and_buffers_are_saved(tmp_path):
    model = torch.nn.BatchNorm1d(3).requires_grad_(False)
    save_weights(model, tmp_path / "w.safetensors")
    assert set(load_file(tmp_path / "w.safetensors")) == set(model.state_dict())


def test_failure_leaves_the_old_file_and_no_half_one(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="power cut"), atomic_write(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("power cut")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_other_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"saved as \.safetensors, but the path is '.*w\.pth'"):
        save_weights({"a": torch.ones(1)}, tmp_path / "w.pth")
