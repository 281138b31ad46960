"""The official geometry against a plain re-statement of what the authors' two mappers do with a pair, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data.detection_utils import read_image
from fvcore.transforms.transform import CropTransform, HFlipTransform, NoOpTransform
from PIL import Image

from mmovseg.data.io import FileReader, read_optical, read_rgb8
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.sample import RawSample
from mmovseg.data.transforms import (
    JointSample,
    OpticalJitter,
    PilResizeShortestEdge,
    PilResizeTransform,
    RandomCrop,
    RandomFlip,
    lay_on_canvas,
)
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError
from mmovseg.testing.fakes import write_raster

SIDE = 384
PIE = get_vocabulary("pie", "released")
SIZES = [(256, 256), (1024, 1024), (384, 384), (300, 200), (200, 300), (500, 400), (90, 400)]


def write_pair(folder, height, width, *, suffix="png", sar_bands=1, seed=0):
    """A pair of smooth colour fields, so that every filter shows, and blocks of all six classes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    optical = np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    label = np.kron(rng.integers(0, 6, (height // 7 + 1, width // 7 + 1)), np.ones((7, 7), int))[:height, :width]
    sar = rng.integers(0, 256, (height, width, sar_bands), dtype=np.uint8)
    return {
        "file_name": str(write_raster(folder / f"rgb.{suffix}", optical)),
        "sar_file_name": str(write_raster(folder / "sar.png", sar)),
        "sem_seg_file_name": str(write_raster(folder / "label.png", label.astype(np.uint8))),
        "image_id": "pair",
    }


def build(is_train=False, **options):
    geometry = [PilResizeShortestEdge(SIDE, max_size_px=1333)]
    geometry += [RandomCrop(SIDE), RandomFlip()] if is_train else []
    reader = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", decoder="pil")
    defaults = {"vocabulary": PIE, "reader": reader, "geometry": geometry, "sar_geometry": "official"}
    return OpticalSARMapper(is_train=is_train, **(defaults | options))


def pad_or_crop(array, fill):
    """Negative padding crops, as torch's does; right and bottom only."""
    height, width = array.shape[:2]
    planes = torch.from_numpy(np.array(array)).reshape(height, width, -1).permute(2, 0, 1)
    padded = torch.nn.functional.pad(planes, (0, SIDE - width, 0, SIDE - height), value=fill)
    return padded.permute(1, 2, 0).reshape(SIDE, SIDE, *array.shape[2:]).numpy()


def resized_by_the_authors(path, resample, *, mode):
    """Shorter side to 384 unless the longer one would pass 1333, half pixels up."""
    image = Image.open(path).convert(mode)
    width, height = image.size
    scale = SIDE / min(width, height)
    if max(width, height) * scale > 1333:
        scale = 1333 / max(width, height)
    size = (int(width * scale + 0.5), int(height * scale + 0.5))
    return np.array(image if size == image.size else image.resize(size, resample))


def chw(array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_test_mapper_is_the_authors(tmp_path, size):
    pair = write_pair(tmp_path, *size, sar_bands=1 if size[0] % 3 else 3)
    item = build()(pair)
    optical = pad_or_crop(resized_by_the_authors(pair["file_name"], Image.Resampling.BILINEAR, mode="RGB"), 128)
    sar = pad_or_crop(read_image(pair["sar_file_name"], format="RGB"), 128)
    assert item["image"].dtype == torch.uint8 and torch.equal(item["image"], chw(optical))
    assert item["sar"].dtype == torch.float32 and torch.equal(item["sar"], chw(sar).float())
    np.testing.assert_array_equal(item["sem_seg"].numpy(), np.array(Image.open(pair["sem_seg_file_name"])))
    assert (item["height"], item["width"]) == size
    assert {"valid", "sar_valid"}.isdisjoint(item), "grey 128 is data to the released models"
    assert item["vocabulary"].names[0] == "backbroad"


def test_a_256_pixel_pair_is_not_registered_any_more(tmp_path):
    item = build()(write_pair(tmp_path, 256, 256))
    assert (item["sar"][:, 256:] == 128).all() and (item["sar"][:, :, 256:] == 128).all()
    assert not (item["image"][:, 256:] == 128).all()


@pytest.mark.parametrize(("draw", "size"), [*enumerate(SIZES), *((draw, (300, 200)) for draw in range(20, 23))])
def test_the_train_mapper_is_the_authors(tmp_path, size, draw, monkeypatch):
    pair = write_pair(tmp_path, *size)
    drawn = []
    original = JointSample.apply_augmentations

    def remember(self, augmentations):
        drawn.extend(original(self, augmentations).transforms)

    monkeypatch.setattr(JointSample, "apply_augmentations", remember)
    item = build(True)(pair | {"_draw": draw})
    optical = resized_by_the_authors(pair["file_name"], Image.Resampling.BILINEAR, mode="RGB")
    label = resized_by_the_authors(pair["sem_seg_file_name"], Image.Resampling.NEAREST, mode="L")
    for transform in drawn:  # what was drawn, redone by slicing
        if isinstance(transform, CropTransform):
            rows = slice(transform.y0, transform.y0 + transform.h)
            columns = slice(transform.x0, transform.x0 + transform.w)
            optical, label = optical[rows, columns], label[rows, columns]
        elif isinstance(transform, HFlipTransform):
            optical, label = optical[:, ::-1], label[:, ::-1]
        else:
            assert isinstance(transform, (PilResizeTransform, NoOpTransform))
    seen = np.full(256, 255, np.uint8)
    seen[[0, 1, 4, 5]] = range(4)
    sar = pad_or_crop(read_image(pair["sar_file_name"], format="RGB"), 128)
    assert torch.equal(item["image"], chw(pad_or_crop(optical.copy(), 128)))
    assert torch.equal(item["sar"], chw(sar).float()), "SAR is neither cropped nor flipped"
    np.testing.assert_array_equal(item["sem_seg"].numpy(), pad_or_crop(seen[label].copy(), 255))
    assert item["vocabulary"].names == ["backbroad", "city", "forest", "farmland"]


def test_training_draws_flips_and_crops(tmp_path):
    pair = write_pair(tmp_path, 300, 200)
    items = [build(True)(pair | {"_draw": draw}) for draw in range(6)]
    assert len({item["image"].numpy().tobytes() for item in items}) > 2
    assert all(torch.equal(item["sar"], items[0]["sar"]) for item in items)


def test_colour_jitter_leaves_the_grey_of_the_canvas(tmp_path):
    pair = write_pair(tmp_path, 90, 400)  # 300 rows are left when the longer side is held at 1333
    item = build(True, optical_photometric=OpticalJitter(brightness=90.0, prob=1.0))(pair | {"_draw": 0})
    plain = build(True)(pair | {"_draw": 0})
    assert (item["image"][:, 300:] == 128).all() and (item["sem_seg"][300:] == 255).all()
    assert not torch.equal(item["image"][:, :300], plain["image"][:, :300])


def test_each_modality_alone(tmp_path):
    pair = write_pair(tmp_path, 256, 200)
    both, optical, sar = (build(modality=name)(pair) for name in ("both", "optical", "sar"))
    assert "sar" not in optical and torch.equal(optical["image"], both["image"])
    assert "image" not in sar and torch.equal(sar["sar"], both["sar"])
    del pair["sem_seg_file_name"]
    assert torch.equal(build(modality="sar")(pair)["sar"], both["sar"])


def test_more_than_8_bits_are_refused(tmp_path):
    pair = write_pair(tmp_path, 64, 64)
    for name, array in (("u16", np.full((64, 64), 900, np.uint16)), ("f32", np.full((64, 64), 0.25, np.float32))):
        file = str(write_raster(tmp_path / f"{name}.tif", array))
        with pytest.raises(UserError, match=rf"SAR raster .*{name}\.tif' holds values of more than 8 bits"):
            build()(pair | {"sar_file_name": file})
        db = FileReader(sar_unit_in="db" if name == "f32" else "amplitude8", sar_unit="amplitude8", sar_channels=3)
        reader = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)
        assert build(reader=db, sar_geometry="paired")(pair | {"sar_file_name": file})["sar"].shape[0] == 3
        with pytest.raises(UserError, match=rf"{name}\.tif' has the value [0-9.]+, but the official SAR geometry"):
            build(reader=reader)(pair | {"sar_file_name": file})
    wide = str(write_raster(tmp_path / "wide.tif", np.full((64, 64, 3), 900, np.uint16)))
    with pytest.raises(UserError, match=r"optical raster '.*wide\.tif'"):
        build()(pair | {"file_name": wide})
    reader = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)
    with pytest.raises(UserError, match=r"wide\.tif' is float32 after reading.*sar_geometry='paired'"):
        build(reader=reader)(pair | {"file_name": wide})


def test_a_reader_in_db_is_refused():
    reader = lambda _: RawSample(sar=np.full((8, 8, 2), -12.5, np.float32))  # noqa: E731
    with pytest.raises(UserError, match="has the value -12.5, but the official SAR geometry"):
        build(reader=reader)({"sar_file_name": "scene"})
    with pytest.raises(UserError, match="unknown sar_geometry 'shifted'; known: paired, official"):
        build(sar_geometry="shifted")


def test_the_paired_geometry_takes_the_same_resize(tmp_path):
    """A released config with sar_geometry=paired: SAR moves along, and the masks are back."""
    item = build(sar_geometry="paired")(write_pair(tmp_path, 256, 320))
    assert item["image"].shape == item["sar"].shape == (3, 384, 480)
    assert item["valid"].all() and item["sar_valid"].all()
    official = build()(write_pair(tmp_path, 256, 320))
    assert torch.equal(item["image"][:, :, :384], official["image"])
    as_bytes = np.array(Image.open(tmp_path / "sar.png").resize((480, 384), Image.Resampling.BILINEAR))
    assert np.abs(item["sar"][0].numpy() - as_bytes).max() <= 1.0


def test_labels_and_holes_under_the_pil_resize():
    transform = PilResizeTransform(2, 2, 4, 4)
    assert transform.apply_segmentation(np.array([[0, 5], [255, 1]])).tolist() == [
        [0, 0, 5, 5], [0, 0, 5, 5], [255, 255, 1, 1], [255, 255, 1, 1]
    ]  # fmt: skip
    optical = np.full((8, 8, 3), 200, np.uint8)
    hole = np.ones((8, 8), bool)
    hole[2:4, 2:4] = False
    joint = JointSample(rng=np.random.default_rng(0), optical=np.where(hole[..., None], optical, 0).astype(np.uint8))
    joint.optical_valid = hole
    joint.transform(PilResizeTransform(8, 8, 16, 16))
    assert (joint.optical[joint.optical_valid] == 200).all(), "a hole darkened its neighbours"
    points = np.array([[0.0, 0.0], [8.0, 4.0]])
    np.testing.assert_allclose(PilResizeTransform(8, 8, 16, 4).apply_coords(points), [[0, 0], [4, 8]])


def test_the_canvas_keeps_dtype_and_corner():
    wide = np.arange(12, dtype=np.uint8).reshape(2, 6)
    assert lay_on_canvas(wide, 3, 9).tolist() == [[0, 1, 2], [6, 7, 8], [9, 9, 9]]
    assert lay_on_canvas(np.zeros((5, 1, 2), np.float32), 3, 1.5).dtype == np.float32


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1"])
def test_files_decode_as_detectron2_decodes_them(tmp_path, mode):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 4), dtype=np.uint8), "RGBA").convert(mode)
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_rgb8(tmp_path / "x.png"), read_image(tmp_path / "x.png", format="RGB"))


