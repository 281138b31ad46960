"""What Figure 5 is drawn from: the scenes, what is asked, and the maps without padding."""

import numpy as np
import pytest
import torch

from mmovseg.config import LazyCall, instantiate, load_config
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.attention import ask_with, choose_dataset, explain_scenes, scenes_of
from mmovseg.errors import UserError
from mmovseg.testing.checks import tiny_vocabulary
from tests.modeling.conftest import VOCABULARY, build_xs, make_inputs


@pytest.fixture
def config():
    config = load_config("miniearth/mmovseg_xs.py")
    config.dataloader.test.dataset.num_scenes = 6
    return config


@pytest.fixture(scope="module")
def model():
    return build_xs().eval()


def test_scenes_by_number_and_by_name(config):
    vocabulary, items = scenes_of(config, samples=2)
    assert vocabulary == get_vocabulary("miniearth") and len(items) == 2
    names = ["miniearth_test_000004", "miniearth_test_000001"]
    _, items = scenes_of(config, image_ids=names)
    assert [item["image_id"] for item in items] == names
    with pytest.raises(UserError, match="has no image 'x'; its first ones are miniearth_test_000000, "):
        scenes_of(config, image_ids=["x"])


def test_another_data_set_brings_its_scenes(config):
    _, items = scenes_of(config, dataset="miniearth_val", samples=1)
    assert items[0]["image_id"].startswith("miniearth_val_")
    with pytest.raises(UserError, match="unknown data set 'mars'"):
        scenes_of(config, dataset="mars")


@pytest.mark.parametrize("own", ["registered", "another"])
def test_another_data_set_brings_its_class_list(config, own):
    loader = config.dataloader.test
    if own == "another":
        loader.dataset = LazyCall(list)()
    choose_dataset(loader, "pie_clean_val")
    assert loader.dataset.name == "pie_clean_val"
    assert instantiate(loader.mapper.vocabulary) == get_vocabulary("pie")


def test_a_modality_is_left_out(config):
    _, (item,) = scenes_of(config, samples=1, modality="sar")
    assert "image" not in item and "sar" in item


def test_a_config_that_tests_nothing_is_refused():
    with pytest.raises(UserError, match="no dataloader.test"):
        scenes_of(load_config("miniearth/sar_xs.py"))


def test_prompts_take_the_place_of_their_classes():
    asked, drawn = ask_with(VOCABULARY, "road, harbour, water")
    road, water = VOCABULARY.find("road"), VOCABULARY.find("water")
    assert asked.names == [*VOCABULARY.names, "harbour"]
    assert drawn == [road, len(VOCABULARY), water]
    assert not asked.classes[road].seen and asked.classes[road] == VOCABULARY.classes[road]
    assert ask_with(VOCABULARY, None) == (VOCABULARY, None)


def test_a_synonym_stands_in_for_its_class():
    words = tiny_vocabulary(seen=3, unseen=2)  # meadow, forest, desert, city, lake; "<name> area" is a synonym
    asked, drawn = ask_with(words, ["lake area"])
    assert drawn == [4] and asked.names == [*words.names[:4], "lake area"] and not asked.classes[4].seen
    asked, drawn = ask_with(words, ["lake", "lake area"])  # the second one gets a place of its own
    assert drawn == [4, 5] and asked.names == [*words.names, "lake area"]


def test_maps_of_padded_scenes_are_cut_to_the_image(model):
    items = make_inputs(1, 61, 75) + make_inputs(1)
    first, second = explain_scenes(model, items, vocabulary=VOCABULARY)
    assert {values.shape for values in first.maps.values()} == {(7, 61, 75)}
    assert second.maps["scores"].shape == (7, 32, 32)
    assert first.image.shape == (61, 75, 3) and first.sar.dtype == np.uint8 and first.truth.shape == (61, 75)
    assert len(first.prompts) == 4 and len(set(first.prompts)) == 4


def test_cut_maps_lie_where_those_of_the_whole_padded_image_lie(model):
    item = make_inputs(1, 60, 64)[0]  # 4 px a patch: nothing is padded, so both ways must agree
    plain = explain_scenes(model, [item], vocabulary=VOCABULARY)[0]
    multiple, model.multiple = model.multiple, 16
    try:
        padded = explain_scenes(model, [item], vocabulary=VOCABULARY)[0]
    finally:
        model.multiple = multiple
    for name, whole in plain.maps.items():
        shown = torch.nn.functional.interpolate(torch.from_numpy(whole)[None], size=(60, 64), mode="bilinear")[0]
        # the padding is 4 px away from these rows, attention and 7x7 filters still see it
        near = np.corrcoef(shown[:, :40].flatten(), padded.maps[name][:, :40].flatten())[0, 1]
        assert near > 0.97, name


def test_only_prompts_that_are_asked_for_are_drawn(model):
    scene = explain_scenes(model, make_inputs(1, modality="sar"), vocabulary=VOCABULARY, drawn=[2, 5])[0]
    assert scene.prompts == [2, 5] and scene.image is None
    assert scene.background.shape == (64, 64, 3)


def test_other_models_are_refused():
    with pytest.raises(UserError, match="a Linear has no stages of fusion"):
        explain_scenes(torch.nn.Linear(1, 1), make_inputs(1), vocabulary=VOCABULARY)
