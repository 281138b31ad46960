"""A feature store: what it is compared by, what it refuses, and that it never unpickles."""

import json
import pickle

import numpy as np
import pytest
import torch
from detectron2.data.transforms import RandomBrightness

from mmovseg.data.clouds import CloudSynthesizer
from mmovseg.data.feature_writer import FeatureWriter, check_space, claim_folder, find_progress
from mmovseg.data.features import FeatureMapper, FeatureStore, describe_view, image_facts, image_name, row_shapes
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.transforms import OpticalJitter, RandomCrop, RandomFlip, RandomRotate90, SarJitter
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_pairs

VIEWS = 3
CROP = [RandomFlip(), RandomCrop(16)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), count=2, height=24, width=32)


def build(**options):
    defaults = {"is_train": True, "vocabulary": get_vocabulary("miniearth"), "reader": FileReader()}
    return OpticalSARMapper(**(defaults | {"geometry": CROP, "views": VIEWS} | options))


def index_of(pairs, mapper=None, **changes):
    return {
        "format": 1,
        "teacher": {"sha256": "0" * 64, "view": "image_clear"},
        "mapper": describe_view(mapper or build(), "image_clear"),
        "dtype": "float16",
        "views": VIEWS,
        "image_size": [16, 16],
        "levels": {"block1": [5, 2, 2]},
        "globals": {"block1": [5]},
        "images": [image_name(entry) for entry in pairs.dicts],
        "facts": [image_facts(entry) for entry in pairs.dicts],
    } | changes


def content(index):
    """Rows that say which they are: value = row, in every file."""
    rows = np.arange(len(index["images"]) * index["views"])
    shapes = row_shapes(index)
    return {
        name: np.full((len(rows), *shape), 1) * rows.reshape(-1, *[1] * len(shape))
        for name, (shape, _) in shapes.items()
    }


def write(folder, index, *, until=None, done=0):
    values = content(index)
    names = [name for name in index["images"] for _ in range(index["views"])]
    with claim_folder(folder), FeatureWriter(folder, index, done) as writer:
        for start in range(done, until or len(names), 2):
            stop = min(start + 2, until or len(names))
            writer.append({name: rows[start:stop] for name, rows in values.items()}, names[start:stop])


@pytest.fixture
def store(pairs, tmp_path):
    write(tmp_path / "store", index_of(pairs))
    return tmp_path / "store"


def test_a_row_belongs_to_an_image_and_a_view(store, pairs):
    reader = FeatureStore(store)
    assert len(reader) == 2 and reader.views == VIEWS
    for image, entry in enumerate(pairs.dicts):
        for view in range(VIEWS):
            features, valid = reader.read(entry, view)
            row = image * VIEWS + view
            assert features["block1"].dtype == torch.float16 and features["block1"].shape == (5, 2, 2)
            assert (features["block1"] == row).all() and (features["global"]["block1"] == row).all()
            expected = np.unpackbits(np.full(32, row, np.uint8)).reshape(16, 16)
            np.testing.assert_array_equal(valid.numpy(), expected.astype(bool))


def test_the_mapper_adds_features_and_reads_no_optical_raster(store, pairs, tmp_path):
    plain = build(modality="both", with_clear=True, clouds=CloudSynthesizer(), sar_photometric=SarJitter(prob=1.0))
    mapper = FeatureMapper(plain, features=store)
    asked = pairs.dicts[1] | {"_draw": 6}
    item, without = mapper(asked), plain(asked)
    assert (item["teacher_features"]["block1"] == VIEWS + item["view"]).all()
    assert item["teacher_sha256"] == "0" * 64 and item["valid"].shape == (16, 16)
    assert {"image", "image_clear", "cloud_alpha"}.isdisjoint(item) and "image_clear" in without
    assert all(torch.equal(item[key], without[key]) for key in ("sar", "sar_valid", "sem_seg"))
    assert item["view"] == without["view"] and plain.modality == "both" and plain.with_clear
    gone = asked | {"file_name": str(tmp_path / "gone" / "000001.png")}
    assert torch.equal(mapper(gone)["sar"], item["sar"]), "the optical raster was needed"
    seeing = FeatureMapper(plain, features=store, skip_optical=False)(asked)
    assert torch.equal(seeing["image"], without["image"]) and torch.equal(seeing["valid"], without["valid"])
    assert mapper.reader is plain.reader and mapper.asked is plain.asked and mapper.is_train