def test_jpeg_decodes_as_detectron2_decodes_it_and_not_as_gdal(tmp_path):
    pair = write_pair(tmp_path, 64, 64)
    Image.open(pair["file_name"]).save(tmp_path / "x.jpg", quality=75)
    decoded = read_rgb8(tmp_path / "x.jpg")
    np.testing.assert_array_equal(decoded, read_image(tmp_path / "x.jpg", format="RGB"))
    assert not np.array_equal(decoded, read_optical(tmp_path / "x.jpg")[0])


def test_files_that_pil_cannot_use(tmp_path):
    pair = write_pair(tmp_path, 64, 64)
    whole = (tmp_path / "rgb.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"cut\.png' is damaged or cut off"):
        build()(pair | {"file_name": str(tmp_path / "cut.png")})
    with pytest.raises(UserError, match=r"SAR raster '.*text\.png' is not an 8-bit image"):
        build()(pair | {"sar_file_name": str(tmp_path / "text.png")})
    with pytest.raises(UserError, match=r"gone\.png' does not exist"):
        build()(pair | {"sar_file_name": str(tmp_path / "gone.png")})


def test_options_of_the_reader(tmp_path):
    pair = write_pair(tmp_path, 64, 48)
    one = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8")(pair).sar
    three = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)(pair).sar
    assert one.shape == (64, 48, 1) and three.shape == (64, 48, 3) and (three == one).all()
    np.testing.assert_array_equal(one[:, :, 0], np.array(Image.open(pair["sar_file_name"])))
    coloured = str(write_raster(tmp_path / "rgbsar.png", np.arange(64 * 48 * 3).reshape(64, 48, 3).astype(np.uint8)))
    kept = FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)(
        pair | {"sar_file_name": coloured}
    )
    assert kept.sar.shape == (64, 48, 3) and not (kept.sar[..., 0] == kept.sar[..., 1]).all()
    with pytest.raises(UserError, match=r"rgbsar\.png' has 3 bands; one, or 2, can be read as 2"):
        FileReader(sar_unit_in="amplitude8", sar_channels=2)(pair | {"sar_file_name": coloured})
    with pytest.raises(UserError, match="unknown decoder 'cv2'"):
        FileReader(decoder="cv2")
    with pytest.raises(UserError, match="must be 'amplitude8', not 'db'"):
        FileReader(decoder="pil")
    with pytest.raises(UserError, match="leave out bands"):
        FileReader(decoder="pil", sar_unit_in="amplitude8", bands=(3, 2, 1))


def test_a_sample_brings_its_own_label_map(tmp_path):
    pair = write_pair(tmp_path, 64, 64)
    stored = np.array(Image.open(pair["sem_seg_file_name"]))
    reader = FileReader(sar_unit_in="amplitude8", label_map={value: 0 for value in range(6)})
    assert (reader(pair).sem_seg == 0).all()
    own = {str(value): 5 - value for value in range(6)}  # keys as JSON leaves them
    np.testing.assert_array_equal(reader(pair | {"label_map": own}).sem_seg, 5 - stored.astype(int))
    with pytest.raises(UserError, match=r"label\.png' has the value \d, which the label map does not list"):
        reader(pair | {"label_map": {0: 0}})
