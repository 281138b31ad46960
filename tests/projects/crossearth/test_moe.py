"""Routing, experts and the balance loss: against the oracle that computes every expert for every token."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers import GluMlp, Mlp
from torch import Tensor, nn

from mmovseg.errors import UserError
from mmovseg.projects.crossearth.losses.balance import load_balance, share_of
from mmovseg.projects.crossearth.modeling.experts import Experts
from mmovseg.projects.crossearth.modeling.moe import SparseMoE
from mmovseg.projects.crossearth.modeling.router import Router

DIM, EXPERTS = 16, 4


def make_moe(*, seed: int = 0, same: bool = False, **options) -> SparseMoE:
    """A layer whose experts differ, unless they are to be the `same`."""
    torch.manual_seed(seed)
    moe = SparseMoE(Mlp(DIM, 4 * DIM), **{"dim": DIM, "num_experts": EXPERTS, "init_std": 0.5, **options})
    if not same:
        for parameter in moe.experts.parameters():
            nn.init.normal_(parameter, std=0.3)
    moe.descriptors = torch.randn(2, 3)
    return moe


def make_tokens(seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 11, DIM, requires_grad=True)


def oracle(moe: SparseMoE, x: Tensor) -> Tensor:
    """Every expert on every token, then the weighted sum over those that the router chose: eq. 8 to 10 read out."""
    images = torch.cat([x, moe.descriptors[:, None].expand(-1, x.shape[1], -1)], dim=-1)
    pi = (images @ moe.router.weight.T + moe.router.bias).softmax(dim=-1)
    chosen = torch.zeros_like(pi).scatter_(-1, pi.topk(moe.top_k, dim=-1).indices, 1.0)
    gates = pi * chosen
    if moe.router.gate == "renorm":
        gates = gates / gates.sum(dim=-1, keepdim=True)
    elif moe.router.gate == "st":
        fixed = (gates / gates.sum(dim=-1, keepdim=True)).detach()
        gates = fixed + (gates - gates.detach())
    e = moe.experts
    hidden = nn.functional.gelu(torch.einsum("nlc,ehc->nleh", x, e.w1) + e.b1)
    outputs = torch.einsum("nleh,ech->nlec", hidden, e.w2) + e.b2
    return (gates[..., None] * outputs).sum(dim=2)


def gradients(moe: SparseMoE, x: Tensor, output: Tensor) -> dict[str, Tensor | None]:
    names, values = zip(*moe.named_parameters(), strict=True)
    found = torch.autograd.grad(
        (output * torch.linspace(-1, 1, DIM)).sum(), [x, *values], allow_unused=True, retain_graph=True
    )
    return dict(zip(["x", *names], found, strict=True))


@pytest.mark.parametrize("implementation", ["sorted", "grouped"])
@pytest.mark.parametrize("gate", ["st", "renorm", "softmax"])
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("empty", [(), (0,), (3,), (1, 2)])
def test_equals_the_oracle_forward_and_backward(implementation, gate, top_k, empty):
    if len(empty) > EXPERTS - top_k:
        pytest.skip("every token needs its experts")
    moe = make_moe(top_k=top_k, gate=gate, implementation=implementation)
    with torch.no_grad():
        moe.router.bias[list(empty)] = -1e4
    x = make_tokens()
    output, wanted = moe(x), oracle(moe, x)
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-5)
    assert moe.last is not None and moe.last.counts[list(empty)].sum() == 0
    assert moe.last.counts.count_nonzero() == EXPERTS - len(empty)
    ours, theirs = gradients(moe, x, output), gradients(moe, x, wanted)
    for name, gradient in theirs.items():
        if gate == "renorm" and top_k == 1 and name.startswith("router"):
            assert ours[name] is None and float(gradient.abs().max()) < 1e-5
            continue
        assert ours[name] is not None, name
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
        if name.startswith("experts"):
            assert float(ours[name][list(empty)].abs().sum()) == 0.0


@pytest.mark.parametrize(("gate", "top_k", "taught"), [("st", 1, True), ("softmax", 1, True), ("renorm", 2, True),
                                                        ("renorm", 1, False)])  # fmt: skip
def test_whether_the_task_teaches_the_router(gate, top_k, taught):
    moe, x = make_moe(gate=gate, top_k=top_k), make_tokens()
    gradient = gradients(moe, x, moe(x))["router.weight"]
    assert (gradient is not None and float(gradient.abs().max()) > 1e-3) == taught
    assert moe.router.is_constant != taught
    assert moe.last is not None  # the balance loss teaches it in any case
    balance = load_balance(share_of(moe.last.counts, top_k=top_k, kind="tokens"), moe.last.probabilities)
    assert float(torch.autograd.grad(balance, moe.router.weight)[0].abs().max()) > 1e-4


@pytest.mark.parametrize("gate", ["st", "renorm"])
@pytest.mark.parametrize("top_k", [1, 3])
def test_copies_of_one_mlp_give_its_output(gate, top_k):
    mlp = Mlp(DIM, 4 * DIM)
    moe = SparseMoE(mlp, dim=DIM, num_experts=EXPERTS, gate=gate, top_k=top_k, init_std=1.0)
    moe.descriptors = torch.randn(2, 3)
    x = make_tokens()
    torch.testing.assert_close(moe(x), mlp(x), rtol=1e-5, atol=1e-6)
    assert moe.last is not None and moe.last.counts.count_nonzero() > 1


def test_the_straight_through_gate_is_exactly_one():
    moe, x = make_moe(gate="st"), make_tokens()
    gates = moe.router(x, moe.descriptors).gates
    assert gates is not None and torch.equal(gates, torch.ones_like(gates))


def test_softmax_scales_by_the_probability():
    moe, x = make_moe(gate="softmax", same=True), make_tokens()
    routing = moe.router(x, moe.descriptors)
    plain = make_moe(gate="renorm", same=True)
    plain.load_state_dict(moe.state_dict())
    plain.descriptors = moe.descriptors
    expected = plain(x).flatten(0, 1) * routing.probabilities.max(dim=1, keepdim=True).values
    torch.testing.assert_close(moe(x).flatten(0, 1), expected)


def test_descriptors_reach_the_router_only_of_their_own_image():
    moe, x = make_moe(), make_tokens()
    before = moe.router(x, moe.descriptors).probabilities.unflatten(0, (2, -1))
    changed = moe.descriptors.clone()
    changed[1] += 2.0
    after = moe.router(x, changed).probabilities.unflatten(0, (2, -1))
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1], atol=1e-2)
    blind = make_moe(num_descriptors=0)
    assert blind.router.weight.shape == (EXPERTS, DIM)
    with pytest.raises(ValueError, match="expects 0 descriptors"):
        blind(x)


def test_the_router_stays_in_float32_under_autocast():
    moe, x = make_moe(), make_tokens()
    plain = moe.router(x.detach(), moe.descriptors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = moe.router(x.detach(), moe.descriptors)
        output = moe(x)
    assert torch.equal(plain.probabilities, mixed.probabilities) and torch.equal(plain.index, mixed.index)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), moe(x), rtol=0.1, atol=0.1)
    output.float().square().mean().backward()
    assert moe.experts.w1.grad is not None and moe.experts.w1.grad.dtype == torch.float32


def test_statistics_and_what_is_not_counted():
    moe, x = make_moe(uncounted=1, top_k=2), make_tokens()
    moe(x)
    last = moe.last
    assert last is not None and last.tokens == 20 and last.index.shape == (2, 11, 2)
    expected = torch.stack([torch.bincount(index[1:].flatten(), minlength=EXPERTS) for index in last.index])
    assert torch.equal(last.per_image(), expected)
    assert torch.equal(last.counts, expected.sum(dim=0)) and int(last.counts.sum()) == 40
    routing = moe.router(x, moe.descriptors)
    means = routing.probabilities.unflatten(0, (2, -1))[:, 1:].mean(dim=(0, 1))
    torch.testing.assert_close(last.probabilities, means)
    assert last.probabilities.requires_grad
    moe.eval()(x)
    assert moe.last is not None and not moe.last.probabilities.requires_grad


def test_a_layer_can_be_copied_after_a_step():
    moe, x = make_moe(), make_tokens()
    moe(x).sum().backward()
    other = copy.deepcopy(moe)
    assert other.last is None and other.descriptors is None and moe.last is not None
    other.descriptors = moe.descriptors
    assert torch.equal(other(x), moe(x))


def test_the_start_spreads_tokens():
    torch.manual_seed(0)
    moe = SparseMoE(Mlp(64, 256), dim=64)
    moe.descriptors = torch.zeros(4, 3)
    moe(torch.randn(4, 256, 64))
    assert moe.last is not None
    assert float(moe.last.counts.max()) / moe.last.tokens < 0.4


@pytest.mark.parametrize("experts", [3, 6])
def test_balance_is_one_where_all_is_even_and_n_at_collapse(experts):
    even = torch.full((experts,), 7, dtype=torch.int64)
    uniform = torch.full((experts,), 1 / experts)
    assert float(load_balance(share_of(even, top_k=1, kind="tokens"), uniform)) == pytest.approx(1.0)
    assert float(load_balance(share_of(even, top_k=2, kind="tokens"), uniform)) == pytest.approx(2.0)
    assert float(load_balance(share_of(even, top_k=2, kind="choices"), uniform)) == pytest.approx(1.0)
    one = torch.tensor([9] + [0] * (experts - 1))
    assert float(load_balance(share_of(one, top_k=1, kind="tokens"), one / 9)) == pytest.approx(float(experts))


def test_balance_pushes_down_what_is_chosen_most():
    logits = torch.zeros(3, requires_grad=True)
    load_balance(torch.tensor([0.8, 0.1, 0.1]), logits.softmax(dim=0)).backward()
    assert logits.grad is not None and float(logits.grad[0]) > 0 > float(logits.grad[1])


@pytest.mark.parametrize(
    "mlp",
    [GluMlp(DIM, 4 * DIM), Mlp(DIM, 4 * DIM, norm_layer=nn.LayerNorm), Mlp(DIM, 4 * DIM, bias=False)],
    ids=["gated", "norm inside", "no bias"],
)
def test_mlps_that_cannot_become_experts(mlp):
    with pytest.raises(UserError, match="cannot become experts"):
        Experts(mlp, num_experts=2)


def test_dropout_of_the_mlp_is_kept():
    torch.manual_seed(0)
    moe = SparseMoE(Mlp(DIM, 4 * DIM, drop=0.5), dim=DIM, num_descriptors=0)
    x = make_tokens()
    assert not torch.allclose(moe(x), moe(x))
    assert torch.equal(moe.eval()(x), moe(x))


@pytest.mark.parametrize(
    ("options", "said"),
    [(dict(gate="hard"), "gate must be"), (dict(top_k=5), "top_k is 5"), (dict(top_k=0), "top_k is 0")],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UserError, match=said):
        Router(DIM, num_experts=4, **options)
    with pytest.raises(UserError, match="implementation must be"):
        Experts(Mlp(DIM, DIM), num_experts=2, implementation="loop")
