import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import DictConfig

from mmovseg.config import LazyCall as L
from mmovseg.config import instantiate, load_config
from mmovseg.data.perturb import SarOfAnother
from mmovseg.engine.cli import train_main
from mmovseg.engine.evaluation import build_evaluators, choose_evaluation, evaluate, format_results, test_nodes
from mmovseg.engine.hooks import flat_scalars
from mmovseg.errors import UserError
from mmovseg.evaluation import EncoderEvaluator
from mmovseg.testing.checks import tiny_vocabulary
from tests.engine.toy_parts import ToyEvaluator

TOY = str(Path(__file__).with_name("toy_config.py"))

test_nodes.__test__ = False  # its name is not that of a test


def run(folder, *arguments):
    return train_main(["--config-file", TOY, f"train.output_dir={folder}", *arguments])


def test_eval_only_gives_what_training_ended_with(tmp_path):
    trained = run(tmp_path)
    weights = tmp_path / "model_final.safetensors"
    evaluated = run(tmp_path, "--eval-only", f"train.init_checkpoint={weights}")
    assert evaluated["results"] == trained["results"]
    assert evaluated["results"]["toy"]["fit"]["samples"] == 5
    assert run(tmp_path, "--eval-only", "--resume")["results"] == trained["results"]


def test_evaluator_is_told_where_the_numbers_come_from(tmp_path):
    run(tmp_path)
    after_training = ToyEvaluator.last.provenance
    weights = str(tmp_path / "model_final.safetensors")
    run(tmp_path, "--eval-only", f"train.init_checkpoint={weights}")
    facts = ToyEvaluator.last.provenance
    assert ToyEvaluator.last.output_dir == str(tmp_path)
    assert facts["checkpoint"] == after_training["checkpoint"] == weights
    assert facts["checkpoint_sha256"] == after_training["checkpoint_sha256"]
    assert len(facts["config_sha256"]) == 64
    assert (facts["seed"], facts["device"]) == (0, "cpu")
    assert facts["config_file"] == "tests/engine/toy_config.py"


def test_evaluators_of_several_loaders_learn_their_names():
    def evaluator(**options):
        return L(EncoderEvaluator)(dataset_name="d", vocabulary=L(tiny_vocabulary)(seen=1, unseen=1), **options)

    def loaders_of(evaluators, loaders):
        parts = {"train": {"output_dir": "o"}, "dataloader": {"test": loaders, "evaluator": evaluators}}
        config = DictConfig(parts, flags={"allow_objects": True})
        return {name: part.loader for name, (_, part) in build_evaluators(config, {}).items()}

    several = {"sar": evaluator(), "optical": evaluator(loader="eyes")}
    assert loaders_of(several, {name: L(SimpleNamespace)() for name in several}) == {"sar": "sar", "optical": "eyes"}
    assert loaders_of(evaluator(), L(SimpleNamespace)()) == {"d": None}


def test_weights_without_a_checkpoint_are_warned_about(tmp_path, capsys):
    run(tmp_path, "--eval-only")
    assert "the model is evaluated as built" in capsys.readouterr().out
    assert ToyEvaluator.last.provenance["checkpoint"] is None


def test_shipped_weights_are_a_checkpoint_like_any_other(tmp_path, monkeypatch):
    expected = run(tmp_path)["results"]
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (tmp_path / "model_final.safetensors").rename(shelf / "toy.safetensors")
    monkeypatch.setattr("mmovseg.weights.FOLDER", shelf)
    assert run(tmp_path, "--eval-only", "train.init_checkpoint=shipped://toy")["results"] == expected
    assert ToyEvaluator.last.provenance["checkpoint"] == "shipped://toy"
    assert len(ToyEvaluator.last.provenance["checkpoint_sha256"]) == 64
    assert run(tmp_path, "train.init_checkpoint=shipped://toy", "train.max_iter=0")["results"] == expected
    with pytest.raises(UserError, match="no weights 'boy' ship with mmovseg; there are: toy"):
        run(tmp_path, "--eval-only", "train.init_checkpoint=shipped://boy")


def test_several_loaders_are_set_side_by_side_and_one_is_not_printed_twice(caplog):
    config = load_config(TOY)
    model, tests = instantiate(config.model), build_evaluators(config, {})
    with caplog.at_level(logging.INFO, logger="mmovseg"):
        evaluate(model, tests)
        assert "mse" not in caplog.text
        evaluate(model, {"a": tests["toy"], "b": tests["toy"]})
    lines = caplog.records[-1].getMessage().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["mse", "a", "b"]


