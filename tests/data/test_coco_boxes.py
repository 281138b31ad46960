"""COCO files of any set as dataset dicts; a faulty file is named with its fault."""

import json

import pytest
from PIL import Image

from mmovseg.data.datasets.coco_boxes import load_coco_boxes
from mmovseg.errors import UserError

CATEGORIES = ("ship", "plane")


def content():
    return {
        "images": [
            {"id": 5, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 3, "file_name": "a.png", "height": 20, "width": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 7, "bbox": [1, 2, 10, 5], "area": 40, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 2, "bbox": [25, 15, 5.5, 5]},
        ],
        "categories": [{"id": 7, "name": "plane"}, {"id": 2, "name": "ship"}],
    }


@pytest.fixture
def coco(tmp_path):
    """Writes a file and two images, and loads it."""
    for name in "ab":
        Image.new("RGB", (30, 20), "red").save(tmp_path / f"{name}.png")

    def load(changed=None, **options):
        path = tmp_path / "boxes.json"
        text = changed if isinstance(changed, str) else json.dumps(changed or content())
        path.write_text(text)
        return load_coco_boxes(path, **{"categories": CATEGORIES, "optical_dir": tmp_path, **options})

    return load


def test_classes_follow_the_config_and_boxes_are_cut_at_the_edge(coco, tmp_path):
    empty, found = coco()
    assert empty["image_id"] == "5" and empty["annotations"] == []
    assert found["file_name"] == str(tmp_path / "a.png") and (found["height"], found["width"]) == (20, 30)
    assert found["annotations"] == [
        {"bbox": (1.0, 2.0, 11.0, 7.0), "category_id": 1, "area": 40.0, "iscrowd": 0},
        {"bbox": (25.0, 15.0, 30.0, 20.0), "category_id": 0, "area": 25.0, "iscrowd": 0},
    ]
    assert [item["image_id"] for item in coco(keep_empty=False)] == ["3"]


def masks(*segmentations):
    return content() | {
        "annotations": [
            {"id": number, "image_id": 3, "category_id": 7, "segmentation": segmentation}
            for number, segmentation in enumerate(segmentations)
        ]
    }


def test_a_mask_gives_box_and_area_where_there_is_no_box(coco):
    square, far = [4, 5, 10, 5, 10, 9, 4, 9], [20, 10, 24, 10, 24, 14, 20, 14]
    runs = {"size": [20, 30], "counts": [40, 3, 17, 3, 537]}  # columns 2 and 3, rows 0 to 2
    found = coco(masks([square], [square, far], runs))[1]["annotations"]
    assert [item["bbox"] for item in found] == [(4.0, 5.0, 10.0, 9.0), (4.0, 5.0, 24.0, 14.0), (2.0, 0.0, 4.0, 3.0)]
    assert [item["area"] for item in found] == [24.0, 40.0, 6.0]
    given = content()
    given["annotations"][0] |= {"segmentation": [far], "bbox": [1, 2, 10, 5]}  # a box that is there wins
    assert coco(given)[1]["annotations"][0]["bbox"] == (1.0, 2.0, 11.0, 7.0)


@pytest.mark.parametrize("bad", [{"size": [9, 9], "counts": [81]}, {"counts": 3}, ["a"], [[1, 2]], "mask"])
def test_a_bad_mask_is_named(coco, bad):
    with pytest.raises(UserError, match=r"annotation 0 of '.*boxes\.json' has a segmentation that is no mask"):
        coco(masks(bad))


def test_the_images_can_be_sar_or_both(coco, tmp_path):
    assert set(coco(optical_dir=None, sar_dir=tmp_path)[0]) & {"file_name", "sar_file_name"} == {"sar_file_name"}
    assert coco(sar_dir=tmp_path)[0]["sar_file_name"] == str(tmp_path / "b.png")
    with pytest.raises(UserError, match="give optical_dir, sar_dir or both"):
        coco(optical_dir=None)


def broken(change):
    given = content()
    change(given)
    return given


BAD = {
    "missing image": (
        lambda c: c["images"][0].update(file_name="c.png"),
        r"image '.*c.png', which '.*boxes.json' lists, does not exist$",
    ),
    "image without size": (lambda c: c["images"][1].pop("width"), r"image 1 of '.*' needs id, file_name, height"),
    "image twice": (lambda c: c["images"][1].update(id=5), r"lists the image id 5 twice, the second time for 'a.png'$"),
    "box outside": (
        lambda c: c["annotations"][1].update(bbox=[25, 15, 9, 5]),
        r"annotation 2 of '.*' has the bbox \[25, 15, 9, 5\], which does not lie in its image of 30 x 20 pixels",
    ),
    "box without area": (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 5]), r"annotation 1 .* \[1, 2, 0, 5\]"),
    "box of text": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, "x", 5]),
        r"four numbers .* got: \[1, 2, 'x', 5\]",
    ),
    "box with nan": (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 5]), r"four numbers"),
    "unknown image": (lambda c: c["annotations"][0].update(image_id=9), r"annotation 1 of '.*' is of image 9, which"),
    "unknown category id": (
        lambda c: c["annotations"][0].update(category_id=1),
        r"annotation 1 of '.*' has the category 1, which the file does not list; it lists: 7, 2$",
    ),
    "unknown category name": (
        lambda c: c["categories"][0].update(name="car"),
        r"'.*boxes.json' has the category 'car'; the config knows: ship, plane$",
    ),
    "category id twice": (
        lambda c: c["categories"][1].update(id=7),
        r"numbers the category 'ship' 7, which is no id or",
    ),
    "no annotations": (lambda c: c.pop("annotations"), r"is no COCO file of boxes: it has no list 'annotations'$"),
    "empty annotations": (lambda c: c["annotations"].clear(), r"COCO file '.*' has an empty list 'annotations'$"),
    "empty images": (lambda c: c["images"].clear(), r"has an empty list 'images'$"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_sentence(coco, name):
    change, sentence = BAD[name]
    with pytest.raises(UserError, match=sentence) as caught:
        coco(broken(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['{"images": [{"id": 1', "", "[1, 2]", "\x00\x01"], ids=repr)
def test_a_file_that_is_cut_off_or_something_else_is_refused(coco, text):
    with pytest.raises(UserError, match=r"boxes.json' (is cut off or no JSON|is no COCO file)"):
        coco(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^COCO file '.*none.json' cannot be read: No such file or directory$"):
        load_coco_boxes(tmp_path / "none.json", categories=CATEGORIES, optical_dir=tmp_path)


def test_bad_boxes_can_be_cut_and_dropped(coco):
    given = broken(lambda c: c["annotations"][1].update(bbox=[25, 15, 9, 5]))
    given["annotations"][0]["bbox"] = [40, 2, 3, 3]
    found = coco(given, bad_boxes="drop")[1]["annotations"]
    assert [annotation["bbox"] for annotation in found] == [(25.0, 15.0, 30.0, 20.0)]
    with pytest.raises(UserError, match="bad_boxes is 'keep' but must be one of: refuse, drop"):
        coco(bad_boxes="keep")
