import argparse
import json
import pickle

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from mmovseg.checkpoint import load_weights, read_metadata, save_weights
from mmovseg.checkpoint.contract import contract_from_dict
from mmovseg.checkpoint.convert import ConversionError, convert_checkpoint
from mmovseg.checkpoint.export import export_part
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.checkpoint.tables.clip import ClipDims
from mmovseg.checkpoint.tables.dino import NAMINGS, DinoDims
from mmovseg.checkpoint.tables.mmovseg import ReleasedDims, mmovseg_table
from mmovseg.errors import UserError
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.testing.checkpoints import TINY_CLIP, TINY_DINO, TINY_DINOV3, fake_state, tiny_table
from mmovseg.testing.realdata import realdata_root

TINY_ARCHITECTURE = {
    "embed_dim": TINY_CLIP.embed,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": TINY_CLIP.width, "layers": 2, "head_width": 32},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": TINY_CLIP.words,
        "width": TINY_CLIP.text_width,
        "heads": 2,
        "layers": 2,
    },
    "quick_gelu": True,
}


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def bits(state):
    """Names in sorted order with type, shape and bytes: what bit-exact means."""
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in sorted(state.items())
    }


def convert(tmp_path, content, table, name="in.pth", **options):
    """Save `content`, convert it, and return (report, path of the result)."""
    torch.save(content, tmp_path / name)
    target = tmp_path / f"{name}.safetensors"
    return convert_checkpoint(tmp_path / name, target, source=table.source, table=table, **options), target


def back(path, table, name="back.pth"):
    convert_checkpoint(path, path.parent / name, source=table.source, table=table, reverse=True)
    return path.parent / name


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("source", SOURCES)
def test_there_and_back_gives_the_same_bits(source, tmp_path):
    table = tiny_table(source)
    state = fake_state(table, optional={rule.optional for rule in table.rules})
    report, path = convert(tmp_path, state, table)
    assert report.read == list(state)
    assert bits(torch.load(back(path, table), weights_only=True)) == bits(state)
    assert bits(load_file(back(path, table, "back.safetensors"))) == bits(state)
    # and from our side: the same tensors, and the same facts beside those of the file that was converted
    again = tmp_path / "again.safetensors"
    convert_checkpoint(tmp_path / "back.pth", again, source=source, table=table)
    assert bits(load_file(again)) == bits(load_file(path))
    differing = {key for key, value in read_metadata(again).items() if value != read_metadata(path)[key]}
    assert differing <= {"source_file", "source_sha256"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays(dtype, tmp_path):
    table = tiny_table("mmovseg_vitl14")
    state = {name: t.to(dtype) for name, t in fake_state(table).items()}  # constants too
    _, path = convert(tmp_path, {"model": state}, table)
    assert {tensor.dtype for tensor in load_file(path).values()} == {dtype}
    assert bits(torch.load(back(path, table), weights_only=True)["model"]) == bits(state)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("source", ["dino", "dinov3"])
def test_wrappers_on_the_names_come_off_and_on_again(source, naming, tmp_path, monkeypatch):
    tables = tuple(tiny_table(source, naming=each) for each in NAMINGS)
    monkeypatch.setitem(SOURCES, source, lambda: tables)
    state = fake_state(tiny_table(source, naming=naming), optional={"projection head"})
    torch.save({"student": {}, "teacher": state}, tmp_path / "in.pth")
    report = convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.safetensors", source=source)
    assert report.entries == ["student"]
    ours = load_file(tmp_path / "out.safetensors")
    assert torch.equal(ours["blocks.2.norm1.weight"], state[f"{naming}blocks.2.norm1.weight"])
    if source == "dino":
        head = f"{naming.replace('backbone.', '')}head.mlp.0.weight"
        assert torch.equal(ours[f"aside.{head}"], state[head])
    convert_checkpoint(tmp_path / "out.safetensors", tmp_path / "back.pth", source=source, reverse=True)
    restored = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(restored) == ["teacher"]
    assert bits(restored["teacher"]) == bits(state)


def test_the_same_command_gives_the_same_bytes(tmp_path):
    table = tiny_table("mmovseg_vitb16")
    _, path = convert(tmp_path, {"model": fake_state(table)}, table)
    first, first_back = path.read_bytes(), back(path, table).read_bytes()
    _, path = convert(tmp_path, {"model": fake_state(table)}, table)
    assert path.read_bytes() == first
    assert back(path, table).read_bytes() == first_back
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_what_a_model_trained_here_never_had_is_filled_with_neutral_values(tmp_path):
    table = tiny_table("mmovseg_vitl14")
    state = fake_state(table)
    _, path = convert(tmp_path, {"model": state}, table)
    trained = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("aside.")}
    save_weights(trained, tmp_path / "trained.safetensors", metadata={"seed": "0"})
    report = convert_checkpoint(
        tmp_path / "trained.safetensors", tmp_path / "b.pth", source=table.source, table=table, reverse=True
    )
    assert len(report.filled) == 2 * (1 + 2 + 3)  # two encoders: mask_token, local_cls_norm, the key bias of 3 blocks
    restored = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    assert restored.keys() == state.keys()
    assert torch.equal(restored["dino_model.local_cls_norm.weight"], torch.ones(64))
    query, key, value = restored["dino_sarmodel.blocks.1.attn.qkv.bias"].chunk(3)
    assert not key.any()
    assert torch.equal(query, state["dino_sarmodel.blocks.1.attn.qkv.bias"][:64])
    # A converted file has them, so one that lacks them was damaged.
    save_file(trained, tmp_path / "damaged.safetensors", metadata=read_metadata(path))
    with pytest.raises(ConversionError, match=r"12 missing: aside\.dino_model\.mask_token, "):
        convert_checkpoint(
            tmp_path / "damaged.safetensors", tmp_path / "c.pth", source=table.source, table=table, reverse=True
        )


