"""CLIP wrapper: dense features, prompts, cache, what trains."""

from __future__ import annotations

import logging

import pytest
import torch
from open_clip import SimpleTokenizer

from mmovseg.data.vocabulary import ClassEntry, Vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.modeling.clip import OpenCLIPEncoder, trainable_elements
from mmovseg.modeling.text.tokenizer import ReducedTokenizer, tokenize

WIDTH, BLOCKS = 96, 6 + 3  # visual and text
ARCHITECTURE = dict(
    embed_dim=WIDTH,
    vision_cfg=dict(image_size=64, patch_size=8, width=WIDTH, layers=6, head_width=32, pool_type="avg"),
    text_cfg=dict(context_length=64, vocab_size=2048, width=WIDTH, heads=3, layers=3),
)


def build(**changes):
    torch.manual_seed(0)
    settings = dict(architecture=ARCHITECTURE, taps=(2, 4), dense="tokens", finetune="qv") | changes
    return OpenCLIPEncoder(**settings).eval()


def test_dense_tokens_average_to_the_image_embedding():
    clip = build()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        dense = clip.encode_image(x)["dense"]
        pooled = clip.model.encode_image(x)
    torch.testing.assert_close(dense.mean(dim=(2, 3)), pooled, atol=1e-5, rtol=1e-5)


