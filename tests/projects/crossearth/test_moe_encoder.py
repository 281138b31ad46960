"""The mixture of experts as a backbone: its start, sizes, descriptors, losses and recomputation."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.projects.crossearth.modeling.descriptors import SARDescriptors
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder

SMALL = dict(embed_dim=32, depth=3, num_heads=2)
# A plain transformer, DINOv2 (layer scale, class token) and DINOv3 (rotary positions, registers), all small.
KINDS = {
    "plain": ("vit_small_patch8_224", dict(patch_size=8, **SMALL)),
    "dinov2": ("vit_small_patch14_dinov2.lvd142m", dict(patch_size=8, **SMALL)),
    "dinov3": ("vit_small_patch16_dinov3.lvd1689m", dict(patch_size=8, **SMALL)),
}


def make(kind: str = "plain", *, seed: int = 0, **options) -> MoEEncoder:
    torch.manual_seed(seed)
    name, model_args = KINDS[kind]
    own = {"taps": (1, 3), "image_size": 32, "in_chans": 1, "model_args": model_args, "router_init_std": 0.3}
    return MoEEncoder(name, **{**own, "descriptors": SARDescriptors(block=8), **options})


def make_raster(seed: int = 1, size: tuple[int, int] = (32, 48)) -> Tensor:
    torch.manual_seed(seed)
    return 60 * torch.distributions.Gamma(4.0, 4.0).sample((2, 1, *size)).sqrt()


def normalised(raw: Tensor) -> Tensor:
    return (raw - 50) / 20


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("options", [dict(gate="st"), dict(gate="renorm"), dict(gate="st", top_k=2)])
def test_starts_as_exactly_the_dense_model(kind, options):
    raw = make_raster()
    dense = make(kind, num_experts=None)
    moe = make(kind, num_experts=4, **options)
    found, tokens = moe.encode(normalised(raw), raw=raw)
    expected, class_tokens = dense.encode(normalised(raw))
    assert list(found) == ["block1", "block3"]
    shapes = moe.output_shape()
    for name, features in found.items():
        torch.testing.assert_close(features, expected[name], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(tokens[name], class_tokens[name], rtol=1e-4, atol=1e-5)
        assert features.shape == (2, shapes[name].channels, 4, 6) and shapes[name].stride == 8
    counts = torch.stack([item.counts for item in moe.expert_statistics().values()])
    assert (counts > 0).sum(dim=1).min() > 1  # the tokens were in fact divided


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_dense_control_is_timms_model(kind):
    name, model_args = KINDS[kind]
    dense = make(kind, num_experts=None, final_norm=True)
    plain = TimmEncoder(name, taps=(1, 3), image_size=32, in_chans=1, model_args=model_args, freeze=False)
    plain.model.load_state_dict(dense.model.state_dict())
    x = normalised(make_raster())
    for features, expected in zip(dense(x).values(), plain(x).values(), strict=True):
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert dense.auxiliary_losses() == {} and dense.expert_statistics() == {}
    bare = make(kind, num_experts=None)(x)["block3"]
    normed = dense.model.norm(bare.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(normed, plain(x)["block3"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("experts", [3, 6])
def test_the_balance_loss_of_uniform_routing_is_lambda(experts):
    moe = make(num_experts=experts, balance_weight=0.005)
    for mixture in moe.mixtures.values():
        torch.nn.init.zeros_(mixture.router.weight)
    moe(normalised(make_raster()), raw=make_raster())
    losses = moe.auxiliary_losses()
    assert list(losses) == ["loss_moe_balance"]
    assert float(losses["loss_moe_balance"]) == pytest.approx(0.005, rel=1e-5)


def test_the_balance_loss_is_the_mean_over_layers_of_eq_11():
    moe = make(num_experts=4, top_k=2)
    raw = make_raster()
    moe(normalised(raw), raw=raw)
    terms = []
    for item in moe.expert_statistics().values():
        share = torch.stack([(item.index == expert).any(dim=-1).float().mean() for expert in range(4)])
        terms.append(4 * (share * item.probabilities).sum())
    torch.testing.assert_close(moe.balance_loss(), sum(terms) / len(terms))
    assert len(terms) == 3
    moe.balance_share = "choices"
    torch.testing.assert_close(moe.balance_loss(), sum(terms) / len(terms) / 2)


def test_the_class_token_can_be_left_out_of_the_counts():
    raw = make_raster()
    counted, bare = make(num_experts=4), make(num_experts=4, count_prefix=False)
    for moe, tokens in ((counted, 25), (bare, 24)):
        moe(normalised(raw), raw=raw)
        assert {item.tokens for item in moe.expert_statistics().values()} == {2 * tokens}


def test_everything_that_a_loss_can_reach_learns_and_nothing_else():
    moe = make("dinov2", num_experts=4, taps=(1, 2))
    raw = make_raster()
    maps = moe(normalised(raw), raw=raw)
    (sum(value.square().mean() for value in maps.values()) + sum(moe.auxiliary_losses().values())).backward()
    for name, parameter in moe.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    learning = {name.split(".")[2] for name, p in moe.named_parameters() if p.requires_grad and ".blocks." in name}
    assert learning == {"0", "1"} and not moe.model.norm.weight.requires_grad


def test_a_router_that_nothing_teaches_is_frozen():
    moe = make(num_experts=3, gate="renorm", balance_weight=0)
    assert not any(p.requires_grad for mixture in moe.mixtures.values() for p in mixture.router.parameters())
    assert moe.auxiliary_losses() == {}
    taught = make(num_experts=3, gate="renorm")
    assert all(p.requires_grad for mixture in taught.mixtures.values() for p in mixture.router.parameters())


def test_frozen():
    moe = make(num_experts=3, freeze=True).train()
    raw = make_raster()
    maps = moe(normalised(raw), raw=raw)
    assert not moe.training and not maps["block3"].requires_grad and moe.auxiliary_losses() == {}
    assert not any(parameter.requires_grad for parameter in moe.parameters())


def test_recomputation_gives_the_same_gradients_of_several_batches():
    plain = make(num_experts=4)
    again = copy.deepcopy(plain)
    again.recompute = True
    first, second = make_raster(), make_raster(2) * 3  # other descriptors: a block run again must see its own images
    for moe in (plain, again):
        loss = torch.zeros(())
        for raw in (first, second):
            maps = moe(normalised(raw), raw=raw)
            loss = loss + maps["block3"].square().mean() + 10 * sum(moe.auxiliary_losses().values())
        loss.backward()
    for (name, one), two in zip(plain.named_parameters(), again.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_only_chosen_layers_get_experts():
    moe = make(num_experts=3, layers=(2,))
    assert list(moe.mixtures) == ["block2"]
    raw = make_raster()
    moe(normalised(raw), raw=raw)
    assert float(moe.auxiliary_losses()["loss_moe_balance"]) > 0
    with pytest.raises(UserError, match=r"3 blocks, so layers=\[4\]"):
        make(num_experts=3, layers=(4,))


def test_descriptors_come_from_the_raster_or_from_the_undone_normalisation():
    norm = PixelNorm(mean=(50.0,), std=(20.0,))
    raw = make_raster()
    seen: list[Tensor] = []
    moe = make(num_experts=3, raw_norm=norm)
    assert moe.descriptors is not None
    moe.descriptors.register_forward_hook(lambda _, __, output: seen.append(output))
    valid = torch.ones(2, 32, 48, dtype=torch.bool)
    valid[:, 20:] = False
    moe(norm(raw, valid), raw=raw, valid=valid)
    moe(norm(raw, valid))  # pixels without data are exactly 0 then
    moe(norm(raw))
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen[0], seen[2], atol=1e-2)
    with pytest.raises(UserError, match="set raw_norm"):
        make(num_experts=3)(norm(raw))


def test_without_descriptors_no_raster_is_needed():
    moe = make(num_experts=3, descriptors=None)
    assert moe(normalised(make_raster()))["block3"].shape == (2, 32, 4, 6)
    assert moe.mixtures["block1"].router.num_descriptors == 0


@pytest.mark.parametrize(
    ("name", "dense", "sparse", "active"),
    [("small", 22.06, 92.98, 22.1), ("base", 86.58, 369.98, 86.6), ("large", 304.37, 1311.76, 304.5)],
)
def test_sizes_of_the_paper(name, dense, sparse, active):
    arguments = dict(name=f"vit_{name}_patch14_dinov2.lvd142m", taps=(12,))
    with torch.device("meta"):
        plain = MoEEncoder(**arguments, num_experts=None)
        moe = MoEEncoder(**arguments, num_experts=6, descriptors=SARDescriptors())
    assert plain.count_parameters()[0] / 1e6 == pytest.approx(dense, abs=0.006)
    total, met = moe.count_parameters()
    assert total / 1e6 == pytest.approx(sparse, abs=0.006) and met / 1e6 == pytest.approx(active, abs=0.06)
    both = MoEEncoder(**arguments, num_experts=6, top_k=2, descriptors=SARDescriptors()) if name == "small" else None
    assert both is None or both.count_parameters()[1] / 1e6 == pytest.approx(36.26, abs=0.006)


def test_models_that_cannot_become_a_mixture():
    with pytest.raises(UserError, match="cannot become experts"):
        make(num_experts=2, model_args=dict(**SMALL, patch_size=8, mlp_layer=_gated()))
    with pytest.raises(UserError, match="vision transformer"):
        MoEEncoder("swin_tiny_patch4_window7_224", taps=(1,))


def _gated() -> type:
    from timm.layers import SwiGLU

    return SwiGLU
