"""Detection through the real command: it trains, evaluates, resumes exactly and splits over processes; its picture."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmovseg.checkpoint import read_state
from mmovseg.config import load_config, save_config
from mmovseg.data.miniearth.export import write_miniearth_folder
from mmovseg.engine.cli import train_main
from mmovseg.engine.train_loop import Trainer
from mmovseg.projects.codemae.analysis import boxes

XS = "projects/CoDeMAE/configs/faster_rcnn_miniearth_xs_scratch.py"


def write_run(folder, name=XS, **changes):
    """A config shrunk to seconds: 64 px, 6 scenes, batches of 2, three steps."""
    folder.mkdir(exist_ok=True)
    config = load_config(name)
    config.dataloader.train.batch_size = config.dataloader.test.batch_size = 2
    for loader, count in ((config.dataloader.train, 6), (config.dataloader.test, 3)):
        loader.dataset.update(num_scenes=count, size=64)
    config.lr_multiplier.milestones = [2]
    config.lr_multiplier.warmup_iters = 0
    config.train.update(max_iter=3, log_period=1, device="cpu", tensorboard=False, output_dir=str(folder / "run"))
    config.model.roi_heads.box_predictor.test_score_thresh = 0.0  # so that so short a run detects anything
    for key, value in changes.items():
        config.dataloader[key] = value
    save_config(config, folder / "config.yaml")
    return folder / "config.yaml"


def run(config_file, *arguments):
    return train_main(["--config-file", str(config_file), *arguments])


def losses_of(config_file):
    lines = (config_file.parent / "run" / "metrics.json").read_text().splitlines()
    return [json.loads(line)["total_loss"] for line in lines]


@pytest.mark.slow
def test_a_run_is_evaluated_and_again_by_its_weights_and_drawn(tmp_path):
    config_file = write_run(tmp_path / "one")
    results = run(config_file)["results"]["miniearth_test"]["bbox"]
    weights = tmp_path / "one" / "run" / "model_final.safetensors"
    again = run(config_file, "--eval-only", f"train.init_checkpoint={weights}")["results"]["miniearth_test"]["bbox"]
    assert again == pytest.approx(results, nan_ok=True)
    report = json.loads((tmp_path / "one/run/eval/miniearth_test/detection/result.json").read_text())
    assert [row["name"] for row in report["categories"]] == ["aircraft", "ship", "vehicle"]
    said = report["provenance"]
    assert said["images"] == 3 and said["checkpoint"] == str(weights) and len(said["checkpoint_sha256"]) == 64
    picture = tmp_path / "boxes.png"
    boxes.main(
        ["--config-file", str(config_file), "--checkpoint", str(weights), "--output", str(picture), "--score", "0.2"]
        + ["--images", "2"]
    )
    assert np.asarray(Image.open(picture).convert("RGB")).std() > 20
    drawn = json.loads(picture.with_suffix(".json").read_text())["images"]
    assert len(drawn) == 2 and all(image["objects"] for image in drawn)
    assert all(found["score"] >= 0.2 for image in drawn for found in image["detections"])


@pytest.mark.slow
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, monkeypatch):
    # anchors and regions are sampled by torch's generator, drop path too
    whole, broken = (write_run(tmp_path / name) for name in ("whole", "broken"))
    options = ("train.checkpoint.period=1", "train.eval_period=-1", "model.backbone.drop_path=0.3")
    run(whole, *options)
    step = Trainer.run_step

    def killed(trainer):
        if trainer.iter == 2:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(broken, *options)
    run(broken, *options, "--resume")
    states = [read_state(config.parent / "run" / "model_final.safetensors")[0] for config in (whole, broken)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert losses_of(whole) == losses_of(broken) and len(losses_of(whole)) == 3


@pytest.mark.slow
def test_two_processes_train_and_evaluate_all_images(tmp_path):
    config_file = write_run(tmp_path / "two")
    run(config_file, "--num-gpus", "2", "train.max_iter=1")
    report = json.loads((tmp_path / "two/run/eval/miniearth_test/detection/result.json").read_text())
    assert report["provenance"]["images"] == 3 and report["provenance"]["processes"] == 2


@pytest.mark.slow
def test_a_set_of_ones_own_needs_a_few_options_and_no_code(tmp_path):
    write_miniearth_folder(tmp_path / "world", splits=("train",), num_scenes=8, size=64)
    folder = tmp_path / "world" / "train"
    config_file = tmp_path / "mine.py"
    config_file.write_text(
        "from mmovseg.config import get_config\n"
        "_base = get_config('projects/CoDeMAE/configs/faster_rcnn_miniearth_xs_scratch.py')\n"
        "model, train, optimizer, lr_multiplier = _base.model, _base.train, _base.optimizer, _base.lr_multiplier\n"
        "dataloader = get_config('projects/CoDeMAE/configs/common/data_coco.py').dataloader\n"
    )
    options = ["model.sensor=optical", "dataloader.train.batch_size=2", "train.device=cpu", "train.tensorboard=false"]
    options += [f"dataloader.{part}.num_workers=0" for part in ("train", "test")]
    options += [f"dataloader.{part}.dataset.json_file={folder / 'targets.json'}" for part in ("train", "test")]
    options += [f"dataloader.{part}.dataset.optical_dir={folder / 'optical'}" for part in ("train", "test")]
    result = run(config_file, "train.max_iter=1", f"train.output_dir={tmp_path / 'run'}", *options)
    assert set(result["results"]["coco_test"]["bbox"]) >= {"AP", "AP50", "AP-aircraft", "AP-ship", "AP-vehicle"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--output", "a.pdf"], "must end in .png"),
        (["--images", "0"], "--images must be at least 1, got 0"),
        (["--score", "2"], "--score must lie in 0 .. 1, got 2"),
        (["--config-file", "projects/CoDeMAE/configs/none.py"], "'projects/CoDeMAE/configs/none.py' does not exist"),
        (["--checkpoint", "none.safetensors"], "checkpoint 'none.safetensors' does not exist"),
    ],
)
def test_mistakes_of_the_picture_are_one_sentence(tmp_path, capsys, arguments, sentence):
    given = ["--config-file", XS, "--checkpoint", "w.safetensors", "--output", str(tmp_path / "a.png"), *arguments]
    with pytest.raises(SystemExit) as caught:
        boxes.main(given)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and sentence in error and error.count("\n") == 1
