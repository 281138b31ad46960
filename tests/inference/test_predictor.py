import numpy as np
import pytest
import torch

from mmovseg.config import LazyCall, load_config
from mmovseg.data.vocabulary import get_vocabulary, vocabulary_from_file
from mmovseg.errors import UserError
from mmovseg.inference.predictor import Predictor
from mmovseg.testing.models import write_random_xs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_random_xs(tmp_path_factory.mktemp("xs"))


@pytest.fixture(scope="module")
def predictor(files):
    return Predictor(*files, device="cpu")


def pair(height=40, width=56, seed=0):
    rng = np.random.default_rng(seed)
    optical = rng.uniform(0, 255, (height, width, 3)).astype(np.float32)
    return optical, rng.normal(-15, 4, (height, width, 2)).astype(np.float32)


def test_scores_have_the_size_of_the_pair_and_one_map_a_prompt(predictor):
    scores = predictor(*pair(), "water, road, solar farm")
    assert scores.shape == (3, 40, 56)
    assert scores.dtype == torch.float32 and torch.isfinite(scores).all()


def test_scores_permute_with_the_prompts(predictor):
    forward, backward = (
        predictor(*pair(), prompts) for prompts in ("water, road, forest", ["forest", "road", "water"])
    )
    assert torch.allclose(forward, backward.flip(0), atol=1e-4)


@pytest.mark.parametrize("missing", [0, 1])
def test_either_image_may_be_absent_and_both_matter(predictor, missing):
    images = list(pair())
    full = predictor(*images, "water, road")
    images[missing] = None
    assert not torch.allclose(predictor(*images, "water, road"), full)


def test_modality_withholds_an_image_that_is_given(files):
    optical, sar = pair()
    blind = Predictor(*files, device="cpu", modality="sar")
    assert torch.equal(blind(optical, sar, "water, road"), blind(None, sar, "water, road"))


def test_nan_is_masked_and_not_seen(predictor):
    optical, sar = pair()
    scores = []
    for garbage in (np.nan, -np.inf):
        holed = sar.copy()
        holed[5:9, 5:9] = garbage
        scores.append(predictor(optical, holed, "water, road"))
    assert torch.isfinite(scores[0]).all()
    assert torch.equal(scores[0], scores[1])


def test_large_images_are_shrunk_for_the_model_only(files):
    small = Predictor(*files, device="cpu", max_size_px=32)
    assert small.model_input(*pair(40, 64), "water, road")["image"].shape == (3, 20, 32)
    assert small(*pair(40, 64), "water, road").shape == (2, 40, 64)


def test_known_names_keep_their_colour_and_mark(predictor):
    asked = predictor.ask_for("Water, airport, forest")
    known = get_vocabulary("miniearth")
    assert asked.colors[0] == known.colors[known.find("water")]
    assert [entry.seen for entry in asked.classes] == [False, False, True]


def test_prompts_need_no_class_list(files, tmp_path, monkeypatch, caplog):
    config = load_config(files[0])
    (tmp_path / "classes.json").write_text('{"classes": [{"name": "water", "color": [1, 2, 3]}, {"name": "ice"}]}')
    config.dataloader.test.mapper.vocabulary = LazyCall(vocabulary_from_file)(path="classes.json")
    monkeypatch.chdir(tmp_path)
    assert Predictor(config, files[1], "cpu").ask_for("Water, road").colors[0] == (1, 2, 3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    predictor = Predictor(config, files[1], "cpu")
    for _ in range(2):
        assert predictor.ask_for("water, road").names == ["water", "road"]
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1 and "vocabulary file 'classes.json' cannot be read" in told[0]
    with pytest.raises(UserError, match="vocabulary file 'classes.json' cannot be read"):
        _ = predictor.vocabulary


@pytest.mark.parametrize(
    ("optical", "sar", "message"),
    [
        (None, None, "neither an optical nor a SAR image"),
        ((40, 56, 4), None, "must be"),
        ((40, 56, 3), (40, 50, 2), "the optical image is 40x56 pixels, the SAR image 40x50"),
        (None, (40, 56, 3), "the SAR image has 3 channels, the model was trained on 2"),
        (None, (40, 56), "must be"),
    ],
)
def test_unusable_images_are_refused(predictor, optical, sar, message):
    arrays = (None if shape is None else np.zeros(shape, np.float32) for shape in (optical, sar))
    with pytest.raises(UserError, match=message):
        predictor(*arrays, "water")


def test_a_config_without_weights_is_refused(files):
    with pytest.raises(UserError, match="names no weights"):
        Predictor(files[0])


def test_the_result_does_not_depend_on_what_was_asked_before(predictor):
    first = predictor(*pair(), "water, road")
    predictor(*pair(seed=1), "city, forest, water")
    assert torch.equal(first, predictor(*pair(), "water, road"))
