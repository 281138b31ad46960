"""Dense encoder, fusion blocks and losses against slow, obvious versions."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from mmovseg.config import get_config, instantiate
from mmovseg.errors import UserError
from mmovseg.layers.conv import GuidedDoubleConv, pad_to_multiple, stride_adapter
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.fusion import DenseFusion
from mmovseg.modeling.fusion.dual_encoder import SimilarityFusion
from mmovseg.modeling.losses import info_nce, patch_regression, pixel_cross_entropy


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224"])
@pytest.mark.parametrize("size", [(32, 32), (48, 64)])
def test_any_timm_vit_meets_its_output_shape(name, size):
    encoder = TimmEncoder(name, taps=(2, 5), in_chans=2, image_size=32)
    features = encoder(torch.randn(1, 2, *size))
    for key, shape in encoder.output_shape().items():
        assert features[key].shape == (1, shape.channels, size[0] // shape.stride, size[1] // shape.stride)
    assert list(features) == ["block2", "block5"]


def test_taps_are_normalised_block_outputs():
    encoder = TimmEncoder("vit_tiny_patch16_224", taps=(3,), image_size=32)
    x = torch.randn(1, 3, 32, 32)
    model = encoder.model
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    for block in model.blocks[:3]:
        tokens = block(tokens)
    expected = model.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, (2, 2))
    torch.testing.assert_close(encoder(x)["block3"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(name="vit_nonsense", taps=(1,)), "no model 'vit_nonsense'"),
        (dict(name="vit_tiny_patch16_224", taps=(4, 13)), "12 blocks"),
    ],
)
def test_bad_encoders_are_refused(kwargs, words):
    with pytest.raises(UserError, match=words):
        TimmEncoder(**kwargs)


def test_encoder_started_from_a_clip_tower_gives_clips_tokens(tmp_path):
    from mmovseg.checkpoint.save import save_weights

    config = get_config("common/models/mmovseg_xs.py")
    clip = instantiate(config.clip).eval()
    save_weights(clip.model, tmp_path / "clip.safetensors")
    config.optical_encoder.weights = f"clip:{tmp_path / 'clip.safetensors'}"
    encoder = instantiate(config.optical_encoder)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        tokens = encoder(x)[encoder.feature_names[-1]]
        text_space = torch.einsum("nchw,cd->ndhw", tokens, clip.model.visual.proj)
        torch.testing.assert_close(text_space, clip.encode_image(x)["dense"], atol=1e-4, rtol=1e-4)
    config.sar_encoder.weights = config.optical_encoder.weights
    sar = instantiate(config.sar_encoder)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():  # timm scales repeated filters, so that equal channels give the response to a grey image
        first = sar.model.patch_embed.proj(grey.expand(-1, 2, -1, -1)).mean().item()
        assert first == pytest.approx(encoder.model.patch_embed.proj(grey.expand(-1, 3, -1, -1)).mean().item(), abs=0.2)


@pytest.mark.parametrize(
    ("stride_in", "stride_out", "kind"), [(16, 8, nn.ConvTranspose2d), (16, 16, nn.Conv2d), (8, 16, nn.Conv2d)]
)
def test_stride_adapter_reaches_the_stride(stride_in, stride_out, kind):
    layer = stride_adapter(4, 6, stride_in=stride_in, stride_out=stride_out)
    assert isinstance(layer, kind)
    assert layer(torch.randn(1, 4, 96 // stride_in, 96 // stride_in)).shape == (
        1,
        6,
        96 // stride_out,
        96 // stride_out,
    )


def test_stride_adapter_refuses_odd_ratios():
    with pytest.raises(ValueError, match="neither divides"):
        stride_adapter(4, 6, stride_in=16, stride_out=12)


def test_dense_fusion_is_the_sum_and_masks_pixels_without_data():
    shapes = {"block2": ShapeSpec(channels=5, stride=8), "block4": ShapeSpec(channels=5, stride=8)}
    fusion = DenseFusion(shapes, out_channels=3, strides=(4, 8))
    features = {m: {name: torch.randn(1, 5, 4, 4) for name in shapes} for m in ("optical", "sar")}
    valid = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    valid[..., 16:] = False
    fused = fusion(features, {"optical": None, "sar": valid})
    sigma = fusion.projections["shared"]
    for name, stride in (("block2", 4), ("block4", 8)):
        both = sigma[name](features["optical"][name]) + sigma[name](features["sar"][name])
        alone = sigma[name](features["optical"][name])
        half = 16 // stride
        torch.testing.assert_close(fused[name][..., :half], both[..., :half])
        torch.testing.assert_close(fused[name][..., half:], alone[..., half:])


def test_projections_can_be_apart():
    shapes = {"block1": ShapeSpec(channels=5, stride=8)}
    shared = DenseFusion(shapes, out_channels=3, strides=(8,))
    apart = DenseFusion(shapes, out_channels=3, strides=(8,), share_projections=False)
    assert sum(p.numel() for p in apart.parameters()) == 2 * sum(p.numel() for p in shared.parameters())


def test_similarity_fusion_follows_the_formula():
    fusion = SimilarityFusion(4)
    dense, globally = torch.rand(2, 1, 9, 9), torch.rand(2, 1, 9, 9)
    h_dt, h_gt = torch.sigmoid(fusion.embed_dense(dense)), torch.sigmoid(fusion.embed_global(globally))
    expected = torch.sigmoid(fusion.fuse(torch.cat([h_dt, h_gt], dim=1))) + h_gt
    torch.testing.assert_close(fusion(dense, globally), expected)


@torch.no_grad()
def test_match_rises_with_the_cosines_whatever_the_signs_of_the_channels():
    fusion = SimilarityFusion(4)
    for layer in (fusion.embed_dense, fusion.embed_global):
        layer.weight[:3] = -layer.weight[:3].abs() - 0.01  # three of four channels fall with the match
        layer.weight[3:] = layer.weight[3:].abs() + 0.01
    cosines = torch.linspace(-0.9, 0.9, 5)[:, None, None, None].expand(-1, 1, 13, 13)
    fused = fusion(cosines, cosines)[..., 6, 6]
    assert (fused.mean(dim=1).diff() < 0).all()
    matches = fusion.match(fused[:, :, None, None])[:, 0, 0]
    assert (matches.diff() > 0).all()
    torch.testing.assert_close(fusion.match(fused.unflatten(0, (1, 5))[..., None, None])[0, :, 0, 0], matches)


def test_guided_double_conv_equals_concatenation_over_classes():
    block = GuidedDoubleConv(6, 5, 16)
    x, guidance = torch.randn(2 * 3, 6, 7, 9), torch.randn(2, 5, 7, 9)
    weight = torch.cat([block.conv1.weight, block.guidance.weight], dim=1)
    joined = torch.cat([x, guidance.repeat_interleave(3, dim=0)], dim=1)
    first = torch.relu(block.norm1(nn.functional.conv2d(joined, weight, padding=1)))
    expected = torch.relu(block.norm2(block.conv2(first)))
    torch.testing.assert_close(block(x, guidance, 3), expected, atol=1e-5, rtol=1e-5)


def test_pad_to_multiple():
    x = torch.ones(1, 2, 5, 8)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 2, 8, 8) and padded[..., 5:, :].sum() == 0
    assert pad_to_multiple(padded, 4) is padded


def test_pixel_norm_clips_in_raster_units_and_blanks_invalid_pixels():
    norm = PixelNorm(mean=(-10.0,), std=(5.0,), clip=(-30.0, 0.0))
    x = torch.tensor([[[-50.0, -10.0, 20.0]]])
    assert norm(x).flatten().tolist() == [-4.0, 0.0, 2.0]
    assert norm(x, torch.tensor([[False, True, True]])).flatten().tolist() == [0.0, 0.0, 2.0]


def test_info_nce_equals_a_slow_loop():
    student, teacher = torch.randn(7, 5), torch.randn(7, 5)
    loss, accuracy = info_nce(student, teacher, temperature=0.1)
    total, hits = 0.0, 0
    for i in range(7):
        cosines = [torch.cosine_similarity(student[i], teacher[j], dim=0) / 0.1 for j in range(7)]
        total += -(cosines[i] - torch.logsumexp(torch.stack(cosines), dim=0)).item()
        hits += int(torch.stack(cosines).argmax() == i)
    assert loss.item() == pytest.approx(total / 7, rel=1e-5)
    assert accuracy.item() == pytest.approx(hits / 7)


def test_info_nce_of_one_pair_is_zero_and_of_equal_pairs_is_log_n():
    one = torch.randn(1, 4)
    assert info_nce(one, one)[0].item() == pytest.approx(0.0, abs=1e-6)
    same = one.expand(8, 4)
    assert info_nce(same, same)[0].item() == pytest.approx(torch.log(torch.tensor(8.0)).item(), rel=1e-5)


def test_info_nce_sends_gradients_to_keys_unless_they_are_detached():
    queries, keys = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    info_nce(queries, keys.detach())[0].backward()
    assert queries.grad.abs().sum() > 0 and keys.grad is None
    info_nce(queries, keys)[0].backward()
    assert keys.grad.abs().sum() > 0


def test_patch_regression_is_between_unit_vectors_and_spares_the_teacher():
    student, teacher = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    squared = patch_regression(student, teacher, norm="mse")
    cosines = [torch.cosine_similarity(student[i], teacher[i], dim=0).item() for i in range(4)]
    assert squared.item() == pytest.approx(sum(2 - 2 * cosine for cosine in cosines) / 4, rel=1e-5)
    units = [vector / vector.norm() for vector in (student[0], teacher[0])]
    one = patch_regression(student[:1], teacher[:1], norm="l1")
    assert one.item() == pytest.approx((units[0] - units[1]).abs().sum().item(), rel=1e-5)
    squared.backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_cross_entropy_ignores_255_and_equals_a_loop():
    logits, target = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randint(0, 3, (2, 4, 4))
    target[0, 0] = 255
    loss = pixel_cross_entropy(logits, target)
    terms = [
        -torch.log_softmax(logits[n, :, i, j], dim=0)[target[n, i, j]].item()
        for n in range(2) for i in range(4) for j in range(4) if target[n, i, j] != 255
    ]  # fmt: skip
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    loss.backward()
    assert not logits.grad[0, :, 0].any() and logits.grad[0, :, 1].any()
