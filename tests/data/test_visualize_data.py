"""tools/visualize_data.py draws a registered data set and the batches of a config."""

import numpy as np
import pytest
import torch
import visualize_data
from detectron2.structures import Boxes, Instances
from PIL import Image

from mmovseg.data.vocabulary import get_vocabulary

CONFIG = """
from detectron2.config import LazyCall as L
from mmovseg.data.build import build_train_loader
from mmovseg.data.datasets import load_pair_folder
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.transforms import RandomCrop
from mmovseg.data.vocabulary import get_vocabulary

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(load_pair_folder)(optical_dir="{0}/optical", sar_dir="{0}/sar", label_dir="{0}/label"),
        mapper=L(OpticalSARMapper)(
            is_train=True,
            vocabulary=L(get_vocabulary)(dataset="miniearth"),
            reader=L(FileReader)(),
            geometry=[L(RandomCrop)(size=16)],
        ),
        batch_size=2,
        num_workers=2,
    )
)
"""


def test_own_pairs_from_a_config(tmp_path, capsys):
    from mmovseg.testing.fakes import write_pairs

    write_pairs(tmp_path / "pairs", count=3)
    config = tmp_path / "mine.py"
    config.write_text(CONFIG.format(tmp_path / "pairs"))
    arguments = ["--config-file", str(config), "--num", "8", "--output", str(tmp_path / "out")]
    visualize_data.main([*arguments, "dataloader.train.mapper.modality=both"])
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == ["mine_train_01.png", "mine_train_02.png"]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    picture = np.asarray(Image.open(written[0]).convert("RGB"))
    assert picture.shape[0] > 1000 and picture.std() > 20


def test_registered_data_set(tmp_path):
    visualize_data.main(["--dataset", "miniearth_val", "--clouds", "varied", "--num", "2", "--output", str(tmp_path)])
    assert Image.open(tmp_path / "miniearth_val_01.png").width > 800


def test_panels_hold_what_the_model_gets():
    image = torch.arange(48).reshape(3, 4, 4).to(torch.uint8)
    sar = torch.tensor([[-25.0, 0.0]]).repeat(1, 2, 1)
    item = {"image": image, "sem_seg": torch.full((4, 4), 255), "valid": torch.ones(4, 4, dtype=torch.bool)}
    cells = visualize_data.panels(item, get_vocabulary("miniearth"))
    assert list(cells) == ["optical", "labels over image"]
    np.testing.assert_array_equal(cells["optical"], image.permute(1, 2, 0).numpy())
    only_sar = visualize_data.panels(
        {"sar": sar, "sem_seg": torch.zeros(4, 4, dtype=torch.long)}, get_vocabulary("oem")
    )
    assert list(only_sar) == ["SAR", "labels"] and only_sar["SAR"][0, :, 0].tolist() == [0, 255]


def test_objects_are_drawn_over_the_image_of_their_size():
    found = Instances((20, 30))
    found.gt_boxes, found.gt_classes = Boxes(torch.tensor([[5.0, 4.0, 15.0, 12.0]])), torch.tensor([1])
    item = {"image": torch.zeros(3, 20, 30, dtype=torch.uint8), "instances": found}
    drawn = visualize_data.panels(item, None)["objects"]
    scale = drawn.shape[1] // 30
    assert drawn.shape == (20 * scale, 30 * scale, 3)
    assert drawn[8 * scale, 4 * scale].max() > 200 and drawn[8 * scale, 10 * scale].max() == 0
    resized = {**item, "image": torch.zeros(3, 40, 60, dtype=torch.uint8)}
    assert list(visualize_data.panels(resized, None)) == ["optical"]


def test_of_two_dates_the_later_is_under_the_labels():
    image = torch.arange(6, dtype=torch.uint8)[:, None, None].repeat(1, 2, 2)
    sar = torch.tensor([10.0, 200.0])[:, None, None].repeat(1, 2, 2)
    cells = visualize_data.panels({"image": image, "sar": sar}, get_vocabulary("ombria"), "amplitude8")
    assert [cells[name][0, 0].tolist() for name in ("optical before", "optical", "SAR")] == [
        [0, 1, 2],
        [3, 4, 5],
        [200, 200, 200],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "mars"], "unknown data set 'mars'"),
        (["--dataset", "miniearth_val", "--num", "0"], "--num must be at least 1, got 0"),
        (["--dataset", "miniearth_val", "a=b"], "'a=b' need --config-file"),
        (["--dataset", "miniearth_val", "--sar-limits", "9", "9"], "black below white, got 9 and 9"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        visualize_data.main([*arguments, "--output", str(tmp_path)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_unlabelled_pairs_of_a_mix(tmp_path, capsys):
    from mmovseg.testing.fakes import write_pairs

    write_pairs(tmp_path / "pairs", count=2)
    (tmp_path / "mix.py").write_text(
        "from mmovseg.config import get_config\n"
        "dataloader = get_config('projects/CMU/configs/common/folder_data.py').dataloader\n"
        f"dataloader.train.dataset.sources[0].folder.optical_dir = {str(tmp_path / 'pairs' / 'optical')!r}\n"
        f"dataloader.train.dataset.sources[0].folder.sar_dir = {str(tmp_path / 'pairs' / 'sar')!r}\n"
    )
    visualize_data.main(["--config-file", str(tmp_path / "mix.py"), "--num", "2", "--output", str(tmp_path / "out")])
    picture = np.asarray(Image.open(capsys.readouterr().out.strip()).convert("RGB"))
    assert picture.shape[0] > 300 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
