"""The Mask2Former head: published sizes, pyramid, initial weights, inference, and on stock Detectron2."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, build_model
from detectron2.utils.events import EventStorage
from torch import nn

from mmovseg.errors import UserError
from mmovseg.modeling.yacs import add_mmovseg_config
from mmovseg.projects.crossearth.modeling.linear_head import LinearHead
from mmovseg.projects.crossearth.modeling.mask2former import Mask2FormerHead, semantic_scores
from mmovseg.projects.crossearth.modeling.yacs import add_mask2former_config

NAMES = ("block1", "block2", "block3", "block4")
TINY = dict(dim=32, num_queries=8, pixel_layers=1, decoder_layers=2, num_heads=4, pixel_ffn_dim=16, decoder_ffn_dim=16)


def shapes(channels=12, stride=4, names=NAMES):
    return {name: ShapeSpec(channels=channels, stride=stride) for name in names}


def head(**settings):
    torch.manual_seed(0)
    return Mask2FormerHead(shapes(), **{"num_classes": 5, "num_points": 64, **TINY, **settings})


def features(height=8, width=8, count=2, channels=12, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, channels, height, width, generator=rng) for name in NAMES}


def published_parameters(channels, dim, queries, pixel_layers, layers, heads, pixel_ffn, ffn, classes):
    """Count by hand, from the paper's description."""
    linear = lambda a, b: a * b + b  # noqa: E731
    levels, points = 3, 4
    deformable = linear(dim, heads * levels * points * 2) + linear(dim, heads * levels * points) + 2 * linear(dim, dim)
    pixel_layer = deformable + 2 * 2 * dim + linear(dim, pixel_ffn) + linear(pixel_ffn, dim)
    projections = levels * (linear(channels, dim) + 2 * dim)
    lateral = channels * dim + 2 * dim + 9 * dim * dim + 2 * dim
    pixel = projections + levels * dim + pixel_layers * pixel_layer + lateral + linear(dim, dim)
    attention = 4 * linear(dim, dim)
    layer = 2 * attention + 3 * 2 * dim + linear(dim, ffn) + linear(ffn, dim)
    decoder = 2 * queries * dim + levels * dim + layers * layer + 2 * dim + 3 * linear(dim, dim)
    return pixel + decoder + linear(dim, classes + 1)


def test_size_over_vit_l_is_the_published_one():
    with torch.device("meta"):
        large = Mask2FormerHead(shapes(channels=1024, stride=16), num_classes=6)
    found = sum(p.numel() for p in large.parameters())
    assert found == published_parameters(1024, 256, 100, 6, 9, 8, 1024, 2048, 6)
    assert found == pytest.approx(20.56e6, rel=0.005)  # of a training log of Earth-Adapter


def test_a_transformer_of_one_stride_gives_a_pyramid_without_parameters():
    maps = head()._pyramid({name: torch.full((1, 12, 6, 10), float(i)) for i, name in enumerate(NAMES)})
    assert [tuple(x.shape[2:]) for x in maps] == [(24, 40), (12, 20), (6, 10), (3, 5)]
    assert [float(x.mean()) for x in maps] == [0.0, 1.0, 2.0, 3.0]
    given = features()
    assert torch.equal(head()._pyramid(given)[2], given["block3"])
    quarter = head()._pyramid(given)[3]
    assert torch.allclose(quarter, nn.functional.avg_pool2d(given["block4"], 2), atol=1e-6)
    assert [tuple(x.shape[2:]) for x in head()._pyramid(features(1, 3))] == [(4, 12), (2, 6), (1, 3), (1, 2)]


def test_a_pyramid_is_taken_as_it_is():
    strides = dict(zip(NAMES, (2, 4, 8, 16), strict=True))
    levels = {name: ShapeSpec(channels=12, stride=stride) for name, stride in strides.items()}
    part = Mask2FormerHead(levels, num_classes=3, scales=None, **TINY).eval()
    maps = {name: torch.randn(1, 12, 32 // stride, 64 // stride) for name, stride in strides.items()}
    assert all(torch.equal(one, maps[name]) for one, name in zip(part._pyramid(maps), NAMES, strict=True))
    with torch.no_grad():
        assert part(maps)[0].shape == (1, 3, 32, 64)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 2)])
