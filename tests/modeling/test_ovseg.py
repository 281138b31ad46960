"""MM-OVSeg keeps its contract: shapes, absent modalities, permutation of names, gradients, bad input."""

from __future__ import annotations

import pytest
import torch

from mmovseg.config import LazyCall, get_config
from mmovseg.data.vocabulary import get_vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.clip import trainable_elements
from tests.modeling.conftest import VOCABULARY, build_xs, make_inputs


def attentions(model):
    """The attention layers of CLIP's two towers."""
    return [module for module in model.clip.modules() if isinstance(module, torch.nn.MultiheadAttention)]


@pytest.mark.parametrize("modality", ["both", "optical", "sar"])
@pytest.mark.parametrize("size", [(64, 64), (61, 75), (40, 96)])
def test_scores_have_the_size_of_the_raster(model, modality, size):
    inputs = make_inputs(2, *size, modality=modality)
    inputs[0]["height"], inputs[0]["width"] = 30, 50
    with torch.no_grad():
        first, second = model(inputs)
    assert first["sem_seg"].shape == (7, 30, 50)
    assert second["sem_seg"].shape == (7, *size)
    assert torch.isfinite(second["sem_seg"]).all()


def test_a_batch_gives_what_single_images_give(model):
    inputs = make_inputs(3)
    with torch.no_grad():
        together = model(inputs)
        apart = [model([item])[0] for item in inputs]
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one["sem_seg"], other["sem_seg"], atol=1e-5, rtol=1e-5)


def test_scores_permute_with_the_class_names(model):
    order = [3, 0, 6, 1, 5, 2, 4]
    with torch.no_grad():
        plain = model(make_inputs(1))[0]["sem_seg"]
        permuted = model(make_inputs(1, vocabulary=VOCABULARY.subset(order)))[0]["sem_seg"]
    torch.testing.assert_close(permuted, plain[order], atol=1e-5, rtol=1e-5)


def test_scores_of_a_class_do_not_depend_on_the_other_classes_asked(model):
    with torch.no_grad():
        plain = model(make_inputs(1))[0]["sem_seg"]
        alone = model(make_inputs(1, vocabulary=vocabulary_from_names("water")))[0]["sem_seg"]
    torch.testing.assert_close(alone[0], plain[VOCABULARY.find("water")], atol=1e-5, rtol=1e-5)


def test_class_chunks_change_nothing_but_memory(model):
    with torch.no_grad():
        whole = model(make_inputs(1))[0]["sem_seg"]
        model.head.class_chunk = 2
        chunked = model(make_inputs(1))[0]["sem_seg"]
    model.head.class_chunk = None
    torch.testing.assert_close(whole, chunked, atol=1e-5, rtol=1e-5)


def test_modality_switch_equals_absent_keys(model):
    with torch.no_grad():
        absent = model(make_inputs(1, modality="optical"))[0]["sem_seg"]
        model.modality = "optical"
        switched = model(make_inputs(1))[0]["sem_seg"]
        model.modality = "both"
        both = model(make_inputs(1))[0]["sem_seg"]
    assert torch.equal(absent, switched)
    assert not torch.allclose(absent, both)


def test_an_invalid_sar_pixel_has_no_influence(model):
    inputs = make_inputs(1)
    inputs[0]["sar_valid"] = torch.ones(64, 64, dtype=torch.bool)
    inputs[0]["sar_valid"][:, 32:] = False
    with torch.no_grad():
        one = model(inputs)[0]["sem_seg"]
        inputs[0]["sar"][:, :, 32:] = float("nan")
        other = model(inputs)[0]["sem_seg"]
    assert torch.equal(one, other)
    assert torch.isfinite(one).all()


def test_sar_without_any_data_equals_absent_sar(model):
    inputs = make_inputs(1)
    inputs[0]["sar"] = torch.full_like(inputs[0]["sar"], float("nan"))
    with torch.no_grad():
        blind = model(inputs)[0]["sem_seg"]
        absent = model(make_inputs(1, modality="optical"))[0]["sem_seg"]
    torch.testing.assert_close(blind, absent, atol=1e-5, rtol=1e-5)


def test_training_reaches_every_trainable_weight_and_leaves_frozen_ones():
    model = build_xs().train()
    seen = get_vocabulary("miniearth").seen_subset()
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    model(make_inputs(2, vocabulary=seen))["loss_sem_seg"].backward()
    without = [
        name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum())
    ]
    assert without == []
    keys = {
        name: p[p.frozen_rows].detach().clone() for name, p in model.named_parameters() if hasattr(p, "frozen_rows")
    }
    optimizer.step()
    assert len(keys) == len(attentions(model))
    for name, p in model.named_parameters():
        if name in frozen:
            assert torch.equal(p, frozen[name]), name
        if name in keys:
            assert torch.equal(p[p.frozen_rows], keys[name]), name


def test_ignored_pixels_have_no_gradient_and_an_empty_label_gives_zero():
    model = build_xs().train()
    inputs = make_inputs(1, vocabulary=VOCABULARY.seen_subset())
    inputs[0]["sem_seg"][:] = 255
    loss = model(inputs)["loss_sem_seg"]
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_frozen_encoders_stay_in_eval_mode():
    model = build_xs().train()
    assert model.training and not model.optical_encoder.training and not model.sar_encoder.training


