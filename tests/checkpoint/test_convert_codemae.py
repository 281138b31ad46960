"""Checkpoints of CoDe-MAE, iTPN and DINOv3 as Hugging Face names it: what each becomes, and the exact way back."""

import math

import pytest
import torch
from safetensors.torch import load_file

from mmovseg.checkpoint import read_metadata, save_weights
from mmovseg.checkpoint.convert import ConversionError, convert_checkpoint
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.checkpoint.tables.dinov3 import Dinov3Dims, dinov3_table
from mmovseg.checkpoint.tables.dinov3_hf import dinov3_hf_table
from mmovseg.errors import UserError
from mmovseg.testing.checkpoints import TINY_DINOV3, fake_state, tiny_table

GROUPS = {"pixel decoder", "cross decoder", "distillation", "contrast"}


def convert(folder, content, source, table=None, **options):
    torch.save(content, folder / "in.pth")
    report = convert_checkpoint(folder / "in.pth", folder / "out.safetensors", source=source, table=table, **options)
    return report, load_file(folder / "out.safetensors")


def back(folder, source, table=None):
    convert_checkpoint(folder / "out.safetensors", folder / "back.pth", source=source, table=table, reverse=True)
    return torch.load(folder / "back.pth", weights_only=True)


def same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) and left[name].dtype is right[name].dtype for name in left)


# ---------------------------------------------------------------- CoDe-MAE


def test_the_released_model_has_so_many_elements():
    shapes = SOURCES["codemae"]()[0].shapes("theirs")
    assert (len(shapes), sum(math.prod(shape) for shape in shapes.values())) == (646, 142_262_432)
    encoder = SOURCES["codemae"]()[0].shapes("theirs", optional=False)
    one = {name: shape for name, shape in encoder.items() if not name.startswith("patch_embed_sar.")}
    assert (len(one), sum(math.prod(shape) for shape in one.values())) == (375, 81_552_000)


@pytest.mark.realdata
def test_the_table_covers_the_listing_of_the_release(realdata):
    file = realdata.parent / "specs" / "code-mae-keys.tsv"
    if not file.is_file():
        pytest.skip("the listing of the official keys is not here")
    rows = dict(line.split("\t") for line in file.read_text().splitlines())
    listed = {name: tuple(int(size) for size in shape.split("x")) for name, shape in rows.items()}
    assert SOURCES["codemae"]()[0].shapes("theirs") == listed


@pytest.mark.parametrize("naming", ["", "module."])
def test_a_pretraining_checkpoint_with_and_without_a_wrapper(naming, tmp_path, monkeypatch):
    tables = tuple(tiny_table("codemae", naming=each) for each in ("", "module."))
    monkeypatch.setitem(SOURCES, "codemae", lambda: tables)
    state = fake_state(tiny_table("codemae", naming=naming), optional=GROUPS)
    report, ours = convert(tmp_path, {"model": state, "epoch": 799, "scaler": {"scale": 1.0}}, "codemae")
    assert report.entries == ["epoch", "scaler"] and report.outside == report.aside == report.constants == []
    for official, own in (
        ("patch_embed_rgb.proj.weight", "encoder.embed.optical.proj.weight"),
        ("patch_embed_sar.norm.bias", "encoder.embed.sar.norm.bias"),
        ("absolute_pos_embed", "encoder.positions"),
        ("blocks.1.reduction.weight", "encoder.blocks.1.reduction.weight"),
        ("fpn_modules.1.mlp.fc2.weight", "encoder.pyramid.out8.mlp.fc2.weight"),
        ("decoder_embed.2.1.weight", "fuse.4.proj.weight"),
        ("mask_token_cross", "cross.mask_token"),
        ("decoder_pos_embed", "decoder_positions"),
        ("lm_cls_head.bias", "distillation.aux_head.bias"),
        ("contrastive_loss.crossattn_sar.cattn.kv.weight", "contrast.sar.kv.weight"),
    ):
        assert torch.equal(ours[own], state[naming + official]), own
    restored = back(tmp_path, "codemae")
    assert list(restored) == ["model"]
    same(restored["model"], state)


@pytest.mark.parametrize("groups", [set(), {"pixel decoder"}, GROUPS - {"contrast"}])
def test_a_part_of_the_objectives_may_be_missing_but_not_half_of_one(groups, tmp_path):
    table = tiny_table("codemae")
    state = fake_state(table, optional=groups)
    report, ours = convert(tmp_path, {"model": state}, "codemae", table)
    assert len(ours) == len(state) == len(report.read)
    assert any(name.startswith("fuse.") for name in ours) == ("pixel decoder" in groups)
    same(back(tmp_path, "codemae", table)["model"], state)
    half = {**state, "mask_token_cross": torch.ones(1, 1, 48)}
    if "cross decoder" in groups:
        del half["decoder_norm_cross.bias"]
    with pytest.raises(ConversionError, match=r"missing: decoder_(norm|blocks)_cross"):
        convert(tmp_path, {"model": half}, "codemae", table)


# ---------------------------------------------------------------- iTPN


def itpn_file(table):
    rest = {"mask_token": torch.ones(1, 1, 48), "decoder_pred.weight": torch.ones(2, 48)}
    return {**fake_state(table), **rest}, rest