def test_taps_are_the_blocks_of_open_clip():
    clip = build()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = clip.encode_image(x)
        theirs = clip.model.visual.forward_intermediates(x, indices=[1, 3])["image_intermediates"]
    torch.testing.assert_close(ours["block2"], theirs[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours["block4"], theirs[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dense", ["value", "value_cls", "value_own"])
def test_value_path_equals_a_loop_over_tokens(dense):
    clip = build(dense=dense)
    x = torch.randn(1, 3, 64, 64)
    visual, block = clip.model.visual, clip.model.visual.transformer.resblocks[-1]
    with torch.no_grad():
        ours = clip.encode_image(x)["dense"]
        tokens = visual._embeds(x)
        for earlier in visual.transformer.resblocks[:-1]:
            tokens = earlier(tokens)
        expected = []
        for token in tokens[0, 1:]:
            value = block.attn.in_proj_weight[2 * WIDTH :] @ block.ln_1(token) + block.attn.in_proj_bias[2 * WIDTH :]
            value = block.attn.out_proj(value)
            if dense != "value":
                value = value + (tokens[0, 0] if dense == "value_cls" else token)
                value = value + block.mlp(block.ln_2(value))
            expected.append(visual.ln_post(value) @ visual.proj)
    torch.testing.assert_close(ours[0].flatten(1).T, torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (96, 40)])
def test_any_size_is_read(size):
    dense = build().encode_image(torch.randn(1, 3, *size))["dense"]
    assert dense.shape == (1, WIDTH, size[0] // 8, size[1] // 8)


def test_vocabulary_embeddings_are_the_mean_over_synonyms_and_templates():
    clip = build(templates=("a photo of {}", "{} from above"))
    entry = ClassEntry("water", synonyms=("lake",))
    with torch.no_grad():
        found = clip.encode_vocabulary(Vocabulary("v", (entry,)))
        texts = ["a photo of water", "water from above", "a photo of lake", "lake from above"]
        mean = torch.nn.functional.normalize(clip.encode_texts(texts).mean(dim=0), dim=0)
    torch.testing.assert_close(found[0], mean, atol=1e-6, rtol=1e-5)


def test_cache_follows_weights_names_and_templates():
    clip = build()
    words = vocabulary_from_names("water, road")
    with torch.no_grad():
        first = clip.encode_vocabulary(words)
        assert clip.encode_vocabulary(words) is first
        assert not torch.allclose(clip.encode_vocabulary(vocabulary_from_names("forest, road"))[0], first[0])
        again = clip.encode_vocabulary(words)
        clip.model.ln_final.weight.mul_(torch.linspace(0.5, 2, WIDTH))
        changed = clip.encode_vocabulary(words)
    torch.testing.assert_close(again, first)
    assert not torch.allclose(changed, first, atol=1e-3)


def test_cache_of_one_precision_is_not_used_in_another():
    words = vocabulary_from_names("water, road")
    with torch.no_grad():
        exact = build().encode_vocabulary(words)
        clip = build()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = clip.encode_vocabulary(words)
            assert clip.encode_vocabulary(words) is rough
        found = clip.encode_vocabulary(words)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = clip.encode_vocabulary(words)
    assert not torch.equal(rough.float(), exact) and torch.equal(again, rough)
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def test_cache_is_not_used_while_training():
    clip = build(finetune="full").train()
    assert clip.encode_vocabulary(vocabulary_from_names("water")).requires_grad


@pytest.mark.parametrize(("mode", "count"), [("qv", BLOCKS * 2 * WIDTH**2), ("none", 0)])
def test_what_trains(mode, count):
    assert sum(trainable_elements(p) for p in build(finetune=mode).parameters()) == count


def test_full_trains_everything_but_the_temperature():
    clip = build(finetune="full")
    assert [name for name, p in clip.named_parameters() if not p.requires_grad] == ["model.logit_scale"]


def test_qv_gradient_of_keys_is_zero():
    clip = build(finetune="qv")
    clip.encode_texts(["water"]).sum().backward()
    gradient = clip.model.transformer.resblocks[0].attn.in_proj_weight.grad
    assert gradient[:WIDTH].abs().sum() > 0 and gradient[2 * WIDTH :].abs().sum() > 0
    assert not gradient[WIDTH : 2 * WIDTH].any()


def test_reduced_tokenizer_is_a_prefix_of_clips():
    full, small = SimpleTokenizer(context_length=77), ReducedTokenizer(2048, 64)
    assert small.vocab_size == 2048 and small.eot_token_id == 2047
    for text in ("a photo of water", "Straße am Fluß, 漢字!", "rangeland crossed by a road"):
        tokens = small.encode(text)
        assert max(tokens) < 2046
        assert small.decode(tokens) == full.decode(full.encode(text))


def test_whole_vocabulary_is_clips_own():
    full = SimpleTokenizer(context_length=77)
    same = ReducedTokenizer(full.vocab_size, 77)
    text = ["a photo of a farmland in the scene"]
    assert torch.equal(same(text), full(text))


def test_long_prompts_are_cut_with_one_warning_a_text(caplog):
    tokenizer = ReducedTokenizer(2048, 64)
    name = " ".join(["word"] * 300)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            tokens = tokenize(tokenizer, [f"a photo of {name}", "a photo of water"])
    assert tokens.shape == (2, 64) and tokens[0, -1] == 2047
    length = len(tokenizer.encode(f"a photo of {name}")) + 2
    assert [record.getMessage().rsplit("' ", 1)[1] for record in caplog.records] == [
        f"has {length} tokens; only the first 64 are used"
    ]


def test_a_prompt_that_just_fits_is_not_warned_about(caplog):
    tokenizer = ReducedTokenizer(2048, 8)
    with caplog.at_level(logging.WARNING):
        tokens = tokenize(tokenizer, ["a a a a a a", "b b b b b b b"])
    assert (tokens[:, -1] == tokenizer.eot_token_id).all()
    assert [record.getMessage().split("...")[0] for record in caplog.records] == ["the prompt 'b b b b b b b"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(templates=("a photo",)), "exactly one"),
        (dict(templates="poem"), "no prompt templates 'poem'; there are: paper, released"),
        (dict(finetune="some"), "got 'some'"),
        (dict(architecture={"embed_dim": 8, "depth": 3}), "unknown key 'depth'"),
        (dict(weights="missing.safetensors"), "missing.safetensors"),
    ],
)
def test_bad_arguments_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        build(**changes)


def test_unknown_name_is_refused():
    with pytest.raises(UserError, match="no model 'ViT-B-15'"):
        OpenCLIPEncoder("ViT-B-15")