# ---------------------------------------------------------------- strict


def broken(state, how):
    state, name = dict(state), "sem_seg_head.predictor.clip_model.visual.ln_post.weight"
    if how == "renamed":
        state[f"{name}_"] = state.pop(name)
    elif how == "missing":
        del state[name]
    elif how == "extra":
        state["extra.weight"] = torch.ones(2)
    elif how == "shape":
        state[name] = torch.ones(65)
    elif how == "no tensor":
        state[name] = 3
    elif how == "constant":
        name = "sem_seg_head.predictor.transformer.layers.1.swin_block.block_2.attn_mask"
        state[name] = state[name] + torch.eye(16)
    elif how == "types":
        name = "sem_seg_head.predictor.clip_model.transformer.resblocks.0.attn.k_proj_weight"
        state[name] = state[name].half()
    return state


FAULTS = {
    "renamed": r"1 that the table does not know: .*ln_post\.weight_ \(64,\); 1 missing: .*visual\.ln_post\.weight;",
    "missing": r"1 missing: .*visual\.ln_post\.weight;",
    "extra": r"1 that the table does not know: extra\.weight \(2,\);",
    "shape": r"1 of wrong shape: .*visual\.ln_post\.weight \(65,\) instead of \(64,\);",
    "no tensor": r"1 that are no tensors: .*visual\.ln_post\.weight;",
    "constant": r"1 unequal to what our modules compute: .*layers\.1\.swin_block\.block_2\.attn_mask;",
    "types": r"1 of different types that belong together: .*q_proj_weight and .*k_proj_weight and .*v_proj_weight;",
}


@pytest.mark.parametrize("how", FAULTS)
def test_what_does_not_fit_is_refused_and_nothing_written(how, tmp_path):
    table = tiny_table("mmovseg_vitb16")
    with pytest.raises(ConversionError, match=FAULTS[how]) as caught:
        convert(tmp_path, {"model": broken(fake_state(table), how)}, table)
    assert str(caught.value).endswith("; nothing was written")
    assert [file.name for file in tmp_path.iterdir()] == ["in.pth"]


@pytest.mark.parametrize("how", ["missing", "extra", "shape"])
def test_the_way_back_is_strict_too(how, tmp_path):
    table = tiny_table("openai_clip")
    _, path = convert(tmp_path, fake_state(table), table)
    state = load_file(path)
    if how == "missing":
        del state["visual.proj"]
    elif how == "extra":
        state["extra"] = torch.ones(1)
    else:
        state["visual.proj"] = torch.ones(1)
    save_file(state, path, metadata=read_metadata(path))
    with pytest.raises(ConversionError, match=r"visual\.proj|extra"):
        back(path, table)
    assert not (tmp_path / "back.pth").exists()


