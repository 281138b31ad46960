"""What each of two processes does in the test of pure batches: a module that a new process can import."""

import itertools
import json
from pathlib import Path

import torch
import torch.distributed as dist

from mmovseg.data.build import build_train_loader
from mmovseg.data.io import FileReader
from mmovseg.data.transforms import RandomResizedCrop
from mmovseg.projects.codemae.data.pretraining import PretrainingMapper
from mmovseg.projects.codemae.data.sources import ospretrain_pretraining


def pretrain_loader(tree, **options):
    """7 pairs and 5 unpaired samples of uneven sizes, in batches of 4."""
    reader = FileReader(decoder="pil", sar_unit_in="amplitude8", sar_unit="amplitude8")
    mapper = PretrainingMapper(reader=reader, geometry=[RandomResizedCrop(16)], seed=1)
    dataset = ospretrain_pretraining(root=tree, exclude=["PIE-RGB-SAR", "SpaceNet6"], exclude_lists={})
    return build_train_loader(**({"dataset": dataset, "mapper": mapper, "batch_size": 4, "seed": 2} | options))


def work(rank, port, tree, folder):
    """Meet the other process once an iteration, over several epochs, and store what was seen."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    seen = []
    for batch in itertools.islice(iter(pretrain_loader(tree)), 25):
        met = torch.ones(())
        dist.all_reduce(met)  # waits for ever if the other one has run out of batches
        seen.append([int(met), [item["paired"] for item in batch], [item["image_id"] for item in batch]])
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()
