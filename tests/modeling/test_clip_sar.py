"""CLIP's tower for SAR beside the other encoders (paper, appendix E): its sum with CLIP, holes, checkpoints."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from mmovseg.checkpoint.export import export_part
from mmovseg.checkpoint.load import load_weights
from mmovseg.checkpoint.save import save_weights
from mmovseg.config import LazyCall, find_config, get_config, instantiate
from mmovseg.engine.provenance import weights_metadata
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.yacs import add_mmovseg_config
from mmovseg.testing.checks import assert_same_state
from tests.modeling.conftest import VOCABULARY, build_xs, make_inputs


def clip_sar_node(**changes):
    """The config node of XS's CLIP tower for SAR: two channels, random weights."""
    node = get_config("common/models/mmovseg_xs.py").sar_encoder
    node.taps = (4,)
    for key, value in changes.items():
        node[key] = value
    return node


def build_with_clip_sar(**changes):
    return build_xs(**({"clip_sar_encoder": clip_sar_node()} | changes))


@pytest.fixture(scope="module")
def model():
    return build_with_clip_sar().eval()


def unit_similarity(model, z):
    """(K, h, w) cosines of an (1, D, h, w) map with the class names."""
    text = model.clip.encode_vocabulary(VOCABULARY)
    return torch.einsum("ndhw,kd->nkhw", F.normalize(z, dim=1), text)[0]


