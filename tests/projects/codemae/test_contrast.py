"""The contrast: its value where it is known, its formula, its modes, and what happens without pairs."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmovseg.errors import UserError
from mmovseg.projects.codemae.losses import ConditionedContrast, ContrastSpec


def contrast(dim=16, **options):
    torch.manual_seed(0)
    return ConditionedContrast(ContrastSpec(**{"num_heads": 4, **options}), dim=dim)


def tokens(rows=3, dim=16):
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(rows, 5, dim, generator=generator).requires_grad_() for _ in range(2))


def test_aligned_orthogonal_features_give_the_known_value():
    aligned = torch.eye(2)[:, None].expand(2, 5, 2)
    loss = contrast(dim=2, mode="vanilla")(aligned, 3.0 * aligned, paired=True)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1 / 0.07)), abs=1e-7)
    warm = contrast(dim=2, mode="vanilla", temperature=1.0)(aligned, 3.0 * aligned, paired=True)
    assert warm.item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-5)
    swapped = contrast(dim=2, mode="vanilla")(aligned, aligned.flip(0), paired=True)
    assert swapped.item() == pytest.approx(1 / 0.07 + math.log(1 + math.exp(-1 / 0.07)), rel=1e-6)


def test_conditioned_contrast_is_the_formula():
    model, (optical, sar) = contrast(), tokens()

    def attended(part, own, other):
        answer = []
        q, context = part.q(part.norm_q(own)), part.norm_kv(other)
        k, v = part.kv(context)[..., :16], part.kv(context)[..., 16:]
        for head in range(4):
            cut = slice(4 * head, 4 * head + 4)
            scores = q[..., cut] @ k[..., cut].transpose(1, 2) / 4**0.5
            answer.append(scores.softmax(dim=-1) @ v[..., cut])
        return own + part.proj(torch.cat(answer, dim=-1))

    assert model.optical.norm_q.eps == 1e-5
    g = [attended(model.optical, optical, sar), attended(model.sar, sar, optical)]
    g = [F.normalize(part.mean(dim=1), dim=1) for part in g]
    own = torch.arange(3)
    expected = (F.cross_entropy(g[0] @ g[1].T / 0.07, own) + F.cross_entropy(g[1] @ g[0].T / 0.07, own)) / 2
    torch.testing.assert_close(model(optical, sar, paired=True), expected)


@pytest.mark.parametrize("mode", ["conditioned", "vanilla", "linear", "mlp"])
def test_modes_train_and_are_exactly_silent_without_pairs(mode):
    model, (optical, sar) = contrast(mode=mode), tokens()
    model(optical, sar, paired=True).backward()
    assert optical.grad.any() and sar.grad.any()
    assert all(
        parameter.grad is not None and parameter.grad.any()
        for name, parameter in model.named_parameters()
        if not name.endswith("kv.bias")
    )
    model.zero_grad()
    poisoned = torch.full_like(optical, float("nan"))
    off = model(poisoned, sar, paired=False)
    assert off.item() == 0.0
    if mode == "vanilla":
        assert not list(model.parameters()) and not off.requires_grad
        return
    off.backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())


def test_heads_see_pooled_tokens():
    model, (optical, sar) = contrast(mode="linear"), tokens()
    g = [F.normalize(head(x.mean(dim=1)), dim=1) for head, x in ((model.optical, optical), (model.sar, sar))]
    scores, own = g[0] @ g[1].T / 0.07, torch.arange(3)
    expected = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    torch.testing.assert_close(model(optical, sar, paired=True), expected)


def test_units_without_data_do_not_enter_the_mean_and_empty_images_no_contrast():
    model, (optical, sar) = contrast(mode="vanilla"), tokens()
    share = torch.ones(3, 5)
    share[1, 2:] = 0.0
    loss = model(optical, sar, shares=(share, None), paired=True)
    changed = optical.detach().clone()
    changed[1, 2:] = 100.0
    torch.testing.assert_close(model(changed, sar, shares=(share, None), paired=True), loss)
    share[1] = 0.0
    without = model(optical, sar, shares=(None, share), paired=True)
    torch.testing.assert_close(without, model(optical[[0, 2]], sar[[0, 2]], paired=True))
    empty = model(optical, sar, shares=(None, torch.zeros(3, 5)), paired=True)
    empty.backward()
    assert empty.item() == 0.0 and optical.grad.isfinite().all()


def test_impossible_options_are_refused():
    with pytest.raises(UserError, match="contrast.mode is 'ca' but must be one of conditioned, vanilla, linear, mlp"):
        ContrastSpec(mode="ca")
    with pytest.raises(UserError, match="contrast.gather is 'all'"):
        ContrastSpec(gather="all")
    with pytest.raises(UserError, match="temperature must be positive, got 0"):
        ContrastSpec(temperature=0.0)
    with pytest.raises(UserError, match="num_heads is 3, which does not divide the width 16"):
        contrast(num_heads=3)
