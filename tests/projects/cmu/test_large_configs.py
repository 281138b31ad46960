"""What CMU of full size hands on fits the MM-OVSeg configs it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from detectron2.utils.events import EventStorage

from mmovseg.checkpoint.contract import InputContract
from mmovseg.checkpoint.encoder_contract import check_encoder_contract
from mmovseg.checkpoint.save import save_weights
from mmovseg.config import get_config, instantiate
from mmovseg.data.statistics import ModalityStatistics, SourceStatistics, write_statistics
from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.errors import UserError
from mmovseg.testing.checks import random_inputs

CMU = "projects/CMU/configs/"
SETTINGS = ("pie_cloud", "pie_clean", "ddhr_sk", "ddhr_sk_to_ch", "oem_thick", "oem_thin")
FITS = [
    *(("cmu_vitb16.py", f"mmovseg/{name}_vitb16.py", "sar_encoder") for name in SETTINGS),
    *(("cmu_vitl16.py", f"mmovseg/{name}_vitl14.py", "sar_encoder") for name in SETTINGS),
    ("cmu_vitb16_db.py", "mmovseg/mmovseg_vitb16.py", "sar_encoder"),
    ("cmu_vitb16_db.py", "mmovseg/spacenet6_vitb16.py", "sar_encoder"),
    ("cmu_vitb16_miniearth.py", "mmovseg/mmovseg_vitb16.py", "sar_encoder"),
    ("cmu_vitb16.py", f"{CMU}mmovseg_ddhr_sk_vitb16.py", "sar_encoder"),
    ("cmu_vitb16.py", f"{CMU}mmovseg_ddhr_sk_vitb16_clip_sar.py", "sar_encoder"),
    ("cmu_clip_vitb16.py", f"{CMU}mmovseg_ddhr_sk_vitb16_clip_sar.py", "clip_sar_encoder"),
    ("cmu_xs.py", f"{CMU}mmovseg_xs_ablation_clip_sar.py", "clip_sar_encoder"),
]
LARGE = ("cmu_vitb16", "cmu_vitb16_db", "cmu_vitb16_miniearth", "cmu_vitl16", "cmu_clip_vitb16")


def contract_file(cmu: str, folder: Path) -> str:
    """An encoder file of that config, with its contract and no weights to speak of."""
    facts = {"input_contract": json.dumps(contract_of(CMU + cmu).to_dict())}
    save_weights({"w": torch.zeros(1)}, folder / "sar.safetensors", metadata=facts)
    return str(folder / "sar.safetensors")


def contract_of(name: str) -> InputContract:
    return instantiate(get_config(name).model.input_contract)


@pytest.fixture
def ddhr_sk(tmp_path, monkeypatch):
    """Statistics of DDHR-SK where its configs look for them."""
    monkeypatch.chdir(tmp_path)
    sar = ModalityStatistics("amplitude8", ("band 1",) * 3, (90.0,) * 3, (40.0,) * 3)
    write_statistics("output/statistics/ddhr_sk.json", {"ddhr_sk": SourceStatistics(1, "made up", sar=sar)})


@pytest.mark.parametrize(("cmu", "mmovseg", "role"), FITS)
def test_the_encoder_fits(cmu, mmovseg, role, tmp_path, ddhr_sk, caplog):
    student, encoder = get_config(CMU + cmu).model.student, get_config(mmovseg).model[role]
    for key, default in (("name", None), ("in_chans", 3), ("local_last_block", False), ("model_args", None)):
        assert student.get(key, default) == encoder.get(key, default), key
    assert set(encoder.taps) <= set(student.taps)
    check_encoder_contract(contract_file(cmu, tmp_path), contract_of(mmovseg), role=role, modality="sar")
    alike = mmovseg.startswith(f"{CMU}mmovseg_ddhr_sk") or cmu in ("cmu_vitb16_miniearth.py", "cmu_xs.py")
    assert ("measure your data" in caplog.text) is not alike, "the other configs read SAR with constants of their own"


def test_an_encoder_for_other_sar_does_not_fit(tmp_path):
    wrong = (("cmu_vitb16.py", "mmovseg/mmovseg_vitb16.py"), ("cmu_vitb16_db.py", "mmovseg/oem_thin_vitb16.py"))
    for cmu, mmovseg in wrong:
        file = contract_file(cmu, tmp_path)
        with pytest.raises(UserError, match="was trained on sar with the unit"):
            check_encoder_contract(file, contract_of(mmovseg), role="sar_encoder", modality="sar")


@pytest.mark.parametrize("name", LARGE)
def test_the_recipe_is_the_papers(name):
    config = get_config(f"{CMU}{name}.py")
    model, optimizer = config.model, config.optimizer
    assert (config.dataloader.train.batch_size, optimizer.base_lr, optimizer.weight_decay) == (8, 3e-4, 1e-4)
    assert dict(model.loss_weights) == {"infonce": 1.0} and model.temperature == 0.07
    assert tuple(model.teacher.taps) == tuple(model.student.taps) == ((8, 16, 24) if "vitl" in name else (4, 8, 12))
    assert model.student.freeze is False and model.teacher.get("freeze", True)
    assert model.student.weights == model.teacher.weights == "timm"
    assert timm.get_pretrained_cfg(model.teacher.name).input_size[0] == 3  # it has weights to start from
    check_constants_of_pretraining(model.teacher.name, instantiate(model.teacher_norm))
    check_constants_of_pretraining(model.teacher.name, instantiate(model.input_contract).optical)


def check_constants_of_pretraining(name, norm):
    pretrained = timm.get_pretrained_cfg(name)
    for own, theirs in ((norm.mean, pretrained.mean), (norm.std, pretrained.std)):
        assert torch.as_tensor(own).flatten().tolist() == pytest.approx([255 * value for value in theirs], rel=1e-6)


@pytest.mark.parametrize("name", ["mmovseg_vitb16", "mmovseg_vitl14", "pie_cloud_vitl14"])
def test_mmovseg_reads_optical_images_as_its_dense_encoder_was_pretrained(name):
    model = get_config(f"mmovseg/{name}.py").model
    check_constants_of_pretraining(model.optical_encoder.name, instantiate(model.optical_norm))
    check_constants_of_pretraining(model.optical_encoder.name, instantiate(model.input_contract).optical)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cmu_vitb16", "cmu_clip_vitb16"])
def test_a_step_of_full_size_trains_the_student(name):
    node = get_config(f"{CMU}{name}.py").model
    forget_foundation_weights(node)
    torch.manual_seed(0)
    model = instantiate(node).train()
    inputs = random_inputs(vocabulary_from_names("city"), polarisations=3)
    for item in inputs:
        item["image_clear"], item["source"] = item["image"], "spacenet6"
    with EventStorage(0):
        loss = model(inputs)["loss_infonce"]
    loss.backward()
    assert torch.isfinite(loss) and all(p.grad is None for p in model.teacher.parameters())
    reached = [name for name, p in model.student.named_parameters() if p.grad is not None and p.grad.any()]
    assert "model.patch_embed.proj.weight" in reached and "model.norm.weight" in reached
