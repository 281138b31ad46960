"""Boxes from dataset dicts: they move with the rasters, are cut at the view, and must fit their image."""

import numpy as np
import pytest
import torch
from detectron2.data import transforms as stock

from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.sample import RawSample
from mmovseg.data.transforms import JointSample, RandomCrop, RandomFlip, RandomRotate90, RandomScale, Resize
from mmovseg.errors import UserError

HEIGHT, WIDTH = 40, 60


def painted(boxes):
    """An image that is 255 inside the boxes: what the geometry does to it, it must do to them."""
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1] = 255
    return image


def dataset_dict(*annotations, **facts):
    return {"file_name": "a.png", "image_id": "7", "height": HEIGHT, "width": WIDTH, **facts} | {
        "annotations": [{"category_id": 1, **annotation} for annotation in annotations]
    }


def mapper(image, *, is_train=True, geometry=()):
    def read(_):
        return RawSample(optical=image, optical_valid=np.ones(image.shape[:2], dtype=bool))

    return OpticalSARMapper(is_train=is_train, vocabulary=None, reader=read, geometry=geometry, modality="optical")


@pytest.mark.parametrize(
    "geometry",
    [
        [RandomFlip(vertical=True), RandomRotate90()],
        [Resize(size=(80, 120)), RandomFlip()],
        [RandomScale(2.0, 2.0), RandomCrop(48), RandomRotate90()],
        [stock.RandomApply(stock.AugmentationList([stock.RandomCrop("absolute_range", (20, 36))]), prob=1.0)],
    ],
    ids=["turned", "resized", "cropped", "stock"],
)
def test_a_box_stays_around_what_was_painted_in_it(geometry):
    for seed in range(20):
        box = (21, 11, 33, 19)
        joint = JointSample(
            rng=np.random.default_rng(seed), optical=painted([box]), boxes=np.array([box], dtype=np.float64)
        )
        joint.apply_augmentations(geometry)
        rows, columns = np.nonzero(joint.optical[:, :, 0] > 127)
        shown = np.clip(joint.boxes[0], 0, [joint.width, joint.height] * 2)
        if not len(rows):
            assert np.prod(shown[2:] - shown[:2]) == 0
            continue
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(shown, around, atol=0.51)


def test_training_keeps_what_is_left_in_the_view_and_no_crowds():
    class LeftHalf(stock.Augmentation):
        def get_transform(self, image):
            return stock.CropTransform(0, 0, 30, HEIGHT)

    boxes = [(2, 2, 10, 10), (25, 5, 40, 9), (29.5, 5, 40, 9), (45, 5, 50, 9), (1, 20, 9, 30)]
    given = [{"bbox": box, "category_id": i} for i, box in enumerate(boxes)]
    given[4]["iscrowd"] = 1
    item = mapper(painted([]), geometry=[LeftHalf()])(dataset_dict(*given))
    found = item["instances"]
    assert found.image_size == (HEIGHT, 30) and found.gt_classes.tolist() == [0, 1]
    assert found.gt_boxes.tensor.tolist() == [[2, 2, 10, 10], [25, 5, 30, 9]]


def test_evaluation_keeps_all_of_them_at_the_original_size():
    given = dataset_dict({"bbox": (1, 2, 4, 9), "area": 12.5}, {"bbox": (5, 5, 10, 10), "iscrowd": 1})
    item = mapper(painted([]), is_train=False, geometry=[Resize(size=80)])(given)
    found = item["instances"]
    assert item["image"].shape == (3, 80, 80) and found.image_size == (HEIGHT, WIDTH)
    assert found.gt_boxes.tensor.tolist() == [[1, 2, 4, 9], [5, 5, 10, 10]]
    assert found.gt_areas.tolist() == [12.5, 25.0] and found.gt_crowd.tolist() == [False, True]


def test_an_image_without_objects_has_an_empty_list_and_one_without_annotations_no_key():
    empty = mapper(painted([]))(dataset_dict())["instances"]
    assert empty.gt_boxes.tensor.shape == (0, 4) and empty.gt_classes.dtype == torch.int64
    assert "instances" not in mapper(painted([]))({"file_name": "a.png", "image_id": "7"})


def test_boxes_for_an_image_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"^'a.png' is 40x60 pixels .* for an image of 40x61$"):
        mapper(painted([]))(dataset_dict(width=WIDTH + 1))
