"""Dataset dict -> model input: keys, label spaces, clouds, modalities, determinism, bad input."""

import numpy as np
import pytest
import torch

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.sample import RawSample
from mmovseg.data.transforms import (
    FixedSizePad,
    OpticalJitter,
    RandomFlip,
    RandomRotation,
    RandomScale,
    ResizeShortestEdge,
    SarJitter,
)
from mmovseg.data.vocabulary import get_vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs, write_raster

VOCABULARY = get_vocabulary("miniearth")
AUGMENT = [RandomScale(0.8, 1.4), RandomRotation(15), RandomFlip(vertical=True), FixedSizePad(48)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), count=2, height=24, width=32)


def build(is_train=True, **options):
    return OpticalSARMapper(**({"is_train": is_train, "vocabulary": VOCABULARY, "reader": FileReader()} | options))


def tensors(item):
    return {key: value for key, value in item.items() if torch.is_tensor(value)}


def same(left, right):
    left, right = tensors(left), tensors(right)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_keys_shapes_types(pairs):
    item = build(clouds=CloudSynthesizer(), with_clear=True, geometry=AUGMENT)(pairs.dicts[0] | {"_draw": 3})
    size = tuple(item["sem_seg"].shape)
    assert {key: (value.dtype, tuple(value.shape)) for key, value in tensors(item).items()} == {
        "image": (torch.uint8, (3, *size)),
        "image_clear": (torch.uint8, (3, *size)),
        "valid": (torch.bool, size),
        "cloud_alpha": (torch.float32, size),
        "cloud_shadow": (torch.float32, size),
        "sar": (torch.float32, (2, *size)),
        "sar_valid": (torch.bool, size),
        "sem_seg": (torch.int64, size),
    }
    assert (item["height"], item["width"], item["image_id"]) == (24, 32, "000000")
    assert item["file_name"] == pairs.dicts[0]["file_name"] and "caption" not in item


def test_training_labels_are_seen_classes_only(pairs):
    item = build()(pairs.dicts[0] | {"_draw": 0})
    truth = pairs.truth[0]["sem_seg"].astype(int)
    assert item["vocabulary"].names == ["bareland", "rangeland", "farmland", "forest", "city"]
    expected = np.where(truth < 5, truth, 255)
    np.testing.assert_array_equal(item["sem_seg"].numpy(), expected)
    assert (truth >= 5).any(), "the fake data has no unseen class: the test saw nothing"


def test_training_labels_are_re_indexed():
    vocabulary = get_vocabulary("ddhr_sk")  # unseen classes lie between the seen ones: city road forest water farmland
    label = np.arange(5).reshape(1, 5)
    reader = lambda _: RawSample(sar=np.zeros((1, 5, 1), np.float32), sem_seg=label)  # noqa: E731
    item = build(vocabulary=vocabulary, reader=reader)({"_draw": 0})
    assert item["vocabulary"].names == ["city", "forest", "farmland"]
    assert item["sem_seg"].tolist() == [[0, 255, 1, 255, 2]]


def test_evaluation_keeps_the_label_space_and_size(pairs):
    prompts = vocabulary_from_names("water, tree")
    item = build(False, prompts=prompts, geometry=[ResizeShortestEdge(48)])(pairs.dicts[1])
    np.testing.assert_array_equal(item["sem_seg"].numpy(), pairs.truth[1]["sem_seg"])
    assert item["image"].shape == (3, 48, 64) and item["sar"].shape == (2, 48, 64)
    assert item["vocabulary"] is prompts and (item["height"], item["width"]) == (24, 32)
    assert build(False)(pairs.dicts[1])["vocabulary"] is VOCABULARY
    with pytest.raises(UserError, match="'custom'.*evaluation"):
        build(True, prompts=prompts)


def test_invalid_sar_is_zero_and_masked(pairs):
    item = build()(pairs.dicts[0] | {"_draw": 0})
    hole = ~item["sar_valid"]
    assert hole.sum() == 15 and (item["sar"][:, hole] == 0).all()
    assert (item["sar"][:, ~hole] != 0).all() and item["valid"].all()
    jittered = build(sar_photometric=SarJitter(prob=1.0), geometry=AUGMENT)(pairs.dicts[0] | {"_draw": 0})
    assert torch.isfinite(jittered["sar"]).all() and (jittered["sar"][:, ~jittered["sar_valid"]] == 0).all()