@torch.no_grad()
def test_the_tower_in_its_timm_form_gives_clips_dense_map(tmp_path):
    """CLIP's own weights in the branch, fed the optical image, give z_sar = z_rgb."""
    torch.manual_seed(3)
    clip_file = tmp_path / "clip.safetensors"
    save_weights(build_xs(seed=3).clip.model, clip_file)
    norm = get_config("common/models/mmovseg_xs.py").optical_norm
    tower = clip_sar_node(weights=f"clip:{clip_file}", in_chans=3)
    model = build_with_clip_sar(seed=3, clip_sar_encoder=tower, sar_encoder=None, sar_norm=norm).eval()
    inputs = make_inputs(1)
    image = inputs[0]["image"]
    z_rgb = model.clip.encode_image(model.clip_norm(image)[None])["dense"]
    inputs[0]["sar"] = image.float()
    _, _, sar = model._views(inputs)
    torch.testing.assert_close(model._encode_clip_sar(sar, (64, 64)), z_rgb, atol=1e-4, rtol=1e-4)
    of_both = model.explain(inputs)[0]["global_similarity"]
    del inputs[0]["sar"]
    torch.testing.assert_close(of_both, model.explain(inputs)[0]["global_similarity"], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_global_similarity_is_that_of_the_sum_before_normalisation(model):
    inputs = make_inputs(1)
    z_rgb = model.clip.encode_image(model.clip_norm(inputs[0]["image"])[None])["dense"]
    tokens = model.clip_sar_encoder(model.sar_norm(inputs[0]["sar"])[None])["block4"]
    z_sar = (tokens.permute(0, 2, 3, 1) @ model.clip.model.visual.proj).permute(0, 3, 1, 2)
    both, sar = model.explain(inputs)[0], model.explain(make_inputs(1, modality="sar"))[0]
    torch.testing.assert_close(both["global_similarity"], unit_similarity(model, z_rgb + z_sar), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sar["global_similarity"], unit_similarity(model, z_sar), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(sar["global_similarity"], sar["dense_similarity"], atol=1e-3)


@torch.no_grad()
def test_scores_depend_on_the_branch_and_without_sar_they_do_not(model):
    plain = build_xs().eval()
    plain.load_state_dict(
        {name: value for name, value in model.state_dict().items() if not name.startswith("clip_sar_encoder.")}
    )
    both, optical = make_inputs(2), make_inputs(2, modality="optical")
    assert not torch.allclose(model(both)[0]["sem_seg"], plain(both)[0]["sem_seg"], atol=1e-4)
    assert torch.equal(model(optical)[1]["sem_seg"], plain(optical)[1]["sem_seg"])


@torch.no_grad()
def test_pixels_without_data_add_nothing(model):
    inputs = make_inputs(1)
    inputs[0]["sar"] = torch.full_like(inputs[0]["sar"], float("nan"))
    blind, absent = model.explain(inputs)[0], model.explain(make_inputs(1, modality="optical"))[0]
    torch.testing.assert_close(blind["global_similarity"], absent["global_similarity"], atol=1e-6, rtol=1e-6)
    half = make_inputs(1)
    half[0]["sar"][:, :, 32:] = float("nan")
    of_half, right = model.explain(half)[0]["global_similarity"], absent["global_similarity"]
    torch.testing.assert_close(of_half[..., 8:], right[..., 8:], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(of_half[..., :8], right[..., :8], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("modality", ["both", "optical", "sar"])
def test_any_size_and_any_modality(model, modality):
    inputs = make_inputs(2, 40, 61, modality=modality)
    scores = model(inputs)[1]["sem_seg"]
    assert scores.shape == (7, 40, 61) and torch.isfinite(scores).all()


def test_only_the_branch_of_sar_is_needed():
    """SAR through CLIP's tower alone: the counterpart of the baseline that reads optical images with CLIP alone."""
    changes = {"optical_encoder": None, "sar_encoder": None, "init_projection_from_clip": False, "modality": "sar"}
    model = build_with_clip_sar(**changes).train()
    model(make_inputs(2, modality="sar", vocabulary=VOCABULARY.seen_subset()))["loss_sem_seg"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert set(model.count_parameters()) == {"clip", "clip_sar_encoder", "head", "total"}


def test_training_reaches_every_trainable_weight_and_leaves_the_branch():
    model = build_with_clip_sar().train()
    before = {name: p.detach().clone() for name, p in model.clip_sar_encoder.named_parameters()}
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    model(make_inputs(2, vocabulary=VOCABULARY.seen_subset()))["loss_sem_seg"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable)
    optimizer.step()
    assert not model.clip_sar_encoder.training
    assert all(torch.equal(p, before[name]) for name, p in model.clip_sar_encoder.named_parameters())


def test_a_trainable_branch_learns():
    model = build_with_clip_sar(clip_sar_encoder=clip_sar_node(freeze=False)).train()
    model(make_inputs(2, vocabulary=VOCABULARY.seen_subset()))["loss_sem_seg"].backward()
    silent = [name for name, p in model.clip_sar_encoder.named_parameters() if p.grad is None]
    assert silent == []


def test_parameter_counts_name_the_branch(model):
    counts = model.count_parameters()
    size = sum(p.numel() for p in model.clip_sar_encoder.parameters())
    assert counts["clip_sar_encoder"] == (size, 0)
    assert counts["total"][0] == sum(p.numel() for p in model.parameters())


def test_checkpoints_hold_the_branch(model, tmp_path):
    file = tmp_path / "model.safetensors"
    save_weights(model, file)
    again = build_with_clip_sar(seed=9).eval()
    load_weights(again, file)
    inputs = make_inputs(1)
    with torch.no_grad():
        assert torch.equal(model(inputs)[0]["sem_seg"], again(inputs)[0]["sem_seg"])
    with pytest.raises(UserError, match="holds .* clip_sar_encoder.model"):
        load_weights(build_xs(), file)
    save_weights(build_xs(), file)
    with pytest.raises(UserError, match="lacks .* clip_sar_encoder.model"):
        load_weights(again, file)


def test_stock_build_model_builds_the_same_model():
    cfg = get_cfg()
    add_mmovseg_config(cfg)
    cfg.merge_from_file(str(find_config("mmovseg/mmovseg_xs.yaml")))
    node = cfg.MODEL.MMOVSEG
    node.CLIP_SAR = node.SAR.clone()
    del node.CLIP_SAR["NORM"]
    node.CLIP_SAR.TAPS = [4]
    torch.manual_seed(0)
    theirs, ours = build_model(cfg).state_dict(), build_with_clip_sar(seed=0).state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": {"name": "released", "strides": (4, 2, 8)}, "init_projection_from_clip": False}, "head 'paper'"),
        ({"clip_sar_encoder": clip_sar_node(taps=(1, 3))}, r"must tap its last block, 4; it taps \(1, 3\)"),
        (
            {"clip_sar_encoder": clip_sar_node(model_args=dict(patch_size=8, embed_dim=32, depth=4, num_heads=2))},
            r"patch size and width of CLIP's tower, \(4, 64\), got \(8, 32\)",
        ),
        ({"sar_encoder": None, "sar_norm": None}, "only one of them"),
    ],
    ids=["head", "taps", "shape", "norm"],
)
def test_a_branch_that_does_not_fit_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        build_with_clip_sar(**changes)


@torch.no_grad()
def test_a_coarser_grid_than_clips_patches_is_met():
    """As ViT-L/14: SAR is resized as the optical image is, so that both maps have one grid."""
    norm = LazyCall(PixelNorm)(mean=(-12.0, -18.0), std=(5.0, 5.0))
    head = {"strides": (8, 4, 8), "channels": (8, 8, 8), "guidance_channels": (8, 8)}
    model = build_with_clip_sar(clip_grid_stride=8, head=head, sar_norm=norm).eval()
    inputs = make_inputs(1, modality="sar")
    assert model.explain(inputs)[0]["global_similarity"].shape == (7, 8, 8)
    assert model(make_inputs(1))[0]["sem_seg"].shape == (7, 64, 64)


@pytest.mark.parametrize("role", ["sar_encoder", "clip_sar_encoder"])
def test_a_student_of_other_sar_is_refused(role, tmp_path):
    """The way of an encoder: aligned, exported with its contract, given by path."""
    config = get_config("miniearth/sar_xs.py").model
    config.teacher.weights = config.student.weights = None
    aligner = instantiate(config)
    facts = weights_metadata(model=aligner, config_sha256="", config_file="sar_xs.py", seed=0)
    save_weights(aligner, tmp_path / "run.safetensors", metadata=facts)
    export_part(tmp_path / "run.safetensors", tmp_path / "sar.safetensors", part="student.model")
    changes = {role: clip_sar_node(taps=(1, 3, 4), weights=str(tmp_path / "sar.safetensors"))}
    encoder = getattr(build_with_clip_sar(**changes), role)
    assert_same_state(encoder, aligner.student)
    contract = get_config("common/models/mmovseg_xs.py").input_contract
    contract.sar.unit = "linear"
    with pytest.raises(
        UserError, match=f"{role}: '.*sar.safetensors' was trained on sar with the unit 'db', not 'linear'"
    ):
        build_with_clip_sar(**changes, input_contract=contract)


@pytest.mark.slow
@torch.no_grad()
def test_the_tower_of_full_size_gives_clips_dense_map(tmp_path):
    """The timm model that `cmu_clip_vitb16.py` names is CLIP ViT-B/16 of OpenAI's shape."""
    torch.manual_seed(0)
    clip = OpenCLIPEncoder("ViT-B-16-quickgelu", dense="value_own").eval()
    save_weights(clip.model, tmp_path / "clip.safetensors")
    node = get_config("projects/CMU/configs/mmovseg_ddhr_sk_vitb16_clip_sar.py").model.clip_sar_encoder
    node.weights = f"clip:{tmp_path / 'clip.safetensors'}"
    tower = instantiate(node)
    for size, least in (((224, 224), 1 - 1e-5), ((256, 320), 0.998)):  # timm resamples positions a little differently
        x = torch.randn(1, 3, *size)
        z = torch.einsum("nchw,cd->ndhw", tower(x)["block12"], clip.model.visual.proj)
        assert F.cosine_similarity(z, clip.encode_image(x)["dense"], dim=1).min() > least