def test_every_fault_is_listed_and_the_message_stays_short(tmp_path):
    table = tiny_table("dino")
    state = {name: tensor for name, tensor in fake_state(table).items() if not name.startswith("blocks.1.")}
    with pytest.raises(ConversionError, match=r"12 missing: blocks\.1\.norm1\.weight, .*, and 8 more;") as caught:
        convert(tmp_path, state, table)
    assert caught.value.faults.count("missing: blocks.1.attn.qkv.bias") == 1
    assert len(caught.value.faults) == 12


def test_a_checkpoint_of_another_kind(tmp_path):
    torch.save({"model": {"conv.weight": torch.ones(1)}}, tmp_path / "in.pth")
    for source in SOURCES:
        with pytest.raises(UserError, match="is of another kind: none of its 1 tensors fits source .*'conv.weight'"):
            convert_checkpoint(tmp_path / "in.pth", tmp_path / "out.safetensors", source=source)


def test_half_of_an_optional_group_is_refused(tmp_path):
    table = tiny_table("dino")
    state = fake_state(table, optional={"projection head"})
    del state["head.mlp.2.bias"]
    with pytest.raises(ConversionError, match=r"1 missing: head\.mlp\.2\.bias"):
        convert(tmp_path, state, table)


# ---------------------------------------------------------------- the parts of whole models


@pytest.mark.parametrize("source", ["gsnet_clip", "catseg_clip"])
def test_other_parts_of_a_segmentation_model_are_reported(source, tmp_path):
    table = tiny_table(source)
    rest = {"upsample1.weight": torch.ones(1), "sem_seg_head.predictor.transformer.conv1.weight": torch.ones(2)}
    report, path = convert(tmp_path, {"model": {**rest, **fake_state(table)}, "iteration": 7}, table)
    assert report.outside == list(rest)
    assert report.entries == ["iteration"]
    assert "of other parts of the model, not converted (2): upsample1.weight, " in str(report)
    assert not any("upsample" in name for name in load_file(path))
    with pytest.raises(ConversionError, match=r"backbone\.weight"):
        convert(tmp_path, {"model": {"backbone.weight": torch.ones(1), **fake_state(table)}}, table)


def test_the_user_can_name_other_parts(tmp_path):
    table = tiny_table("dino")
    content = {"model": {"projector.0.weight": torch.ones(1), **fake_state(table)}}
    with pytest.raises(ConversionError, match=r"1 that the table does not know: projector\.0\.weight \(1,\);"):
        convert(tmp_path, content, table)
    report, path = convert(tmp_path, content, table, outside=["projector.*"])
    assert report.outside == ["projector.0.weight"]
    assert not any("projector" in name for name in load_file(path))


def test_an_encoder_cut_out_of_a_converted_model_goes_back_as_an_encoder(tmp_path):
    whole = tiny_table("mmovseg_vitl14")
    state = fake_state(whole)
    _, path = convert(tmp_path, {"model": state}, whole)
    export_part(path, tmp_path / "sar.safetensors", part="sar_encoder.model")
    report = convert_checkpoint(
        tmp_path / "sar.safetensors",
        tmp_path / "sar.pth",
        source="dinov3",
        table=tiny_table("dinov3"),
        reverse=True,
    )
    restored = torch.load(tmp_path / "sar.pth", weights_only=True)["teacher"]
    assert {f"dino_sarmodel.{name}" for name in restored} == {name for name in state if "dino_sarmodel." in name}
    name = "blocks.1.attn.proj.weight"
    assert torch.equal(restored[name], state[f"dino_sarmodel.{name}"])
    assert "mask_token" in report.filled


def test_what_gsnet_has_more_than_catseg_is_not_catsegs():
    gsnet, catseg = (SOURCES[name]()[0].outside for name in ("gsnet_clip", "catseg_clip"))
    assert set(catseg) < set(gsnet)
    assert {"dino_model.*", "dino_down_sample.*"} <= set(gsnet) - set(catseg)


# ---------------------------------------------------------------- safe


def test_what_training_leaves_beside_the_weights_is_not_read(tmp_path):
    table = tiny_table("mmovseg_vitb16")
    state = fake_state(table)
    content = {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2), "lr": np.float64(0.1)}}},
        "scheduler": {"last_epoch": np.int64(5), "base_lrs": np.arange(4.0)},
        "args": argparse.Namespace(output_dir="out", count=np.arange(3)),
        "iteration": 79999,
    }
    report, path = convert(tmp_path, content, table)
    assert report.entries == ["optimizer", "scheduler", "args", "iteration"]
    assert bits(torch.load(back(path, table), weights_only=True)["model"]) == bits(state)
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    convert_checkpoint(tmp_path / "old.pth", tmp_path / "old.safetensors", source=table.source, table=table)
    assert bits(load_file(tmp_path / "old.safetensors")) == bits(load_file(path))


