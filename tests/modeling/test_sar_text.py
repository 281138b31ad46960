"""A CLIP of SAR in MM-OVSeg: in the place of its own, and as a third similarity; both off unless asked for."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.checkpoint.load import load_weights, read_state
from mmovseg.checkpoint.save import save_weights
from mmovseg.config import LazyCall, find_config, get_config, instantiate
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.fusion.dual_encoder import SimilarityFusion
from mmovseg.modeling.meta_arch.sar_text import SARTextEncoder
from mmovseg.modeling.yacs import add_mmovseg_config
from tests.modeling.conftest import VOCABULARY, build_xs, make_inputs

OWN_SPACE = {  # another width, depth, patch and length of embedding than MM-OVSeg XS's CLIP
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16, "pool_type": "avg"},
    "text_cfg": {"context_length": 32, "vocab_size": 1024, "width": 32, "heads": 2, "layers": 1},
}
GREY = {"mean": (-12.0,) * 3, "std": (5.0,) * 3, "clip": (-25.0, 5.0)}
SEEN = VOCABULARY.seen_subset()


def sar_text_node(*, finetune="none", weights=None, **changes):
    clip = LazyCall(OpenCLIPEncoder)(
        architecture=OWN_SPACE, taps=(), dense="value_own", finetune=finetune, weights=weights
    )
    return LazyCall(SARTextEncoder)(
        **({"clip": clip, "norm": LazyCall(PixelNorm)(**GREY), "bands": (0, 0, 0)} | changes)
    )


def sar_clip_changes(**changes):
    """Let CLIP read VV as grey; the dense encoders go on as they are."""
    optical_norm = get_config("common/models/mmovseg_xs.py").optical_norm
    reads = {"clip_input": "sar", "clip_bands": (0, 0, 0), "clip_norm": LazyCall(PixelNorm)(**GREY)}
    return {**reads, "optical_norm": optical_norm, **changes}


def stir(model):
    """Give h_st a say, as training would."""
    for fusion in model.head.fusions:
        torch.nn.init.normal_(fusion.fuse_sar_text, std=0.2)


@pytest.fixture(scope="module")
def model():
    built = build_xs(sar_text=sar_text_node()).eval()
    stir(built)
    return built


@pytest.fixture(scope="module")
def reader():
    """CLIP reads SAR."""
    return build_xs(**sar_clip_changes()).eval()


def scores(model, inputs):
    with torch.no_grad():
        return model(inputs)[0]["sem_seg"]


# ------------------------------------------------------------------ the third similarity


def test_without_the_option_a_model_has_the_weights_of_the_shipped_one():
    shipped, _ = read_state("shipped://mmovseg_xs")
    assert set(build_xs().state_dict()) == set(shipped)


def test_with_the_option_a_checkpoint_goes_on_from_its_own_scores():
    plain, model = build_xs().eval(), build_xs(seed=1, sar_text=sar_text_node()).eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    added = [name for name in missing if not name.startswith("sar_text.")]
    assert added == [f"head.fusions.{level}.fuse_sar_text" for level in range(3)]
    for modality in ("both", "optical", "sar"):
        inputs = make_inputs(1, 40, 61, modality=modality)
        assert torch.equal(scores(model, inputs), scores(plain, inputs))
    before = scores(model, make_inputs(1))
    stir(model)
    assert not torch.allclose(scores(model, make_inputs(1)), before, atol=1e-4)


@torch.no_grad()
def test_the_similarity_is_that_of_its_own_towers(model):
    inputs = make_inputs(1)
    own = model.sar_text.clip
    grey = ((inputs[0]["sar"][:1].clamp(-25, 5) + 12) / 5).expand(3, -1, -1)
    z = F.normalize(own.encode_image(grey[None])["dense"], dim=1)
    names = own.encode_texts([f"a photo of {name}" for name in VOCABULARY.names])
    wanted = torch.einsum("ndhw,kd->nkhw", z, names)[0]
    found = model.explain(inputs)[0]
    assert found["sar_text_similarity"].shape == (7, 8, 8)
    plain_names = [index for index, entry in enumerate(VOCABULARY.classes) if not entry.synonyms]
    torch.testing.assert_close(found["sar_text_similarity"][plain_names], wanted[plain_names], atol=1e-5, rtol=1e-5)
    assert "sar_text_similarity" not in model.explain(make_inputs(1, modality="optical"))[0]


def test_the_fusion_is_the_convolution_of_three_maps():
    torch.manual_seed(0)
    fusion = SimilarityFusion(4, scale=3.0, sar_text=True)
    torch.nn.init.normal_(fusion.fuse_sar_text)
    maps = [torch.rand(2, 1, 9, 9) for _ in range(3)]
    dense, globally = (
        torch.sigmoid(conv(3.0 * x)) for conv, x in zip((fusion.embed_dense, fusion.embed_global), maps, strict=False)
    )
    weight = torch.cat([fusion.fuse.weight, 3.0 * fusion.fuse_sar_text], dim=1)
    joined = F.conv2d(torch.cat([dense, globally, maps[2]], dim=1), weight, fusion.fuse.bias, padding=3)
    torch.testing.assert_close(fusion(*maps), torch.sigmoid(joined) + globally, atol=1e-5, rtol=1e-5)


def test_where_sar_holds_no_data_the_global_similarity_speaks(model):
    blank, absent = make_inputs(1), make_inputs(1, modality="optical")
    blank[0]["sar"] = torch.full_like(blank[0]["sar"], float("nan"))
    torch.testing.assert_close(scores(model, blank), scores(model, absent), atol=1e-6, rtol=1e-6)

    maps = []
    hook = model.head.fusions[2].register_forward_pre_hook(lambda _, given: maps.append(given))
    half = make_inputs(1)
    half[0]["sar"][:, :, 32:] = float("nan")
    scores(model, half)
    hook.remove()
    _, whole, third = maps[0]
    assert torch.equal(third[..., 10:], whole[..., 10:])  # columns of 4 px; bilinear from cells of 8 px
    assert not torch.allclose(third[..., :7], whole[..., :7], atol=1e-3)


def test_classes_in_portions_and_items_in_a_batch_change_nothing(model):
    inputs = make_inputs(3)
    inputs[1]["sar"][:, :20] = float("nan")
    whole = [output["sem_seg"] for output in model(inputs)]
    model.head.class_chunk = 2
    try:
        for item, wanted in zip(inputs, whole, strict=True):
            torch.testing.assert_close(scores(model, [item]), wanted.detach(), atol=1e-4, rtol=1e-4)
    finally:
        model.head.class_chunk = None


def test_training_reaches_the_new_weights_and_leaves_the_clip():
    model = build_xs(sar_text=sar_text_node()).train()
    before = {name: p.detach().clone() for name, p in model.sar_text.named_parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    model(make_inputs(2, vocabulary=SEEN))["loss_sem_seg"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable)
    torch.optim.AdamW(trainable, lr=1e-3).step()
    assert all(torch.equal(p, before[name]) for name, p in model.sar_text.named_parameters())
    assert all(fusion.fuse_sar_text.abs().sum() > 0 for fusion in model.head.fusions)
    counts = model.count_parameters()
    assert counts["sar_text"] == (sum(p.numel() for p in model.sar_text.parameters()), 0)
    assert counts["total"][0] == sum(p.numel() for p in model.parameters())


def test_a_batch_without_sar_still_trains_every_weight():
    model = build_xs(sar_text=sar_text_node()).train()
    model(make_inputs(2, modality="optical", vocabulary=SEEN))["loss_sem_seg"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_its_clip_trains_if_told_to():
    model = build_xs(sar_text=sar_text_node(finetune="qv")).train()
    stir(model)
    model(make_inputs(1, vocabulary=SEEN))["loss_sem_seg"].backward()
    trained = {name for name, p in model.sar_text.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(".visual." in name for name in trained) and any(".visual." not in name for name in trained)


def test_stock_build_model_builds_the_same_model():
    cfg = get_cfg()
    add_mmovseg_config(cfg)
    cfg.merge_from_file(str(find_config("mmovseg/mmovseg_xs.yaml")))
    node = cfg.MODEL.MMOVSEG
    for key in ("ARCHITECTURE", "TAPS", "DENSE"):
        node.SAR_TEXT[key] = node.CLIP[key]
    node.SAR_TEXT.NORM.MEAN, node.SAR_TEXT.NORM.STD, node.SAR_TEXT.NORM.CLIP = [-12.0] * 3, [5.0] * 3, [-25.0, 5.0]
    node.CLIP.INPUT, node.CLIP.BANDS, node.CLIP.NORM = "sar", [0, 0, 0], node.SAR_TEXT.NORM
    clip = get_config("common/models/mmovseg_xs.py").clip
    clip.finetune = "none"
    torch.manual_seed(0)
    theirs = build_model(cfg).eval()
    ours = build_xs(seed=0, **sar_clip_changes(sar_text=sar_text_node(clip=clip))).eval()
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    for built in (theirs, ours):
        torch.manual_seed(1)
        stir(built)
    assert torch.equal(scores(theirs, make_inputs(1)), scores(ours, make_inputs(1)))


# ------------------------------------------------------------------ CLIP reads SAR


@torch.no_grad()
def test_clip_reads_the_sar_raster(reader):
    inputs = make_inputs(1)
    grey = ((inputs[0]["sar"][:1].clamp(-25, 5) + 12) / 5).expand(3, -1, -1)
    z = F.normalize(reader.clip.encode_image(grey[None])["dense"], dim=1)
    wanted = torch.einsum("ndhw,kd->nkhw", z, reader.clip.encode_vocabulary(VOCABULARY))[0]
    torch.testing.assert_close(reader.explain(inputs)[0]["global_similarity"], wanted, atol=1e-5, rtol=1e-5)
    blind = make_inputs(1)
    blind[0]["image"] = 255 - blind[0]["image"]
    torch.testing.assert_close(reader.explain(blind)[0]["global_similarity"], wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scores(reader, blind), scores(reader, inputs), atol=1e-3)  # the dense encoder reads it


@pytest.mark.parametrize("modality", ["both", "optical", "sar"])
def test_any_size_and_any_modality(reader, modality):
    inputs = make_inputs(1, 40, 61, modality=modality)
    found = scores(reader, inputs)
    assert found.shape == (7, 40, 61) and torch.isfinite(found).all()
    maps = reader.explain(inputs)[0]
    stands_in = torch.allclose(maps["global_similarity"], maps["dense_similarity"])
    assert stands_in == (modality == "optical")


def test_blank_sar_is_absent_sar(reader):
    blank, absent = make_inputs(1), make_inputs(1, modality="optical")
    blank[0]["sar"] = torch.full_like(blank[0]["sar"], float("nan"))
    torch.testing.assert_close(scores(reader, blank), scores(reader, absent), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("modality", ["both", "sar", "optical"])
def test_a_clip_of_sar_trains_where_it_sees(modality):
    changes = sar_clip_changes(modality=modality, **({"optical_encoder": None} if modality == "sar" else {}))
    model = build_xs(**changes).train()
    model(make_inputs(2, vocabulary=SEEN))["loss_sem_seg"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    sees = any(p.requires_grad for p in model.clip.model.visual.parameters())
    assert sees == (modality != "optical") == bool(len(model.head.clip_guidance))


def test_a_clip_of_sar_alone_needs_no_encoder():
    changes = {"optical_encoder": None, "sar_encoder": None, "sar_norm": None, "init_projection_from_clip": False}
    model = build_xs(**sar_clip_changes(modality="sar", **changes)).eval()
    assert scores(model, make_inputs(1, modality="sar")).shape == (7, 64, 64)
    with pytest.raises(UserError, match="modality 'sar' finds no 'sar' in the input 'made.tif'"):
        model(make_inputs(1, modality="optical"))


def test_the_head_of_the_release_takes_a_clip_of_sar():
    head = {"name": "released", "strides": (4, 2, 8)}
    model = build_xs(**sar_clip_changes(head=head, init_projection_from_clip=False)).eval()
    assert torch.isfinite(scores(model, make_inputs(1))).all()


# ------------------------------------------------------------------ weights and refusals


def write_clip(file, *, unit="db", bands=("VV", "VV", "VV")):
    """A CLIP below `model.`, as a training of image and text leaves it, with what it read."""
    torch.manual_seed(4)
    clip = OpenCLIPEncoder(architecture=OWN_SPACE)
    sar = ModalityContract(sensor="x", bands=bands, unit=unit, mean=(0.0,) * len(bands), std=(1.0,) * len(bands))
    save_weights(
        {f"model.{name}": value for name, value in clip.model.state_dict().items()},
        file,
        metadata={"input_contract": json.dumps(InputContract(optical=None, sar=sar).to_dict())},
    )
    return clip


def test_the_checkpoint_of_a_training_is_read_as_it_is(tmp_path):
    clip = write_clip(tmp_path / "run.safetensors")
    model = build_xs(sar_text=sar_text_node(weights=str(tmp_path / "run.safetensors")))
    wanted, found = clip.model.state_dict(), model.sar_text.clip.model.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"unit": "amplitude8"}, "sar_text: '.*' was trained on sar with the unit 'amplitude8', not 'db'"),
        ({"bands": ("VH", "VH", "VH")}, r"sar_text: '.*' was trained on sar with 1 bands \(VH\), not 1 \(VV\)"),
    ],
    ids=["unit", "bands"],
)
def test_a_clip_of_other_sar_is_refused(facts, words, tmp_path):
    write_clip(tmp_path / "run.safetensors", **facts)
    with pytest.raises(UserError, match=words):
        build_xs(sar_text=sar_text_node(weights=str(tmp_path / "run.safetensors")))


def test_a_clip_that_reads_sar_is_checked_too(tmp_path):
    write_clip(tmp_path / "run.safetensors", unit="linear")
    clip = get_config("common/models/mmovseg_xs.py").clip
    clip.architecture, clip.taps, clip.weights = OWN_SPACE, (1, 2), str(tmp_path / "run.safetensors")
    with pytest.raises(UserError, match="clip: '.*' was trained on sar with the unit 'linear', not 'db'"):
        build_xs(**sar_clip_changes(clip=clip))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip_input": "radar"}, "clip_input must be optical or sar, got 'radar'"),
        ({"clip_input": "sar"}, "clip_input 'sar' needs an optical_norm"),
        (sar_clip_changes(modality="optical", optical_encoder=None), "modality 'optical' needs an optical_encoder"),
        (
            sar_clip_changes(clip_sar_encoder=get_config("common/models/mmovseg_xs.py").sar_encoder),
            "clip_input 'sar' and a clip_sar_encoder exclude each other",
        ),
        (
            {"sar_text": sar_text_node(), "head": {"name": "released", "strides": (4, 2, 8)}},
            "sar_text needs the head 'paper'",
        ),
        ({"sar_text": sar_text_node(), "modality": "optical"}, "sar_text reads SAR, which modality 'optical' leaves"),
        ({"sar_text": sar_text_node(grid_stride=-4)}, "grid_stride must be a positive number of pixels, got -4"),
    ],
    ids=["unknown", "norm", "nothing to read", "two of SAR", "head", "modality", "stride"],
)
def test_what_cannot_work_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        build_xs(**changes)


def test_rasters_that_do_not_fit_are_refused(model, reader):
    inputs = make_inputs(1)
    inputs[0]["sar"] = inputs[0]["sar"][:, :32]
    for built in (model, reader, build_xs(sar_encoder=None, sar_norm=None, sar_text=sar_text_node()).eval()):
        with pytest.raises(UserError, match=r"optical and SAR differ in size in 'made.tif': \(64, 64\) against \(32,"):
            built(inputs)
    few = build_xs(sar_text=sar_text_node(bands=(0, 2, 2))).eval()
    with pytest.raises(UserError, match=r"'sar' of 'made.tif' has 2 channels, so the channels \(0, 2, 2\) cannot"):
        few(make_inputs(1))


def test_the_raster_is_resized_to_the_grid_of_a_stride():
    encoder = instantiate(sar_text_node(grid_stride=4))
    view = encoder.view(make_inputs(1), multiple=4)
    assert encoder(view, VOCABULARY, (64, 40)).z.shape == (1, 24, 16, 10)


def test_checkpoints_hold_both_clips(model, tmp_path):
    file = tmp_path / "model.safetensors"
    save_weights(model, file)
    again = build_xs(seed=9, sar_text=sar_text_node()).eval()
    load_weights(again, file)
    assert torch.equal(scores(again, make_inputs(1)), scores(model, make_inputs(1)))
    with pytest.raises(UserError, match="holds .* tensor"):
        load_weights(build_xs(), file)
