"""Image-text models: what they read, what they lose, what trains, what is loaded, and what they write."""

import itertools
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, CoCaLoss

from mmovseg.checkpoint.export import export_part
from mmovseg.checkpoint.save import save_weights
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.open_clip_models import clip_from_architecture, coca_from_architecture, model_from_name
from mmovseg.projects.sartext.modeling.decoding import BeamSearch
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel
from mmovseg.projects.sartext.modeling.norms import CLIP_MEAN, CLIP_STD, PercentileNorm, grey_norm
from tests.projects.sartext.image_text_worker import CLIP, COCA, inputs, make

# ------------------------------------------------------------------ what is read


def test_a_sar_band_is_read_as_the_grey_that_clip_reads():
    sar = torch.tensor([-40.0, -25.0, -10.0, 5.0, 20.0]).reshape(1, 1, 5).repeat(3, 1, 1)
    grey = torch.tensor([0.0, 0.0, 127.5, 255.0, 255.0]).reshape(1, 1, 5)
    expected = (grey - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    torch.testing.assert_close(grey_norm(clip=(-25.0, 5.0))(sar), expected)
    as_they_are = grey_norm(clip=None)(torch.full((3, 1, 1), 300.0))
    assert float(as_they_are[0, 0, 0]) == pytest.approx((300 - CLIP_MEAN[0]) / CLIP_STD[0])
    with pytest.raises(UserError, match="the lower first"):
        grey_norm(clip=(5.0, -25.0))


def test_percentiles_follow_each_image_and_leave_out_what_is_no_data():
    x = torch.arange(1.0, 102.0).reshape(1, 1, 101)
    x[0, 0, 0] = 9e9
    valid = torch.ones(1, 101, dtype=torch.bool)
    valid[0, 0] = False
    found = PercentileNorm(percentiles=(10, 90), mean=(0.0,), std=(1.0,))(x, valid)
    low, high = 2 + 0.1 * 99, 2 + 0.9 * 99  # of 2 .. 101
    expected = 255 * ((x - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(found[:, :, 1:], expected[:, :, 1:])
    assert float(found[0, 0, 0]) == 0
    flat = PercentileNorm(mean=(10.0,), std=(2.0,))
    assert flat(torch.full((1, 2, 2), 7.0)).unique().tolist() == [-5.0]
    nothing = flat(torch.full((1, 2, 2), 7.0), torch.zeros(2, 2, dtype=torch.bool))
    assert nothing.unique().tolist() == [0.0]
    for wrong in ((90, 10), (-1, 50), (1,)):
        with pytest.raises(UserError, match="percentiles must lie|the lower first"):
            PercentileNorm(percentiles=wrong)


def test_the_modality_and_its_bands_are_read_and_nothing_else():
    model = make().eval()
    items = inputs()
    with torch.no_grad():
        before = model.encode_images(items)
        for item in items:
            item["sar"][1] += 3.0
            item["image"] = torch.zeros(3, 16, 16)
        torch.testing.assert_close(model.encode_images(items), before)
        items[0]["sar"][0, :8] += 3.0
        after = model.encode_images(items)
    assert (after - before).abs().amax(dim=1).gt(1e-5).tolist() == [True, False, False, False]
    torch.testing.assert_close(after.norm(dim=1), torch.ones(4))
    with pytest.raises(UserError, match="sample '0.tif' has no 'image', which this clip model reads"):
        make(modality="optical", bands=None)(inputs())


def test_an_image_of_another_size_is_read_as_a_whole():
    model = make(norm=PixelNorm(mean=(0.0,) * 3, std=(1.0,) * 3)).eval()
    items = [*inputs(["a"], size=32), *inputs(["b"], size=16)]
    items[0]["sar"] = torch.zeros(2, 24, 48)
    pixels = model.pixels(items)
    assert pixels.shape == (2, 3, 16, 16)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        items[0]["sar"] = torch.zeros(2, 24, 48)
        items[0]["sar"][0, corner[0], corner[1]] = 100.0
        assert float(model.pixels(items)[0, 0, corner[0], corner[1]]) > 1.0


# ------------------------------------------------------------------ losses


def test_losses_are_those_of_open_clip_where_all_captions_differ():
    captions = ["a ship", "two ships", "a bridge"]
    items = inputs(captions)
    model = make("coca", contrastive_weight=0.5, caption_weight=2.0)
    found = model(items)
    answer = model.model(model.pixels(items), model._tokens(captions))
    scale = answer["logit_scale"]
    expected = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=0.5)(
        answer["image_features"], answer["text_features"], answer["logits"], answer["labels"], scale
    )
    torch.testing.assert_close((found["loss_contrastive"], found["loss_caption"]), expected)
    clip = make()
    image, text = clip.encode_images(items), clip.encode_texts(captions)
    torch.testing.assert_close(clip(items)["loss_contrastive"], ClipLoss()(image, text, clip.logit_scale))


def test_pairs_of_equal_captions_are_no_negatives_of_each_other():
    model = make()
    items = inputs(["A  ship", "two ships", "a bridge", "a ship"])
    image, text = model.encode_images(items), model.encode_texts([item["caption"] for item in items])
    logits = model.logit_scale * image @ text.T
    rivals = [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3]]  # of each pair, itself included
    rows = [torch.logsumexp(logits[i, own], dim=0) - logits[i, i] for i, own in enumerate(rivals)]
    columns = [torch.logsumexp(logits[own, i], dim=0) - logits[i, i] for i, own in enumerate(rivals)]
    torch.testing.assert_close(model(items)["loss_contrastive"], (sum(rows) + sum(columns)) / 8)
    alone = make(equal_texts=False)
    torch.testing.assert_close(alone(items)["loss_contrastive"], ClipLoss()(image, text, model.logit_scale))
    assert float(model(inputs(["a ship"] * 3))["loss_contrastive"].detach()) == 0  # nothing to tell apart


def test_of_a_question_with_its_answer_only_the_answer_is_learned():
    model = make("coca", contrastive_weight=0.0)
    items = inputs(["is it a ship? yes", "two ships"])
    items[0]["question"] = "is it a ship?"
    asked = len(model.tokenizer.encode("is it a ship?"))
    answer = model.model(model.pixels(items), model._tokens([item["caption"] for item in items]))
    labels = answer["labels"].clone()
    labels[0, :asked] = 0
    expected = F.cross_entropy(answer["logits"].permute(0, 2, 1), labels, ignore_index=0)
    torch.testing.assert_close(model(items)["loss_caption"], expected)
    whole = make("coca", contrastive_weight=0.0, learn_questions=True)
    expected = F.cross_entropy(answer["logits"].permute(0, 2, 1), answer["labels"], ignore_index=0)
    torch.testing.assert_close(whole(items)["loss_caption"], expected)
    items[0]["question"] = "is it the sea?"
    with pytest.raises(UserError, match="'0.tif': its caption does not begin with its question"):
        model(items)


def test_a_long_question_is_cut_and_its_answer_is_still_learned_and_asked_for_alike():
    model = make("coca")
    question = "is there a ship or a bridge or a pier or the sea?"
    items = inputs([f"{question} yes"], question=question)
    tokens, given = model._training_tokens(items, [items[0]["caption"]])
    ids = model.tokenizer.encode(question)[:7]
    answer = model.tokenizer.encode("yes")
    end = [model.tokenizer.sot_token_id, model.tokenizer.eot_token_id]
    assert tokens[0].tolist() == [end[0], *ids, *answer, end[1], *[0] * (16 - 9 - len(answer))]
    assert given.tolist() == [7]
    seen = []

    def search(images, prompts):
        seen.append(prompts.tolist())
        return [[]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BeamSearch, "__call__", lambda self, model, images, prompts=None: search(images, prompts))
        model.eval().generate(items, prompts=[question])
    assert seen == [[[end[0], *ids]]]


@pytest.mark.parametrize("start", [10.0, math.log(100.0)])
def test_the_temperature_is_limited_and_can_fall_again(start):
    model = make()
    with torch.no_grad():
        model.model.logit_scale.fill_(start)  # ln 100 is where OpenAI's weights stand
    items = inputs(["a ship", "two ships"])
    image, text = model.encode_images(items), model.encode_texts(["a ship", "two ships"])
    loss = model(items)["loss_contrastive"]
    torch.testing.assert_close(loss, ClipLoss()(image, text, torch.tensor(100.0)))
    loss.backward()
    assert model.model.logit_scale.grad != 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("clip", {}),
        ("clip", {"locked": ["image"]}),
        ("clip", {"locked": ["text"]}),
        ("coca", {}),
        ("coca", {"caption_weight": 0.0}),
        ("coca", {"contrastive_weight": 0.0}),
        ("coca", {"locked": ["image", "text"], "unlocked_layers": 1}),
    ],
)
def test_all_that_trains_gets_a_gradient_and_the_rest_none(kind, options):
    model = make(kind, **options)
    losses = model(inputs())
    assert set(losses) == {
        name
        for name, given in (("loss_contrastive", True), ("loss_caption", kind == "coca"))
        if given and options.get(f"{name[5:]}_weight", 1.0)
    }
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    trained = {name.removeprefix("model.") for name, p in model.named_parameters() if p.requires_grad}
    visual = {name for name in trained if name.startswith("visual.")}
    decoder = {name for name in trained if name.startswith("text_decoder.")}
    unlocked = options.get("unlocked_layers", 0)
    assert bool(visual) == ("image" not in options.get("locked", ()) or bool(unlocked))
    assert bool(decoder) == (kind == "coca" and options.get("caption_weight", 1.0) > 0)
    if unlocked:
        assert not any(name.startswith("visual.transformer.resblocks.0.") for name in visual)
    if options == {"locked": ["text"]}:
        assert "token_embedding.weight" not in trained and "visual.conv1.weight" in trained