@pytest.mark.parametrize("place", ["optimizer", "model"])
def test_pickled_code_is_refused_and_not_run(place, tmp_path):
    table = tiny_table("dino")
    content = {"model": fake_state(table)}
    victim = content.setdefault(place, {})
    victim["bomb"] = Evil(tmp_path / "touched")
    with pytest.raises(UserError, match="pickled Python objects"):
        convert(tmp_path, content, table)
    assert not (tmp_path / "touched").exists()
    with (tmp_path / "plain.pth").open("wb") as file:
        pickle.dump(content, file)
    with pytest.raises(UserError, match="plain.pth"):
        convert_checkpoint(tmp_path / "plain.pth", tmp_path / "x.safetensors", source="dino")
    assert not (tmp_path / "touched").exists()


def test_a_torchscript_archive_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "clip.pt")
    with pytest.raises(UserError, match=r"clip.pt' is a TorchScript archive, which is code; save .* state_dict"):
        convert_checkpoint(tmp_path / "clip.pt", tmp_path / "x.safetensors", source="openai_clip")


# ---------------------------------------------------------------- paths and header


def test_paths_are_checked_before_reading(tmp_path):
    with pytest.raises(UserError, match="must end in .safetensors, but the path is 'out.pth'"):
        convert_checkpoint("in.pth", "out.pth", source="dino")
    with pytest.raises(UserError, match="must end in .safetensors or .pth or .pt"):
        convert_checkpoint("in.pth", "out.bin", source="dino", reverse=True)
    with pytest.raises(UserError, match="no key table for source 'yolo'; there are: mmovseg_vitb16, "):
        convert_checkpoint("in.pth", "out.safetensors", source="yolo")
    with pytest.raises(UserError, match="'in.pth' does not exist"):
        convert_checkpoint("in.pth", "out.safetensors", source="dino")
    same = tmp_path / "x.safetensors"
    save_weights({"a": torch.ones(1)}, same)
    with pytest.raises(UserError, match="would overwrite"):
        convert_checkpoint(same, same, source="dino")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(UserError, match="holds list, not weights by name"):
        convert_checkpoint(tmp_path / "list.pth", same, source="dino")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(UserError, match="none of the entries teacher, model, state_dict; it has: epoch"):
        convert_checkpoint(tmp_path / "none.pth", same, source="dino")


def test_header_has_contract_and_provenance(tmp_path):
    table = tiny_table("mmovseg_vitb16")
    _, path = convert(tmp_path, {"model": fake_state(table)}, table)
    header = read_metadata(path)
    contract = contract_from_dict(json.loads(header["input_contract"]))
    assert contract.optical.unit == "uint8"
    assert (contract.sar.unit, len(contract.sar.bands), contract.sar.mean) == ("amplitude8", 3, contract.optical.mean)
    assert (header["converted_from"], header["source_file"]) == ("mmovseg_vitb16", "in.pth")
    assert len(header["source_sha256"]) == 64
    assert "torch" in json.loads(header["versions"])


def test_an_encoder_for_sar_says_so(tmp_path):
    table = tiny_table("dino")
    _, path = convert(tmp_path, {"model": fake_state(table)}, table, modality="sar")
    contract = contract_from_dict(json.loads(read_metadata(path)["input_contract"]))
    assert contract.optical is None
    assert contract.sar.unit == "amplitude8"
    with pytest.raises(UserError, match="modality 'sar' is for dino, dinov3, dinov3_hf, not for source 'openai_clip'"):
        convert(tmp_path, {}, tiny_table("openai_clip"), modality="sar")


# ---------------------------------------------------------------- into our modules


def test_a_converted_clip_computes_what_open_clip_computes(tmp_path):
    torch.manual_seed(1)
    reference = open_clip.CLIP(**TINY_ARCHITECTURE).eval()
    table = tiny_table("openai_clip")
    state = {**fake_state(table, optional={"facts of the archive"}), **reference.state_dict(keep_vars=True)}
    assert state["visual.proj"].requires_grad  # parameters, as some state dicts hold
    report, path = convert(tmp_path, state, table)
    assert report.constants == ["input_resolution", "context_length", "vocab_size"]
    encoder = OpenCLIPEncoder(architecture=TINY_ARCHITECTURE, weights=str(path), taps=(1,), finetune="none").eval()
    images, tokens = torch.randn(2, 3, 64, 64), torch.randint(1, 519, (3, 16))
    with torch.no_grad():
        torch.testing.assert_close(encoder.model.encode_image(images), reference.encode_image(images))
        torch.testing.assert_close(encoder.model.encode_text(tokens), reference.encode_text(tokens))
    assert bits(encoder.model.state_dict()) == bits(reference.state_dict())


