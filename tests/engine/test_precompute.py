"""Features of the teacher from disk: the same training as with the teacher running, and no teacher needed for it."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from mmovseg.config import LazyCall as L
from mmovseg.config import instantiate, load_config, save_config
from mmovseg.data.datasets import mix_datasets
from mmovseg.data.features import FeatureMapper, FeatureStore
from mmovseg.data.io import FileReader
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.readers import SourceReader
from mmovseg.data.transforms import OpticalJitter, RandomFlip, RandomRotation, ResizeShortestEdge
from mmovseg.engine.cli import train_main
from mmovseg.engine.feature_gain import measure_gain
from mmovseg.engine.features import features_folder, precompute
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.testing.fakes import write_pairs

SCENES, VIEWS = 5, 2
ROOT = Path(__file__).resolve().parents[2]


def small_config(**model):
    config = load_config("projects/CMU/configs/cmu_xs.py")
    config.train.device, config.train.tensorboard, config.train.max_iter = "cpu", False, 2
    train = config.dataloader.train
    train.dataset.num_scenes, train.batch_size = SCENES, 4
    # turning opens margins without data, so that the mask of the view matters
    train.mapper.geometry = [L(RandomFlip)(), L(RandomRotation)(max_angle_deg=30)]
    train.mapper.optical_photometric = L(OpticalJitter)()
    train.mapper.views = VIEWS
    for key, value in model.items():
        config.model[key] = value
    return config


def run(config, folder, **options):
    said = []
    count = precompute(config, folder, tell=said.append, show_progress=False, **({"batch_size": 4} | options))
    return count, said


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    for dtype in ("float16", "float32"):
        count, said = run(small_config(), folder / dtype, dtype=dtype)
        assert count == SCENES * VIEWS
        assert f"5 images x 2 views x 3 levels of 64 x 16 x 16 {dtype}" in said[0] and said[-1].endswith("is complete")
    return folder


def losses(model, mapper, dicts):
    torch.manual_seed(0)
    with EventStorage(0):
        answer = model([mapper(entry | {"_draw": draw}) for draw, entry in enumerate(dicts)])
    return {name: value.item() for name, value in answer.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("float32", 1e-5)])
@pytest.mark.parametrize("options", [{}, {"tokens": ["patch", "global"], "global_pool": "class_token"}])
def test_losses_are_those_with_the_teacher_running(stores, dtype, tolerance, options):
    config = small_config(loss_weights={"infonce": 1.0, "mse": 1.0, "l1": 1.0}, **options)
    dicts = instantiate(config.dataloader.train.dataset)
    plain, model = instantiate(config.dataloader.train.mapper), instantiate(config.model).train()
    stored = FeatureMapper(plain, features=stores / dtype)
    expected, found = losses(model, plain, dicts), losses(model, stored, dicts)
    assert found == pytest.approx(expected, rel=tolerance) and min(expected.values()) > 0
    assert len(expected) == 3 * len(options.get("tokens", ["patch"]))
    model.teacher = model.teacher_norm = None
    assert losses(model, stored, dicts) == found


def test_masks_on_disk_are_those_of_the_views(stores):
    config = small_config()
    mapper, store = instantiate(config.dataloader.train.mapper), FeatureStore(stores / "float16")
    for entry in instantiate(config.dataloader.train.dataset)[:2]:
        for view in range(VIEWS):
            item = mapper(entry | {"_view": view})
            assert not item["valid"].all()
            assert torch.equal(store.read(entry, view)[1], item["valid"])


def test_another_teacher_is_refused_in_training(stores):
    config = small_config()
    mapper = FeatureMapper(instantiate(config.dataloader.train.mapper), features=stores / "float16")
    dicts = instantiate(config.dataloader.train.dataset)[:2]
    model = instantiate(config.model).train()
    with torch.no_grad():
        next(model.teacher.parameters()).view(-1)[0] += 1e-3
    with pytest.raises(UserError, match="made by another teacher"):
        losses(model, mapper, dicts)
    config.model.teacher_norm.clip = [0, 250]
    with pytest.raises(UserError, match="made by another teacher"):
        losses(instantiate(config.model).train(), mapper, dicts)


def test_a_stopped_run_goes_on(stores, tmp_path, monkeypatch):
    from mmovseg.engine import features

    answer, calls = features._answer, []

    def stop(work, batch):
        calls.append(len(batch))
        if len(calls) == 4:  # one for the sizes, then two batches
            raise KeyboardInterrupt
        return answer(work, batch)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_answer", stop)
        with pytest.raises(KeyboardInterrupt):
            run(small_config(), tmp_path)
    assert not (tmp_path / "index.json").exists()
    changed = small_config()
    changed.dataloader.train.mapper.seed = 3
    with pytest.raises(UserError, match=r"begun with something else: mapper\.seed is 0, not 3; remove it or choose"):
        run(changed, tmp_path)
    count, said = run(small_config(), tmp_path, num_workers=1)
    assert count == 2 and "8 of 10 views are there" in said[0]
    for path in (stores / "float16").glob("*.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / path.name), np.load(path))
    again, said = run(small_config(), tmp_path)
    assert again == 0 and "is complete" in said[0]


def refused_views(config):
    config.dataloader.train.mapper.views = None


def refused_sizes(config):
    config.dataloader.train.mapper.geometry = [L(ResizeShortestEdge)(short_edge_px=[48, 64, 72])]


def refused_teacher(config):
    config.model.teacher = None


def refused_modality(config):
    config.dataloader.train.mapper.modality = "sar"


def refused_clouds(config):
    config.model.teacher_view = "image"
    config.dataloader.train.mapper.clouds = load_config("miniearth/dense_xs.py").dataloader.train.mapper.clouds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (refused_views, "set its 'views'"),
        (
            refused_sizes,
            r"is shown with \d+x\d+ pixels and the first one with \d+x\d+; features need views of one size",
        ),
        (refused_teacher, "no model.teacher"),
        (refused_modality, "gives SAR alone"),
        (refused_clouds, "clouds are drawn anew"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, change, message):
    config = small_config()
    change(config)
    with pytest.raises(UserError, match=message):
        run(config, tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    from mmovseg.engine.features import different_images

    entry = {"image_id": "a", "file_name": "a.png"}
    assert different_images([entry | {"sem_seg_file_name": "x"}, entry]) == [entry], "an image twice is computed once"
    with pytest.raises(UserError, match="two different images of the data set are named 'a'"):
        different_images([entry, entry | {"file_name": "b.png"}])
    with pytest.raises(UserError, match="the data set is empty"):
        different_images([])


def test_the_commands_train_from_one_config(tmp_path, capsys):
    config = load_config("projects/CMU/configs/cmu_xs_features.py")
    assert features_folder(config) == config.dataloader.train.mapper.features
    small = small_config()
    config.dataloader.train.mapper.features = str(tmp_path / "store")
    config.dataloader.train.dataset, config.dataloader.train.batch_size = small.dataloader.train.dataset, 4
    config.train = small.train
    config.train.output_dir = str(tmp_path / "run")
    save_config(config, tmp_path / "config.yaml")
    tool = _tool("precompute_features")
    arguments = ["--config-file", str(tmp_path / "config.yaml")]
    with pytest.raises(UserError, match="holds no features"):
        train_main(arguments)
    assert tool.main(arguments) == SCENES * 2
    assert "is complete" in capsys.readouterr().out
    # without a teacher, it cannot have run
    done = train_main([*arguments, "model.teacher=null", "model.teacher_norm=null"])
    assert done["iteration"] == 2 and 0 < done["losses"]["total_loss"] < 20
    made = json.loads((tmp_path / "store" / "index.json").read_text())["made_by"]
    assert torch.__version__.startswith(made["versions"]["torch"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --output"),
        (["--output", "never", "model.teacher.weights=null"], "a random teacher is of no use"),
        (["--measure", "0"], "--measure needs at least 1 step, got 0"),
    ],
)
def test_the_command_says_what_is_missing(tmp_path, capsys, arguments, message):
    tool = _tool("precompute_features")
    with pytest.raises(SystemExit) as stopped:
        tool.main(["--config-file", "projects/CMU/configs/cmu_xs.py", *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_gain_is_measured_with_the_teacher_left_out(monkeypatch):
    config, answered = small_config(), []
    encode = TimmEncoder.encode
    monkeypatch.setattr(TimmEncoder, "encode", lambda self, x: answered.append(self.freeze) or encode(self, x))
    text = measure_gain(config, steps=1)
    found = re.search(r"ratio +step ([\d.]+)  together ([\d.]+)", text)
    assert found and 0.5 < float(found[1]) < 5
    # 1 view for the sizes and 8 views of 4 scenes in one batch of 16 for the store; then three steps each way
    assert (answered.count(True), answered.count(False)) == (2 + 3, 6)
    assert "all views once:" in text and "a run of 2 iterations then saves" in text


def test_mixed_sources_are_kept_apart(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", count=2, height=64, width=64)
    config = small_config()
    mapper = config.dataloader.train.mapper
    config.dataloader.train.dataset = L(mix_datasets)(
        sources=[
            {"name": "files", "dataset": pairs.dicts},
            {"name": "made", "dataset": "miniearth_train", "options": {"num_scenes": 2}},
        ]
    )
    mapper.reader = L(SourceReader)(readers={"files": L(FileReader)(), "made": L(MiniEarthReader)()})
    mapper.vocabulary, mapper.geometry, mapper.optical_photometric = None, [], None
    pixels = config.model.teacher_norm
    config.model.teacher_norm = L(SourceNorm)(
        norms={"files": L(PixelNorm)(mean=[100.0] * 3, std=[50.0] * 3), "made": pixels}
    )
    run(config, tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    assert store.index["images"] == ["files/000000", "files/000001", "made/miniearth_train_000000"] + [
        "made/miniearth_train_000001"
    ]
    plain, model = instantiate(mapper), instantiate(config.model).train()
    dicts = instantiate(config.dataloader.train.dataset)
    stored = FeatureMapper(plain, features=tmp_path / "store")
    model.student_norm = SourceNorm(norms={"files": model.student_norm, "made": model.student_norm})
    assert losses(model, stored, dicts) == pytest.approx(losses(model, plain, dicts), rel=2e-3)
    mapper.reader.readers.files = L(FileReader)(optical_range=[0, 200])
    with pytest.raises(UserError, match=r"reader\.readers\.files\.optical_range is null, not \[0, 200\]"):
        FeatureMapper(instantiate(mapper), features=tmp_path / "store")


def _tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
