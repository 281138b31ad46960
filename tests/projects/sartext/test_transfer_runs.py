"""The stages from one to the next by the commands that users run, on two processes, and on real SAR images."""

import json
import socket
from pathlib import Path

import pytest
import torch

from mmovseg.config import get_config, instantiate
from mmovseg.data.build import build_test_loader
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.engine import tables
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.projects.sartext.modeling.norms import CLIP_MEAN, CLIP_STD, PercentileNorm, grey_norm
from tests.projects.sartext.image_text_worker import inputs, losses_and_gradients, make, work

CONFIGS = Path(__file__).parents[3] / "projects/SARText/configs"
FEW = [
    *("train.max_iter=2", "train.num_threads=1", "train.log_period=1", "dataloader.train.batch_size=4"),
    *("dataloader.train.dataset.num_scenes=8", "dataloader.test.dataset.num_scenes=6", "dataloader.test.batch_size=6"),
]


@pytest.mark.slow
def test_the_table_of_the_transfer_is_filled_from_the_first_stage_on(tmp_path):
    content = json.loads((CONFIGS / "tables/transfer.json").read_text())
    for entry in (*content["parts"], *content["runs"]):  # the few steps are said for all
        entry["overrides"] = [item for item in entry.get("overrides", []) if not item.startswith("train.max_iter")]
    wanted = ["clip_zero_shot", "clip_sar_only", "clip_progressive"]
    content["runs"] = [run for run in content["runs"] if run["name"] in wanted]
    (tmp_path / "few.json").write_text(json.dumps(content))
    table = tables.read_table(tmp_path / "few.json")
    rows = tables.fill_table(table, tmp_path / "t.csv", tmp_path / "runs", overrides=FEW, seeds=[0])
    assert [(row["run"], row["parts"]) for row in rows] == [
        ("clip_zero_shot", "clip_natural"),
        ("clip_sar_only", ""),
        ("clip_progressive", "clip_natural+clip_optical"),
    ]
    chance = (1 / 6 + 5 / 6 + 1) / 3 * 100
    for row in rows:
        assert 0 < float(row["mean recall"]) <= 100 and row["images"] == "6"
        assert float(row["chance mean recall"]) == pytest.approx(chance, abs=8)  # images have one or two captions
    untrained, alone, progressive = (row["weights_sha256"] for row in rows)
    assert untrained == ""  # it tests a part
    assert alone and progressive and alone != progressive
    encoder = OpenCLIPEncoder(
        architecture=get_config("projects/SARText/configs/common/models_xs.py").clip_architecture,
        weights=str(tmp_path / "runs/clip_optical-seed0.safetensors"),
        taps=(1,),
    )
    assert encoder.encode_texts(["a photo of water"]).shape == (1, 64)


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_know_equal_captions_of_each_other(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # "a ship" is the first caption of one process and the last of the other
    torch.multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=2)
    losses, gradients = losses_and_gradients(make("clip").train(), inputs())
    theirs = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    mean = (theirs[0][0]["loss_contrastive"] + theirs[1][0]["loss_contrastive"]) / 2
    torch.testing.assert_close(mean, losses["loss_contrastive"])
    assert set(gradients) == set(theirs[0][1]) and len(gradients) > 20
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[0][1][name], gradient, atol=1e-6, rtol=1e-3)


@pytest.mark.realdata
def test_real_8_bit_sar_reaches_the_model_as_grey(realdata):
    files = sorted((realdata / "qxs_saropt/sar").glob("*.png"))[:3]
    mapper = OpticalSARMapper(
        is_train=False,
        vocabulary=None,
        reader=FileReader(sar_unit_in="amplitude8", sar_unit="amplitude8"),
        modality="sar",
        keep_caption=True,
    )
    dicts = [{"sar_file_name": str(file), "image_id": file.stem, "caption": "a SAR image"} for file in files]
    items = next(iter(build_test_loader(dataset=dicts, mapper=mapper, batch_size=3)))
    assert items[0]["sar"].shape[1:] == (256, 256) and items[0]["captions"] == ["a SAR image"]
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    fixed = make(norm=grey_norm(clip=(0.0, 255.0)))
    pixels = fixed.pixels(items) * std + mean
    assert pixels.shape == (3, 3, 16, 16)
    for grey, item in zip(pixels, items, strict=True):  # three equal channels of the brightness of the file
        torch.testing.assert_close(grey[0], grey[2], atol=1e-2, rtol=1e-3)
        assert float(grey.mean()) == pytest.approx(float(item["sar"][0].mean()), rel=0.05)
    for item in items:
        stretched = PercentileNorm(mean=(0.0,), std=(1.0,))(item["sar"][:1])
        for end in (0.0, 255.0):  # a percent or more at either end
            assert 0.01 <= float((stretched == end).float().mean()) < 0.2
    outputs = fixed.eval()(items)
    assert [output["text_embeddings"].shape for output in outputs] == [(1, 32)] * 3


def test_the_sar_clip_for_mmovseg_starts_from_its_shipped_clip_and_keeps_its_texts():
    config = get_config("projects/SARText/configs/clip_sar_mmovseg_xs.py")
    model = instantiate(config.model)
    shipped = OpenCLIPEncoder(architecture=config.model.architecture, weights="shipped://clip_xs", finetune="none")
    texts = ["a photo of water", "forest and road"]
    with torch.no_grad():
        torch.testing.assert_close(model.encode_texts(texts), shipped.encode_texts(texts))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert all(name.startswith(("model.visual.", "model.logit_scale")) for name in trained)