def test_modalities(pairs, tmp_path):
    whole = pairs.dicts[0]
    optical, sar = build(modality="optical")(whole), build(modality="sar", clouds=CloudSynthesizer())(whole)
    assert {"sar", "sar_valid"}.isdisjoint(optical) and {"image", "valid", "cloud_alpha"}.isdisjoint(sar)
    assert optical["image"].shape[1:] == sar["sar"].shape[1:] == optical["sem_seg"].shape
    gone = str(tmp_path / "gone.tif")
    assert "image" in build(modality="optical")(whole | {"sar_file_name": gone}), "the dropped modality was read"
    assert "sar" in build(modality="sar")(whole | {"file_name": gone}), "the dropped modality was read"
    with pytest.raises(UserError, match=r"gone\.tif"):
        build()(whole | {"sar_file_name": gone})
    without = {key: value for key, value in whole.items() if key != "sar_file_name"}
    assert "sar" not in build()(without) and "image" in build()(without)
    with pytest.raises(UserError, match=r"000000\.png' has no raster for modality 'sar'"):
        build(modality="sar")(without)
    with pytest.raises(UserError, match="'radar'"):
        build(modality="radar")


def test_dropping_a_modality_does_not_move_the_other(pairs):
    item = pairs.dicts[0] | {"_draw": 11}
    options = {"geometry": AUGMENT, "clouds": CloudSynthesizer(), "sar_photometric": SarJitter()}
    both = build(**options)(item)
    optical, sar = build(modality="optical", **options)(item), build(modality="sar", **options)(item)
    assert torch.equal(both["image"], optical["image"]) and torch.equal(both["sar"], sar["sar"])
    assert torch.equal(both["sem_seg"], sar["sem_seg"])


def test_draw_number_decides_everything(pairs):
    options = {"geometry": AUGMENT, "clouds": CloudSynthesizer(), "optical_photometric": OpticalJitter()}
    mapper, again = build(**options, seed=1), build(**options, seed=1)
    item = pairs.dicts[0]
    first = mapper(item | {"_draw": 5})
    mapper(item | {"_draw": 6})
    torch.manual_seed(123)
    assert same(first, again(item | {"_draw": 5}))
    assert not same(first, mapper(item | {"_draw": 6}))
    assert not same(first, build(**options, seed=2)(item | {"_draw": 5}))


def test_evaluation_cloud_belongs_to_the_image(pairs):
    mapper = build(False, clouds=CloudSynthesizer(), seed=1)
    first, second = mapper(pairs.dicts[0]), mapper(pairs.dicts[1])
    assert same(first, build(False, clouds=CloudSynthesizer(), seed=1)(pairs.dicts[0]))
    assert not torch.equal(first["cloud_alpha"], second["cloud_alpha"])
    other = build(False, clouds=CloudSynthesizer(), seed=2)(pairs.dicts[0])
    assert not torch.equal(first["cloud_alpha"], other["cloud_alpha"])


def test_clear_view_differs_only_by_the_cloud(pairs):
    options = {"with_clear": True, "geometry": AUGMENT, "optical_photometric": OpticalJitter(season=0.2, prob=1.0)}
    item = build(**options, clouds=CloudSynthesizer(kind="thick", coverage=0.3, shadow=False))(
        pairs.dicts[0] | {"_draw": 1}
    )
    clear_sky = (item["cloud_alpha"] == 0) & item["valid"]
    assert not item["cloud_shadow"].any()
    assert clear_sky.sum() > 20 and not torch.equal(item["image"], item["image_clear"])
    assert torch.equal(item["image"][:, clear_sky], item["image_clear"][:, clear_sky])
    no_cloud = build(**options)(pairs.dicts[0] | {"_draw": 1})
    assert torch.equal(no_cloud["image_clear"], item["image_clear"]) and "cloud_alpha" not in no_cloud


def test_cloud_of_the_reader_is_moved_along():
    optical = np.zeros((10, 10, 3), dtype=np.uint8)
    alpha = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    facts = {"cloud_alpha": alpha, "optical_clear": optical + 7}
    reader = lambda _: RawSample(optical=optical, facts=facts)  # noqa: E731
    item = build(reader=reader, with_clear=True, geometry=[RandomFlip(prob=1.0)])({"_draw": 0})
    np.testing.assert_array_equal(item["cloud_alpha"].numpy(), alpha[:, ::-1])
    assert (item["image_clear"] == 7).all() and (item["image"] == 0).all()


def test_label_outside_the_class_list_is_refused(pairs, tmp_path):
    label = pairs.truth[0]["sem_seg"].copy()
    label[3, 4] = 9
    path = str(write_raster(tmp_path / "bad_label.png", label))
    for is_train in (True, False):
        with pytest.raises(UserError, match=r"bad_label\.png' has the value 9, outside the 7 classes"):
            build(is_train)(pairs.dicts[0] | {"sem_seg_file_name": path})
    negative = str(write_raster(tmp_path / "minus.tif", label.astype(np.int16) - 10))
    with pytest.raises(UserError, match=r"minus\.tif' has the value -"):
        build()(pairs.dicts[0] | {"sem_seg_file_name": negative})


@pytest.mark.parametrize("is_train", [True, False])
def test_all_ignored_label_passes(pairs, tmp_path, is_train):
    path = str(write_raster(tmp_path / "ignored.png", np.full((24, 32), 255, dtype=np.uint8)))
    item = build(is_train, geometry=AUGMENT)(pairs.dicts[0] | {"sem_seg_file_name": path})
    assert (item["sem_seg"] == 255).all()


