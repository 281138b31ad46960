"""Adapters: parameter counts of the paper, the release's window, one interface over dense and sparse encoders."""

import copy

import pytest
import torch
from torch import nn

from mmovseg.checkpoint.export import export_part
from mmovseg.checkpoint.save import save_weights
from mmovseg.errors import UserError
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.projects.crossearth.modeling.adapters import (
    EarthAdapter,
    LoRAAdapter,
    ReinAdapter,
    adapt_encoder,
    merge_lora,
)
from mmovseg.projects.crossearth.modeling.adapters.earth import low_frequencies
from mmovseg.projects.crossearth.modeling.descriptors import SARDescriptors
from mmovseg.projects.crossearth.modeling.moe_encoder import MoEEncoder

SIZES = dict(patch_size=4, embed_dim=24, depth=4, num_heads=2)
ADAPTERS = {
    "earth": lambda: EarthAdapter(rank=8, frequency_blocks=2),
    "lora": lambda: LoRAAdapter(rank=4),
    "rein": lambda: ReinAdapter(num_tokens=5, rank=2, scale_init=0.5),
}
ENCODERS = ("dense", "dinov3", "moe")


def make_encoder(kind="dense", *, taps=(2, 4), checkpointing=False):
    torch.manual_seed(0)
    common = dict(taps=taps, model_args=dict(SIZES), image_size=16, checkpointing=checkpointing)
    if kind == "moe":
        return MoEEncoder("vit_small_patch16_224", num_experts=3, freeze=True, **common)
    name = "vit_small_patch16_dinov3" if kind == "dinov3" else "vit_small_patch16_224"
    return TimmEncoder(name, **common)


def images(*size):
    return torch.randn(2, 3, *(size or (16, 24)), generator=torch.Generator().manual_seed(5))