def test_what_cannot_be_built_or_trained_is_told(monkeypatch):
    for options, fault in (
        ({"kind": "blip"}, "kind is 'blip', expected one of clip, coca"),
        ({"modality": "both"}, "modality is 'both', expected one of optical, sar"),
        ({"locked": ["decoder"]}, "locked is 'decoder', expected one of image, text"),
        ({"name": "ViT-B-32"}, "give either name or architecture"),
        ({"contrastive_weight": 0.0}, "there is nothing to train"),
    ):
        with pytest.raises(UserError, match=fault):
            ImageTextModel(**{"kind": "clip", "architecture": CLIP, "norm": grey_norm(), **options})
    small = clip_from_architecture(CLIP)
    monkeypatch.setattr("mmovseg.modeling.open_clip_models.open_clip.create_model", lambda name, pretrained: small)
    assert ImageTextModel(kind="clip", name="ViT-B-32", norm=grey_norm()).model is small
    with pytest.raises(UserError, match="open_clip's 'ViT-B-32' is a CLIP, not a model of kind 'coca'"):
        ImageTextModel(kind="coca", name="ViT-B-32", norm=grey_norm())
    for item, fault in (({}, "'0.tif' has no caption to train on"), ({"caption": " "}, "'0.tif' has no caption")):
        with pytest.raises(UserError, match=fault):
            make()([{"sar": torch.zeros(2, 16, 16), "file_name": "0.tif", **item}])
    with pytest.raises(UserError, match="a caption is empty"):
        make().encode_texts(["a ship", ""])