def test_foundation_weights_are_not_read_when_a_checkpoint_holds_all(tmp_path):
    run(tmp_path)
    weights = tmp_path / "model_final.safetensors"
    with pytest.raises(RuntimeError, match="foundation weights were asked for"):
        run(tmp_path / "b", "model.weights=foundation.pth")
    run(tmp_path / "c", "model.weights=foundation.pth", "--eval-only", f"train.init_checkpoint={weights}")
    run(tmp_path, "model.weights=foundation.pth", "--resume")
    assert load_config(tmp_path / "config.yaml").model.weights == "foundation.pth"


def test_classes_and_modality_reach_mapper_and_evaluator():
    config = load_config(TOY)
    choose_evaluation(config, classes="water, solar farm", modality="sar")
    (loader, evaluator) = test_nodes(config)["toy"]
    assert (loader.mapper.modality, evaluator.modality) == ("sar", "sar")
    assert loader.mapper.prompts.names == "water, solar farm"
    assert evaluator.prompts == loader.mapper.prompts


def test_shuffled_sar_is_both_with_other_sar():
    config = load_config("miniearth/mmovseg_xs.py")
    choose_evaluation(config, modality="shuffled-sar")
    (loader, evaluator) = test_nodes(config)["miniearth_test"]
    assert (loader.mapper.modality, evaluator.modality) == ("both", "shuffled-sar")
    loader.dataset.dataset = [{"image_id": name, "sar_file_name": name} for name in "ab"]
    assert [sample["sar_from"]["image_id"] for sample in instantiate(loader.dataset)] == ["b", "a"]
    assert isinstance(instantiate(loader.mapper.reader), SarOfAnother)
    probe = load_config("projects/CoDeMAE/configs/linear_probe_miniearth_xs.py")
    probe.model.sensor = "optical"
    for blind in (load_config("miniearth/mmovseg_xs_optical.py"), probe):
        with pytest.raises(UserError, match="this one reads optical images alone"):
            choose_evaluation(blind, modality="shuffled-sar")
    with pytest.raises(UserError, match="needs a test loader with a dataset"):
        choose_evaluation(load_config(TOY), modality="shuffled-sar")


def test_classes_reach_the_evaluator_as_a_vocabulary(tmp_path):
    run(tmp_path, "--eval-only", "--classes", "water, solar farm")
    assert ToyEvaluator.last.prompts.names == ["water", "solar farm"]
    assert [entry.seen for entry in ToyEvaluator.last.prompts.classes] == [False, False]


def test_vocabulary_by_flavour_and_by_file(tmp_path):
    run(tmp_path, "--eval-only", "--vocabulary", "clean")
    assert ToyEvaluator.last.prompts.name == "clean"
    file = tmp_path / "two.json"
    file.write_text('{"name": "two", "classes": [{"name": "sea"}, {"name": "land"}]}')
    run(tmp_path, "--eval-only", "--vocabulary", str(file))
    assert ToyEvaluator.last.prompts.names == ["sea", "land"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", ""], "has no class names"),
        (["--classes", "water, Water"], "names the class 'water' more than once"),
        (["--classes", "water,,road"], "empty class name at position 2 of 3"),
        (["--vocabulary", "clan"], "has no vocabulary 'clan'"),
        (["--vocabulary", "none.json"], "'none.json' cannot be read"),
        (["--vocabulary", "clean", "--classes", "water"], "exclude each other"),
        (["dataloader.evaluator=null"], "has dataloader.test but no dataloader.evaluator"),
        (["dataloader.evaluator=null", "dataloader.test=null"], "nothing can be evaluated"),
        (["train.init_checkpoint=none.safetensors"], "checkpoint 'none.safetensors' does not exist"),
        (["--resume"], "so there is no checkpoint to evaluate"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, arguments, message):
    with pytest.raises(UserError) as caught:
        run(tmp_path, "--eval-only", *arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_loaders_by_name_need_evaluators_of_the_same_names():
    config = load_config(TOY)
    loader, evaluator = config.dataloader.test, config.dataloader.evaluator
    config.dataloader.test = {"a": loader, "b": loader}
    config.dataloader.evaluator = {"a": evaluator, "b": evaluator}
    assert list(test_nodes(config)) == ["a", "b"]
    config.dataloader.evaluator = {"a": evaluator, "c": evaluator}
    with pytest.raises(UserError, match="the same names, but 'b' is in one of them only"):
        test_nodes(config)


def test_flat_scalars_and_table():
    results = {"a": {"sem_seg": {"mIoU": 50.0, "IoU-road": 1.0, "name": "x"}}}
    assert flat_scalars(results) == {"sem_seg/mIoU": 50.0, "sem_seg/IoU-road": 1.0}
    assert set(flat_scalars({**results, "b": results["a"]})) == {
        f"{loader}/sem_seg/{metric}" for loader in "ab" for metric in ("mIoU", "IoU-road")
    }
    assert format_results({**results, "b": results["a"]}).split() == [
        "mIoU", "a", "sem_seg", "50.00", "b", "sem_seg", "50.00",
    ]  # fmt: skip