def test_a_clip_with_split_attention_computes_the_same(tmp_path):
    torch.manual_seed(1)
    reference = open_clip.CLIP(**TINY_ARCHITECTURE).eval()
    state = {}
    for name, tensor in reference.state_dict().items():
        if name.endswith("attn.in_proj_weight"):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[f"sem_seg_head.predictor.clip_model.{name[:-14]}{letter}_proj_weight"] = part.clone()
        else:
            state[f"sem_seg_head.predictor.clip_model.{name}"] = tensor
    _, path = convert(tmp_path, {"model": state}, tiny_table("catseg_clip"))
    encoder = OpenCLIPEncoder(architecture=TINY_ARCHITECTURE, weights=str(path), taps=(1,), finetune="none").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder.model.encode_image(images), reference.encode_image(images))


def test_a_converted_dino_loads_into_timm(tmp_path):
    table = tiny_table("dino")
    report, path = convert(tmp_path, {"teacher": fake_state(table, optional={"projection head"})}, table)
    args = {"patch_size": 8, "embed_dim": TINY_DINO.width, "depth": 3, "num_heads": 2}
    encoder = TimmEncoder("vit_small_patch8_224", taps=(1, 3), weights=str(path), image_size=56, model_args=args)
    ours = load_file(path)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in encoder.model.state_dict().items())
    loaded = load_weights(encoder.model, path)
    assert sorted(loaded.aside) == sorted(report.aside) == sorted(f"aside.head.{name}" for name in HEAD)
    assert loaded.unexpected == []
    assert loaded.summary().endswith("0 missing, 0 unexpected, 8 set aside")
    assert "set aside: aside.head.mlp.0.weight" in str(loaded)


def test_a_converted_dinov3_loads_into_timm_with_its_own_periods(tmp_path):
    table = tiny_table("dinov3")
    state = fake_state(table)
    state["rope_embed.periods"] = (100.0 ** (torch.arange(16) / 16)).bfloat16()  # as the published files hold them
    _, path = convert(tmp_path, state, table)
    args = {"embed_dim": TINY_DINOV3.width, "depth": 3, "num_heads": 1}
    encoder = TimmEncoder(
        "vit_small_patch16_dinov3_qkvb", taps=(3,), weights=str(path), model_args=args, keep_rope_periods=True
    )
    assert encoder.model.rope.periods.dtype is torch.float32
    assert torch.equal(encoder.model.rope.periods, state["rope_embed.periods"].float())
    assert torch.equal(encoder.model.blocks[1].attn.v_bias, state["blocks.1.attn.qkv.bias"][128:])
    with pytest.raises(UserError, match=r"that the model does not have: rope\.periods"):
        TimmEncoder("vit_small_patch16_dinov3_qkvb", taps=(3,), weights=str(path), model_args=args)


@pytest.mark.realdata
def test_a_small_model_of_the_authors_goes_there_and_back(tmp_path):
    root = realdata_root()
    file = root / "parity" / "mmovseg_released_tiny.npz" if root is not None else None
    if file is None or not file.is_file():
        pytest.skip("the outputs of the authors' modules are not here")
    with np.load(file) as arrays:
        names = [name for name in arrays.files if name.startswith("sd/model/")]
        state = {name.removeprefix("sd/model/"): torch.from_numpy(arrays[name]) for name in names}
    dims = ReleasedDims(
        clip=ClipDims("small", embed=16, width=64, depth=9, grid=4, text_width=64, text_depth=6, words=100),
        dense=DinoDims("small", width=48, depth=9),
        hidden=16,
        projected_guidance=8,
        guidance=(12, 6),
        guidance_out=(4, 2),
        decoder=(32, 16),
    )
    table = mmovseg_table(dims)
    report, path = convert(tmp_path, {"model": state}, table)
    assert len(report.constants) == 2
    assert bits(torch.load(back(path, table), weights_only=True)["model"]) == bits(state)


HEAD = [
    *(f"mlp.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")),
    "last_layer.weight_g",
    "last_layer.weight_v",
]
