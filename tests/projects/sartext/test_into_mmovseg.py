"""A CLIP of SARText in MM-OVSeg: the configs fit together, from the training of the CLIP to the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint.export import export_part
from mmovseg.checkpoint.save import save_weights
from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.engine.provenance import weights_metadata
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.engine.tables import read_table
from mmovseg.errors import UserError
from tests.modeling.conftest import make_inputs

CONFIGS = Path(__file__).parents[3] / "projects/SARText/configs"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of the CLIP's training, and the part that a table cuts out of it."""
    folder = tmp_path_factory.mktemp("clip")
    model = trained_clip()
    facts = weights_metadata(model=model, config_sha256="", config_file="clip_mmovseg_xs.py", seed=0)
    save_weights(model, folder / "run.safetensors", metadata=facts)
    export_part(folder / "run.safetensors", folder / "part.safetensors", part="model")
    return {"run": str(folder / "run.safetensors"), "part": str(folder / "part.safetensors")}


def trained_clip():
    torch.manual_seed(2)
    node = load_config(CONFIGS / "clip_mmovseg_xs.py").model
    node.weights = None
    return instantiate(node)


def model_of(name, overrides):
    config = load_config(CONFIGS / f"{name}.py")
    forget_foundation_weights(config.model)
    apply_overrides(config, overrides)
    torch.manual_seed(0)
    return instantiate(config.model)


def test_the_clip_begins_with_the_weights_of_mmovseg():
    model = instantiate(load_config(CONFIGS / "clip_mmovseg_xs.py").model)
    shipped = instantiate(load_config("miniearth/mmovseg_xs.py").model.clip)
    theirs, ours = shipped.model.state_dict(), model.model.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)


@pytest.mark.parametrize("file", ["run", "part"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mmovseg_xs", "model.clip.weights"),
        ("mmovseg_xs_clip", "model.clip.weights"),
        ("mmovseg_xs_similarity", "model.sar_text.clip.weights"),
    ],
)
def test_its_weights_find_their_place(name, key, file, files):
    model = model_of(name, [f"{key}={files[file]}"])
    clip = model.clip if key == "model.clip.weights" else model.sar_text.clip
    theirs, ours = trained_clip().model.state_dict(), clip.model.state_dict()
    assert all(torch.equal(theirs[part], ours[part]) for part in theirs)


@torch.no_grad()
def test_mmovseg_reads_sar_as_the_training_did(files):
    trained = trained_clip().eval()
    items = make_inputs(2)
    replaced = model_of("mmovseg_xs_clip", [f"model.clip.weights={files['run']}"]).eval()
    beside = model_of("mmovseg_xs_similarity", [f"model.sar_text.clip.weights={files['run']}"]).eval()
    wanted = trained.pixels(items)
    assert torch.equal(replaced._views(items)[0].x, wanted)
    assert torch.equal(beside.sar_text.view(items, multiple=4).x, wanted)
    texts = ["a photo of water", "a photo of a road"]
    torch.testing.assert_close(beside.sar_text.clip.encode_texts(texts), trained.encode_texts(texts))


def test_it_refuses_a_clip_of_another_unit(files):
    with pytest.raises(
        UserError, match="clip: '.*run.safetensors' was trained on sar with the unit 'db', not 'linear'"
    ):
        model_of("mmovseg_xs_clip", [f"model.clip.weights={files['run']}", "model.input_contract.sar.unit=linear"])


def test_the_rows_of_the_table_differ_in_what_they_say_and_nothing_else():
    table = read_table(CONFIGS / "tables/mmovseg.json")
    runs = {run["name"]: run for run in table["runs"]}
    rows = {}
    for name, run in runs.items():
        rows[name] = load_config(run["config"])
        uses = [f"{key}=somewhere.safetensors" for key in run.get("uses", {})]
        apply_overrides(rows[name], [*run.get("overrides", []), *uses])
        assert run["evaluate"] == ["both", "optical", "sar"]
        for key in ("dataloader", "optimizer", "lr_multiplier"):
            assert rows[name][key] == rows["clip"][key]
        assert rows[name].train.max_iter == rows["clip"].train.max_iter
    for name in ("clip", "sartext_clip", "sartext_clip_optical"):
        assert "sar_text" not in rows[name].model
        assert (rows[name].model.get("clip_input", "optical") == "sar") == (name == "sartext_clip")
    for name in ("similarity", "similarity_optical"):
        assert rows[name].model.clip == rows["clip"].model.clip
    assert rows["similarity_optical"].model.sar_text.clip.weights == "shipped://clip_xs"
    assert {key for run in runs.values() for key in run.get("uses", {}).values()} == {table["parts"][0]["name"]}
    shipped = load_config("miniearth/mmovseg_xs.py")
    assert rows["clip"].model == shipped.model and rows["clip"].dataloader == shipped.dataloader
