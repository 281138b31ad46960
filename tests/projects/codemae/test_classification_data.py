"""Classes from folders, lists and label rasters; few shots; one label an image."""

import numpy as np
import pytest

from mmovseg.data.build import build_test_loader
from mmovseg.data.io import FileReader
from mmovseg.data.transforms import RandomFlip
from mmovseg.data.transforms.centre_crop import CentreCrop, CubicResize
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.arrays import ArrayReader
from mmovseg.projects.codemae.data.classification import (
    class_names,
    load_class_folder,
    load_class_list,
    load_listed_pairs,
)
from mmovseg.projects.codemae.data.classification_mapper import (
    ClassificationMapper,
    RandAugment,
    build_classification_loader,
)
from mmovseg.projects.codemae.data.copies import copy_groups
from mmovseg.projects.codemae.data.labels import MultiHot, RasterLabels, few_shot, multi_hot_classes
from mmovseg.testing.checks import tiny_vocabulary
from mmovseg.testing.fakes import write_raster

READER = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=2)


def write_chips(root, classes=("boat", "car", "plane"), count=6, size=20):
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        for index in range(count):
            folder = root / name / ("sub" if index % 2 else "")
            write_raster(folder / f"{index:03d}.png", rng.integers(0, 60 * (label + 1), (size, size), dtype=np.uint8))
    return root


def ids(dicts):
    return [item["image_id"] for item in dicts]


def test_classes_and_their_count_come_from_the_folders(tmp_path):
    write_chips(tmp_path / "chips")
    (tmp_path / "chips" / ".cache").mkdir()
    assert class_names(folder="chips", root=str(tmp_path)) == ["boat", "car", "plane"]
    dicts = load_class_folder(folder="chips", root=str(tmp_path), classes=["boat", "car", "plane"], sensor="sar")
    assert [item["label"] for item in dicts] == [0] * 6 + [1] * 6 + [2] * 6
    assert ids(dicts)[:2] == ["chips/boat/000.png", "chips/boat/002.png"] and len(set(ids(dicts))) == 18
    assert all("sar_file_name" in item and "file_name" not in item for item in dicts)


def test_folders_lie_under_the_folder_of_all_data_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(UserError, match="DETECTRON2_DATASETS"):
        class_names(folder="chips")
    write_chips(tmp_path / "chips")
    assert len(class_names(folder="chips")) == 3


def test_a_seeded_split_is_disjoint_whole_and_of_every_class(tmp_path):
    write_chips(tmp_path / "chips")
    options = {"folder": "chips", "root": str(tmp_path), "classes": ["boat", "car", "plane"], "test_share": 1 / 3}
    train, test = (load_class_folder(**options, part=part) for part in ("train", "test"))
    assert sorted(ids(train) + ids(test)) == sorted(ids(load_class_folder(**options)))
    assert [sum(item["label"] == label for item in test) for label in range(3)] == [2, 2, 2]
    assert ids(load_class_folder(**options, part="test")) == ids(test)
    assert ids(load_class_folder(**options, part="test", split_seed=1)) != ids(test)


