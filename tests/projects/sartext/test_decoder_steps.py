"""Keys and values that are kept give the same next tokens as whole texts that are run again."""

from __future__ import annotations

import pytest
import torch

from mmovseg.modeling.open_clip_models import coca_from_architecture
from mmovseg.projects.sartext.modeling.decoder_steps import CachedSteps, WholeTexts, steps_of
from mmovseg.projects.sartext.modeling.decoding import BeamSearch

_TEXT = dict(context_length=12, vocab_size=520, width=32, heads=2, layers=2)
ARCHITECTURE = dict(
    embed_dim=32,
    vision_cfg=dict(
        image_size=16,
        patch_size=8,
        width=32,
        layers=1,
        head_width=16,
        attentional_pool=True,
        attn_pooler_heads=2,
        attn_pooler_queries=5,
        output_tokens=True,
    ),
    text_cfg=dict(**_TEXT, embed_cls=True, output_tokens=True),
    multimodal_cfg=dict(**_TEXT),
)


def make(seed: int = 0):
    """A CoCa with weights of a size that makes its tokens depend on each other and on the image."""
    torch.manual_seed(seed)
    model = coca_from_architecture(ARCHITECTURE).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0 if "cross_attn" in name else 2.0)
    return model


@torch.no_grad()
@pytest.mark.parametrize("given", [1, 4])
def test_kept_keys_and_values_equal_whole_texts(given: int) -> None:
    model, images = make(), torch.randn(3, 3, 16, 16)
    _, memory = model._encode_image(images)
    prompts = torch.randint(1, 518, (3, given))
    ways = CachedSteps(model, memory), WholeTexts(model, memory)
    first = [way.begin(prompts) for way in ways]
    torch.testing.assert_close(first[0], first[1], rtol=1e-4, atol=1e-5)
    assert first[0].shape == (3, 520)
    beams, widths = torch.zeros(3, 4, dtype=torch.long), (4, 4, 2)
    for width in widths:
        tokens = torch.randint(1, 518, (3, width))
        found = [way.advance(beams[:, :width], tokens) for way in ways]
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
        assert float(found[0].std(dim=1).mean()) > 0.1  # beams differ, so that mixing them up would show
        beams = torch.randint(0, width, (3, 4))


@torch.no_grad()
def test_texts_found_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make(1), torch.randn(4, 3, 16, 16)
    search = BeamSearch(start=518, end=519, beams=3, max_length=11, min_length=2)
    prompts = torch.tensor([[518, 7 + number] for number in range(4)])
    quick = [search(model, images), search(model, images, prompts)]
    assert all(0 not in text and 518 not in text for texts in quick for text in texts)
    monkeypatch.setattr(CachedSteps, "fits", staticmethod(lambda _: False))
    assert [search(model, images), search(model, images, prompts)] == quick
    assert len({tuple(text) for text in quick[0]}) > 1
    # an exact bound: going on until every text has ended finds nothing better
    monkeypatch.setattr(BeamSearch, "_settled", lambda self, scores, lengths, done, most: bool(done.all()))
    assert [search(model, images), search(model, images, prompts)] == quick


@torch.no_grad()
def test_the_search_stops_when_nothing_can_get_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make(2), torch.randn(2, 3, 16, 16)
    asked = []
    advance = CachedSteps.advance
    monkeypatch.setattr(CachedSteps, "advance", lambda *args: asked.append(1) or advance(*args))
    with torch.no_grad():  # the end token above all others, from the second token on
        model.text_decoder.text_projection.mul_(0.01)
        model.text_decoder.text_projection[:, 519] = 0
        model.text_decoder.ln_final.bias.fill_(1.0)
        model.text_decoder.text_projection[:, 519] = 1.0
    assert BeamSearch(start=518, end=519, beams=3, max_length=12, min_length=1)(model, images) != [[], []]
    assert len(asked) <= 2


def test_towers_that_are_built_otherwise_run_whole() -> None:
    model = make()
    assert isinstance(steps_of(model, torch.zeros(1, 5, 32)), CachedSteps)
    model.text.attn_mask = None  # reads in both directions
    assert isinstance(steps_of(model, torch.zeros(1, 5, 32)), WholeTexts)
    assert not CachedSteps.fits(object())
