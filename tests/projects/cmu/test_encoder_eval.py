"""The configs evaluate an encoder by itself, end to end: `--eval-only` on a few scenes of MiniEarth."""

import json

import pytest

from mmovseg.engine.cli import train_main
from mmovseg.errors import UserError
from mmovseg.evaluation.encoder import encoder_result_path

CONFIG = "projects/CMU/configs/cmu_xs.py"
FEW = (
    "dataloader.test.dataset.fit.num_scenes=8",
    "dataloader.evaluator.fit_dataset.num_scenes=8",
    "dataloader.test.dataset.test.num_scenes=24",
    "dataloader.test.batch_size=16",
)


def run(folder, weights, *options):
    weights = f"model.student.weights={weights}"
    train_main(["--config-file", CONFIG, "--eval-only", f"train.output_dir={folder}", weights, *FEW, *options])
    modality = options[options.index("--modality") + 1] if "--modality" in options else "both"
    return json.loads(encoder_result_path(folder, "miniearth_test", modality).read_text())


def test_the_aligned_encoder_finds_its_scenes_and_patches_and_the_start_does_not(tmp_path):
    start = run(tmp_path / "start", "clip:shipped://clip_xs")["metrics"]
    aligned = run(tmp_path / "aligned", "shipped://sar_xs")["metrics"]
    shuffled = run(tmp_path / "aligned", "shipped://sar_xs", "--modality", "shuffled-sar")["metrics"]
    assert aligned["chance R@1"] == pytest.approx(100 / 24)
    for metric in ("R@1 sar->optical", "R@1 optical->sar", "patch accuracy", "CKA"):
        assert aligned[metric] > 1.5 * start[metric]
        assert aligned[metric] > 1.5 * shuffled[metric]
    assert aligned["probe mIoU"] > start["probe mIoU"] > shuffled["probe mIoU"]


def test_sar_alone_has_a_probe_and_no_teacher(tmp_path):
    both = run(tmp_path, "shipped://sar_xs")
    alone = run(tmp_path, "shipped://sar_xs", "--modality", "sar")
    assert alone["metrics"]["probe mIoU"] == pytest.approx(both["metrics"]["probe mIoU"], abs=1e-6)
    assert alone["metrics"]["R@1 sar->optical"] is None and alone["modality"] == "sar"
    assert alone["provenance"]["data_manifest_sha256"] == both["provenance"]["data_manifest_sha256"]


def test_a_loader_without_the_images_to_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="gave 8 of the 9 images that the probe is fit on"):
        run(tmp_path, "shipped://sar_xs", "dataloader.evaluator.fit_dataset.num_scenes=9")
