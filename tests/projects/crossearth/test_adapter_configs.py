"""Adapters by config, and the command that folds LoRA into the weights."""

from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint import read_metadata, read_state
from mmovseg.checkpoint.save import save_weights
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config, instantiate, load_config
from mmovseg.errors import UserError
from mmovseg.projects.crossearth.modeling.adapters import adapt_encoder, merge

PLAIN = str(Path(__file__).parents[2] / "engine" / "sharded_config.py")
CONFIG = """
from mmovseg.config import LazyCall as L, get_config, load_config
from mmovseg.projects.crossearth.modeling.adapters import adapt_encoder
_base = load_config({plain!r})
model, train = _base.model, _base.train
model.encoder = L(adapt_encoder)(
    encoder=model.encoder, adapter=get_config("projects/CrossEarthSAR/configs/common/adapters.py").{adapter}_xs
)
"""


def write_config(folder, adapter):
    file = folder / f"{adapter}.py"
    file.write_text(CONFIG.format(adapter=adapter, plain=PLAIN), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("adapter", ["earth", "lora", "rein"])
def test_small_adapters_fit_the_small_encoder(adapter):
    encoder = get_config("projects/CrossEarthSAR/configs/common/encoders.py").moe_xs
    encoder.weights = encoder.descriptors = None
    node = L(adapt_encoder)(
        encoder=encoder, adapter=get_config("projects/CrossEarthSAR/configs/common/adapters.py")[f"{adapter}_xs"]
    )
    built = instantiate(node)
    maps = built(torch.randn(1, 1, 64, 48))
    assert {name: tuple(level.shape) for name, level in maps.items()} == {
        f"block{number}": (1, 64, 16, 12) for number in range(1, 5)
    }
    own = sum(parameter.numel() for parameter in built.adapter.parameters())
    assert own == sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)
    assert own < sum(parameter.numel() for parameter in built.model.parameters()) / 20


def test_lora_is_folded_into_a_checkpoint_for_the_config_without_it(tmp_path):
    file = write_config(tmp_path, "lora")
    model = instantiate(load_config(file).model).eval()
    with torch.no_grad():
        for parameter in model.encoder.adapter.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    save_weights(model, tmp_path / "trained.safetensors", metadata={"iteration": "3"})
    merge.main(
        ["--config-file", file, "--checkpoint", str(tmp_path / "trained.safetensors")]
        + ["--output", str(tmp_path / "merged.safetensors")]
    )
    plain = instantiate(load_config(PLAIN).model).eval()
    plain.load_state_dict(read_state(tmp_path / "merged.safetensors")[0])
    batch = [{"x": torch.randn(3)} for _ in range(4)]
    for one, two in zip(model(batch), plain(batch), strict=True):
        torch.testing.assert_close(one["y"], two["y"], rtol=1e-4, atol=1e-5)
    facts = read_metadata(tmp_path / "merged.safetensors")
    assert (facts["iteration"], facts["merged"]) == ("3", "lora")


def test_other_adapters_cannot_be_folded(tmp_path):
    file = write_config(tmp_path, "rein")
    save_weights(instantiate(load_config(file).model), tmp_path / "trained.safetensors")
    with pytest.raises(UserError, match="builds a ToyVision without LoRA: nothing to fold"):
        merge.main.__wrapped__(
            ["--config-file", file, "--checkpoint", str(tmp_path / "trained.safetensors"), "--output", "m"]
        )
