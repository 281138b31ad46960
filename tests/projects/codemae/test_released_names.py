"""Our models have exactly the tensors of the release, under our names, and take converted files."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from mmovseg.checkpoint.contract import contract_from_dict
from mmovseg.checkpoint.convert import convert_checkpoint
from mmovseg.checkpoint.load import load_weights
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.config import get_config, instantiate
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.losses import ContrastSpec, CrossSpec, DistillationSpec
from mmovseg.projects.codemae.modeling.decoder import DecoderSpec
from mmovseg.projects.codemae.modeling.hivit import HiViT
from mmovseg.projects.codemae.modeling.pretrainer import CoDeMAE
from mmovseg.projects.codemae.modeling.teacher import FrozenTeacher
from mmovseg.testing.checkpoints import TINY_CODEMAE, TINY_HIVIT, fake_state, tiny_table

GROUPS = {"pixel decoder", "cross decoder", "distillation", "contrast"}


def shapes_of(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def model_b():
    config = get_config("projects/CoDeMAE/configs/codemae_b.py")
    forget_foundation_weights(config.model)
    with torch.device("meta"):
        return instantiate(config.model)


def test_the_b_model_has_the_tensors_of_the_release_and_no_others(model_b):
    found = shapes_of(model_b)
    assert found == SOURCES["codemae"]()[0].shapes("ours")
    assert (len(found), sum(math.prod(shape) for shape in found.values())) == (646, 142_262_432)


def test_the_header_of_a_converted_file_says_what_the_config_says(model_b):
    contract = contract_from_dict(json.loads(json.dumps(model_b.input_contract)))
    assert SOURCES["codemae"]()[0].contract == contract


def test_encoder_and_pyramid_with_one_embedding():
    with torch.device("meta"):
        found = shapes_of(HiViT(in_chans={"optical": 3}))
    assert (len(found), sum(math.prod(shape) for shape in found.values())) == (375, 81_552_000)


def test_itpn_fills_an_encoder_of_two_sensors():
    with torch.device("meta"):
        found = shapes_of(HiViT())
    assert found == SOURCES["itpn"]()[0].shapes("ours")


def tiny_encoder(**options):
    dims = TINY_HIVIT
    return HiViT(
        in_chans={"optical": dims.in_chans, "sar": dims.in_chans},
        stem_dim=dims.stem,
        depths=dims.depths,
        mlp_ratios=dims.ratios,
        num_heads=2,
        unit_size=4 * dims.patch,
        image_size=32,
        pyramid_dim=dims.pyramid,
        **options,
    )


def tiny_pretrainer():
    dims = TINY_CODEMAE
    return CoDeMAE(
        encoder=tiny_encoder(),
        decoder=DecoderSpec(dim=dims.width, depth=dims.decoder_depth, num_heads=2),
        cross=CrossSpec(),
        distillation=DistillationSpec(
            teacher=FrozenTeacher(encoder={"name": "x"}, width=dims.teacher, mean=(0,) * 3, std=(1,) * 3),
            num_heads=2,
        ),
        contrast=ContrastSpec(num_heads=2),
        optical_norm=PixelNorm(mean=(0,) * 3, std=(1,) * 3),
        sar_norm=PixelNorm(mean=(0,) * 3, std=(1,) * 3),
    )


def converted(folder, source):
    table = tiny_table(source)
    torch.save({"model": fake_state(table, optional=GROUPS)}, folder / "in.pth")
    convert_checkpoint(folder / "in.pth", folder / "out.safetensors", source=source, table=table)
    return folder / "out.safetensors"


def test_a_converted_checkpoint_fills_a_pretrainer_and_its_encoder_alone(tmp_path):
    path = converted(tmp_path, "codemae")
    ours = load_file(path)
    model = tiny_pretrainer()
    report = load_weights(model, path)
    assert report.missing == report.unexpected == [] and len(report.used) == len(ours)
    encoder = tiny_encoder(weights=str(path))
    assert all(torch.equal(tensor, ours[f"encoder.{name}"]) for name, tensor in encoder.state_dict().items())
    features = encoder(torch.randn(1, 3, 32, 32), sensor="sar")
    assert all(bool(torch.isfinite(maps).all()) for maps in features.values())


def test_an_encoder_that_starts_from_itpn_reads_both_sensors_alike(tmp_path):
    encoder = tiny_encoder(weights=str(converted(tmp_path, "itpn"))).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        optical, sar = (encoder(images, sensor=sensor) for sensor in ("optical", "sar"))
    assert all(torch.equal(optical[name], sar[name]) for name in optical)