def test_copies_stay_on_one_side_of_the_split(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(8):  # three crops of each of four scenes, and four chips that are like no other
        scene = np.kron(rng.integers(20, 230, (8, 8)), np.ones((8, 8))).astype(np.int64)
        for crop in range(3 if number < 4 else 1):
            chip = scene[crop:, : 64 - crop] + rng.integers(0, 9, (64 - crop, 64 - crop))
            write_raster(tmp_path / "chips" / "boat" / f"{number}{crop}.png", chip.astype(np.uint8))
    options = {"folder": "chips", "root": str(tmp_path), "classes": ["boat"]}

    def scenes(part, **more):
        return [item["image_id"].split("/")[-1][0] for item in load_class_folder(**options, part=part, **more)]

    for seed in range(4):
        train, test = (scenes(part, copies_above=0.8, split_seed=seed) for part in ("train", "test"))
        assert not set(train) & set(test) and 6 <= len(test) <= 8 and len(train) == 16 - len(test)
        torn = {part: set(scenes(part, split_seed=seed)) for part in ("train", "test")}
        assert torn["train"] & torn["test"]  # what drawing image by image does
    files = sorted((tmp_path / "chips" / "boat").iterdir())
    assert copy_groups(tuple(files), 0.8) == (0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 12, 13, 14, 15)
    with pytest.raises(UserError, match="copies_above is a correlation between 0 and 1, got 1.0"):
        scenes("test", copies_above=1.0)
    for file in files[3:]:
        file.unlink()
    with pytest.raises(UserError, match="has 3 images, but too many are copies of one another"):
        scenes("test", copies_above=0.8)
    (tmp_path / "chips" / "boat" / "20.png").write_text("no picture")
    with pytest.raises(UserError, match="20.png' cannot be read to look for copies"):
        scenes("test", copies_above=0.8)


def test_lists_with_foreign_prefixes_backslashes_and_numbers_are_read(tmp_path):
    write_chips(tmp_path / "chips", count=2)
    lines = ["G:\\somewhere\\chips\\car\\000.png", "/other/place/boat/sub/001.png 0", "000.png plane 2"]
    (tmp_path / "chips" / "shot.txt").write_text("\n".join(lines) + "\n")
    options = {"folder": "chips", "root": str(tmp_path), "classes": ["boat", "car", "plane"]}
    dicts = load_class_list(list_file="shot.txt", **options)
    assert [(item["label"], item["image_id"]) for item in dicts] == [
        (1, "chips/car/000.png"),
        (0, "chips/boat/sub/001.png"),
        (2, "chips/plane/000.png"),
    ]
    (tmp_path / "chips" / "shot.txt").write_text("x/bicycle/000.png\n")
    with pytest.raises(UserError, match="line 1 names no folder of a known class"):
        load_class_list(list_file="shot.txt", **options)
    (tmp_path / "chips" / "shot.txt").write_text("car/777.png\n")
    with pytest.raises(UserError, match="does not exist"):
        load_class_list(list_file="shot.txt", **options)


def test_few_shots_by_the_protocol_of_the_release_and_balanced():
    labels = [0] * 50 + [1] * 10 + [2] * 3
    dataset = [{"image_id": str(index), "label": label} for index, label in enumerate(labels)]
    chosen = few_shot(dataset=dataset, classes=["a", "b", "c"], shots=3, seed=2)
    order = np.random.RandomState(729 + 2).permutation(63)  # as the release draws
    assert ids(chosen) == [str(index) for index in order[:9]]
    balanced = few_shot(dataset=dataset, classes=["a", "b", "c"], shots=3, seed=2, protocol="balanced")
    assert sorted(item["label"] for item in balanced) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    draws = {tuple(ids(few_shot(dataset=dataset, classes=["a"], shots=9, seed=seed))) for seed in range(5)}
    assert len(draws) == 5  # another seed, other images
    with pytest.raises(UserError, match="fewer than 4 images of: c 3"):
        few_shot(dataset=dataset, classes=["a", "b", "c"], shots=4, protocol="balanced")
    with pytest.raises(UserError, match="66 images, but the training part has 63"):
        few_shot(dataset=dataset, classes=["a", "b", "c"], shots=22)


def test_balanced_shots_of_images_of_several_classes_show_every_class_often_enough():
    rng = np.random.default_rng(0)
    vectors = (rng.random((200, 4)) < (0.9, 0.5, 0.2, 0.05)).astype(int)
    dataset = [{"image_id": str(index), "label": vector.tolist()} for index, vector in enumerate(vectors)]
    chosen = few_shot(dataset=dataset, classes=list("abcd"), shots=5, protocol="balanced")
    counts = np.sum([item["label"] for item in chosen], axis=0)
    assert counts.min() >= 5 and len(chosen) <= 20
    plain = few_shot(dataset=dataset, classes=list("abcd"), shots=5)
    assert np.sum([item["label"] for item in plain], axis=0).min() < 5  # the release's draw need not


def test_a_class_counts_from_a_tenth_of_the_image_on():
    vocabulary = tiny_vocabulary(3, 2)
    label = np.zeros((10, 10), dtype=np.int64)
    label[0] = 3  # a tenth
    label[1, :9] = 1  # less
    label[2:4] = 255
    rule = MultiHot(vocabulary=vocabulary)
    assert rule(label).tolist() == [1, 0, 0, 1, 0]
    without = MultiHot(vocabulary=vocabulary, ignored=[vocabulary.names[0]])
    assert without(label).tolist() == [0, 0, 1, 0] and without.classes == vocabulary.names[1:]
    assert multi_hot_classes(vocabulary=vocabulary) == vocabulary.names
    with pytest.raises(UserError, match="no class 'mars'"):
        MultiHot(vocabulary=vocabulary, ignored=["mars"])


def test_pairs_of_the_list_layout_with_raster_vector_and_prefix(tmp_path):
    rng = np.random.default_rng(0)
    place = tmp_path / "ben"
    for name in ("Forest_1", "Sea_Lake_2"):
        for folder, bands in (("RGB", 13), ("SAR", 2)):
            (place / folder).mkdir(parents=True, exist_ok=True)
            np.save(place / folder / f"{name}.npy", rng.integers(0, 255, (8, 8, bands), dtype=np.uint8))
        label = np.full((8, 8), 4, dtype=np.uint8)
        label[:2] = 1
        write_raster(place / "Label" / f"{name}.png", label)
        np.save(place / "Label" / f"{name}.npy", np.array([0, 1, 1], dtype=np.uint8))
    (place / "train.txt").write_text("Forest_1\nSea_Lake_2.npy\n")
    options = {"folder": "ben", "root": str(tmp_path), "split": "train", "suffix": ".npy"}
    classes = ["Forest", "Sea_Lake"]
    prefix, vector, raster = (
        load_listed_pairs(**options, labels=kind, classes=classes) for kind in ("prefix", "vector", "raster")
    )
    assert [item["label"] for item in prefix] == [0, 1]
    rule = MultiHot(vocabulary=tiny_vocabulary(3, 2))
    mapper = ClassificationMapper(is_train=True, reader=ArrayReader(), labels=rule)
    assert mapper(vector[0])["label"].tolist() == [0, 1, 1]
    item = ClassificationMapper(is_train=False, reader=ArrayReader(), labels=rule)(raster[1])
    assert item["label"].tolist() == [0, 1, 0, 0, 1]  # the class that models must not learn counts too
    assert RasterLabels(rule=rule, reader=ArrayReader())(raster[1]) == [0, 1, 0, 0, 1]
    stored = np.load(place / "RGB" / "Sea_Lake_2.npy")
    assert np.array_equal(item["image"].numpy(), stored[:, :, [3, 2, 1]].transpose(2, 0, 1))
    sar = np.load(place / "SAR" / "Sea_Lake_2.npy").astype(np.float32).transpose(2, 0, 1)
    assert np.allclose(item["sar"].numpy(), [sar[0], sar[1], sar.mean(axis=0)])
    (few,) = few_shot(dataset=vector[:1], classes=list("abc"), shots=1, protocol="balanced")  # one class has no image
    assert few["label_file_name"] == vector[0]["label_file_name"]
    with pytest.raises(UserError, match="label of image 'ben/train/Forest_1' has 3 values for 2 classes"):
        few_shot(dataset=vector[:1], classes=classes, shots=1, protocol="balanced")
    (place / "train.txt").write_text("Desert_1\n")
    with pytest.raises(UserError, match="Desert_1"):
        load_listed_pairs(**options, labels="prefix", classes=classes)


def test_images_shown_in_one_way_say_so_and_are_read_once(tmp_path, monkeypatch):
    write_chips(tmp_path / "chips")
    dicts = load_class_folder(folder="chips", root=str(tmp_path), classes=["boat", "car", "plane"], sensor="sar")
    mapper = ClassificationMapper(is_train=True, reader=READER, geometry=[CentreCrop(12), CubicResize(16)])
    first = mapper({**dicts[7], "_draw": 5})
    assert first["view"] == 0 and int(first["label"]) == 1 and first["sar"].shape == (2, 16, 16)
    mapper._mapper.reader = None
    assert (mapper({**dicts[7], "_draw": 9})["sar"] == first["sar"]).all()
    moving = ClassificationMapper(is_train=True, reader=READER, geometry=[RandomFlip()])
    shown = [moving({**dicts[7], "_draw": draw}) for draw in range(8)]
    assert all("view" not in item for item in shown)
    assert len({item["sar"].numpy().tobytes() for item in shown}) == 2
    with pytest.raises(UserError, match="must not draw"):
        ClassificationMapper(is_train=False, reader=READER, geometry=[RandomFlip()])
    with pytest.raises(UserError, match="has no label"):
        moving({"sar_file_name": dicts[0]["sar_file_name"], "image_id": "x", "_draw": 0})


def test_the_centre_stays_and_small_chips_get_a_margin_without_data(tmp_path):
    array = np.arange(1, 26, dtype=np.uint8).reshape(5, 5)
    write_raster(tmp_path / "a" / "1.png", array)
    item = {"sar_file_name": str(tmp_path / "a" / "1.png"), "image_id": "1", "label": 0}
    cut = ClassificationMapper(is_train=False, reader=READER, geometry=[CentreCrop(3)])(item)
    assert cut["sar"][0].tolist() == array[1:4, 1:4].astype(float).tolist()
    padded = ClassificationMapper(is_train=False, reader=READER, geometry=[CentreCrop((7, 5))])(item)
    assert padded["sar_valid"].any(dim=1).tolist() == [False, True, True, True, True, True, False]
    assert padded["sar"][0, 1:6].tolist() == array.astype(float).tolist()


def test_rand_augment_follows_the_generator_of_the_sample():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    augment = RandAugment(size=32)
    before = np.random.get_state()[1].copy()
    results = [augment(image, np.random.default_rng(seed)) for seed in (1, 1, 2, 3)]
    assert np.array_equal(results[0], results[1]) and results[0].shape == image.shape
    assert not np.array_equal(results[0], results[2]) or not np.array_equal(results[0], results[3])
    assert np.array_equal(np.random.get_state()[1], before)
    with pytest.raises(UserError, match="8-bit"):
        augment(image.astype(np.float32), rng)
    with pytest.raises(UserError, match="no RandAugment policy 'nonsense'"):
        RandAugment(size=32, policy="nonsense")


def test_few_images_are_one_batch_an_epoch(tmp_path, monkeypatch):
    write_chips(tmp_path / "chips", count=2)
    dicts = load_class_folder(folder="chips", root=str(tmp_path), classes=["boat", "car", "plane"], sensor="sar")
    mapper = ClassificationMapper(is_train=True, reader=READER)
    batches = iter(build_classification_loader(dataset=dicts, mapper=mapper, batch_size=256))
    for _ in range(2):
        assert sorted(item["image_id"] for item in next(batches)) == sorted(ids(dicts))
    assert sum(len(batch) for batch in build_test_loader(dataset=dicts, mapper=mapper, batch_size=4)) == 6
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 4)
    assert build_classification_loader(dataset=dicts, mapper=mapper, batch_size=256).batch_size == 4