def test_scores_are_of_every_pixel_of_the_image(size):
    with torch.no_grad():
        scores, losses = head().eval()(features(*size))
    assert losses == {} and scores.shape == (2, 5, 4 * size[0], 4 * size[1])
    assert scores.dtype == torch.float32 and scores.min() >= 0


def test_every_layer_and_the_bare_queries_are_supervised():
    answers = head(decoder_layers=3).decoder(head()._pyramid(features()))
    assert [tuple(classes.shape) for classes, _ in answers] == 4 * [(2, 8, 6)]
    assert [tuple(masks.shape) for _, masks in answers] == 4 * [(2, 8, 32, 32)]
    # the bare queries have not seen the image yet: their classes are those of any image
    assert torch.allclose(answers[0][0][0], answers[0][0][1]) and not torch.allclose(answers[1][0][0], answers[1][0][1])


def test_all_weights_learn():
    part = head().train()
    scores, losses = part(features(), torch.randint(0, 5, (2, 32, 32)))
    assert scores is None and set(losses) == {"loss_class", "loss_mask", "loss_dice"}
    sum(losses.values()).backward()
    assert [name for name, p in part.named_parameters() if p.grad is None] == []


def test_losses_start_where_an_undecided_head_has_them():
    """Published sizes: 10 outputs, each near 2 ln(K + 1) + 5 ln 2 + 5 Dice; about 100 in all before the first step."""
    torch.manual_seed(0)
    part = Mask2FormerHead(shapes(channels=48, stride=16), num_classes=6, num_points=1000).train()
    target = torch.randint(0, 6, (1, 4, 4)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    with torch.no_grad():
        losses = part({name: torch.randn(1, 48, 4, 4) for name in NAMES}, target)[1]
    assert losses["loss_class"].item() == pytest.approx(10 * 2 * math.log(7), rel=0.1)
    assert losses["loss_mask"].item() == pytest.approx(10 * 5 * math.log(2), rel=0.1)
    assert 10 * 5 * 0.5 < losses["loss_dice"].item() < 10 * 5
    assert 90 < sum(losses.values()).item() < 130


def test_initial_weights_are_those_of_the_library():
    part = Mask2FormerHead(shapes(), num_classes=5, dim=64, num_queries=400).decoder
    module = part.pixel_decoder.encoder.layers[0].self_attn
    offsets = module.sampling_offsets.bias.view(8, 3, 4, 2)
    assert torch.equal(module.sampling_offsets.weight, torch.zeros_like(module.sampling_offsets.weight))
    assert offsets[0, 0].tolist() == [[1, 0], [2, 0], [3, 0], [4, 0]]  # the first head looks to the right
    assert torch.allclose(offsets[1, 2, 3], torch.tensor([4.0, 4.0]))  # the second down and right
    assert part.transformer_module.queries_features.weight.std().item() == pytest.approx(1, rel=0.05)
    assert part.pixel_decoder.level_embed.abs().max() < 5  # not what lay in memory
    layer = part.transformer_module.decoder.layers[0]
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.1)  # Xavier


def test_a_pixel_scores_by_all_queries():
    """Against loops: p(class) without the last column, times the mask after it was brought to size."""
    classes, masks = torch.randn(2, 3, 5), torch.randn(2, 3, 4, 4)
    found = semantic_scores(classes, masks, (8, 8))
    large = nn.functional.interpolate(masks, size=(8, 8), mode="bilinear", align_corners=False)
    for image, y, x in ((0, 0, 0), (0, 3, 5), (1, 7, 2)):
        for k in range(4):
            expected = sum(
                float(classes[image, q].exp()[k] / classes[image, q].exp().sum())
                / (1 + math.exp(-float(large[image, q, y, x])))
                for q in range(3)
            )
            assert found[image, k, y, x].item() == pytest.approx(expected, rel=1e-4)