def test_one_embedding_becomes_two_and_one_again(tmp_path):
    table = tiny_table("itpn")
    state, rest = itpn_file(table)
    report, ours = convert(tmp_path, state, "itpn", table)
    assert report.outside == list(rest)
    assert torch.equal(ours["embed.sar.proj.weight"], state["patch_embed.proj.weight"])
    assert torch.equal(ours["embed.optical.proj.weight"], state["patch_embed.proj.weight"])
    assert len(ours) == len(state) - len(rest) + 4
    same(back(tmp_path, "itpn", table), {name: state[name] for name in state if name not in rest})


def test_embeddings_that_learned_apart_do_not_become_one(tmp_path):
    table = tiny_table("itpn")
    _, ours = convert(tmp_path, itpn_file(table)[0], "itpn", table)
    ours["embed.sar.norm.bias"] = ours["embed.sar.norm.bias"] + 1e-3
    save_weights(ours, tmp_path / "out.safetensors", metadata=read_metadata(tmp_path / "out.safetensors"))
    with pytest.raises(ConversionError, match=r"1 that have to be equal .*: embed\.optical\.norm\.bias and embed\.sar"):
        back(tmp_path, "itpn", table)
    assert not (tmp_path / "back.pth").exists()


def test_what_is_neither_encoder_nor_decoder_is_refused_unless_named(tmp_path):
    table = tiny_table("itpn")
    state = {**itpn_file(table)[0], "clip_head.weight": torch.ones(1)}
    with pytest.raises(ConversionError, match=r"does not know: clip_head\.weight"):
        convert(tmp_path, state, "itpn", table)
    assert "clip_head.weight" in convert(tmp_path, state, "itpn", table, outside=["clip_head.*"])[0].outside


# ---------------------------------------------------------------- DINOv3 of Hugging Face


def as_hugging_face_names_it(official):
    """The same weights under the other names, written out apart from the table."""
    state = {}
    for name, tensor in official.items():
        name = name.replace("blocks.", "layer.").replace(".attn.proj.", ".attention.o_proj.")
        for before, after in (("fc1", "up_proj"), ("fc2", "down_proj"), ("ls1.gamma", "layer_scale1.lambda1")):
            name = name.replace(before, after)
        name = name.replace("ls2.gamma", "layer_scale2.lambda1").replace("patch_embed.proj", "patch_embeddings")
        if name in ("cls_token", "mask_token") or name.startswith("patch_embeddings"):
            state[f"embeddings.{name}"] = tensor.reshape(1, 1, -1) if "token" in name else tensor
        elif name == "storage_tokens":
            state["embeddings.register_tokens"] = tensor
        elif ".attn.qkv." in name:
            stem, kind = name.split(".attn.qkv.")
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                if kind == "weight" or (kind == "bias" and letter != "k"):
                    state[f"{stem}.attention.{letter}_proj.{kind}"] = part
        elif name not in ("rope_embed.periods",) and "local_cls_norm" not in name:
            state[name] = tensor
    return state


def test_both_ways_of_naming_dinov3_give_the_same_timm_model(tmp_path):
    official = fake_state(tiny_table("dinov3"))
    _, first = convert(tmp_path, official, "dinov3", tiny_table("dinov3"))
    state = as_hugging_face_names_it(official)
    report, second = convert(tmp_path, state, "dinov3_hf", tiny_table("dinov3_hf"))
    assert report.aside == ["aside.embeddings.mask_token"]
    ours = {name: tensor for name, tensor in second.items() if not name.startswith("aside.")}
    assert set(first) - set(ours) >= {"rope.periods"}
    same(ours, {name: first[name] for name in ours})
    same(back(tmp_path, "dinov3_hf", tiny_table("dinov3_hf")), state)


def test_models_that_look_alike_are_told_apart_by_name(tmp_path, monkeypatch):
    web = Dinov3Dims("web", width=TINY_DINOV3.width, depth=3, heads=1, satellite=False)
    tables = (dinov3_hf_table(TINY_DINOV3), dinov3_hf_table(web))
    monkeypatch.setitem(SOURCES, "dinov3_hf", lambda: tables)
    state = fake_state(tables[0])
    with pytest.raises(UserError, match="may be tiny or web, which only their training tells apart"):
        convert(tmp_path, state, "dinov3_hf")
    with pytest.raises(UserError, match="has no architecture 'huge'; it has: tiny, web"):
        convert(tmp_path, state, "dinov3_hf", architecture="huge")
    convert(tmp_path, state, "dinov3_hf", architecture="web")
    assert "satellite" not in read_metadata(tmp_path / "out.safetensors")["input_contract"]
    same(back(tmp_path, "dinov3_hf"), state)


def test_of_two_that_fit_the_one_that_asks_for_nothing_more_is_taken(tmp_path, monkeypatch):
    web = Dinov3Dims("web", width=TINY_DINOV3.width, depth=3, heads=1, satellite=False)
    monkeypatch.setitem(SOURCES, "dinov3", lambda: (tiny_table("dinov3"), dinov3_table(web)))
    report, _ = convert(tmp_path, fake_state(dinov3_table(web)), "dinov3")
    assert report.architecture == "web"
