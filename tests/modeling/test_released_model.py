"""What the released model promises beyond its numbers: any size, batch and class count, absent modalities, options."""

from __future__ import annotations

import open_clip.factory
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from torch.nn import functional as F

from mmovseg.checkpoint.rules import ASIDE
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.config import get_config, instantiate
from mmovseg.data.vocabulary import ClassEntry, Vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.modeling.fusion import CostAggregationHead, DualEncoderFusionHead, build_head
from mmovseg.modeling.losses import pixel_binary_cross_entropy
from mmovseg.modeling.meta_arch import MMOVSeg
from mmovseg.modeling.yacs import add_mmovseg_config, mmovseg_arguments
from tests.modeling.released_parts import small_model

NAMES = vocabulary_from_names("city, road, forest, water, farmland")
HEAD = {"window": 3, "class_padding": 8}


def make_model(**changes):
    torch.manual_seed(0)
    model = small_model(**({"head": HEAD} | changes))
    for layer in model.head.layers:
        torch.nn.init.normal_(layer.classes.padding_token)
        torch.nn.init.normal_(layer.classes.padding_guidance)
    return model.eval()


def make_inputs(count=2, height=64, width=64, *, modality="both", vocabulary=NAMES):
    generator, items = torch.Generator().manual_seed(0), []
    for _ in range(count):
        image, sar = (torch.randint(0, 256, (3, height, width), generator=generator) for _ in range(2))
        label = torch.randint(0, len(vocabulary), (height, width), generator=generator)
        items.append({"image": image, "sar": sar.float(), "sem_seg": label, "vocabulary": vocabulary})
        for key in ("image", "sar"):
            if modality not in ("both", {"image": "optical", "sar": "sar"}[key]):
                del items[-1][key]
    return items


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.mark.parametrize("modality", ["both", "optical", "sar"])
@pytest.mark.parametrize("size", [(64, 64), (61, 75), (16, 96)])
def test_any_size_gives_probabilities_of_the_size_of_the_raster(model, modality, size):
    inputs = make_inputs(2, *size, modality=modality)
    inputs[0]["height"], inputs[0]["width"] = 30, 50
    with torch.no_grad():
        first, second = model(inputs)
    assert first["sem_seg"].shape == (5, 30, 50) and second["sem_seg"].shape == (5, *size)
    assert 0 <= second["sem_seg"].min() and second["sem_seg"].max() <= 1


def test_a_batch_gives_what_single_images_give(model):
    inputs = make_inputs(3)
    with torch.no_grad():
        together, apart = model(inputs), [model([item])[0] for item in inputs]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one["sem_seg"], other["sem_seg"], atol=1e-5, rtol=1e-5)


def test_scores_permute_with_the_class_names(model):
    order = [3, 0, 1, 4, 2]
    with torch.no_grad():
        plain = model(make_inputs(1))[0]["sem_seg"]
        permuted = model(make_inputs(1, vocabulary=NAMES.subset(order)))[0]["sem_seg"]
    torch.testing.assert_close(permuted, plain[order], atol=1e-5, rtol=1e-5)


