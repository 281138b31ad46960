"""The real XS models through the real command: they train, evaluate, resume exactly and split over processes."""

import json
from pathlib import Path

import pytest
import torch

from mmovseg.checkpoint import read_state
from mmovseg.config import find_config, instantiate, load_config
from mmovseg.data.sample import MODALITIES
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.engine.cli import train_main
from mmovseg.engine.train_loop import Trainer
from mmovseg.testing.models import write_random_xs, write_tiny_run

# Those of `make demo` differ from the ones listed here in the number of scenes only, and tests/tools runs them.
NAMES = sorted(
    f"miniearth/{file.name}"
    for file in find_config("miniearth/mmovseg_xs.py").parent.glob("*.py")
    if not file.name.startswith("demo_")
)
RESULT_KEYS = {
    "mIoU", "mIoU-seen", "mIoU-unseen", "hIoU", "mIoU-union", "fwIoU", "pACC", "mACC", "dataset", "modality",
    "vocabulary", "prompts", "per_class", "not_asked", "not_in_labels", "permuted", "constant_baseline",
    "by_cloud_cover", "confusion", "definition", "provenance",
}  # fmt: skip
PROVENANCE_KEYS = {
    "git_commit", "versions", "config_file", "config_sha256", "checkpoint", "checkpoint_sha256", "seed", "device",
    "vocabulary_sha256", "label_space_sha256", "data_manifest_sha256", "processes", "images", "pixels", "seconds",
}  # fmt: skip
RUN_FILES = {"config.yaml", "last_checkpoint", "log.txt", "metrics.json", "model_final.safetensors"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config and random weights that fit it."""
    folder = tmp_path_factory.mktemp("xs")
    return write_tiny_run(folder), write_random_xs(folder)[1]


def run(config, *arguments):
    return train_main(["--config-file", str(config), *arguments])


def evaluate(trained, *arguments):
    return run(trained[0], "--eval-only", f"train.init_checkpoint={trained[1]}", *arguments)


def result_in(folder, name, dataset="miniearth_test"):
    (file,) = (Path(folder) / "eval" / dataset).glob(f"{name}/result.json")
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_xs_config_trains_and_evaluates(tmp_path, name):
    config_file = write_tiny_run(tmp_path, name)
    config, output = load_config(config_file), tmp_path / "run"
    untrained = instantiate_seeded(config)
    result = run(config_file)
    assert result["iteration"] == 2 and 0 < result["losses"]["total_loss"] < 20
    assert RUN_FILES | {"training_state.pth"} <= {file.name for file in output.iterdir()}
    state = read_state(output / "model_final.safetensors")[0]
    assert set(state) == set(untrained.state_dict())
    trainable = {key for key, parameter in untrained.named_parameters() if parameter.requires_grad}
    moved = {key for key, value in untrained.state_dict().items() if not torch.equal(value, state[key])}
    assert moved and moved <= trainable, "a frozen weight moved"
    if "evaluator" not in config.dataloader:
        assert result["results"] == {} and not (output / "eval").exists()
        return
    modality, dataset = config.dataloader.evaluator.modality, config.dataloader.evaluator.dataset_name
    report = result_in(output, f"{modality}-clean", dataset)
    assert set(report) == RESULT_KEYS and set(report["provenance"]) == PROVENANCE_KEYS | {"iteration"}
    assert report["provenance"]["iteration"] == config.train.max_iter
    assert report["mIoU"] == result["results"][dataset]["sem_seg"]["mIoU"]
    assert [row["name"] for row in report["per_class"]] == get_vocabulary("miniearth").names
    assert report["provenance"]["images"] == 4 and report["provenance"]["pixels"] == 4 * 64 * 64
    assert report["provenance"]["checkpoint"] == str(output / "model_final.safetensors")
    assert set(report["definition"]) >= {"IoU", "mIoU", "hIoU", "data_manifest_sha256"}


def instantiate_seeded(config):
    """The model as the run builds it."""
    torch.manual_seed(config.train.seed)
    return instantiate(config.model)


@pytest.mark.parametrize("modality", MODALITIES)
def test_modality_is_chosen_at_evaluation(trained, modality):
    numbers = evaluate(trained, "--modality", modality)["results"]["miniearth_test"]["sem_seg"]
    report = result_in(trained[0].parent / "run", f"{modality}-clean")
    assert report["modality"] == modality and report["mIoU"] == numbers["mIoU"]
    assert bool(report["by_cloud_cover"]) == (modality != "sar"), "clouds lie over optical images only"


def test_what_is_withheld_changes_the_answer(trained):
    counts = []
    for modality in MODALITIES:
        evaluate(trained, "--modality", modality)
        counts.append(result_in(trained[0].parent / "run", f"{modality}-clean")["confusion"]["counts"])
    assert counts[0] != counts[1] and counts[0] != counts[2] and counts[1] != counts[2]


def test_vocabulary_from_a_file_is_asked_for_and_named(trained, tmp_path):
    own = get_vocabulary("miniearth")
    names = [f"{name} area" for name in own.names]
    file = tmp_path / "areas.json"
    file.write_text(json.dumps({"name": "areas", "classes": [{"name": name} for name in names]}))
    evaluate(trained, "--vocabulary", str(file))
    report = result_in(trained[0].parent / "run", "both-areas")
    assert (report["vocabulary"], report["prompts"]) == ("areas", names)
    assert [row["name"] for row in report["per_class"]] == own.names
    assert [row["seen"] for row in report["per_class"]] == [entry.seen for entry in own.classes]
    assert "another flavour" in report["definition"]["vocabulary"]


def test_classes_are_asked_for_and_the_others_left_out(trained):
    evaluate(trained, "--classes", "water, road, solar farm")
    report = result_in(trained[0].parent / "run", "both-custom-*")
    assert report["prompts"] == ["water", "road", "solar farm"]
    assert report["not_in_labels"] == ["solar farm"]
    assert set(report["not_asked"]) == set(get_vocabulary("miniearth").names) - {"water", "road"}
    pixels = {row["name"]: row["pixels"] for row in report["per_class"]}
    assert pixels["water"] + pixels["road"] == report["provenance"]["pixels"] > 0
    assert report["mIoU-seen"] is None and report["mIoU"] == report["mIoU-unseen"]


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(tmp_path, monkeypatch):
    options = ("train.max_iter=5", "train.checkpoint.period=2", "train.eval_period=-1", "train.ema.enabled=true")
    whole, broken = write_tiny_run(tmp_path / "whole"), write_tiny_run(tmp_path / "broken")
    run(whole, *options)
    step = Trainer.run_step

    def killed(trainer):
        if trainer.iter == 3:
            raise KeyboardInterrupt
        step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(broken, *options)
    assert (tmp_path / "broken" / "run" / "last_checkpoint").read_text().strip() == "model_0000002.safetensors"
    assert run(broken, *options, "--resume")["iteration"] == 5
    first, second = (tmp_path / name / "run" / "model_final.safetensors" for name in ("whole", "broken"))
    assert first.read_bytes() == second.read_bytes()
    lines = [(tmp_path / name / "run" / "metrics.json").read_text().splitlines() for name in ("whole", "broken")]
    losses = [[json.loads(line)["total_loss"] for line in part] for part in lines]
    assert losses[0] == losses[1] and len(losses[0]) == 5


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    """Batch size counts all processes: two of them with 2 samples each against one with 4."""
    one, two = write_tiny_run(tmp_path / "one"), write_tiny_run(tmp_path / "two")
    run(one)
    run(two, "--num-gpus", "2")
    first, second = (
        [json.loads(line) for line in (config.parent / "run" / "metrics.json").read_text().splitlines()]
        for config in (one, two)
    )
    losses = [[line["loss_sem_seg"] for line in lines if "loss_sem_seg" in line] for lines in (first, second)]
    assert len(losses[0]) == 2 and losses[1] == pytest.approx(losses[0], rel=1e-5)
    reports = [result_in(config.parent / "run", "both-clean") for config in (one, two)]
    assert [report["provenance"]["processes"] for report in reports] == [1, 2]
    assert [report["provenance"]["images"] for report in reports] == [4, 4]
    assert reports[0]["provenance"]["data_manifest_sha256"] == reports[1]["provenance"]["data_manifest_sha256"]
    assert reports[1]["pACC"] == pytest.approx(reports[0]["pACC"], abs=0.5)


@pytest.mark.gpu
@pytest.mark.parametrize(("amp", "tolerance"), [(None, 1e-3), ("bfloat16", 0.03), ("float16", 0.03)])
def test_cuda_gives_the_loss_of_the_cpu(tmp_path, amp, tolerance):
    cpu, cuda = write_tiny_run(tmp_path / "cpu"), write_tiny_run(tmp_path / "cuda")
    precision = [] if amp is None else ["train.amp.enabled=true", f"train.amp.dtype={amp}"]
    expected = run(cpu, "train.max_iter=1", "train.eval_period=-1")["losses"]["loss_sem_seg"]
    found = run(cuda, "train.max_iter=1", "train.eval_period=-1", "train.device=cuda", *precision)["losses"]
    assert found["loss_sem_seg"] == pytest.approx(expected, rel=tolerance)