# ------------------------------------------------------------------ inference


def test_inference_answers_what_the_sample_asks_for():
    model = make("coca", beams=2).eval()
    items = inputs(["a ship", "two ships"])
    items[0]["captions"], items[1]["captions"] = ["a ship", "a bridge by the sea"], ["two ships"]
    with torch.no_grad():
        outputs = model(items)
        texts = model.encode_texts(["a ship", "a bridge by the sea", "two ships"])
    assert [set(output) for output in outputs] == [{"image_embedding", "text_embeddings"}] * 2
    torch.testing.assert_close(outputs[0]["text_embeddings"], texts[:2])
    torch.testing.assert_close(outputs[1]["text_embeddings"], texts[2:])
    assert set(model([{**item, "task": "caption"} for item in items])[0]) == {"generated_caption"}
    asked = [{**item, "question": "is it a ship?"} for item in items]
    assert set(model(asked)[0]) == {"generated_answer"}
    assert set(model([{**item, "task": "embedding"} for item in asked])[0]) == {"image_embedding", "text_embeddings"}
    with pytest.raises(UserError, match="ask for answer and embedding; batch them apart"):
        model([items[0], asked[1]])
    with pytest.raises(UserError, match="the task of a sample is 'count'"):
        model([{**item, "task": "count"} for item in items])
    with pytest.raises(UserError, match="'0.tif' has no question"):
        model([{**item, "task": "answer"} for item in items])
    with pytest.raises(UserError, match="a CLIP model has no decoder"):
        make().eval()([{**item, "task": "caption"} for item in items])


def test_a_text_over_the_context_is_cut_with_one_warning(caplog):
    model = make().eval()
    long = " ".join(f"ship number {n} of the fleet" for n in range(9))
    with caplog.at_level(logging.WARNING), torch.no_grad():
        cut = model.encode_texts([long, "a ship"])
        model.encode_texts([long])
    warnings = [record.message for record in caplog.records if "only the first 16 are used" in record.message]
    assert len(warnings) == 1 and warnings[0].startswith("the prompt 'ship number 0 of the fleet")
    assert cut.shape == (2, 32)
    assert model.encode_texts([]).shape == (0, 32)


# ------------------------------------------------------------------ weights


def test_the_towers_go_on_as_a_clip_of_the_product(tmp_path):
    model = make().eval()
    whole, part = tmp_path / "model_final.safetensors", tmp_path / "clip.safetensors"
    save_weights(model, whole)
    assert export_part(whole, part, part="model") == len(model.model.state_dict())
    encoder = OpenCLIPEncoder(architecture=CLIP, weights=str(part), taps=(1,)).eval()
    texts = ["a ship", "two ships"]
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_texts(texts), model.encode_texts(texts))
        x = model.pixels(inputs())
        torch.testing.assert_close(F.normalize(encoder.model.encode_image(x)), model.encode_images(inputs()))
        for file in (whole, part):  # a checkpoint and an exported part start another stage alike
            again = make(weights=str(file), locked=["text"]).eval()
            torch.testing.assert_close(again.encode_texts(texts), model.encode_texts(texts))
    theirs = tmp_path / "epoch_3.pt"  # as open_clip's own training saves
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.model.state_dict().items()}}, theirs)
    torch.testing.assert_close(make(weights=str(theirs)).eval().encode_texts(texts), model.encode_texts(texts))
    with pytest.raises(UserError, match="does not exist"):
        make(weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match="lacks"):
        make("coca", weights=str(whole))


