"""The pretrainer: masks, mask tokens, what is silent without pairs, variants, evaluation, pictures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmovseg.config import get_config, instantiate
from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling import pretrainer
from mmovseg.projects.codemae.modeling.masked_timm import MaskedViT
from mmovseg.projects.codemae.modeling.masking import draw_visible, masked_units
from mmovseg.projects.codemae.modeling.pyramid import Pyramid
from tests.projects.codemae.tiny_pretrainer import (
    SIDE,
    losses_and_gradients,
    make_encoder,
    make_pairs,
    make_pretrainer,
    total,
)

NAMES = {"loss_mae", "loss_okd", "loss_okd_aux", "loss_ccl", "loss_cdr"}


def plain_vit():
    vit = {"patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2}
    return MaskedViT(name="vit_base_patch16_224", model_args=vit, in_chans={"optical": 3, "sar": 2}, image_size=SIDE)


@pytest.fixture
def same_masks(monkeypatch):
    """Every forward draws the same units."""
    masks = draw_visible(8, 16, 0.75)
    monkeypatch.setattr(pretrainer, "draw_visible", lambda rows, units, ratio: masks[:rows])
    return masks


def step(inputs=None, **options):
    return losses_and_gradients(make_pretrainer(**options).train(), inputs or make_pairs())


def test_the_large_model_has_the_tensors_of_the_released_one():
    config = get_config("projects/CoDeMAE/configs/codemae_b.py").model
    with torch.device("meta"):
        model = instantiate({**config, "optical_norm": None, "sar_norm": None, "input_contract": None})
    state = model.state_dict()
    assert len(state) == 646 and sum(tensor.numel() for tensor in state.values()) == 142_262_432
    assert model.middle_block == 26
    one = {k: v for k, v in state.items() if k.startswith("encoder.") and not k.startswith("encoder.embed.sar")}
    assert len(one) == 375 and sum(tensor.numel() for tensor in one.values()) == 81_552_000


@pytest.mark.parametrize(("name", "last", "middle"), [("b", 31, 26), ("l", 45, 36), ("xs", 7, 7), ("vit_xs", 5, 4)])
def test_shipped_models_build_and_decay_what_the_release_decays(name, last, middle):
    config = get_config(f"projects/CoDeMAE/configs/codemae_{name}.py")
    with torch.device("meta"):
        model = instantiate({**config.model, "optical_norm": None, "sar_norm": None, "input_contract": None})
    assert (model.main_blocks[-1], model.middle_block) == (last, middle)
    config.optimizer.model = model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays = {
        names[id(p)]: group["weight_decay"]
        for group in instantiate(config.optimizer).param_groups
        for p in group["params"]
    }
    assert set(decays) == set(names.values())
    assert all((decays[name] > 0) == (parameter.ndim > 1) for name, parameter in model.named_parameters())
    assert decays["decoder.mask_token"] == decays["encoder.positions"] == 0.05 and decays["decoder.pred.bias"] == 0


def test_units_are_drawn_uniformly_once_for_both_images_of_a_pair(monkeypatch):
    torch.manual_seed(0)
    keep = draw_visible(4000, 196, 0.75)
    assert keep.shape == (4000, 49) and all(len(set(row.tolist())) == 49 for row in keep[:20])
    share = 1 - masked_units(keep, 196).float().mean(dim=0)
    assert (share - 0.25).abs().max() < 0.04
    model, seen = make_pretrainer().train(), {}
    monkeypatch.setattr(model.encoder, "encode", _watch(model.encoder.encode, seen))
    monkeypatch.setattr(model.reconstruction, "forward", _watch(model.reconstruction.forward, seen, "masked"))
    model(make_pairs())
    assert seen["keep"].shape == (8, 4) and torch.equal(seen["keep"][:4], seen["keep"][4:])
    assert seen["masked"].sum(dim=1).tolist() == [12] * 4
    assert not seen["masked"].gather(1, seen["keep"][:4]).any()


def _watch(function, seen, name=None):
    def watched(*args, **kwargs):
        seen.update({name: args[2]} if name else {"keep": kwargs["keep"]})
        return function(*args, **kwargs)

    return watched


def test_masked_units_enter_the_decoder_as_three_mask_tokens_and_a_position():
    model = make_pretrainer()
    tokens, keep = torch.randn(2, 3, 32), torch.tensor([[5, 0, 9], [15, 2, 3]])
    x = model.decoder.arrange(tokens, keep, model.decoder_positions)
    for row in range(2):
        for unit in range(16):
            place = (keep[row] == unit).nonzero()
            own = tokens[row, place[0, 0]] if len(place) else 3 * model.decoder.mask_token[0, 0]
            torch.testing.assert_close(x[row, unit], own + model.decoder_positions[0, unit])
    assert make_pretrainer(encoder=plain_vit()).decoder.num_levels == 1


def test_levels_are_fused_with_their_sub_tokens_side_by_side():
    fuse = make_pretrainer().fuse
    levels = [torch.randn(2, 3, sub_tokens, 8) for sub_tokens in (1, 4, 16)]
    found = fuse.fuse(levels)
    for row in range(2):
        for unit in range(3):
            parts = [
                torch.cat([part.proj(part.norm(token)) for token in level[row, unit]])  # row-major, channels within
                for part, level in zip((fuse["16"], fuse["8"], fuse["4"]), levels, strict=True)
            ]
            torch.testing.assert_close(found[row, unit], sum(parts))


def test_fresh_parts_start_as_in_the_release():
    model = make_pretrainer()
    for part in (model.fuse, model.decoder, model.cross, model.distillation, model.contrast):
        layers = [module for module in part.modules() if isinstance(module, torch.nn.Linear)]
        weights = torch.cat([layer.weight.flatten() for layer in layers])
        assert weights.std().item() == pytest.approx(0.02, rel=0.05)
        assert not any(layer.bias.any() for layer in layers)
    tokens = torch.cat([model.decoder.mask_token, model.cross.mask_token])
    assert 0.01 < tokens.std() < 0.03


def test_pixels_of_masked_units_reach_nothing_but_targets(same_masks):
    model, inputs = make_pretrainer(plain=True).train(), make_pairs(2)
    views = model.views(inputs)
    images = {sensor: view.x for sensor, view in views.items()}
    keep = same_masks[:2]
    first = model.fuse_levels(model.encode(images, keep, with_middle=False))
    hidden = masked_units(keep, 16).unflatten(1, (4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    changed = {sensor: torch.where(hidden, x + 3.0, x) for sensor, x in images.items()}
    assert torch.equal(model.fuse_levels(model.encode(changed, keep, with_middle=False)), first)


def test_every_weight_learns_and_all_losses_are_there():
    losses, gradients = step()
    assert set(losses) == NAMES | {"paired_share"} and losses["paired_share"] == 1
    silent = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    assert silent == []


def test_all_losses_fall_in_training():
    torch.manual_seed(0)
    model, inputs, seen = make_pretrainer().train(), make_pairs(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(30):
        losses = model(inputs)
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        seen.append({name: float(loss.detach()) for name, loss in losses.items()})
    for name in NAMES:
        assert sum(step[name] for step in seen[-5:]) < 0.97 * sum(step[name] for step in seen[:5]), name


def test_the_optical_rows_are_compared_with_the_teacher_unit_by_unit(same_masks):
    model, inputs, keep = make_pretrainer().train(), make_pairs(holes=True), same_masks[:4]
    images = {sensor: view.x for sensor, view in model.views(inputs).items()}
    features, part = model.encode(images, keep, with_middle=True), model.distillation
    fused, middle = model.fuse_levels(features), part.aux_blocks(features.middle[:4])
    said = part.teacher.tokens(inputs, unit_size=8, grid=(4, 4))
    gaps, shares = {"okd": [], "okd_aux": []}, []
    for row in range(4):
        for place, unit in enumerate(keep[row].tolist()):
            y, x = unit // 4 * 8, unit % 4 * 8
            shares.append(inputs[row]["valid"][y : y + 8, x : x + 8].float().mean())
            wanted = F.layer_norm(said[row, unit], (16,))
            for name, answer in (
                ("okd", part.head(part.norm(fused[row, place]))),
                ("okd_aux", part.aux_head(part.aux_norm(middle[row, place]))),
            ):
                gaps[name].append(F.smooth_l1_loss(answer, wanted) * shares[-1])
    losses = model(inputs)
    for name, found in gaps.items():
        torch.testing.assert_close(losses[f"loss_{name}"], sum(found) / sum(shares))
    other = model([{**item, "sar": item["sar"] + torch.randn_like(item["sar"])} for item in inputs])
    for name in gaps:  # SAR learns through the shared weights alone
        torch.testing.assert_close(other[f"loss_{name}"], losses[f"loss_{name}"])


@pytest.mark.parametrize("directions", ["both", "sar_to_optical"])
@pytest.mark.parametrize("share_decoder", [True, False])
def test_the_cross_decoder_reads_the_rows_of_the_sensor_it_answers_for(directions, share_decoder):
    model = make_pretrainer(cross={"directions": directions}, share_decoder=share_decoder)
    fused, keep = torch.randn(4, 4, 32), torch.tensor([[5, 0, 9, 1], [15, 2, 3, 8]])
    found = model.decode_cross(fused, keep, (4, 4))
    rows = {"optical": fused[:2], "sar": fused[2:]}
    assert list(found) == (["optical", "sar"] if directions == "both" else ["sar"])
    for sensor, values in found.items():
        decoder = model.cross if share_decoder else model.cross[sensor]
        torch.testing.assert_close(values, decoder(rows[sensor], keep, model.decoder_positions))


def test_half_precision_gives_nearly_the_same(same_masks):
    exact, _ = step()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = make_pretrainer().train()(make_pairs())
    total(losses).backward()
    for name in NAMES:
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name].detach(), exact[name], rtol=0.02, atol=0.0, msg=name)


@pytest.mark.parametrize("gather", ["official", "differentiable"])
def test_without_pairs_two_losses_and_their_gradients_are_zero_and_the_others_stay(same_masks, gather):
    inputs = make_pairs()
    paired, with_pairs = step(inputs, contrast={"gather": gather})
    inputs[2]["paired"] = False  # one is enough
    losses, gradients = step(inputs, contrast={"gather": gather})
    assert losses["loss_ccl"] == 0 and losses["loss_cdr"] == 0 and losses["paired_share"] == 0
    for name in ("loss_mae", "loss_okd", "loss_okd_aux"):
        torch.testing.assert_close(losses[name], paired[name])
    for name, gradient in gradients.items():
        assert gradient is not None, name
        of_pairs = name.startswith(("cross.", "contrast."))
        assert gradient.any() != of_pairs and with_pairs[name].any(), name


def test_a_number_that_is_not_finite_does_not_leak_out_of_the_silent_losses():
    inputs = make_pairs(paired=False)
    model = make_pretrainer().train()
    for part in (model.cross, model.contrast):
        for parameter in part.parameters():
            parameter.data.fill_(float("nan"))
    losses, gradients = losses_and_gradients(model, inputs)
    assert all(value.isfinite() for value in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_pixels_without_data_change_nothing(same_masks):
    inputs = make_pairs(holes=True)
    first, _ = step(inputs)
    for item in inputs:
        item["image"] = torch.where(item["valid"], item["image"], torch.full_like(item["image"], 255.0))
        item["sar"] = torch.where(item["sar_valid"], item["sar"], torch.full_like(item["sar"], float("nan")))
    second, gradients = step(inputs)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    whole, _ = step(make_pairs())
    assert all(whole[name] != first[name] for name in NAMES)


def test_odd_and_larger_images_are_padded_and_the_padding_is_no_target():
    losses, gradients = step(make_pairs(2, side=41))
    assert all(value.isfinite() for value in losses.values())
    assert all(gradient is not None for gradient in gradients.values())


VARIANTS = {
    "plain": {"plain": True},
    "independent decoders": {"share_decoder": False},
    "independent encoders": {"share_encoder": False},
    "all independent, one direction": {
        "share_encoder": False,
        "share_decoder": False,
        "cross": {"directions": "sar_to_optical"},
    },
    "no auxiliary branch": {"distillation": {"auxiliary": False}},
    "hog": {"cross": {"target": "hog"}},
    "vanilla": {"contrast": {"mode": "vanilla"}},
    "linear": {"contrast": {"mode": "linear"}},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("paired", [True, False])
def test_every_variant_gives_every_weight_a_gradient(options, paired):
    losses, gradients = step(make_pairs(2, paired=paired), **options)
    assert all(value.isfinite() for value in losses.values())
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    if paired:
        assert [name for name, gradient in gradients.items() if not gradient.any()] == []


def test_a_plain_vision_transformer_is_pretrained_too():
    losses, gradients = step(encoder=plain_vit())
    assert set(losses) == NAMES | {"paired_share"}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


def test_an_encoder_without_a_pyramid_gives_its_tokens():
    losses, gradients = step(encoder=make_encoder(pyramid_dim=None))
    assert losses["loss_mae"].isfinite()
    assert all(gradient is not None for gradient in gradients.values())


def test_independent_parts_start_alike_and_are_named_by_sensor():
    model = make_pretrainer(share_encoder=False, share_decoder=False)
    names = set(model.state_dict())
    assert {"encoder.optical.positions", "encoder.sar.positions", "fuse.sar.16.norm.weight"} <= names
    assert {"decoder.optical.mask_token", "cross.sar.pred.weight"} <= names
    assert "encoder.optical.embed.optical.proj.weight" in names
    assert not any("encoder.optical.embed.sar" in name or "encoder.sar.embed.optical" in name for name in names)
    for name, parameter in model.encoder["optical"].blocks.named_parameters():
        assert torch.equal(parameter, model.encoder["sar"].blocks.get_parameter(name))


def test_shared_and_independent_parts_compute_the_same_when_they_start_alike(same_masks):
    shared, apart = make_pretrainer(plain=True).train(), make_pretrainer(plain=True, share_encoder=False).train()
    torch.testing.assert_close(shared(make_pairs())["loss_mae"], apart(make_pairs())["loss_mae"])
    own = make_pretrainer(plain=True, share_decoder=False).train()
    for sensor in ("optical", "sar"):
        own.decoder[sensor].load_state_dict(shared.decoder.state_dict())
        own.fuse[sensor].load_state_dict(shared.fuse.state_dict())
    own.encoder.load_state_dict(shared.encoder.state_dict())
    torch.testing.assert_close(own(make_pairs())["loss_mae"], shared(make_pairs())["loss_mae"])


def test_weights_scale_their_losses(same_masks):
    once, _ = step()
    twice, _ = step(loss_weights={"ccl": 2.0, "cdr": 0.0})
    torch.testing.assert_close(twice["loss_ccl"], 2 * once["loss_ccl"])
    torch.testing.assert_close(twice["loss_mae"], once["loss_mae"])
    assert twice["loss_cdr"] == 0


def test_optical_and_sar_of_an_input_may_be_of_two_sources(monkeypatch):
    from mmovseg.layers.norm import PixelNorm, SourceNorm
    from tests.projects.codemae.tiny_pretrainer import SAR_NORM

    model = make_pretrainer(plain=True)
    far = {name: tuple(value + 7.0 for value in values) for name, values in SAR_NORM.items()}
    model.sar_norm = SourceNorm(norms={"here": PixelNorm(**SAR_NORM), "there": PixelNorm(**far)})
    item = make_pairs(1)[0] | {"source": "here"}
    near = model.views([item])["sar"].x
    assert not torch.allclose(model.views([{**item, "sar_source": "there"}])["sar"].x, near)
    torch.testing.assert_close(model.views([{**item, "sar_source": "here"}])["sar"].x, near)
    keep = draw_visible(1, 16, 0.75)
    # pictures go back by the constants that the image came by: where 0 is predicted they show the image's own mean
    monkeypatch.setattr(model, "decode", lambda *_, **__: {"sar": torch.zeros(1, 16, 192)})
    for name in ("here", "there"):
        drawn = model.reconstruct([{**item, "sar_source": name}], keep=keep)[0]["own"]["sar"]
        torch.testing.assert_close(drawn.mean(), item["sar"].mean(), atol=1e-3, rtol=0)


def test_evaluation_reads_sar_where_it_is_and_gives_optical_beside_it():
    model, inputs = make_pretrainer(features=("tokens", "p4", "fused")).eval(), make_pairs(2)
    inputs[1]["sar_valid"] = torch.ones(SIDE, SIDE, dtype=torch.bool)
    inputs[1]["sar_valid"][:9] = False
    with torch.no_grad():
        both, sar = model(inputs), model([{k: v for k, v in item.items() if k != "image"} for item in inputs])
        optical = model([{k: v for k, v in item.items() if k not in ("sar", "sar_valid")} for item in inputs])
        whole = model.encoder(model.views(inputs)["sar"].x, "sar")
    assert set(both[0]) == {"student", "student_global", "teacher", "teacher_global", "patch_valid", "patch_size"}
    assert both[0]["patch_size"] == 8 and both[0]["student"]["tokens"].shape == (32, 4, 4)
    assert both[0]["student"]["fused"].shape == (32, 4, 4) and both[0]["student"]["p4"].shape == (8, 4, 4)
    assert "teacher" not in sar[0] and "teacher" not in optical[0]
    for name in ("tokens", "p4", "fused"):
        torch.testing.assert_close(both[0]["student"][name], sar[0]["student"][name])
        torch.testing.assert_close(both[1]["teacher"][name], optical[1]["student"][name])
    torch.testing.assert_close(
        both[1]["student"]["p4"], torch.nn.functional.avg_pool2d(whole["p4"], 2)[1], atol=1e-5, rtol=1e-4
    )
    assert both[1]["patch_valid"].tolist() == [[False] * 4] * 2 + [[True] * 4] * 2
    mean = both[1]["student"]["tokens"][:, 2:].mean(dim=(1, 2))
    torch.testing.assert_close(both[1]["student_global"]["tokens"], mean)


def test_features_of_an_image_do_not_depend_on_the_others_of_its_batch():
    model, inputs = make_pretrainer(features=("tokens", "p4")).eval(), make_pairs(4)
    for key in ("image", "sar"):
        inputs[1][key] = inputs[1][key].repeat(1, 2, 2)
    del inputs[2]["image"]
    with torch.no_grad():
        together, alone = model(inputs), [model([item])[0] for item in inputs]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert together[1]["patch_valid"].shape == (8, 8) and "teacher" not in together[2]


@pytest.mark.parametrize("share_encoder", [True, False])
def test_evaluation_computes_the_pyramid_only_where_it_is_read(monkeypatch, share_encoder):
    runs = []
    for features in (("tokens",), ("tokens", "p4"), ("fused",)):
        model = make_pretrainer(features=features, share_encoder=share_encoder).eval()
        for module in model.modules():
            if isinstance(module, Pyramid):
                module.register_forward_hook(lambda *_, features=features: runs.append(features))
        with torch.no_grad():
            answers = model(make_pairs(1))
        assert set(answers[0]["student"]) == set(features)
    assert runs == [("tokens", "p4")] * 2 + [("fused",)] * 2


def test_reconstruction_comes_in_raster_units_and_is_exact_for_a_perfect_decoder(monkeypatch):
    from mmovseg.projects.codemae.losses.patches import patch_moments, to_patches

    model, inputs = make_pretrainer().eval(), make_pairs(2, side=30)
    keep = draw_visible(2, 16, 0.75)
    views = model.views(inputs)

    def perfect(decoder, fused, keep, grid, sensors=("optical", "sar")):
        images = {sensor: view.x for sensor, view in views.items()}
        if decoder is model.cross:
            wanted = model.cross_reconstruction.targets(images, {s: v.valid for s, v in views.items()})
            images = {sensor: wanted[sensor][0] for sensor in sensors}
            holds = {sensor: wanted[sensor][1] for sensor in sensors}
        else:
            holds = {sensor: view.valid for sensor, view in views.items()}
        answer = {}
        for sensor, image in images.items():
            rows = to_patches(image, 8)
            mean, deviation = patch_moments(rows, to_patches(holds[sensor].float(), 8))
            answer[sensor] = ((rows - mean) / deviation).flatten(2)
        return answer

    drawn = model.reconstruct(inputs)
    assert drawn[0]["mask"].sum() == 12 and drawn[0]["own"]["sar"].shape == (2, 30, 30)
    monkeypatch.setattr(model, "decode", perfect)
    found = model.reconstruct(inputs, keep=keep)
    assert torch.equal(found[1]["mask"].flatten(), masked_units(keep, 16)[1])
    for index, item in enumerate(inputs):
        torch.testing.assert_close(found[index]["own"]["optical"], item["image"], atol=1e-2, rtol=0)
        torch.testing.assert_close(found[index]["own"]["sar"], item["sar"], atol=1e-3, rtol=0)
        for sensor in ("optical", "sar"):
            assert found[index]["cross"][sensor].shape == (1, 30, 30)
            torch.testing.assert_close(
                found[index]["cross"][sensor], found[index]["cross_target"][sensor], atol=1e-4, rtol=0
            )
    assert "cross" not in make_pretrainer(plain=True).eval().reconstruct(inputs)[0]


def test_bad_input_and_options_are_named():
    model = make_pretrainer().train()
    with pytest.raises(UserError, match="pretraining needs the key 'sar' in every input; it is missing in 'pair0'"):
        model([{k: v for k, v in item.items() if k != "sar"} for item in make_pairs()])
    with pytest.raises(UserError, match="'pair0' has neither 'image' nor 'sar'"):
        make_pretrainer().eval()([{"file_name": "pair0"}])
    small = make_pairs(2)
    for item in small:
        item["sar"] = item["sar"][:, :16]
    with pytest.raises(UserError, match="pair 'pair0' has an optical image of 32 x 32 px but a SAR image of 16 x 32"):
        model(small)
    with pytest.raises(UserError, match="one size"):
        model([{**item, "paired": False} for item in small])
    nearly = make_pairs(2)
    nearly[1]["sar"] = nearly[1]["sar"][:, :, :31]  # padding makes both 32
    with pytest.raises(UserError, match="pair 'pair1' has an optical image of 32 x 32 px but a SAR image of 32 x 31"):
        model(nearly)
    assert model([{**item, "paired": False} for item in nearly])["loss_mae"].isfinite()
    with pytest.raises(UserError, match="encoder reads 3 channels of sar, but the images have 2; in_chans of the enc"):
        make_pretrainer(encoder=make_encoder(in_chans={"optical": 3, "sar": 3})).train()(make_pairs())
    with pytest.raises(UserError, match="model.encoder.in_chans lacks 'sar'"):
        make_pretrainer(encoder=make_encoder(in_chans={"optical": 3}))
    with pytest.raises(UserError, match="mask_ratio is 1.0 but must lie between 0 and 1"):
        make_pretrainer(mask_ratio=1.0)
    with pytest.raises(UserError, match="no loss 'mse'; it has: mae, okd"):
        make_pretrainer(loss_weights={"mse": 1.0})
    with pytest.raises(UserError, match="features must be some of tokens, fused, p8, p4, p2, got .'p16'."):
        make_pretrainer(features=("p16",))
