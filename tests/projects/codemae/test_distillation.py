"""Distillation: its formula, the teacher's grid, what it does not store, and what lacks data."""

import pytest
import torch
import torch.nn.functional as F

from mmovseg.errors import UserError
from mmovseg.projects.codemae.losses import DistillationSpec, OpticalDistillation
from tests.projects.codemae.tiny_pretrainer import SIDE, make_pairs, make_teacher


def distillation(**options):
    torch.manual_seed(0)
    spec = DistillationSpec(**{"teacher": make_teacher(), "num_heads": 2, **options})
    return OpticalDistillation(spec, dim=12, encoder_dim=8)


def rows():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 4, width, generator=generator) for width in (12, 8, 16)]


def test_both_branches_are_the_formula_and_added_by_the_caller():
    model, (fused, middle, targets) = distillation(), rows()
    wanted = F.layer_norm(targets, (16,))
    main = F.smooth_l1_loss(model.head(model.norm(fused)), wanted)
    auxiliary = F.smooth_l1_loss(model.aux_head(model.aux_norm(model.aux_blocks(middle))), wanted)
    found = model(fused, middle, targets)
    assert list(found) == ["okd", "okd_aux"]
    torch.testing.assert_close(found["okd"], main)
    torch.testing.assert_close(found["okd_aux"], auxiliary)
    short = distillation(auxiliary=False)
    assert list(short(fused, None, targets)) == ["okd"] and not any("aux" in name for name in short.state_dict())


def test_units_count_by_their_share_of_data():
    model, (fused, middle, targets) = distillation(auxiliary=False), rows()
    shares = torch.ones(2, 4)
    shares[0, 1:] = 0.0
    shares[1] = 0.5
    gaps = F.smooth_l1_loss(model.head(model.norm(fused)), F.layer_norm(targets, (16,)), reduction="none").mean(dim=2)
    expected = (gaps[0, 0] + 0.5 * gaps[1].sum()) / 3.0
    torch.testing.assert_close(model(fused, middle, targets, shares)["okd"], expected)
    assert model(fused, middle, targets, torch.zeros(2, 4))["okd"].item() == 0.0


def test_the_teacher_is_no_part_of_the_model_and_the_same_for_all():
    model, inputs = distillation(), make_pairs(2)
    state = torch.random.get_rng_state()
    tokens = model.teacher.tokens(inputs, unit_size=8, grid=(4, 4))
    assert torch.equal(torch.random.get_rng_state(), state)  # building it draws no mask of ours
    assert not any("teacher" in name for name in model.state_dict())
    assert not tokens.requires_grad and not model.teacher.encoder(tokens.device).training
    torch.testing.assert_close(make_teacher().tokens(inputs, unit_size=8, grid=(4, 4)), tokens)


def test_building_the_teacher_leaves_the_generators_of_devices_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(1)
    assert seeded == [1], "torch seeds all devices, so a teacher must not do it that way"
    make_teacher().encoder(torch.device("cpu"))
    assert seeded == [1]


def test_patches_of_the_teacher_are_averaged_over_a_unit():
    teacher, inputs = make_teacher(), make_pairs(2)
    fine = teacher.tokens(inputs, unit_size=4, grid=(8, 8)).transpose(1, 2).unflatten(2, (8, 8))
    coarse = teacher.tokens(inputs, unit_size=8, grid=(4, 4)).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(coarse[1, :, 2, 3], fine[1, :, 4:6, 6:8].mean(dim=(1, 2)))
    assert fine.shape == (2, 16, SIDE // 4, SIDE // 4)
    with pytest.raises(UserError, match="patches of 4 px, which do not fill the encoder's units of 6 px"):
        teacher.tokens(inputs, unit_size=6, grid=(5, 5))


def test_a_teacher_with_registers_and_rotary_positions_gives_its_patches():
    small = {"depth": 2, "embed_dim": 48, "num_heads": 2}
    encoder = {"name": "vit_small_patch16_dinov3", "model_args": small}
    teacher = make_teacher(encoder=encoder, width=48)
    item = {"image": 255 * torch.rand(3, 64, 96)}
    assert teacher.tokens([item], unit_size=16, grid=(4, 6)).shape == (1, 24, 48)
    assert teacher.encoder(torch.device("cpu")).taps == (2,)


def test_the_teacher_reads_whole_images_with_its_own_constants():
    inputs = make_pairs(1)
    changed = [dict(inputs[0], image=inputs[0]["image"].clone())]
    changed[0]["image"][:, :8, :8] = 0.0
    teacher = make_teacher()
    far = (teacher.tokens(inputs, unit_size=8, grid=(4, 4)) - teacher.tokens(changed, unit_size=8, grid=(4, 4)))[0, 15]
    assert far.abs().max() > 1e-6  # a unit at the other end knows of it
    other = make_teacher(mean=(0.0,) * 3)
    assert not torch.allclose(
        other.tokens(inputs, unit_size=8, grid=(4, 4)), teacher.tokens(inputs, unit_size=8, grid=(4, 4))
    )


def test_a_teacher_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="tokens of 16 channels, but its width is given as 24"):
        make_teacher(width=24).tokens(make_pairs(1), unit_size=8, grid=(4, 4))
    with pytest.raises(UserError, match="encoder holds 'wieghts'; it takes: .*weights"):
        make_teacher(encoder={"name": "vit_small_patch8_224", "wieghts": "timm"})
    with pytest.raises(UserError, match="encoder lacks 'name'"):
        make_teacher(encoder={})
    with pytest.raises(UserError, match="distillation.num_heads is 3, which does not divide the encoder's width 8"):
        distillation(num_heads=3)
    with pytest.raises(UserError, match=r"middle is 1.0 but must lie in \[0, 1\)"):
        distillation(middle=1.0)