def test_scores_of_a_class_depend_on_the_other_classes_asked(model):
    with torch.no_grad():
        plain = model(make_inputs(1))[0]["sem_seg"]
        alone = model(make_inputs(1, vocabulary=NAMES.subset([2])))[0]["sem_seg"]
    assert not torch.allclose(alone[0], plain[2], atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_class_chunks_change_nothing_but_memory(model, chunk):
    with torch.no_grad():
        whole = model.explain(make_inputs(2))
        model.head.class_chunk = chunk
        chunked = model.explain(make_inputs(2))
    model.head.class_chunk = None
    for one, other in zip(whole, chunked, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-5)


def test_more_classes_than_the_padding(model):
    names = vocabulary_from_names(", ".join(f"class {n}" for n in range(11)))
    with torch.no_grad():
        assert model(make_inputs(1, vocabulary=names))[0]["sem_seg"].shape == (11, 64, 64)


# ---------------------------------------------------------------- absent modality


def test_without_sar_only_the_optical_term_remains(model):
    with torch.no_grad():
        absent = model(make_inputs(1, modality="optical"))[0]["sem_seg"]
        both = model(make_inputs(1))[0]["sem_seg"]
        for layer in model.head.dense.projections["sar"].values():
            layer.weight.add_(7.0)
        assert torch.equal(model(make_inputs(1, modality="optical"))[0]["sem_seg"], absent)
        for layer in model.head.dense.projections["sar"].values():
            layer.weight.sub_(7.0)
        blind = make_inputs(1)
        blind[0]["sar"][:] = float("nan")
        torch.testing.assert_close(model(blind)[0]["sem_seg"], absent, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(absent, both, atol=1e-3)


def test_without_optical_the_dense_map_stands_in_for_clips(model):
    stages = model.explain(make_inputs(1, modality="sar"))[0]
    assert torch.equal(stages["global_similarity"], stages["dense_similarity"])
    with torch.no_grad():
        dense = {"sar": model.sar_encoder(model.sar_norm(make_inputs(1)[0]["sar"])[None])}
        fused = model.head.dense(dense, {})
        coarse = fused["block3"]
        # CLIP's share of the decoder guidance is zero, as where the ReLU of its convolution finds nothing.
        guidance = [
            torch.cat([torch.zeros_like(own), own], dim=1)
            for own in (F.relu(model.head.dense_guidance[n](fused[f"block{n + 1}"])) for n in range(2))
        ]
        logits = model.head.aggregate(model.clip.encode_vocabulary(NAMES), coarse, coarse, coarse, guidance)
    torch.testing.assert_close(stages["scores"], logits[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", ["optical", "sar"])
def test_single_modality_models_train_every_weight(modality):
    absent = {"sar_encoder": None, "sar_norm": None} if modality == "optical" else {"optical_encoder": None}
    model = make_model(modality=modality, **absent).train()
    assert list(model.head.dense.projections) == [modality]
    model(make_inputs(2, modality=modality))["loss_sem_seg"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_model_without_dense_encoders_uses_clip_alone():
    model = make_model(optical_encoder=None, sar_encoder=None, sar_norm=None, modality="optical")
    stages = model.explain(make_inputs(1))[0]
    assert torch.equal(stages["global_similarity"], stages["dense_similarity"])
    assert stages["scores"].shape == (5, 16, 16)


# ---------------------------------------------------------------- training


def test_training_reaches_every_trainable_weight():
    model = make_model().train()
    model(make_inputs(2))["loss_sem_seg"].backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert without == []


def slow_binary_loss(logits, target, ignored_pixels):
    total, count = 0.0, 0
    for n, r, c in torch.cartesian_prod(*(torch.arange(size) for size in target.shape)).tolist():
        if target[n, r, c] == 255 and ignored_pixels == "exclude":
            continue
        for k in range(logits.shape[1]):
            p = torch.sigmoid(logits[n, k, r, c].double())
            total -= torch.log(p if target[n, r, c] == k else 1 - p)
            count += 1
    return total / max(count, 1)


@pytest.mark.parametrize("ignored_pixels", ["exclude", "negative"])
def test_loss_equals_a_loop_over_pixels_and_classes(ignored_pixels):
    logits = torch.randn(2, 3, 4, 5)
    target = torch.randint(0, 3, (2, 4, 5))
    target[:, :2, :3] = 255
    loss = pixel_binary_cross_entropy(logits, target, ignored_pixels=ignored_pixels)
    assert loss.item() == pytest.approx(float(slow_binary_loss(logits, target, ignored_pixels)), abs=1e-6)


@pytest.mark.parametrize("ignored_pixels", ["exclude", "negative"])
def test_what_ignored_pixels_mean_to_the_head(ignored_pixels):
    head = make_model(head=HEAD | {"ignored_pixels": ignored_pixels}).head
    logits = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = head.loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    if ignored_pixels == "exclude":
        assert loss.item() == 0.0 and not logits.grad.any()
    else:  # every class is pushed down
        assert loss.item() == pytest.approx(0.6931, abs=1e-4) and (logits.grad > 0).all()


# ---------------------------------------------------------------- sizes


def test_scores_go_straight_to_the_raster_if_nothing_was_padded(model):
    inputs = make_inputs(1)
    inputs[0]["height"], inputs[0]["width"] = 50, 70
    with torch.no_grad():
        found = model(inputs)[0]["sem_seg"]
    probabilities = torch.sigmoid(model.explain(inputs)[0]["scores"])
    expected = F.interpolate(probabilities[None], size=(50, 70), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_padding_is_cut_off(model):
    inputs = make_inputs(1, 60, 52)
    with torch.no_grad():
        found = model(inputs)[0]["sem_seg"]
    probabilities = torch.sigmoid(model.explain(inputs)[0]["scores"])
    expected = F.interpolate(probabilities[None], size=(64, 64), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected[:, :60, :52], atol=1e-6, rtol=1e-6)


def test_padding_counts_as_data_but_marked_pixels_do_not(model):
    short = make_inputs(1, 60, 64)
    padded = make_inputs(1)
    for key, norm in (("image", model.clip_norm), ("sar", model.sar_norm)):
        x = torch.cat([short[0][key].float(), norm.mean.expand(3, 4, 64)], dim=1)  # the mean is 0 once normalised
        padded[0][key] = x
    found, expected = model.explain(short)[0]["scores"], model.explain(padded)[0]["scores"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    padded[0]["sar_valid"] = torch.ones(64, 64, dtype=torch.bool)
    padded[0]["sar_valid"][60:] = False
    assert not torch.allclose(model.explain(padded)[0]["scores"], expected, atol=1e-3)


def test_network_size_resizes_the_input_of_all_encoders():
    fixed, free = make_model(network_size=64), make_model()
    wide, square = make_inputs(1, 32, 96), make_inputs(1)
    for key, norm in (("image", fixed.clip_norm), ("sar", fixed.sar_norm)):
        x = F.interpolate(norm(wide[0][key])[None], size=(64, 64), mode="bilinear", align_corners=False)[0]
        square[0][key] = x * norm.std + norm.mean
    found, expected = fixed.explain(wide)[0], free.explain(square)[0]
    torch.testing.assert_close(found["scores"], expected["scores"], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert fixed(wide)[0]["sem_seg"].shape == (5, 32, 96)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(network_size=100), "network_size must be a multiple of 16, the coarsest stride, got 100"),
        (dict(pad_multiple=8), "pad_multiple must be a multiple of 16"),
        (dict(head={"name": "latest"}), "no head 'latest'; there are: paper, released"),
        (dict(head={"windows": 3}), "head 'released' got an unexpected keyword argument 'windows'"),
        (dict(head={"guidance_channels": (32, 2)}), "channels 16 leave nothing beside the guidance of 32"),
        (dict(head={"strides": (8, 8, 16)}), r"got strides \(8, 8, 16\)"),
        (dict(head={"ignored_pixels": "drop"}), "exclude or negative, got 'drop'"),
        (dict(init_projection_from_clip=True), "needs the head 'paper'"),
    ],
)
def test_bad_arguments_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        small_model(**changes)


# ---------------------------------------------------------------- words, names, counts


def test_only_the_first_word_of_a_class_is_asked_for():
    vocabulary = Vocabulary("v", (ClassEntry("forest, wood", synonyms=("grove",)), ClassEntry("city")))
    clip = make_model().clip
    texts = ["A photo of a forest in the scene", "A photo of a city in the scene"]
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_vocabulary(vocabulary), clip.encode_texts(texts), atol=1e-6, rtol=1e-5)


def test_the_head_is_chosen_by_name():
    unnamed = get_config("common/models/mmovseg_xs.py").model.head
    shapes = {f"block{n}": ShapeSpec(channels=4, stride=16) for n in (1, 2, 3)}
    clip_shapes = {name: shapes[name] for name in ("block1", "block2")}
    for options, kind in (
        (unnamed, DualEncoderFusionHead),
        ({**unnamed, "name": "paper"}, DualEncoderFusionHead),
        ({"name": "released"}, CostAggregationHead),
    ):
        head = build_head(
            options, shapes, clip_shapes, embed_dim=8, modalities=("optical", "sar"), use_clip_guidance=True
        )
        assert type(head) is kind


def test_yacs_builds_the_released_head():
    cfg = get_cfg()
    add_mmovseg_config(cfg)
    node = cfg.MODEL.MMOVSEG
    node.CLIP.NAME = ""
    node.CLIP.ARCHITECTURE.merge_from_other_cfg(type(node)(_CLIP))
    node.CLIP.TAPS, node.CLIP.WORDS, node.CLIP.TEMPLATES = [1, 2], "first", ["A photo of a {} in the scene"]
    for part in (node.OPTICAL, node.SAR):
        part.NAME, part.TAPS, part.IMAGE_SIZE, part.POSITION_RESIZE = "vit_small_patch8_224", [1, 2, 3], 56, "dino_v1"
        part.MODEL_ARGS = type(node)(dict(embed_dim=48, depth=3, num_heads=3))
    node.HEAD.NAME, node.NETWORK_SIZE, node.PAD_MULTIPLE = "released", 64, 32
    node.HEAD.OPTIONS = type(node)(dict(CHANNELS=48, WINDOW=3, IGNORED_PIXELS="exclude"))
    model = MMOVSeg(**mmovseg_arguments(cfg))
    assert isinstance(model.head, CostAggregationHead) and model.head.ignored_pixels == "exclude"
    assert model.head.layers[0].spatial.blocks[0].window == 3 and (model.network_size, model.multiple) == (64, 32)
    assert model.clip.words == "first"


_CLIP = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=64, patch_size=16, width=64, layers=3),
    text_cfg=dict(context_length=77, vocab_size=515, width=64, heads=2, layers=1),
)


# The release counts the same, but for 55,296 of ViT-L/14 that play no part there: of each of the two DINOv3 encoders
# the biases of the keys, which are multiplied by zero (24 x 1024), a mask token (1024) and a norm of pretraining
# (2 x 1024).
COUNTS = {
    "released_vitb16": (331_959_698, 31_170_449),
    "released_vitl14": (1_049_633_426 - 2 * (24 * 1024 + 1024 + 2 * 1024), 79_864_209),
}


@pytest.fixture(scope="module", params=list(COUNTS))
def full_size(request):
    """Name and model, without data."""
    config = get_config(f"common/models/{request.param}.py").model
    config.clip.weights = config.optical_encoder.weights = config.sar_encoder.weights = None
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        # open_clip moves a new model to its device, which tensors without data refuse.
        patch.setattr(open_clip.factory, "_set_model_device_and_precision", lambda *args, **kwargs: None)
        return request.param, instantiate(config)


def test_full_size_models_have_the_parameters_of_the_release(full_size):
    name, model = full_size
    counts = model.count_parameters()
    assert counts["total"] == COUNTS[name]
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name][0]
    if name == "released_vitb16":
        assert counts["clip"] == (149_620_737, 20_447_232)
        assert counts["optical_encoder"] == counts["sar_encoder"] == (85_807_872, 0)
        adapters = sum(p.numel() for part in (model.head.dense, model.head.clip_adapters) for p in part.parameters())
        assert counts["head"][0] - adapters == 4_036_369


def test_the_key_table_fills_every_tensor_of_the_full_size_models(full_size):
    name, model = full_size
    (table,) = SOURCES[name.replace("released", "mmovseg")]()
    filled = {key: tuple(shape) for key, shape in table.shapes("ours").items() if not key.startswith(ASIDE)}
    assert filled == {key: tuple(value.shape) for key, value in model.state_dict().items()}
