"""The encoder over a plain timm vision transformer, against timm itself."""

import pytest
import timm
import torch
from torch import nn

from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling.masked_timm import MaskedViT

NAME = "vit_base_patch16_224"
SMALL = dict(patch_size=8, embed_dim=32, depth=3, num_heads=2)


def encoder(**changes):
    settings = {"model_args": SMALL, "in_chans": {"optical": 3, "sar": 2}, "image_size": 32, **changes}
    model = MaskedViT(NAME, **settings)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def timm_twin(model, sensor, *, class_token):
    """timm's model with the weights of ours."""
    settings = dict(img_size=32, num_classes=0, global_pool="", dynamic_img_size=True, **SMALL)
    twin = timm.create_model(NAME, class_token=class_token, in_chans=model.embed[sensor].in_chans, **settings)
    state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(("blocks.", "norm."))}
    state |= {f"patch_embed.{name}": tensor for name, tensor in model.embed[sensor].state_dict().items()}
    state["pos_embed"] = model.positions
    if class_token:
        state["cls_token"] = model.cls_token
        state["pos_embed"] = torch.cat([torch.zeros(1, 1, model.dim), model.positions], dim=1)
    twin.load_state_dict(state)
    return twin.eval()


@pytest.mark.parametrize("class_token", [False, True])
def test_all_units_equal_timm(class_token):
    model = encoder(class_token=class_token)
    x = torch.randn(2, 2, 32, 32)
    expected = timm_twin(model, "sar", class_token=class_token).forward_features(x)
    features = model.encode({"sar": x})
    torch.testing.assert_close(features.tokens, expected[:, int(class_token) :], rtol=1e-4, atol=1e-4)
    maps = model(x, "sar")
    torch.testing.assert_close(maps["p8"][:, :, 1, 2], features.tokens[:, 6])


@pytest.mark.parametrize("class_token", [False, True])
def test_visible_units_equal_timm_on_the_rest(class_token):
    model = encoder(class_token=class_token)
    twin = timm_twin(model, "optical", class_token=class_token)
    x, keep = torch.randn(1, 3, 32, 32), torch.tensor([[11, 0, 5]])
    tokens = twin._pos_embed(twin.patch_embed(x))
    chosen = [0] * class_token + [unit + class_token for unit in keep[0].tolist()]
    tokens = tokens[:, chosen]
    middle = twin.blocks[1](twin.blocks[0](tokens))
    expected = twin.norm(twin.blocks[2](middle))[:, int(class_token) :]
    features = model.encode({"optical": x}, keep=keep, middle_block=1)
    torch.testing.assert_close(features.tokens, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.middle, middle[:, int(class_token) :], rtol=1e-4, atol=1e-4)
    assert torch.equal(features.levels["p8"], features.tokens[:, :, None])


def test_both_sensors_together_equal_separate_calls():
    model = encoder()
    batch = {"optical": torch.randn(2, 3, 24, 40), "sar": torch.randn(2, 2, 24, 40)}
    keep = torch.stack([torch.randperm(15)[:4] for _ in range(4)])
    together = model.encode(batch, keep=keep)
    for name, rows in (("optical", slice(0, 2)), ("sar", slice(2, 4))):
        alone = model.encode({name: batch[name]}, keep=keep[rows])
        torch.testing.assert_close(together.tokens[rows], alone.tokens, rtol=1e-4, atol=1e-4)


def test_what_it_says_of_itself():
    model = encoder(class_token=True, out_features=("p8", "p16", "p32", "tokens"), sensor="optical")
    assert (model.dim, model.unit_size, model.grid, model.sensors) == (32, 8, (4, 4), ("optical", "sar"))
    assert model.level_dims == {"p8": (1, 32)} and model.main_blocks == range(3) and model.num_layers == 3
    maps = model(torch.randn(1, 3, 24, 40))
    assert {name: tuple(level.shape[2:]) for name, level in maps.items()} == {
        "p8": (3, 5),
        "p16": (2, 3),
        "p32": (1, 2),
        "tokens": (3, 5),
    }
    layers = model.parameter_layers()
    assert set(layers) == {name for name, _ in model.named_parameters()}
    assert {layers[name] for name in ("cls_token", "positions", "embed.sar.proj.weight")} == {0}
    assert (layers["blocks.0.norm1.weight"], layers["blocks.2.mlp.fc2.bias"], layers["norm.weight"]) == (1, 3, 3)


def test_drop_path_rises_to_the_last_block():
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in encoder(drop_path=0.4).blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_pretrained_weights_are_used(monkeypatch):
    """`weights="timm"`, with a model that stands for the download."""
    torch.manual_seed(0)
    source = timm.create_model(NAME, img_size=32, num_classes=0, dynamic_img_size=True, **SMALL)
    nn.init.normal_(source.cls_token)
    asked = []

    def create(name, pretrained, in_chans, image_size, model_args):
        asked.append((name, pretrained, in_chans, image_size))
        return source

    monkeypatch.setattr("mmovseg.projects.codemae.modeling.masked_timm.create_timm", create)
    model = MaskedViT(NAME, weights="timm", in_chans={"optical": 3, "sar": 1}, image_size=32, class_token=True).eval()
    assert asked == [(NAME, True, 3, 32)]
    x = torch.randn(1, 1, 32, 32)
    expected = source.eval().forward_features(x.expand(-1, 3, -1, -1))[:, 1:]
    for sensor, image in (("optical", x.expand(-1, 3, -1, -1)), ("sar", x)):
        torch.testing.assert_close(model.encode({sensor: image}).tokens, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vit_small_patch16_dinov3", {"model_args": {}}),  # rotary positions
        ("vit_small_patch14_reg4_dinov2", {"model_args": {}, "image_size": 28}),
    ],
)
def test_other_models_are_refused(name, changes):
    settings = {"image_size": 32, **changes}
    with torch.device("meta"), pytest.raises(UserError, match=f"'{name}' is none"):
        MaskedViT(name, **settings)


def test_class_token_of_a_model_without_one_is_refused():
    with pytest.raises(UserError, match="needs a model that has one"):
        encoder(class_token=True, model_args={**SMALL, "class_token": False, "global_pool": ""})


def test_a_model_that_is_no_transformer_is_refused():
    with pytest.raises(UserError, match="timm model 'resnet18' cannot be built as a vision transformer: "):
        MaskedViT("resnet18")
    with pytest.raises(UserError, match=f"timm model '{NAME}' cannot be built as a vision transformer: .*'widht'"):
        encoder(model_args={"widht": 3})
