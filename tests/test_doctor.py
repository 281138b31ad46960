"""The doctor: a whole report here, and each thing that can be wrong named in words."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json

import open_clip.pretrained
import pytest
import timm

from mmovseg import doctor
from mmovseg.config import find_config, load_config


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def test_report_of_this_environment(capsys):
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    for word in ("torchvision", "detectron2", "GDAL", "threads", "memory", "disk", "weights", "DETECTRON2_DATASETS"):
        assert word in text
    assert text.rstrip().endswith("all that is needed is there")


def test_json_holds_the_same_findings(capsys):
    assert doctor.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert {"section", "name", "text", "status", "advice"} == set(report["findings"][0])
    versions = {item["name"]: item["text"] for item in report["findings"] if item["section"] == "packages"}
    assert versions["timm"] == importlib.metadata.version("timm")


def test_a_version_out_of_bounds_is_a_problem(monkeypatch, capsys):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.4.1" if name == "rasterio" else real(name))
    assert doctor.main([]) == 1
    last = capsys.readouterr().out.splitlines()
    assert last[-1] == "problems: 1"
    assert "rasterio: 1.4.1 is outside of" in last[-3] and "run: pip install 'rasterio>=" in last[-3]


def test_a_missing_package_is_a_problem(monkeypatch):
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "iopath":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = by_name(list(doctor._packages()))["iopath"]
    assert (found.status, found.text) == ("problem", "not installed")


def test_missing_detectron2_names_the_installer(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "detectron2" else real(name))
    (found,) = doctor._detectron2()
    assert found.status == "problem"
    assert "tools/install_detectron2.py" in found.advice


def test_a_probe_that_breaks_is_reported_with_what_it_had_found():
    def _gpu():
        yield doctor.Finding("gpu", "first", "fine")
        raise OSError("libsomething.so: cannot open\nsecond line")

    first, second = doctor._guarded(_gpu)
    assert first.text == "fine"
    assert (second.section, second.status) == ("gpu", "problem")
    assert second.text == "OSError: libsomething.so: cannot open"


def test_foundation_weights_are_where_the_libraries_look():
    for weights in doctor.FOUNDATION_WEIGHTS:
        name, _, tag = weights.name.partition(" ")
        if tag:
            repository = open_clip.pretrained.get_pretrained_cfg(name, tag)["hf_hub"].rstrip("/")
        else:
            repository = timm.get_pretrained_cfg(name).hf_hub_id
        assert weights.repository == repository


def timm_names(model, *parts):
    encoders = [model.get(part) for part in parts]
    return {encoder.name for encoder in encoders if encoder is not None and encoder.weights == "timm"}


def test_foundation_weights_are_those_that_the_configs_ask_for():
    wanted = set()
    for file in (find_config("mmovseg/mmovseg_vitb16.py").parent).glob("*.py"):
        model = load_config(file).model
        wanted.add(f"{model.clip.name} {model.clip.weights}")
        wanted |= timm_names(model, "optical_encoder", "sar_encoder")
    for file in find_config("projects/CMU/configs/cmu_xs.py").parent.glob("*.py"):
        wanted |= timm_names(load_config(file).model, "teacher", "student", "clip_sar_encoder")
    assert wanted == {weights.name for weights in doctor.FOUNDATION_WEIGHTS}


def test_cached_foundation_weights_are_found(tmp_path, monkeypatch):
    import huggingface_hub

    def look_up(repository: str, name: str) -> str | None:
        cached = (repository, name) == ("timm/vit_base_patch16_224.dino", "model.safetensors")
        return str(tmp_path / name) if cached else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look_up)
    found = by_name(list(doctor._foundation_weights()))
    assert found["vit_base_patch16_224.dino"].text == f"found: {tmp_path / 'model.safetensors'}"
    absent = found["ViT-B-16-quickgelu openai"]
    assert absent.status == "note"
    assert "open_clip_model.safetensors of timm/vit_base_patch16_clip_224.openai" in absent.advice


def test_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    (nothing,) = doctor._shipped_weights()
    assert nothing.status == "note" and "make zoo" in nothing.advice
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "clip_xs.safetensors").write_bytes(bytes(2_000_000))
    (found,) = doctor._shipped_weights()
    assert (found.name, found.text, found.status) == ("clip_xs.safetensors", "2.0 MB", "ok")


@pytest.mark.parametrize(("value", "status"), [(None, "ok"), ("here", "ok"), ("nowhere", "note")])
def test_data_folder(tmp_path, monkeypatch, value, status):
    (tmp_path / "here").mkdir()
    if value is None:
        monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    else:
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / value))
    (found,) = doctor._data()
    assert found.status == status


def test_requirements_of_an_installed_copy_come_from_its_metadata(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path / "mmovseg")
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch>=2.4", 'pytest>=8; extra == "dev"'])
    assert doctor.direct_requirements() == ["torch>=2.4"]
