"""Where a mixture of experts starts from: dense files, its own files, other patches and image sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resample_patch_embed

from mmovseg.errors import UserError
from mmovseg.projects.crossearth.modeling import encoder_weights
from mmovseg.projects.crossearth.modeling.descriptors import SARDescriptors
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder

ARGS = dict(embed_dim=32, depth=2, num_heads=2)


def make(*, patch: int = 8, size: int = 32, seed: int = 0, **options) -> MoEEncoder:
    torch.manual_seed(seed)
    own = dict(taps=(2,), in_chans=1, image_size=size, model_args=dict(patch_size=patch, **ARGS), num_experts=3)
    return MoEEncoder("vit_small_patch8_224", **{**own, "descriptors": SARDescriptors(block=8), **options})


def written(state: dict[str, torch.Tensor], folder: Path, name: str = "weights.safetensors", prefix: str = "") -> str:
    save_file({prefix + key: value.contiguous().clone() for key, value in state.items()}, folder / name)
    return str(folder / name)


def output_of(encoder: MoEEncoder) -> torch.Tensor:
    torch.manual_seed(5)
    raw = 100 * torch.rand(2, encoder.in_chans, 32, 32)
    return encoder.eval()(raw / 50 - 1, raw=raw)["block2"]


@pytest.mark.parametrize("prefix", ["", "model.", "encoder.model."])
def test_dense_weights_are_upcycled(tmp_path, prefix):
    dense = make(num_experts=None)
    file = written(dense.model.state_dict(), tmp_path, prefix=prefix)
    moe = make(seed=1, weights=file)
    torch.testing.assert_close(output_of(moe), output_of(dense), rtol=1e-4, atol=1e-5)
    for expert in range(3):
        assert torch.equal(moe.model.blocks[1].mlp.experts.w1[expert], dense.model.blocks[1].mlp.fc1.weight)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_its_own_weights_come_back_with_the_constants_of_the_descriptors(tmp_path, prefix):
    first = make(descriptors=SARDescriptors(block=8, mean=(0.7, 2.0, 0.1), std=(0.2, 0.5, 0.3)))
    with torch.no_grad():
        first.model.blocks[0].mlp.experts.w1[2] += 1.0
    file = written(first.state_dict(), tmp_path, prefix=prefix)
    second = make(seed=1, weights=file)
    assert all(torch.equal(one, second.state_dict()[name]) for name, one in first.state_dict().items())
    assert torch.equal(output_of(first), output_of(second))
    # beside another part, for example a head
    other = written({**first.state_dict(), "pixel.weight": torch.ones(2)}, tmp_path, "run.safetensors", "encoder.")
    assert torch.equal(output_of(make(seed=2, weights=other)), output_of(first))


def test_files_that_do_not_fit(tmp_path):
    moe = make()
    own = written(moe.state_dict(), tmp_path)
    with pytest.raises(UserError, match="holds a mixture of experts, but num_experts=None"):
        make(num_experts=None, weights=own)
    with pytest.raises(UserError, match="model needs"):
        make(num_experts=4, weights=own)
    with pytest.raises(UserError, match="no vision transformer"):
        make(weights=written({"head.weight": torch.ones(1)}, tmp_path, "head.safetensors"))
    two = {f"{name}.{key}": value for name in ("a", "b") for key, value in moe.state_dict().items()}
    with pytest.raises(UserError, match=r"several encoders \(a, b\)"):
        make(weights=written(two, tmp_path, "two.safetensors"))
    with pytest.raises(UserError, match="does not exist"):
        make(weights=str(tmp_path / "none.safetensors"))
    ragged = {**make(num_experts=None).model.state_dict(), "pos_embed": torch.zeros(1, 12, 32)}
    with pytest.raises(UserError, match="11 patches, which form no square"):
        make(weights=written(ragged, tmp_path, "ragged.safetensors"))


@pytest.mark.parametrize("resize", ["release", "timm"])
def test_other_patches_and_image_sizes(tmp_path, resize):
    dense = make(num_experts=None, patch=14, size=14 * 5)
    state = dense.model.state_dict()
    file = written(state, tmp_path)
    found = make(num_experts=None, patch=16, size=16 * 4, weights=file, weights_resize=resize).model.state_dict()
    filters, table = state["patch_embed.proj.weight"], state["pos_embed"]
    if resize == "release":
        expected = F.interpolate(filters, size=(16, 16), mode="bicubic", align_corners=False)
        patches = table[:, 1:].reshape(1, 5, 5, 32).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, size=(4, 4), mode="bicubic", align_corners=False)
        places = torch.cat([table[:, :1], patches.permute(0, 2, 3, 1).reshape(1, 16, 32)], dim=1)
    else:
        expected = resample_patch_embed(filters, [16, 16])
        places = resample_abs_pos_embed(table, new_size=[4, 4], old_size=[5, 5])
    torch.testing.assert_close(found["patch_embed.proj.weight"], expected)
    torch.testing.assert_close(found["pos_embed"], places)
    assert torch.equal(found["blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])


def test_a_mixture_moves_to_another_image_size(tmp_path):
    moe = make(size=40)
    larger = make(seed=1, size=64, weights=written(moe.state_dict(), tmp_path))
    assert larger.model.pos_embed.shape[1] == 65
    assert torch.equal(larger.model.blocks[0].mlp.experts.b2, moe.model.blocks[0].mlp.experts.b2)


def test_filters_are_folded_on_request_only(tmp_path):
    dense = make(num_experts=None, in_chans=2)
    file = written(dense.model.state_dict(), tmp_path)
    filters = dense.model.patch_embed.proj.weight
    folded = make(num_experts=None, weights=f"folded:{file}").model.patch_embed.proj.weight
    torch.testing.assert_close(folded, filters.sum(dim=1, keepdim=True))
    with pytest.raises(UserError, match="patch_embed"):
        make(num_experts=None, weights=file)


def test_timms_own_weights_are_brought_from_their_patches(monkeypatch):
    asked = {}

    def native(name, pretrained, in_chans, image_size, model_args):
        asked.update(pretrained=pretrained, image_size=image_size, args=dict(model_args))
        torch.manual_seed(3)
        return make(num_experts=None, patch=14, size=70).model

    monkeypatch.setattr(encoder_weights, "create_timm", native)
    moe = make(patch=16, size=64, weights="timm")
    assert asked == {"pretrained": True, "image_size": None, "args": ARGS}
    expected = make(num_experts=None, patch=14, size=70).model.state_dict()
    assert torch.equal(moe.model.blocks[0].mlp.experts.w2[1], expected["blocks.0.mlp.fc2.weight"])
    assert moe.model.patch_embed.proj.weight.shape[-1] == 16 and moe.weights == "timm"


@pytest.mark.parametrize("name", ["moe_xs", "dense_xs", "moe_xs_db"])
def test_the_shipped_start_of_xs(name):
    from mmovseg.config import get_config, instantiate

    nodes = get_config("projects/CrossEarthSAR/configs/common/encoders.py")
    encoder = instantiate(nodes[name])
    raw = 100 * torch.rand(1, encoder.in_chans, 64, 64)
    assert encoder(raw / 50 - 1, raw=raw)["block4"].shape == (1, 64, 16, 16)
