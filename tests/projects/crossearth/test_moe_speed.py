"""The measurement of a mixture of experts: what is compared computes the same, and the command writes rows."""

from __future__ import annotations

import csv

import benchmark
import pytest
import torch
from timm.layers import Mlp

from mmovseg.projects.crossearth.analysis.moe_speed import FIELDS, masked_loop
from mmovseg.projects.crossearth.modeling.moe import SparseMoE


@pytest.mark.parametrize(("gate", "top_k"), [("st", 1), ("renorm", 1), ("softmax", 2)])
def test_the_loop_computes_what_the_mixture_does(gate, top_k):
    torch.manual_seed(0)
    moe = SparseMoE(Mlp(16, 64), dim=16, num_experts=4, gate=gate, top_k=top_k, init_std=0.5)
    with torch.no_grad():
        moe.experts.w1.normal_(std=0.3)
    moe.descriptors = torch.randn(2, 3)
    x = torch.randn(2, 9, 16)
    torch.testing.assert_close(masked_loop(moe, x), moe(x), rtol=1e-4, atol=1e-5)


def test_the_command_appends_rows(tmp_path):
    results = tmp_path / "speed.csv"
    command = ["moe", "--widths", "16", "32", "--tokens", "8", "--seconds", "0", "--device", "cpu"]
    text = benchmark.main([*command, "--results", str(results), "--clock", "cpu"])
    benchmark.main([*command, "--results", str(results), "--phases", "forward", "--precision", "bfloat16"])
    with results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["width"], row["phase"]) for row in rows[:4]] == [
        ("16", "forward"), ("16", "training"), ("32", "forward"), ("32", "training")
    ]  # fmt: skip
    assert tuple(rows[0]) == FIELDS and len(rows) == 6 and rows[5]["precision"] == "bfloat16"
    assert all(float(row["least"]) <= float(row["moe_over_dense"]) <= float(row["most"]) for row in rows)
    assert "| 32 | 2 x 8 | training |" in text and f"added to {results}" in text