def test_the_decoder_starts_from_random_weights_not_from_what_memory_held():
    torch.manual_seed(3)
    projection = coca_from_architecture(COCA).text_decoder.text_projection
    assert float(projection.detach().std()) == pytest.approx(32**-0.5, rel=0.05)
    torch.manual_seed(3)
    torch.testing.assert_close(coca_from_architecture(COCA).text_decoder.text_projection, projection)


def test_architectures_are_checked():
    with pytest.raises(UserError, match="clip architecture has the unknown key 'layers'"):
        clip_from_architecture({**CLIP, "layers": 3})
    with pytest.raises(UserError, match="coca architecture lacks the key 'multimodal_cfg'"):
        coca_from_architecture(CLIP)
    with pytest.raises(UserError, match=r"text_cfg.embed_cls must be true"):
        coca_from_architecture({**COCA, "text_cfg": {**COCA["text_cfg"], "embed_cls": False}})
    with pytest.raises(UserError, match="open_clip has no model 'ViT-Z'"):
        model_from_name("ViT-Z", None)


# ------------------------------------------------------------------ writing


class Chain:
    """Stands for a CoCa of six tokens whose next token depends on the last one and on the image alone."""

    def __init__(self, table):
        self.table = table  # (images, tokens, tokens) log-probabilities

    def _encode_image(self, images):
        return images, images

    def _encode_text(self, texts):
        return None, texts

    def text_decoder(self, images, texts):
        return torch.stack([self.table[int(i), row] for i, row in zip(images[:, 0], texts, strict=True)])


def best_by_trying_all(table, image, given, longest, shortest, start, end):
    """The text of the highest mean log-probability, by going through every text there is."""
    tokens = [token for token in range(table.shape[-1]) if token not in (start, end)]
    found = []
    for count in range(shortest, longest - len(given)):
        for text in itertools.product(tokens, repeat=count):
            path = [given[-1], *text, end]
            total = sum(float(table[image, a, b]) for a, b in itertools.pairwise(path))
            found.append((total / (count + 1), list(text)))
    return max(found)[1]


@pytest.mark.parametrize(("shortest", "given"), [(0, [4]), (2, [4]), (1, [4, 1, 2])])
def test_a_wide_beam_finds_the_best_text_there_is(shortest, given):
    table = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(5)).mul(2).log_softmax(dim=-1)
    search = BeamSearch(start=4, end=5, beams=64, max_length=len(given) + 4, min_length=shortest)
    images = torch.arange(3.0)[:, None]
    texts = search(Chain(table), images, torch.tensor([given] * 3))
    expected = [best_by_trying_all(table, i, given, search.max_length, shortest, 4, 5) for i in range(3)]
    assert texts == expected
    assert len({tuple(text) for text in texts}) > 1


def test_one_beam_is_greedy():
    table = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1)).log_softmax(dim=-1)
    texts = BeamSearch(start=4, end=5, beams=1, max_length=9, min_length=2)(Chain(table), torch.arange(2.0)[:, None])
    for image, text in enumerate(texts):
        token, expected = 4, []
        for step in range(7):
            scores = table[image, token].clone()
            scores[4] = float("-inf")
            if step < 2:
                scores[5] = float("-inf")
            token = int(scores.argmax())
            if token == 5:
                break
            expected.append(token)
        assert text == expected


def test_a_coca_learns_to_write_the_captions_and_answers_it_saw():
    captions = ["a ship near the pier", "bare land and forest"]
    model = make("coca", beams=3)
    items = inputs(captions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        sum(model(items).values()).backward()
        optimizer.step()
    model.eval()
    assert model.generate(items) == captions
    assert model.generate(items, prompts=["a ship", "bare land and"]) == ["near the pier", "forest"]
    alone = [
        model.generate([item], prompts=[text])[0] for item, text in zip(items, ["a ship near", "bare"], strict=True)
    ]
    assert model.generate(items, prompts=["a ship near", "bare"]) == alone == ["the pier", "land and forest"]
    for text, whole in zip(model.generate(items, max_length=5), captions, strict=True):  # 3 tokens, start and end
        assert whole.startswith(text) and len(model.tokenizer.encode(text)) == 3
