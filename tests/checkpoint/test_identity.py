"""A teacher's digest changes with everything that changes its features, and with nothing else."""

import pytest
import torch

from mmovseg.checkpoint.identity import teacher_sha256
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.backbone import TimmEncoder

SMALL = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def encoder(**options):
    torch.manual_seed(0)
    return TimmEncoder("vit_small_patch8_224", **({"taps": (2,), "image_size": 16, "model_args": SMALL} | options))


def norm(**options):
    return PixelNorm(**({"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 1.0]} | options))


@pytest.fixture(scope="module")
def plain():
    return teacher_sha256(encoder(), norm(), "image_clear")


def test_equal_teachers_have_equal_digests(plain):
    assert len(plain) == 64 and plain == teacher_sha256(encoder(), norm(), "image_clear")
    other_taps = encoder(taps=(1, 2), freeze=False).train()
    assert teacher_sha256(other_taps, norm(), "image_clear") == plain, "which blocks are read is no part of the teacher"


@pytest.mark.parametrize(
    ("teacher", "pixels", "view"),
    [
        ({}, {}, "image"),
        ({}, {"mean": [1.0, 2.0, 3.5]}, "image_clear"),
        ({}, {"std": [1.0, 2.0, 1.0]}, "image_clear"),
        ({}, {"clip": [0, 255]}, "image_clear"),
        ({"local_last_block": True}, {}, "image_clear"),
        ({"position_resize": "dino_v1"}, {}, "image_clear"),
        ({"in_chans": 4}, {}, "image_clear"),
    ],
)
def test_other_teachers_have_other_digests(plain, teacher, pixels, view):
    assert teacher_sha256(encoder(**teacher), norm(**pixels), view) != plain


def test_one_changed_weight_shows(plain):
    changed = encoder()
    with torch.no_grad():
        changed.model.blocks[1].mlp.fc2.bias[3] += 1e-6
    assert teacher_sha256(changed, norm(), "image_clear") != plain


def test_constants_of_every_source_count():
    digests = {
        teacher_sha256(encoder(), SourceNorm(norms={"a": norm(), "b": norm(mean=[0.0, 0.0, last])}), "image")
        for last in (0.0, 1.0)
    }
    assert len(digests) == 2
