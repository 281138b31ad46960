"""What users get wrong, through the real commands: one sentence and status 2, or masked and gone on with."""

import json
import logging

import demo
import numpy as np
import pytest
import torch

from mmovseg.checkpoint import save_weights
from mmovseg.config import instantiate, load_config
from mmovseg.engine.cli import train_main
from mmovseg.errors import exit_on_user_error
from mmovseg.testing.fakes import write_pairs, write_raster
from mmovseg.testing.models import write_pairs_run, write_random_xs, write_tiny_run

TRAIN_ONLY = "train.eval_period=-1"
LONG_NAME = " ".join(f"word{number}" for number in range(300))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A config on MiniEarth and random weights that fit it."""
    folder = tmp_path_factory.mktemp("xs")
    return write_tiny_run(folder), write_random_xs(folder)[1]


@pytest.fixture
def refused(capsys):
    """Run a command that must end with status 2 and one line on stderr; return that line."""

    def run(main, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            exit_on_user_error(main)([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error
        return error

    return run


def train(config, *overrides):
    return train_main(["--config-file", str(config), *overrides])


def result_of(config, modality="both", vocabulary="clean", dataset="pairs"):
    (file,) = (config.parent / "run" / "eval" / dataset).glob(f"{modality}-{vocabulary}/result.json")
    return json.loads(file.read_text())


def assert_nothing_was_made(config):
    assert not list((config.parent / "run").rglob("*.safetensors")), "weights of a refused run"
    assert not list((config.parent / "run").rglob("result.json")), "results of a refused run"


def test_missing_sar_file_is_refused(tmp_path, refused):
    pairs = write_pairs(tmp_path)
    config = write_pairs_run(tmp_path, pairs)
    (pairs.sar_dir / "000001.tif").unlink()
    error = refused(train_main, "--config-file", config)
    assert f"'{pairs.optical_dir / '000001.png'}' has no partner" in error and str(pairs.sar_dir) in error
    assert_nothing_was_made(config)
    gone = tmp_path / "gone.tif"
    error = refused(demo.main, "--optical", pairs.dicts[0]["file_name"], "--sar", gone, "--prompts", "water")
    assert f"'{gone}' does not exist" in error


def test_missing_sar_modality_is_the_optical_branch(tmp_path):
    """A data set without SAR trains and tests the fused model exactly as `modality=optical` does."""
    pairs = write_pairs(tmp_path)
    answers = []
    for name, options in (("absent", []), ("dropped", ["dataloader.train.mapper.modality=optical"])):
        config = write_pairs_run(tmp_path / name, pairs, sar=bool(options))
        answers.append(train(config, *options, TRAIN_ONLY)["losses"])
    assert answers[0] == answers[1]
    assert 0 < answers[0]["loss_sem_seg"] < 10


def test_sar_asked_for_and_not_there_is_refused(tmp_path, refused):
    pairs = write_pairs(tmp_path, count=1)
    config = write_pairs_run(tmp_path, pairs, sar=False)
    error = refused(train_main, "--config-file", config, "dataloader.train.mapper.modality=sar")
    assert f"sample '{pairs.dicts[0]['file_name']}' has no raster for modality 'sar'" in error


def test_size_mismatch_is_refused(tmp_path, refused):
    pairs = write_pairs(tmp_path, count=1)
    config = write_pairs_run(tmp_path, pairs)
    write_raster(pairs.sar_dir / "000000.tif", np.zeros((24, 33, 2), np.float32))
    error = refused(train_main, "--config-file", config)
    sar = pairs.sar_dir / "000000.tif"
    assert f"'{pairs.dicts[0]['file_name']}' is 24x32 pixels but '{sar}' is 24x33" in error
    assert_nothing_was_made(config)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_label_outside_the_class_list_is_refused(tmp_path, refused, trained, command):
    pairs = write_pairs(tmp_path, count=1)
    config = write_pairs_run(tmp_path, pairs)
    label = pairs.truth[0]["sem_seg"].copy()
    label[3, 4] = 7
    write_raster(pairs.label_dir / "000000.png", label)
    options = ["--eval-only", f"train.init_checkpoint={trained[1]}"] if command == "evaluate" else []
    error = refused(train_main, "--config-file", config, *options)
    assert f"label '{pairs.label_dir / '000000.png'}' has the value 7, outside the 7 classes 0..6" in error
    assert_nothing_was_made(config)


def test_all_ignore_label_gives_loss_zero_and_undefined_metrics(tmp_path):
    pairs = write_pairs(tmp_path, count=2)
    for item in pairs.dicts:
        write_raster(item["sem_seg_file_name"], np.full((24, 32), 255, np.uint8))
    config = write_pairs_run(tmp_path, pairs)
    assert train(config)["losses"]["loss_sem_seg"] == 0.0
    result = result_of(config)
    assert (result["mIoU"], result["mIoU-unseen"], result["hIoU"], result["pACC"]) == (None, None, None, None)
    assert result["provenance"]["pixels"] == 0 and result["provenance"]["images"] == 2


def test_nan_and_nodata_in_sar_are_masked(tmp_path):
    """The same hole written as NaN, as infinity, as a declared and as an undeclared number gives the same numbers."""
    losses, scores = {}, {}
    for name, value, profile, options in (
        ("nan", np.nan, {}, {}),
        ("infinity", -np.inf, {}, {}),
        ("declared", -9999.0, {"nodata": -9999.0}, {}),
        ("undeclared", -7777.0, {}, {"sar_nodata": -7777.0}),
        ("seen", -9.0, {}, {}),
    ):
        pairs = write_pairs(tmp_path / name, count=2, with_nan=False)
        for item, truth in zip(pairs.dicts, pairs.truth, strict=True):
            sar = truth["sar_db"].copy()
            sar[2:9, 3:20] = value
            write_raster(item["sar_file_name"], sar, **profile)
        pairs.reader_options.update(options)
        config = write_pairs_run(tmp_path / name, pairs)
        losses[name] = train(config)["losses"]["loss_sem_seg"]
        scores[name] = result_of(config)["confusion"]["counts"]
    assert np.isfinite(losses["nan"])
    assert losses["nan"] == losses["infinity"] == losses["declared"] == losses["undeclared"]
    assert scores["nan"] == scores["infinity"] == scores["declared"] == scores["undeclared"]
    assert losses["seen"] != losses["nan"], "the hole has no influence at all: the test shows nothing"


def test_sar_without_any_data_still_trains(tmp_path):
    pairs = write_pairs(tmp_path, count=2)
    for item in pairs.dicts:
        write_raster(item["sar_file_name"], np.full((24, 32, 2), np.nan, np.float32))
    assert 0 < train(write_pairs_run(tmp_path, pairs), TRAIN_ONLY)["losses"]["loss_sem_seg"] < 10


def test_16_bit_optical_is_read_as_the_same_picture(tmp_path):
    losses = {}
    for kind in ("png", "tif16", "tif_float"):
        pairs = write_pairs(tmp_path / kind, count=2, optical=kind)
        losses[kind] = train(write_pairs_run(tmp_path / kind, pairs), TRAIN_ONLY)["losses"]["loss_sem_seg"]
    assert losses["tif16"] == pytest.approx(losses["png"], rel=1e-3)
    assert losses["tif_float"] == pytest.approx(losses["png"], rel=1e-3)


def test_float_optical_without_a_range_is_refused(tmp_path, refused):
    pairs = write_pairs(tmp_path, count=1, optical="tif_float")
    pairs.reader_options.pop("optical_range")
    error = refused(train_main, "--config-file", write_pairs_run(tmp_path, pairs))
    assert f"'{pairs.dicts[0]['file_name']}' holds float32 values" in error and "optical_range" in error


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "has no class names"),
        ("water,,road", "has an empty class name at position 2 of 3"),
        ("water, Water", "names the class 'water' more than once"),
    ],
)
def test_empty_and_duplicate_class_names_are_refused(trained, refused, tmp_path, names, message):
    config, weights = trained
    error = refused(
        train_main, "--config-file", config, "--eval-only", "--classes", names, f"train.init_checkpoint={weights}"
    )
    assert f"vocabulary '--classes' {message}" in error
    image = write_raster(tmp_path / "x.png", np.zeros((16, 16, 3), np.uint8))
    model = ("--config-file", config, "--weights", weights, "--output", tmp_path / "out.png")
    assert f"vocabulary '--prompts' {message}" in refused(demo.main, "--optical", image, "--prompts", names, *model)
    file = tmp_path / "names.json"
    entries = [{"name": name.strip()} for name in names.split(",")] if names else []
    file.write_text(json.dumps({"name": "mine", "classes": entries}))
    error = refused(train_main, "--config-file", config, "--eval-only", "--vocabulary", file)
    assert f"vocabulary '{file}' {message}" in error
    assert not (tmp_path / "out.png").exists()


def test_class_name_of_300_words_is_cut_with_one_warning(trained, caplog):
    config, weights = trained
    with caplog.at_level(logging.WARNING, logger="mmovseg"):
        options = ["--eval-only", "--classes", f"water, road, {LONG_NAME}", f"train.init_checkpoint={weights}"]
        train(config, *options)
    cut = [record.getMessage() for record in caplog.records if "only the first" in record.getMessage()]
    assert len(cut) == 1 and "word0 word1" in cut[0]
    result = result_of(config, vocabulary="custom-*", dataset="miniearth_test")
    assert result["prompts"] == ["water", "road", LONG_NAME] and result["not_in_labels"] == [LONG_NAME]
    assert 0 <= result["mIoU"] <= 100


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_itr=5", "unknown key 'train.max_itr'; did you mean 'max_iter'"),
        ("model.optical_encoder.tap=[1]", "unknown key 'model.optical_encoder.tap'; did you mean 'taps'"),
        ("dataloader.train.mapper.cloud=null", "unknown key 'dataloader.train.mapper.cloud'; did you mean 'clouds'"),
    ],
)
def test_unknown_config_key_on_the_command_line_is_refused(trained, refused, override, message):
    assert message in refused(train_main, "--config-file", trained[0], override)


def test_unknown_config_key_in_a_file_is_refused(trained, refused, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(trained[0].read_text().replace("max_iter: 2", "max_itr: 2"))
    error = refused(train_main, "--config-file", file)
    assert str(file) in error and "unknown key 'train.max_itr'" in error


@pytest.mark.parametrize("kind", ["cut off", "text", "empty", "pickled"])
def test_corrupt_checkpoint_is_refused(trained, refused, tmp_path, kind):
    config, weights = trained
    file = tmp_path / ("bad.pth" if kind == "pickled" else "bad.safetensors")
    whole = weights.read_bytes()
    if kind == "pickled":
        torch.save({"model": torch.nn.Linear(1, 1)}, file)
    else:
        file.write_bytes({"cut off": whole[: len(whole) // 2], "text": b"not weights" * 9, "empty": b""}[kind])
    message = "holds pickled Python objects" if kind == "pickled" else "is corrupt or truncated"
    for options in (["--eval-only"], []):
        error = refused(train_main, "--config-file", config, *options, f"train.init_checkpoint={file}")
        assert f"checkpoint '{file}' {message}" in error
    image = write_raster(tmp_path / "x.png", np.zeros((16, 16, 3), np.uint8))
    arguments = ("--optical", image, "--prompts", "water", "--config-file", config, "--weights", file)
    assert f"checkpoint '{file}' {message}" in refused(demo.main, *arguments)


def test_checkpoint_of_another_architecture_is_refused(trained, refused, tmp_path):
    config, weights = trained
    foreign, single = tmp_path / "foreign.safetensors", tmp_path / "single.safetensors"
    save_weights(torch.nn.Linear(2, 3), foreign)
    error = refused(train_main, "--config-file", config, "--eval-only", f"train.init_checkpoint={foreign}")
    assert f"checkpoint '{foreign}' is of another architecture: none of its 2 tensors fits" in error
    optical = load_config(write_tiny_run(tmp_path / "optical", "miniearth/mmovseg_xs_optical.py"))
    save_weights(instantiate(optical.model), single)
    error = refused(train_main, "--config-file", config, "--eval-only", f"train.init_checkpoint={single}")
    assert f"checkpoint '{single}' lacks" in error and "sar_encoder." in error
    wide = ["--eval-only", f"train.init_checkpoint={weights}", "model.head.channels=[16,8,24]"]
    error = refused(train_main, "--config-file", config, *wide)
    assert f"checkpoint '{weights}' has head." in error and "but the model needs" in error
