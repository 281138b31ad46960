"""Starting an encoder from a file: its own, a whole training run's, and files that hold less or more."""

import logging

import pytest
import torch
from torch import nn

from mmovseg.checkpoint import save_weights
from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling.encoder import load_encoder
from mmovseg.projects.codemae.modeling.hivit import HiViT
from mmovseg.testing.checks import assert_same_state

TINY = dict(stem_dim=8, depths=(1, 1, 1), num_heads=2, unit_size=8, image_size=32, pyramid_dim=12)


def tiny(**changes):
    return HiViT(**{**TINY, **changes})


def saved(tmp_path, state):
    save_weights(state, tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def without(state, prefix):
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}


def test_own_file_comes_back(tmp_path):
    source = tiny()
    assert_same_state(source, tiny(weights=saved(tmp_path, source.state_dict())))


def test_the_encoder_of_a_whole_run_is_found(tmp_path):
    source = tiny()
    state = {f"encoder.{name}": tensor for name, tensor in source.state_dict().items()}
    state |= {"decoder.mask_token": torch.zeros(1, 1, 32), "positions": torch.ones(3)}
    path = saved(tmp_path, state)
    assert_same_state(source, tiny(weights=path))
    report = load_encoder(tiny(), path)
    assert sorted(report.outside) == ["decoder.mask_token", "positions"]
    assert report.missing == report.unexpected == []
    assert report.summary().endswith("0 missing, 0 unexpected, 2 of other parts")


def test_encoders_that_were_pretrained_apart_are_not_taken_for_one(tmp_path):
    state = {f"encoder.sar.{name}": tensor for name, tensor in tiny(in_chans={"sar": 2}).state_dict().items()}
    state |= {f"encoder.optical.{name}": tensor for name, tensor in tiny(in_chans={"optical": 3}).state_dict().items()}
    path = saved(tmp_path, state)
    with pytest.raises(UserError, match="an encoder for each sensor; take one .*weights.py --part encoder.sar$"):
        tiny(in_chans={"sar": 2}, weights=path)
    with pytest.raises(UserError, match="does not exist$"):
        tiny(weights=str(tmp_path / "gone.safetensors"))


def test_a_downstream_encoder_takes_its_part(tmp_path):
    source = tiny(in_chans={"optical": 3, "sar": 2})
    path = saved(tmp_path, source.state_dict())
    model = tiny(in_chans={"sar": 2}, pyramid_dim=None, weights=path)
    wanted = without(without(source.state_dict(), "pyramid."), "embed.optical.")
    assert_same_state(wanted, model)


def test_a_file_without_pyramid_leaves_it_fresh(tmp_path, caplog):
    source = tiny(pyramid_dim=None)
    path = saved(tmp_path, source.state_dict())
    with caplog.at_level(logging.WARNING):
        model = tiny(weights=path)
    assert "has no pyramid: it starts fresh" in caplog.text
    assert_same_state(source.state_dict(), without(model.state_dict(), "pyramid."))


def test_the_other_sensor_starts_as_a_copy(tmp_path):
    source = tiny(in_chans={"optical": 3})
    path = saved(tmp_path, source.state_dict())
    model = tiny(in_chans={"optical": 3, "sar": 3}, weights=path)
    assert_same_state(source.embed["optical"], model.embed["sar"])
    x = torch.randn(1, 1, 32, 32)
    grey = tiny(in_chans={"optical": 3, "sar": 1}, weights=path)  # one channel = the same three times
    torch.testing.assert_close(
        grey.embed["sar"](x), source.embed["optical"](x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )


def test_filters_that_cannot_stand_for_others_are_refused(tmp_path):
    path = saved(tmp_path, tiny(in_chans={"sar": 2}).state_dict())
    with pytest.raises(UserError, match="has no embed.optical, and filters of 2 channels cannot stand for 3"):
        tiny(in_chans={"optical": 3, "sar": 2}, weights=path)


def test_files_that_do_not_fit_are_refused(tmp_path):
    state = tiny().state_dict()
    with pytest.raises(UserError, match=r"lacks 1 tensor\(s\) that the model needs: positions"):
        tiny(weights=saved(tmp_path, without(state, "positions")))
    with pytest.raises(UserError, match="holds only a part of 'pyramid': it lacks pyramid.lateral8.weight"):
        tiny(weights=saved(tmp_path, without(state, "pyramid.lateral8")))
    with pytest.raises(UserError, match="holds only a part of 'embed.sar'"):
        tiny(weights=saved(tmp_path, without(state, "embed.sar.norm.bias")))
    with pytest.raises(UserError, match="has no patch embedding of: optical, sar"):
        tiny(weights=saved(tmp_path, without(state, "embed.")))
    with pytest.raises(UserError, match=r"lacks 4 tensor\(s\) that the model needs: embed.sar"):
        tiny(in_chans={"sar": 3}, weights=saved(tmp_path, without(state, "embed.sar.")))
    with pytest.raises(UserError, match="that the model does not have: head.bias, head.weight"):
        tiny(weights=saved(tmp_path, {**state, **{f"head.{k}": v for k, v in nn.Linear(2, 2).state_dict().items()}}))
    with pytest.raises(UserError, match=r"positions of shape \(1, 16, 32\) but the model needs \(1, 64, 32\)"):
        tiny(image_size=64, weights=saved(tmp_path, state))
