"""A model, a loader and an evaluator of a few lines: the loop is tested without any real model."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn

from mmovseg.layers.distributed import global_mean_weight


class ToyModel(nn.Module):
    """Two-layer regression; averages its loss over the valid elements of all processes."""

    def __init__(
        self, *, width: int = 4, noise: float = 0.0, poison_after: int = -1, weights: str | None = None
    ) -> None:
        super().__init__()
        if weights is not None:
            raise RuntimeError("foundation weights were asked for")
        self.frozen = nn.Linear(3, width).requires_grad_(False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1)
        self.noise = noise
        self.poison_after = poison_after
        self.calls = 0
        self.input_contract = {"bands": ["red", "green", "blue"]}

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        x = torch.stack([item["x"] for item in batch])
        out = self.head(self.norm(torch.relu(self.frozen(x))))[:, 0]
        if not self.training:
            return [{"y": value} for value in out]
        if self.noise:  # uses all three generators, so that a resumed run shows whether they were restored
            drawn = float(torch.rand(())) + float(np.random.rand()) + random.random()
            out = out + self.noise * drawn
        self.calls += 1
        y = torch.stack([item["y"] for item in batch])
        valid = torch.stack([item["valid"] for item in batch]).float()
        error = ((out - y) ** 2 * valid).sum() / global_mean_weight(valid.sum())
        if 0 <= self.poison_after < self.calls:
            error = error * float("nan")
        return {"loss_fit": error, "loss_size": 0.01 * self.head.weight.square().sum(), "accuracy": torch.tensor(0.5)}


class ToyVision(nn.Module):
    """Regression over a transformer of which the last block is frozen; the same samples and losses as `ToyModel`."""

    def __init__(self, *, encoder: nn.Module, noise: float = 0.0, poison_after: int = -1) -> None:
        super().__init__()
        self.encoder = encoder
        encoder.model.blocks[-1].requires_grad_(False)
        self.norm = nn.BatchNorm1d(encoder.model.embed_dim)
        self.head = nn.Linear(encoder.model.embed_dim, 1)
        self.noise, self.poison_after, self.calls = noise, poison_after, 0

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        x = torch.stack([item["x"] for item in batch])[:, :, None, None] * torch.linspace(-1, 1, 64).reshape(8, 8)
        (features,) = self.encoder(x).values()
        out = self.head(self.norm(features.mean((2, 3))))[:, 0]
        if not self.training:
            return [{"y": value} for value in out]
        if self.noise:
            out = out + self.noise * (float(torch.rand(())) + float(np.random.rand()) + random.random())
        self.calls += 1
        error = (out - torch.stack([item["y"] for item in batch])).square().mean()
        return {"loss_fit": error * float("nan") if 0 <= self.poison_after < self.calls else error}


class ToyLoader:
    """Batch i follows from (seed, i) alone."""

    def __init__(self, *, batch_size: int = 4, seed: int = 0, start_iter: int = 0) -> None:
        self.batch_size, self.seed, self.start_iter = batch_size, seed, start_iter

    def __iter__(self) -> Iterator[list[dict]]:
        iteration = self.start_iter
        rank, world = comm.get_rank(), comm.get_world_size()
        while True:
            generator = torch.Generator().manual_seed(1000 * self.seed + iteration)
            batch = [toy_sample(generator, number) for number in range(self.batch_size)]
            yield batch[rank::world]
            iteration += 1


def toy_sample(generator: torch.Generator, number: int) -> dict:
    x = torch.randn(3, generator=generator)
    # Some targets do not count, and not the same number on every process.
    return {"x": x, "y": x.sum(), "valid": torch.tensor(number % 4 != 2)}


def toy_test_loader(*, num_samples: int = 5, mapper: object = None) -> list[list[dict]]:
    generator = torch.Generator().manual_seed(99)
    samples = [toy_sample(generator, number) for number in range(num_samples)]
    return [[sample] for sample in samples[comm.get_rank() :: comm.get_world_size()]]


def toy_mapper(*, modality: str = "both", vocabulary: object = None, prompts: object = None) -> dict:
    return {"modality": modality, "vocabulary": vocabulary, "prompts": prompts}


class ToyEvaluator(DatasetEvaluator):
    """Mean squared error over all processes. Remembers what it was built with and draws random numbers."""

    last: ToyEvaluator | None = None

    def __init__(
        self,
        *,
        dataset_name: str = "toy",
        modality: str = "both",
        prompts: object = None,
        output_dir: str | None = None,
        provenance: dict | None = None,
    ) -> None:
        self.dataset_name, self.modality, self.prompts = dataset_name, modality, prompts
        self.output_dir, self.provenance = output_dir, provenance
        ToyEvaluator.last = self

    def reset(self) -> None:
        self.errors: list[float] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        torch.rand(3), np.random.rand(3), random.random()
        self.errors += [float((out["y"] - item["y"]) ** 2) for item, out in zip(inputs, outputs, strict=True)]

    def evaluate(self) -> OrderedDict | None:
        errors = [error for part in comm.all_gather(self.errors) for error in part]
        if not comm.is_main_process():
            return None
        return OrderedDict(fit={"mse": float(np.mean(errors)), "samples": len(errors), "IoU-road": 1.0})