@pytest.mark.parametrize("optical", ["tif16", "tif_float"])
def test_wider_optical_stays_float_on_the_255_scale(tmp_path, optical):
    pairs = write_pairs(tmp_path, count=1, optical=optical)
    reader = FileReader(**pairs.reader_options)
    item = build(reader=reader, clouds=CloudSynthesizer(kind="clear"))(pairs.dicts[0])
    assert item["image"].dtype == torch.float32
    np.testing.assert_allclose(item["image"].numpy().transpose(1, 2, 0), pairs.truth[0]["optical"], atol=0.05)


def test_captions(pairs):
    item = pairs.dicts[0] | {"captions": ["a", "b", "c"]}
    drawn = {build(keep_caption=True)(item | {"_draw": draw})["caption"] for draw in range(20)}
    assert drawn == {"a", "b", "c"}
    assert build(False, keep_caption=True)(item)["caption"] == "a"
    with pytest.raises(UserError, match=r"000000\.png' has no caption"):
        build(keep_caption=True)(pairs.dicts[0])


def test_too_many_classes_for_8_bit_labels():
    with pytest.raises(UserError, match="256 classes"):
        build(vocabulary=vocabulary_from_names([f"class {index}" for index in range(256)]))


def test_views_limit_the_clear_view_and_nothing_else(pairs):
    clear = {"geometry": AUGMENT, "optical_photometric": OpticalJitter(prob=1.0), "with_clear": True}
    drawn = {"clouds": CloudSynthesizer(kind="thick", coverage=0.5), "sar_photometric": SarJitter(prob=1.0)}
    mapper, item = build(**clear, **drawn, views=3), pairs.dicts[0]
    shown = {}
    clouded, radar = set(), set()
    for draw in range(30):
        sample = mapper(item | {"_draw": draw})
        first = shown.setdefault(sample["view"], sample)
        for key in ("image_clear", "valid", "sar_valid", "sem_seg"):
            assert torch.equal(first[key], sample[key]), f"{key} of one view changed with the draw"
        clouded.add(sample["image"].numpy().tobytes())
        radar.add(sample["sar"].numpy().tobytes())
    assert sorted(shown) == [0, 1, 2] and len({view["image_clear"].numpy().tobytes() for view in shown.values()}) == 3
    assert len(clouded) == len(radar) == 30, "clouds and SAR jitter must stay those of the draw"
    assert same(mapper(item | {"_draw": 7}), mapper(item | {"_draw": 7}))


def test_a_view_depends_on_seed_and_image_alone(pairs):
    options = {"geometry": AUGMENT, "with_clear": True}
    asked = pairs.dicts[0] | {"_draw": 4, "_view": 1}
    first = build(**options, views=2)(asked)
    assert first["view"] == 1 and same(first, build(**options, views=9)(asked | {"_draw": 5}))
    assert not same(first, build(**options, views=2, seed=3)(asked))
    assert not same(first, build(**options, views=2)(asked | {"image_id": "another"}))
    sar = build(**options, views=2, modality="sar")(asked)
    assert torch.equal(sar["sar"], first["sar"]) and torch.equal(sar["sem_seg"], first["sem_seg"])


def test_one_view_without_geometry_is_the_image(pairs):
    item = build(views=1)(pairs.dicts[0] | {"_draw": 9})
    np.testing.assert_array_equal(item["image"].numpy().transpose(1, 2, 0), pairs.truth[0]["optical"])
    assert item["view"] == 0 and "view" not in build()(pairs.dicts[0] | {"_draw": 9})


@pytest.mark.parametrize(("is_train", "views"), [(True, 0), (False, 1)])
def test_views_are_for_training_and_at_least_one(is_train, views):
    with pytest.raises(UserError, match=f"got views {views}, is_train {is_train}"):
        build(is_train, views=views)


@pytest.mark.parametrize("is_train", [True, False])
def test_without_a_vocabulary_no_label_is_read(pairs, tmp_path, is_train):
    item = pairs.dicts[0] | {"sem_seg_file_name": str(tmp_path / "gone.png")}
    mapped = build(is_train, vocabulary=None)(item)
    assert {"vocabulary", "sem_seg"}.isdisjoint(mapped) and mapped["sar"].shape == (2, 24, 32)
    rendered = RawSample(sar=np.zeros((1, 5, 1), np.float32), sem_seg=np.full((1, 5), 200))
    assert "sem_seg" not in build(is_train, vocabulary=None, reader=lambda _: rendered)({})
    asked = build(False, vocabulary=None, prompts=VOCABULARY)(item)["vocabulary"]
    assert asked is VOCABULARY


def test_the_source_is_passed_on(pairs):
    assert "source" not in build()(pairs.dicts[0])
    assert build()(pairs.dicts[0] | {"source": "spacenet6"})["source"] == "spacenet6"