def test_it_travels_to_a_worker_without_its_arrays(store, pairs):
    reader = FeatureStore(store)
    sent = pickle.dumps(reader)
    assert len(sent) < 5000 and torch.equal(
        pickle.loads(sent).read(pairs.dicts[1], 2)[0]["block1"], reader.read(pairs.dicts[1], 2)[0]["block1"]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, r"another mapper: seed is 0, not 1"),
        ({"geometry": [RandomFlip(), RandomCrop(12)]}, r"geometry\[1\]\.size\[0\] is 16, not 12"),
        ({"geometry": [RandomFlip(), RandomRotate90()]}, r'class is "RandomCrop", not "RandomRotate90"'),
        ({"geometry": CROP[:1]}, r"geometry has 2 entries, not 1"),
        ({"geometry": [*CROP[:1], RandomBrightness(0.5, 2)]}, r'class is "RandomCrop", not "RandomBrightness"'),
        ({"optical_photometric": OpticalJitter()}, r"optical_photometric is null, not"),
        ({"reader": FileReader(optical_range=(0, 0.3))}, r"reader\.optical_range is null, not \[0, 0\.3\]"),
        ({"reader": MiniEarthReader()}, r'reader.*class is "FileReader", not "MiniEarthReader"'),
        ({"sar_geometry": "official"}, r"canvas_px is null, not 384"),
        ({"views": VIEWS + 1}, r"hold 3 views of an image, but the mapper has views 4"),
        ({"views": None}, r"limits the views of an image: set its 'views'"),
    ],
)
def test_another_mapper_is_refused(store, options, message):
    with pytest.raises(UserError, match=message):
        FeatureMapper(build(**options), features=store)


def test_what_the_teacher_does_not_see_may_change(store, pairs):
    used = build()
    used(pairs.dicts[0] | {"_draw": 0})  # detectron2 notes things in an augmentation when it is first called
    assert describe_view(used, "image_clear") == describe_view(build(geometry=[RandomFlip(), RandomCrop(16)]), "image")
    reader = FileReader(sar_unit_in="linear", label_map={0: 0})
    FeatureMapper(build(views=1, sar_photometric=SarJitter(), clouds=CloudSynthesizer(), reader=reader), features=store)
    assert describe_view(build(reader=MiniEarthReader()), "image") == describe_view(
        build(reader=MiniEarthReader(False, cache_mb=3)), "image"
    )
    with pytest.raises(UserError, match="clouds are drawn anew each time"):
        describe_view(build(clouds=CloudSynthesizer()), "image")


def test_another_image_is_refused(store, pairs, tmp_path):
    reader, entry = FeatureStore(store), pairs.dicts[0]
    with pytest.raises(UserError, match=r"store' lack the image 'strange' \(they hold 2 images\)"):
        reader.read(entry | {"image_id": "strange"}, 0)
    with pytest.raises(UserError, match="hold 3 views of an image, not view 3"):
        reader.read(entry, 3)
    for change in ({"height": 48}, {"window": (0, 0, 8, 8)}, {"world": {"seed": 1}}, {"file_name": "other.png"}):
        with pytest.raises(UserError, match="another image named '000000'"):
            reader.read(entry | change, 0)
    longer = tmp_path / "000000.png"
    longer.write_bytes(b"0123456789")
    with pytest.raises(UserError, match=r"raster of '000000' has 10 bytes, but had \d+"):
        reader.read(entry | {"file_name": str(longer)}, 0)


