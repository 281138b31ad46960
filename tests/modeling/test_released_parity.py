"""The released model computes what the authors' own modules compute, stage by stage, forward and backward.

What was stored comes from their modules at small width with random weights, in float32. Weights go through the key
table of checkpoints, so these tests hold the table to account too.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmovseg.data.vocabulary import vocabulary_from_names
from tests.modeling.released_parts import (
    HEAD_DIMS,
    HEAD_PREFIX,
    load_clip,
    load_dino,
    load_head,
    load_model,
    model_dims,
    tensors,
    their_gradients,
)

pytestmark = pytest.mark.realdata

ATOL = 1e-4
TEST = vocabulary_from_names("city, road, forest, water, farmland")
TRAIN = vocabulary_from_names("city, forest, farmland")


def near(ours, theirs, atol=ATOL):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0.0)


def watch(stages, modules):
    """Let every module append its output to the list of its name."""
    for name, module in modules.items():
        module.register_forward_hook(lambda _m, _i, out, name=name: stages.setdefault(name, []).append(out))


def assert_gradient_norms(found, stored):
    """Norms within 1e-4 of the norm, and within 1e-4 where they are small."""
    norms = {name: float(gradient.double().norm()) for name, gradient in found.items()}
    missing = set(stored) - set(norms)
    assert all(float(stored[name]) == 0.0 for name in missing), sorted(missing)
    for name, value in stored.items():
        if name not in missing:
            assert norms[name] == pytest.approx(float(value), rel=1e-4, abs=1e-4), name


def run_head(head, part):
    """Logits of each image by itself, since the stored text differs between images; and the stages."""
    inputs, stages = tensors(f"{part}/in/"), {}
    layers = {f"layer{n}": layer.classes for n, layer in enumerate(head.layers)}
    layers |= {"layer0_swin": head.layers[0].spatial, "fused_embed": head.fusion}
    watch(stages, layers | {"dec1": head.decoder[0], "dec2": head.decoder[1]})
    logits = []
    for index in range(len(inputs["img"])):
        one = {name: value[index : index + 1] for name, value in inputs.items()}
        guidance = [
            torch.cat([F.relu(head.clip_guidance[n](one[clip])), F.relu(head.dense_guidance[n](one[dense]))], dim=1)
            for n, (clip, dense) in enumerate((("res4", "d4"), ("res5", "d8")))
        ]
        logits.append(head.aggregate(one["text"][0, :, 0], one["img"], one["dino"], one["res3"], guidance))
    return torch.cat(logits), {name: torch.cat([out.flatten(0, -4) for out in outs]) for name, outs in stages.items()}


@pytest.mark.parametrize(("part", "padding"), [("head", 32), ("head_nopad", 4)])
def test_head(part, padding):
    head = load_head(class_padding=padding)
    logits, stages = run_head(head, part)
    expected = tensors(f"{part}/mid/")
    assert stages.keys() == expected.keys()
    for name, value in expected.items():  # theirs keep the classes behind the channels
        near(stages[name], value.transpose(1, 2).flatten(0, 1) if value.ndim == 5 else value)
    near(logits, tensors(f"{part}/out/")["logits"])
    (logits * tensors(f"{part}/in/")["grad_w"]).sum().backward()
    found = their_gradients(HEAD_DIMS, head, "head.")
    assert_gradient_norms(
        {name.removeprefix(HEAD_PREFIX): g for name, g in found.items()}, tensors(f"{part}/gradnorm/")
    )


@pytest.mark.parametrize("part", ["dino56", "dino96"])
def test_dense_encoder_on_its_own_grid_and_with_a_resized_table(part):
    image, outputs = tensors(f"{part}/in/")["image"], tensors(f"{part}/out/")
    for index, found in enumerate(load_dino()(image).values()):
        near(found.flatten(2).transpose(1, 2), outputs[str(index)][:, 1:])


def test_clip_text():
    with torch.no_grad():
        near(load_clip().model.encode_text(tensors("clip/in/")["tokens"]), tensors("clip/out/")["text"])


@pytest.mark.parametrize("part", ["clip32", "clip48"])
def test_clip_images(part):
    outputs = tensors(f"{part}/out/")
    with torch.no_grad():
        found = load_clip().encode_image(tensors(f"{part}/in/")["image"])
    near(found["dense"].flatten(2).transpose(1, 2), outputs["dense"][:, 1:])
    near(found["block2"].flatten(2).permute(2, 0, 1), outputs["block1"][1:])


def model_inputs(vocabulary, *, labels=False):
    images, radar = tensors("model/in/")["image"], tensors("model/in/")["sar"]
    items = []
    for index, (image, sar) in enumerate(zip(images, radar, strict=True)):
        items.append(
            {"image": image, "sar": sar.repeat(3, 1, 1), "vocabulary": vocabulary, "height": 250, "width": 256}
        )
        if labels:
            coarse = tensors("model/train/")["sem_seg"][index].long()  # one value for 8x8 pixels
            items[-1]["sem_seg"] = coarse.repeat_interleave(8, dim=0).repeat_interleave(8, dim=1)
    return items


def test_model_eval(monkeypatch):
    model, expected = load_model(), tensors("model/eval/")
    monkeypatch.setattr("mmovseg.modeling.clip.tokenize", lambda tokenizer, texts: expected["tokens"])
    stages = {}
    watch(stages, {"res4": model.head.clip_adapters[0], "res5": model.head.clip_adapters[1], "dense": model.head.dense})
    head, calls = model.head.forward, []
    model.head.forward = lambda text, clip, *args, **more: calls.append((text, clip)) or head(text, clip, *args, **more)
    with torch.no_grad():
        first, second = model(model_inputs(TEST))
        scores = model.explain(model_inputs(TEST)[:1])[0]["scores"]
    text, clip = calls[0]
    near(text, expected["text"][:, 0])
    near(clip["dense"][:1], expected["res3"])
    near(clip["dense"][:1].flatten(2).transpose(1, 2), expected["clip_features"][:, 1:])
    near(stages["res4"][0][:1], expected["res4"])
    near(stages["res5"][0][:1, :, ::2, ::2], expected["res5"])
    fused = stages["dense"][0]
    near(fused["block4"][:1], expected["dg4"])
    near(fused["block8"][:1, :, ::2, ::2], expected["dg8"])
    near(fused["block9"][:1], expected["dino_down"])
    near(scores, expected["logits"][0])
    near(first["sem_seg"], expected["sem_seg"].float(), atol=5e-4)  # stored in float16
    assert second["sem_seg"].shape == (5, 250, 256) and not torch.allclose(first["sem_seg"], second["sem_seg"])


def test_model_train(monkeypatch):
    model, expected = load_model().train(), tensors("model/train/")
    monkeypatch.setattr("mmovseg.modeling.clip.tokenize", lambda tokenizer, texts: expected["tokens"])
    stages = {}
    watch(stages, {"logits": model.head})
    loss = model(model_inputs(TRAIN, labels=True))["loss_sem_seg"]
    loss.backward()
    near(stages["logits"][0].detach(), expected["logits"])
    assert loss.item() == pytest.approx(float(expected["loss"]), abs=1e-6)
    stored = {name.removeprefix("gradnorm/"): value for name, value in expected.items() if name.startswith("gradnorm/")}
    assert len(stored) > 150
    assert_gradient_norms(their_gradients(model_dims(), model, ""), stored)