def stir(adapter):
    """Move every parameter, so that nothing starts as the identity."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def outputs(encoder, x):
    return torch.cat([level.flatten() for level in encoder(x).values()])


@pytest.mark.parametrize(
    ("adapter", "count"),
    [
        # 24 bottlenecks of 2 * 1024 * 64 + 64 + 1024, 6 times two more and a router of 3 * 1024 + 3, 24 factors
        (EarthAdapter(), 24 * 132_160 + 6 * (2 * 132_160 + 3075) + 24),
        (EarthAdapter(frequency_blocks=0), 24 * 132_160 + 24),
        # as published, 2.99 M, less the 459,264 of the link to the decoder's queries
        (ReinAdapter(), 2_990_081 - 459_264),
    ],
)
def test_parameter_counts_on_vit_large(adapter, count):
    adapter.allocate(width=1024, depth=24, patch_size=16)
    assert sum(parameter.numel() for parameter in adapter.parameters()) == count


def test_earth_adapter_has_4_78_million_parameters_on_vit_large():
    adapter = EarthAdapter()
    adapter.allocate(width=1024, depth=24, patch_size=16)
    assert f"{sum(parameter.numel() for parameter in adapter.parameters()) / 1e6:.2f}" == "4.78"


@pytest.mark.parametrize("grid", [(32, 32), (8, 6), (7, 9), (5, 3), (2, 2)])
@pytest.mark.parametrize("cutoff", [0.2, 0.3, 0.9])
def test_low_frequencies_are_those_of_the_release(grid, cutoff):
    """Transform, shift, cut, shift back, transform back, real part: as the release writes it."""
    height, width = grid
    patches = torch.randn(2, height * width, 3, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.fftshift(
        torch.fft.fft2(patches.transpose(1, 2).unflatten(2, grid), norm="ortho"), dim=(-2, -1)
    )
    half = max(1, int(min(grid) * cutoff // 2))
    top, left = height // 2, width // 2
    mask = torch.zeros(grid)
    mask[max(0, top - half) : top + half, max(0, left - half) : left + half] = 1
    back = [
        torch.fft.ifft2(torch.fft.ifftshift(spectrum * kept, dim=(-2, -1)), norm="ortho").real.flatten(2)
        for kept in (mask, 1 - mask)
    ]
    low = low_frequencies(patches, grid, cutoff)
    torch.testing.assert_close(low, back[0].transpose(1, 2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(patches - low, back[1].transpose(1, 2), atol=1e-5, rtol=1e-4)
    if grid == (32, 32):
        assert int(mask.sum()) == {0.2: 36, 0.3: 64, 0.9: 784}[cutoff]


def test_low_frequencies_are_computed_in_float32_under_autocast():
    patches = torch.randn(1, 16, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = low_frequencies(patches.bfloat16(), (4, 4), 0.3)
    assert low.dtype == torch.float32
    constant = low_frequencies(torch.ones(1, 16, 2), (4, 4), 0.3)
    torch.testing.assert_close(constant, torch.ones(1, 16, 2))


def test_earth_adapter_against_its_formula():
    adapter = EarthAdapter(rank=3, frequency_blocks=1, frequency_position="last")
    adapter.allocate(width=4, depth=2, patch_size=4)
    stir(adapter)
    x = torch.randn(2, 12, 4)
    first, last = adapter.blocks_by_number["block1"], adapter.blocks_by_number["block2"]
    assert (first.mixed, last.mixed) == (False, True)
    bottleneck = lambda part, y: part.up(torch.relu(part.down(y)))  # noqa: E731
    torch.testing.assert_close(adapter.adapt(x, 1, (3, 4)), x + first.scale * bottleneck(first.spatial, x))
    low = low_frequencies(x, (3, 4), 0.3)
    weights = last.router(x).softmax(-1)
    mixed = sum(
        weights[..., index : index + 1] * bottleneck(part, y)
        for index, (part, y) in enumerate([(last.spatial, x), (last.low, low), (last.high, x - low)])
    )
    torch.testing.assert_close(adapter.adapt(x, 2, (3, 4)), x + last.scale * mixed)
    assert EarthAdapter().scale_init == 0.1


def test_rein_against_its_formula_token_by_token():
    adapter = ReinAdapter(num_tokens=4, rank=2)
    adapter.allocate(width=6, depth=2, patch_size=4)
    stir(adapter)
    x = torch.randn(1, 3, 6)
    tokens = adapter.factors[2] @ adapter.factors[3]
    values = adapter.token_map(tokens)
    expected = []
    for patch in x[0]:
        weights = torch.stack([patch @ token / 6**0.5 for token in tokens]).softmax(0)
        looked_up = sum(weights[m] * values[m] for m in range(1, 4))
        expected.append(patch + adapter.scale * adapter.delta_map(looked_up + patch))
    torch.testing.assert_close(adapter.adapt(x, 2, (1, 3))[0], torch.stack(expected))


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("name", ADAPTERS)
def test_only_the_adapter_trains_and_every_part_of_it(name, kind):
    plain = make_encoder(kind)
    encoder = adapt_encoder(make_encoder(kind), adapter=ADAPTERS[name]())
    assert encoder.output_shape() == plain.output_shape()
    assert list(plain.state_dict()) == [key for key in encoder.state_dict() if not key.startswith("adapter.")]
    before = outputs(encoder, images())
    assert torch.allclose(before, outputs(plain, images())) == (name == "lora")  # B starts at 0
    stir(encoder.adapter)
    assert not torch.allclose(outputs(encoder, images()), before)
    encoder.train()
    outputs(encoder, images()).square().sum().backward()
    with_gradient = {key for key, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert with_gradient == {key for key, _ in encoder.named_parameters() if key.startswith("adapter.")}
    dead = [key for key, parameter in encoder.adapter.named_parameters() if not parameter.grad.any()]
    assert dead == []
    assert not encoder.model.training


@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_are_equal_with_checkpointing_and_two_sizes_at_once(name):
    gradients = []
    for checkpointing in (False, True):
        encoder = adapt_encoder(make_encoder("moe", checkpointing=checkpointing), adapter=ADAPTERS[name]())
        stir(encoder.adapter)
        loss = outputs(encoder, images(16, 24)).square().mean() + outputs(encoder, images(8, 16)).square().mean()
        loss.backward()
        gradients.append({key: parameter.grad for key, parameter in encoder.adapter.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", ["earth", "rein"])
def test_class_token_passes_by(name):
    encoder = adapt_encoder(
        make_encoder(taps=(1,)), adapter=EarthAdapter(frequency_blocks=1) if name == "earth" else ReinAdapter()
    )
    stir(encoder.adapter)
    plain = make_encoder(taps=(1,))
    (maps, tokens), (plain_maps, plain_tokens) = encoder.encode(images()), plain.encode(images())
    assert torch.equal(tokens["block1"], plain_tokens["block1"])
    assert not torch.allclose(maps["block1"], plain_maps["block1"])


def test_the_adapter_knows_height_from_width():
    encoder = adapt_encoder(make_encoder("moe", taps=(1,)), adapter=EarthAdapter(rank=4, frequency_blocks=1))
    stir(encoder.adapter)
    # without a norm behind the block
    patches = make_encoder("moe", taps=(1,))(images(16, 24))["block1"].flatten(2).transpose(1, 2)
    expected = encoder.adapter.adapt(patches, 1, (4, 6)).transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(encoder(images(16, 24))["block1"], expected)


def test_zero_start_leaves_the_encoder_as_it_was():
    encoder = adapt_encoder(make_encoder(), adapter=EarthAdapter(rank=4, frequency_blocks=1, start="zero"))
    assert torch.equal(outputs(encoder, images()), outputs(make_encoder(), images()))


def test_blocks_behind_the_last_tap_get_nothing():
    encoder = adapt_encoder(make_encoder(taps=(1, 3)), adapter=EarthAdapter(frequency_blocks=3))
    assert list(encoder.adapter.blocks_by_number) == ["block1", "block2", "block3"]


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_files_alone_and_out_of_a_whole_model(name, tmp_path):
    encoder = adapt_encoder(make_encoder(), adapter=ADAPTERS[name]())
    stir(encoder.adapter)
    model = nn.ModuleDict({"encoder": encoder, "head": nn.Linear(2, 2)})
    save_weights(model, tmp_path / "model.safetensors")
    count = export_part(tmp_path / "model.safetensors", tmp_path / "adapter.safetensors", part="encoder.adapter")
    assert count == len(list(encoder.adapter.parameters()))
    for file in ("model.safetensors", "adapter.safetensors"):
        again = adapt_encoder(make_encoder(), adapter=ADAPTERS[name](), weights=str(tmp_path / file))
        assert torch.equal(outputs(again, images()), outputs(encoder, images()))
    with pytest.raises(UserError, match="is of another architecture|but the model needs|lacks"):
        other = EarthAdapter(rank=9, frequency_blocks=4) if name == "earth" else ADAPTERS["earth"]()
        adapt_encoder(make_encoder(), adapter=other, weights=str(tmp_path / "adapter.safetensors"))


@pytest.mark.parametrize("kind", ENCODERS)
def test_merged_lora_is_an_ordinary_encoder_with_the_same_outputs(kind):
    encoder = adapt_encoder(make_encoder(kind), adapter=LoRAAdapter(rank=3, alpha=6, targets=("attn.qkv", "attn.proj")))
    stir(encoder.adapter)
    expected = outputs(encoder, images())
    merged = merge_lora(encoder)
    torch.testing.assert_close(outputs(merged, images()), expected, rtol=1e-4, atol=1e-5)
    plain = make_encoder(kind)
    plain.load_state_dict(merged.state_dict())
    assert torch.equal(outputs(plain, images()), outputs(merged, images()))
    assert not torch.allclose(expected, outputs(make_encoder(kind), images()))


def test_lora_has_the_scale_alpha_over_rank():
    encoder = adapt_encoder(make_encoder(taps=(1,)), adapter=LoRAAdapter(rank=2, alpha=6, targets=("mlp.fc1",)))
    stir(encoder.adapter)
    update = encoder.adapter.updates["block1"]["mlp_fc1"]
    x = torch.randn(5, 24)
    linear = encoder.model.blocks[0].mlp.fc1
    expected = x @ (linear.weight + 3.0 * update.b @ update.a).T + linear.bias
    torch.testing.assert_close(linear(x), expected)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_copy_has_an_adapter_of_its_own(name):
    encoder = adapt_encoder(make_encoder(), adapter=ADAPTERS[name]())
    before = outputs(encoder, images())
    other = copy.deepcopy(encoder)
    stir(other.adapter)
    assert torch.equal(outputs(encoder, images()), before)
    assert not torch.allclose(outputs(other, images()), before)


def test_descriptors_reach_the_routers_through_an_adapter():
    torch.manual_seed(0)
    sparse = MoEEncoder(
        "vit_small_patch16_224", taps=(2,), model_args=dict(SIZES), image_size=16, descriptors=SARDescriptors(block=4)
    )
    encoder = adapt_encoder(sparse, adapter=EarthAdapter(rank=2, frequency_blocks=1))
    maps = encoder(images(), raw=100 * images().abs(), valid=torch.ones(2, 16, 24, dtype=torch.bool))
    assert maps["block2"].requires_grad
    assert encoder.train().auxiliary_losses() == {}, "a frozen router needs no balance"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarthAdapter(rank=0), "rank of Earth-Adapter is 0"),
        (lambda: EarthAdapter(cutoff=1.0), "cutoff of Earth-Adapter is 1.0 but must lie between 0 and 1"),
        (lambda: EarthAdapter(frequency_position="middle"), "'middle' but must be first or last"),
        (lambda: EarthAdapter(frequency_blocks=5), "is 5, but 4 blocks of the encoder run"),
        (lambda: ReinAdapter(num_tokens=1), "num_tokens is 1"),
        (lambda: LoRAAdapter(targets=()), "targets"),
        (
            lambda: LoRAAdapter(targets=("attn.q",)),
            "'attn.q', which is no linear layer of block 1; there are: attn.qkv",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        adapt_encoder(make_encoder(), adapter=make())


def test_a_second_adapter_and_merging_of_others_are_refused():
    encoder = adapt_encoder(make_encoder(), adapter=ADAPTERS["earth"]())
    with pytest.raises(UserError, match=r"already has an adapter \(EarthAdapter\)"):
        adapt_encoder(encoder, adapter=ADAPTERS["lora"]())
    with pytest.raises(UserError, match="adapter is a EarthAdapter"):
        merge_lora(encoder)
    with pytest.raises(UserError, match="adapter is none"):
        merge_lora(make_encoder())


def test_lora_notices_a_layer_that_is_read_without_being_called():
    torch.manual_seed(0)
    local = TimmEncoder(
        "vit_small_patch16_224", taps=(4,), model_args=dict(SIZES), image_size=16, local_last_block=True
    )
    with pytest.raises(UserError, match="cannot reach 'attn_qkv' of block 4: the block does not call that layer"):
        adapt_encoder(local, adapter=LoRAAdapter())(images())
