"""What is in a batch beside an image changes nothing of its scores: sizes and modalities may differ."""

from __future__ import annotations

import pytest
import torch

from mmovseg.config import get_config, instantiate
from mmovseg.data.miniearth.dataset import load_miniearth
from mmovseg.errors import UserError
from mmovseg.inference.predictor import Predictor
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.meta_arch.batching import answer_alike, batch_view
from mmovseg.testing.checks import assert_scored_as_alone
from tests.modeling.conftest import VOCABULARY, build_xs, make_inputs
from tests.modeling.test_gaps import MODELS, any_model, inputs_for  # noqa: F401  (a fixture)
from tests.modeling.test_sar_text import sar_clip_changes, sar_text_node, stir

SIZES = [(64, 64), (128, 96), (61, 75), (64, 64), (64, 60)]


def of_sizes(model, sizes=SIZES):
    """One item a size, each of another content."""
    return [inputs_for(model, number + 1, *size)[-1] for number, size in enumerate(sizes)]


def test_an_image_is_scored_alike_alone_and_beside_others_of_any_size(any_model):  # noqa: F811
    assert_scored_as_alone(any_model, of_sizes(any_model))


def test_the_shipped_model_maps_an_image_alike_alone_and_beside_larger_ones():
    predictor = Predictor("miniearth/mmovseg_xs.py", device="cpu", weights="shipped://mmovseg_xs")
    mapper = instantiate(predictor.config.dataloader.test.mapper)
    small, large = ([mapper(pair) for pair in load_miniearth("test", num_scenes=2, size=size)] for size in (64, 128))
    items = [small[0], large[0], small[1], large[1]]
    with torch.no_grad():
        for item, found in zip(items, predictor.model(items), strict=True):
            alone = predictor.model([item])[0]["sem_seg"]
            torch.testing.assert_close(found["sem_seg"], alone, atol=1e-5, rtol=0)
            assert torch.equal(found["sem_seg"].argmax(dim=0), alone.argmax(dim=0))


def test_a_modality_that_some_lack_is_absent_for_them_alone(any_model):  # noqa: F811
    items = of_sizes(any_model, [(64, 64)] * 4)
    del items[1]["sar"], items[3]["image"]
    assert_scored_as_alone(any_model, items)


LACKING = {
    **MODELS,
    "sar_text": lambda: stirred(build_xs(sar_text=sar_text_node())),
    "clip of sar": lambda: build_xs(**sar_clip_changes()),
}


def stirred(model):
    stir(model)
    return model


@pytest.mark.parametrize("name", LACKING)
@pytest.mark.parametrize("key", ["image", "sar"])
def test_training_on_a_batch_of_which_a_part_lacks_a_modality_is_training_on_its_parts(name, key):
    model = LACKING[name]().train()
    lacking, other = of_sizes(model, [(64, 64)] * 2)
    del lacking[key]
    together, expected = gradients(model, [lacking, other]), {}
    for item in (lacking, other):
        for part, value in gradients(model, [item]).items():
            expected[part] = expected.get(part, 0) + value / 2
    assert together.keys() == expected.keys()
    for part, value in expected.items():
        torch.testing.assert_close(together[part], value, atol=2e-5, rtol=1e-3, msg=lambda m, part=part: f"{part}: {m}")


def gradients(model, items):
    """The loss of a batch and the gradients of all weights that have one."""
    model.zero_grad()
    loss = model(items)["loss_sem_seg"]
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {**found, "loss": loss.detach()}


def test_what_is_blank_has_the_size_of_the_raster_that_is_there():
    model = build_xs().train()
    items = [make_inputs(1, *size)[0] for size in ((64, 64), (61, 90), (128, 40))]
    del items[1]["sar"], items[2]["image"]
    _, optical, sar = model._views(items)
    assert optical.x.shape == (3, 3, 128, 92) and sar.x.shape == (3, 2, 128, 92)
    assert not sar.x[1].any() and not sar.valid[1].any() and not optical.x[2].any() and not optical.seen[2].any()
    assert optical.valid[1, 0, :61, :90].all() and sar.valid[2, 0, :, :40].all()


def test_an_item_with_nothing_that_the_model_reads_is_named():
    model = build_xs(modality="sar").train()
    items = make_inputs(2)
    items[1]["file_name"] = "second.tif"
    del items[1]["sar"]
    with pytest.raises(UserError, match="modality 'sar' finds neither 'image' nor 'sar' in the input 'second.tif'"):
        model(items)


def test_models_that_need_a_raster_name_the_first_sample_without():
    items = make_inputs(2, modality="optical")
    items[1]["file_name"] = "second.tif"
    del items[1]["image"]
    with pytest.raises(UserError, match="1 of 2 samples of a batch lack 'image', the first of them 'second.tif'"):
        batch_view(items, "image", "valid", PixelNorm(mean=[0.0] * 3, std=[1.0] * 3), 8)


def test_the_pretrainer_scores_zero_shot_alike_in_any_batch():
    torch.manual_seed(0)
    model = instantiate(get_config("miniearth/clip_xs.py").model).eval()
    items = [make_inputs(1, *size, modality="optical", seed=number)[0] for number, size in enumerate(SIZES)]
    assert_scored_as_alone(model, items)


def test_a_model_of_one_modality_does_not_part_its_batches_by_the_other():
    model = build_xs(modality="optical").eval()
    items = make_inputs(2)
    del items[0]["sar"]
    seen = []
    model.clip.model.visual.conv1.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    with torch.no_grad():
        model(items)
    assert seen == [2]


def test_stages_of_the_fusion_come_in_the_order_of_the_inputs():
    model = build_xs().eval()
    items = [make_inputs(1, *size, seed=number)[0] for number, size in enumerate(SIZES)]
    for item, stages in zip(items, model.explain(items), strict=True):
        alone = model.explain([item])[0]
        torch.testing.assert_close(stages["scores"], alone["scores"], atol=1e-5, rtol=0)


def test_inputs_that_are_alike_once_padded_are_asked_about_as_they_come():
    asked = []

    def answer(inputs):
        asked.append(list(inputs))
        return [item["file_name"] for item in inputs]

    def named(*sizes):
        return [{"file_name": f"{number}", "image": torch.zeros(3, *s)} for number, s in enumerate(sizes)]

    alike = named((64, 64), (61, 57), (64, 64))
    assert answer_alike(alike, answer, multiple=8) == ["0", "1", "2"] and asked == [alike]
    asked.clear()
    items = named((64, 64), (65, 64), (64, 64), (64, 65), (66, 60))
    assert answer_alike(items, answer, multiple=8) == ["0", "1", "2", "3", "4"]
    assert [[item["file_name"] for item in batch] for batch in asked] == [["0", "2"], ["1", "4"], ["3"]]


def test_names_of_a_batch_are_shared_also_between_sizes():
    items = [*make_inputs(1), *make_inputs(1, 96, 96, vocabulary=VOCABULARY.seen_subset())]
    with pytest.raises(UserError, match="different vocabularies"):
        build_xs().eval()(items)
