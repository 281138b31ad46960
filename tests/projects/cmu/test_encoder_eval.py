"""The configs evaluate an encoder by itself, end to end: `--eval-only` on a few scenes of MiniEarth."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmovseg.config import instantiate, load_config, save_config
from mmovseg.data.statistics import read_statistics, write_statistics
from mmovseg.engine.cli import train_main
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.errors import UserError
from mmovseg.evaluation.encoder import EncoderEvaluator, encoder_result_path
from mmovseg.testing.fakes import write_pairs

ROOT = Path(__file__).parents[3]
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


SIZES = ("cmu_vitb16_db", "cmu_vitb16_miniearth", "cmu_vitb16", "cmu_clip_vitb16", "cmu_vitl16")
PARTS = ("test.dataset.fit", "test.dataset.test", "evaluator.fit_dataset")


def evaluate_tiny(folder, name, dataset="miniearth_test"):
    """Evaluate a config of paper size, its encoders tiny, on two scenes after two to fit."""
    config = load_config(name)
    forget_foundation_weights(config.model)
    for encoder in (config.model.teacher, config.model.student):
        encoder.taps, encoder.model_args = (1, 2), {"embed_dim": 64, "depth": 2, "num_heads": 1}
    for part in PARTS:
        node = OmegaConf.select(config.dataloader, part)
        if dataset == "miniearth_test":
            (node.sources[0].options if "sources" in node else node).num_scenes = 2
    config.train.device, config.train.output_dir = "cpu", str(folder)
    save_config(config, folder / "config.yaml")
    seen, process = [], EncoderEvaluator.process

    def watched(evaluator, inputs, outputs):
        seen.extend(inputs)
        process(evaluator, inputs, outputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EncoderEvaluator, "process", watched)
        train_main(["--config-file", str(folder / "config.yaml"), "--eval-only"])
    return json.loads(encoder_result_path(folder, dataset).read_text()), seen


@pytest.mark.parametrize("name", SIZES)
def test_configs_of_paper_size_evaluate_an_encoder_of_their_kind(name, tmp_path):
    report, seen = evaluate_tiny(tmp_path, f"projects/CMU/configs/{name}.py")
    assert report["metrics"]["chance R@1"] == 50 and 0 <= report["metrics"]["probe mIoU"] <= 100
    assert report["metrics"]["chance patch accuracy"] == pytest.approx(100 / 16**2)  # scenes of 256 px
    assert len(seen) == 4
    model = load_config(f"projects/CMU/configs/{name}.py").model
    for item in seen:
        x = instantiate(model.student_norm).for_item(item)(item["sar"])
        assert x.mean(dim=(1, 2)).abs().max() < 1.5 and 0.5 < x.std() < 1.5, "not normalised as its unit wants"


OWN = """
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets import mix_datasets
from mmovseg.data.vocabulary import vocabulary_from_names

_base = get_config("projects/CMU/configs/cmu_folder_vitb16.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
dataloader.update(get_config("projects/CMU/configs/common/encoder_eval_mix.py").dataloader)
dataloader.test.mapper.reader = dataloader.train.mapper.reader


def _labelled(pattern):
    folder = {f"{name}_dir": f"data/labelled/{name}" for name in ("optical", "sar", "label")}
    return L(mix_datasets)(sources=[dict(name="pairs", folder=dict(pattern=pattern, **folder))])


dataloader.test.dataset.fit = dataloader.evaluator.fit_dataset = _labelled("*[0-7].*")
dataloader.test.dataset.test = _labelled("*[89].*")
_vocabulary = L(vocabulary_from_names)(names="bare, grass, field, forest, city, road, water")
dataloader.test.mapper.vocabulary = dataloader.evaluator.vocabulary = _vocabulary
dataloader.evaluator.dataset_name = "labelled"
"""


def test_ones_own_labelled_pairs_take_the_place_of_the_scenes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs("data/labelled", count=10, height=64, width=64)
    write_pairs("data/pairs", count=2, height=64, width=64)
    Path("own.py").write_text(OWN)
    monkeypatch.setattr(
        sys, "argv", ["x", "--config-file", "own.py", "--quiet", "--output", "data/pairs/statistics.json"]
    )
    runpy.run_path(str(ROOT / "tools" / "compute_statistics.py"), run_name="__main__")
    report, seen = evaluate_tiny(tmp_path, "own.py", dataset="labelled")
    assert len(seen) == 10 and {item["source"] for item in seen} == {"pairs"}
    assert report["metrics"]["chance R@1"] == 50 and len(report["probe"]["per_class"]) == 7


def test_scenes_without_statistics_are_told_and_can_be_measured(tmp_path, monkeypatch):
    path = tmp_path / "own.json"
    write_statistics(path, {name: read_statistics("cmu_amplitude8")[name] for name in ("spacenet6", "dfc2023")})
    config = load_config("projects/CMU/configs/cmu_vitb16.py")
    for part in PARTS:
        OmegaConf.select(config.dataloader, part).sources[0].options.update(num_scenes=2, size=64)
    save_config(config, tmp_path / "config.yaml")
    norm = config.model.student_norm
    norm.statistics = str(path)
    with pytest.raises(UserError, match="is of source 'miniearth'; there are statistics of: spacenet6, dfc2023"):
        instantiate(norm).for_item({"source": "miniearth"})
    command = ["--config-file", tmp_path / "config.yaml", "--loader", "test", "--update", "--quiet", "--output", path]
    monkeypatch.setattr(sys, "argv", ["compute_statistics.py", *map(str, command)])
    runpy.run_path(str(ROOT / "tools" / "compute_statistics.py"), run_name="__main__")
    assert instantiate(norm).for_item({"source": "miniearth"}).mean.flatten().tolist() == pytest.approx(
        read_statistics("cmu_amplitude8")["miniearth"].sar.mean, rel=0.2
    )


def test_a_loader_without_the_images_to_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match="gave 8 of the 9 images that the probe is fit on"):
        run(tmp_path, "shipped://sar_xs", "dataloader.evaluator.fit_dataset.num_scenes=9")