def test_a_damaged_or_foreign_folder_is_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"holds no features: there is no 'index\.json'"):
        FeatureStore(tmp_path)
    level, index = store / "block1.npy", store / "index.json"
    whole = level.read_bytes()
    level.write_bytes(whole[:-2])
    with pytest.raises(UserError, match=r"block1\.npy' is missing, cut off"):
        FeatureStore(store)
    np.save(level, np.zeros((6, 5, 2, 3), np.float16))
    with pytest.raises(UserError, match=r"holds float16 \(6, 5, 2, 3\), but its index says float16 \(6, 5, 2, 2\)"):
        FeatureStore(store)
    np.save(level, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="no NumPy file"):
        FeatureStore(store)
    index.write_text(json.dumps({"format": 2}))
    with pytest.raises(UserError, match="format 2, this version reads 1"):
        FeatureStore(store)
    index.write_text("{")
    with pytest.raises(UserError, match=r"index\.json' cannot be read as JSON"):
        FeatureStore(store)


@pytest.mark.parametrize("until", [2, 5])
def test_a_stopped_run_goes_on_to_the_same_bytes(pairs, tmp_path, until):
    index, folder, whole = index_of(pairs), tmp_path / "parts", tmp_path / "whole"
    write(whole, index)
    write(folder, index, until=until)
    with pytest.raises(UserError, match="are unfinished"):
        FeatureStore(folder)
    assert find_progress(folder, index) == (until, False)
    with (folder / "block1.npy").open("ab") as file:
        file.write(b"rows that progress does not know")
    write(folder, index, done=until)
    assert find_progress(folder, index) == (6, True)
    names = {path.name for path in whole.iterdir()}
    assert names == {path.name for path in folder.iterdir()} and "block1.npy" in names
    assert all((folder / name).read_bytes() == (whole / name).read_bytes() for name in names)


def test_an_error_keeps_the_rows_before_it(pairs, tmp_path):
    index = index_of(pairs)
    values = content(index)
    with pytest.raises(UserError, match="'block1' of image 'b' hold a value that float16 cannot; try --dtype float32"):
        with claim_folder(tmp_path), FeatureWriter(tmp_path, index, 0) as writer:
            writer.append({name: rows[:2] for name, rows in values.items()}, ["a", "a"])
            values["block1"][3] = 70_000
            writer.append({name: rows[2:4] for name, rows in values.items()}, ["a", "b"])
    assert find_progress(tmp_path, index) == (2, False)


def test_a_folder_is_filled_once_and_by_one(store, pairs):
    with pytest.raises(UserError, match=r"begun with something else: dtype is \"float16\", not \"float32\""):
        find_progress(store, index_of(pairs, dtype="float32"))
    with pytest.raises(UserError, match=r"teacher\.sha256"):
        find_progress(store, index_of(pairs, teacher={"sha256": "1" * 64, "view": "image_clear"}))
    with pytest.raises(UserError, match="images has 2 entries, not 1"):
        find_progress(store, index_of(pairs, images=["000000"]))
    with claim_folder(store), pytest.raises(UserError, match="is being filled by another process"):
        with claim_folder(store):
            pass
    with claim_folder(store):
        pass


def test_a_disk_that_is_too_small_is_refused_beforehand(pairs, tmp_path):
    index = index_of(pairs)
    free = check_space(tmp_path, index, 0)
    assert free > 0
    huge = index_of(pairs, levels={"block1": [1000, free, 2]})
    with pytest.raises(UserError, match=r"needs [\d.]+ GB more for 5 views, but only [\d.]+ GB are free"):
        check_space(tmp_path, huge, 1)


def test_a_full_disk_is_a_sentence(pairs, tmp_path, monkeypatch):
    index = index_of(pairs)

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot be written to '.*': No space left on device"):
        with claim_folder(tmp_path), FeatureWriter(tmp_path, index, 0) as writer:
            monkeypatch.setattr("mmovseg.data.feature_writer._RowFile.append", full)
            writer.append({name: rows[:2] for name, rows in content(index).items()}, ["a", "a"])
    assert find_progress(tmp_path, index) == (0, False)