@pytest.mark.parametrize("modality", ["optical", "sar"])
def test_single_modality_models_train(modality):
    changes = {"modality": modality}
    changes |= {"sar_encoder": None, "sar_norm": None} if modality == "optical" else {"optical_encoder": None}
    model = build_xs(**changes).train()
    loss = model(make_inputs(2, modality=modality, vocabulary=VOCABULARY.seen_subset()))["loss_sem_seg"]
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_model_without_dense_encoders_uses_clip_alone():
    changes = dict(
        optical_encoder=None, sar_encoder=None, sar_norm=None, modality="optical", init_projection_from_clip=False
    )
    model = build_xs(**changes).eval()
    with torch.no_grad():
        assert model(make_inputs(1))[0]["sem_seg"].shape == (7, 64, 64)
    assert set(model.count_parameters()) == {"clip", "head", "total"}


def test_explain_gives_the_stages_of_each_class(model):
    stages = model.explain(make_inputs(2))
    assert len(stages) == 2
    strides = model.head.strides
    expected = {"global_similarity": model.clip.patch_size, "dense_similarity": strides[-1], "fused": strides[-1]}
    expected["scores"] = min(strides)
    assert {name: tuple(value.shape) for name, value in stages[0].items()} == {
        name: (7, 64 // stride, 64 // stride) for name, stride in expected.items()
    }
    assert stages[0]["global_similarity"].abs().max() <= 1.0 + 1e-5


def test_parameter_counts(model):
    counts = model.count_parameters()
    parts = [value for name, value in counts.items() if name != "total"]
    assert counts["total"] == (sum(a for a, _ in parts), sum(b for _, b in parts))
    assert counts["total"][0] == sum(p.numel() for p in model.parameters())
    assert counts["optical_encoder"][1] == counts["sar_encoder"][1] == 0
    # the q and v weights of all blocks
    assert counts["clip"][1] == sum(2 * attention.embed_dim**2 for attention in attentions(model)) > 0
    assert sum(trainable_elements(p) for p in model.parameters()) == counts["total"][1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda items: items[0].pop("vocabulary"), "class names"),
        (lambda items: _drop_all(items), "neither"),
        (lambda items: items[0].update(vocabulary=VOCABULARY.seen_subset()), "different vocabularies"),
    ],
)
def test_bad_batches_are_refused_in_one_sentence(model, spoil, words):
    items = make_inputs(2)
    spoil(items)
    with pytest.raises(UserError, match=words):
        model(items)


def _drop_all(items):
    for item in items:
        del item["sar"], item["image"]


def six_band_model():
    """Reads two dates; CLIP reads the second one."""
    config = get_config("common/models/mmovseg_xs.py")
    encoder = config.optical_encoder
    encoder.in_chans = 6
    norm = LazyCall(PixelNorm)(mean=(110.0,) * 6, std=(40.0,) * 6)
    return build_xs(optical_encoder=encoder, optical_norm=norm, clip_bands=(3, 4, 5)).eval()


def test_clip_reads_its_bands_and_the_dense_encoder_all():
    model = six_band_model()
    inputs = make_inputs(1)
    after = inputs[0]["image"]
    inputs[0]["image"] = torch.cat([after.flip(1), after])
    found = model.explain(inputs)[0]
    three = model.clip.encode_image(model.clip_norm(after)[None])["dense"]
    text = model.clip.encode_vocabulary(VOCABULARY)
    expected = torch.einsum("ndhw,kd->nkhw", torch.nn.functional.normalize(three, dim=1), text)[0]
    torch.testing.assert_close(found["global_similarity"], expected, atol=1e-5, rtol=1e-5)
    inputs[0]["image"] = torch.cat([after, after])
    other = model.explain(inputs)[0]
    assert torch.equal(other["global_similarity"], found["global_similarity"])
    assert not torch.allclose(other["dense_similarity"], found["dense_similarity"], atol=1e-3)


def test_clip_bands_that_an_image_does_not_have_are_refused():
    with pytest.raises(UserError, match=r"'image' of 'made.tif' has 3 channels, so the channels \(3, 4, 5\)"):
        six_band_model()(make_inputs(1))
    with pytest.raises(UserError, match="needs an optical_norm"):
        build_xs(clip_bands=(0, 1, 2))


def test_sizes_of_the_modalities_must_agree(model):
    items = make_inputs(1)
    items[0]["sar"] = items[0]["sar"][:, :32]
    with pytest.raises(UserError, match="differ in size"):
        model(items)


def test_unknown_modality_is_refused():
    with pytest.raises(UserError, match="got 'radar'"):
        build_xs(modality="radar")


def test_sar_with_other_bands_than_the_model_is_refused(model):
    items = make_inputs(1)
    items[0]["sar"] = items[0]["sar"][:1]
    with pytest.raises(ValueError, match="expected 2 channels, got 1"):
        model(items)