def test_an_image_is_scored_alike_alone_and_in_a_batch():
    part, given = head().eval(), features()
    with torch.no_grad():
        together = part(given)[0]
        alone = part({name: x[1:] for name, x in given.items()})[0]
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_the_head_learns_what_the_features_say():
    """Channels that are the labels: a few steps are enough to tell five classes apart."""
    torch.manual_seed(0)
    target = torch.randint(0, 5, (2, 2, 2)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    onehot = nn.functional.one_hot(target, 12).permute(0, 3, 1, 2).float()
    large = target.repeat_interleave(4, 1).repeat_interleave(4, 2)
    part = head(num_points=64).train()
    optimizer = torch.optim.AdamW(part.parameters(), 5e-3)
    for _ in range(25):
        loss = sum(part({name: onehot for name in NAMES}, large)[1].values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = part.eval()({name: onehot for name in NAMES})[0].argmax(1)
    assert (found == large).float().mean().item() > 0.85


@pytest.mark.parametrize("name", ["Mask2FormerHead", "LinearHead"])
def test_stock_detectron2_builds_and_trains_the_head(name):
    cfg = get_cfg()
    add_mmovseg_config(cfg)
    add_mask2former_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.BACKBONE.NAME = "build_timm_encoder"
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [127.0] * 3, [60.0] * 3
    node = cfg.MODEL.TIMM_ENCODER
    node.NAME, node.TAPS, node.IMAGE_SIZE, node.FREEZE = "vit_small_patch8_224", [1, 2, 3, 4], 32, False
    node.MODEL_ARGS.update(patch_size=4, embed_dim=16, depth=4, num_heads=2)
    cfg.MODEL.SEM_SEG_HEAD.NAME, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = name, 3
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = []
    for key, value in TINY.items():
        cfg.MODEL.SEM_SEG_HEAD.MASK2FORMER[key.upper()] = value
    model = build_model(cfg)
    assert type(model.sem_seg_head) is SEM_SEG_HEADS_REGISTRY.get(name)
    inputs = [
        {"image": torch.rand(3, *size) * 255, "sem_seg": torch.randint(0, 3, size), "height": 40, "width": 20}
        for size in ((32, 24), (24, 32))
    ]
    with EventStorage():
        sum(model.train()(inputs).values()).backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("backbone.model.norm"))
    with torch.no_grad():
        answers = model.eval()(inputs)
    assert [tuple(answer["sem_seg"].shape) for answer in answers] == [(3, 40, 20)] * 2


def test_the_linear_head_is_a_linear_function_of_normalised_features():
    torch.manual_seed(0)
    part = LinearHead(shapes(), num_classes=5, in_features=("block4", "block2"))
    given, target = features(), torch.randint(0, 5, (2, 32, 32))
    target[0, :9] = 255
    loss = part.train()(given, target)[1]["loss_sem_seg"]
    assert loss.item() == pytest.approx(math.log(5), abs=0.02)
    joined = torch.cat([given["block4"], given["block2"]], dim=1)
    normed = (joined - joined.mean((0, 2, 3), keepdim=True)) / (
        joined.var((0, 2, 3), keepdim=True, correction=0) + 1e-5
    ) ** 0.5
    logits = torch.einsum("kc,nchw->nkhw", part.classifier.weight[:, :, 0, 0], normed)
    large = nn.functional.interpolate(logits, size=(32, 32), mode="bilinear", align_corners=False)
    expected = nn.functional.cross_entropy(large, target, ignore_index=255)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    with torch.no_grad():
        assert part.eval()(given)[0].shape == (2, 5, 32, 32)
    assert LinearHead(shapes(), num_classes=5).in_features == ("block4",)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: head(in_features=("block1", "block9")), "wants the map 'block9'; the backbone has: block1"),
        (lambda: head(in_features=("block1", "block2")), "needs 4 maps, got 2"),
        (lambda: head(scales=(2, 1)), "needs 4 scales, got 2"),
        (lambda: head(scales=(4, 2, 2, 1)), "have the strides 1, 2, 2, 4"),
        (lambda: head(scales=None), "as they are have the strides 4, 4, 4, 4"),
        (lambda: head(dim=48), "dim must be a multiple of 32 and of num_heads 4, got 48"),
        (lambda: head(num_queries=0), "at least one query and one decoder layer, got num_queries 0"),
        (lambda: LinearHead(shapes(), num_classes=2, in_features=("p4",)), "wants the map 'p4'"),
        (
            lambda: LinearHead(
                {**shapes(names=("a",)), **shapes(names=("b",), stride=8)}, num_classes=2, in_features=("a", "b")
            ),
            "maps of one stride, got: 4, 8",
        ),
    ],
)
def test_bad_settings_are_named(call, words):
    with pytest.raises(UserError, match=words):
        call()
