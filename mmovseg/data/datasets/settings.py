"""Point a config at registered data sets: train on one, test on the same or another."""

from __future__ import annotations

from omegaconf import DictConfig

from mmovseg.data.datasets.catalog import TABLE, DatasetEntry
from mmovseg.errors import UserError


def choose_sets(
    dataloader: DictConfig, *, train: str, test: str, test_split: str = "val", flavour: str | None = None
) -> None:
    """Set the data sets of a config and, with them, the class lists of its mappers and of its evaluator.

    Args:
        dataloader: of a config whose data sets come from `get_dataset` and class lists from `get_vocabulary`; changed.
        train: name in the table of data sets; its split ``train`` is used.
        test: the same for the test. Its class list may have another order, or other classes.
        test_split: split of `test`.
        flavour: of both class lists; None leaves it.

    Raises:
        UserError: a data set is unknown or has no such split.
    """
    entry = _entry(train, "train")
    dataloader.train.dataset.name = f"{train}_train"
    nodes = [(dataloader.train.mapper.vocabulary, entry)]
    entry = _entry(test, test_split)
    dataloader.test.dataset.name = dataloader.evaluator.dataset_name = f"{test}_{test_split}"
    nodes += [(dataloader.test.mapper.vocabulary, entry), (dataloader.evaluator.vocabulary, entry)]
    for node, owner in nodes:
        node.dataset = owner.vocabulary
        if flavour is not None:
            node.flavour = flavour


def _entry(name: str, split: str) -> DatasetEntry:
    entries = {entry.name: entry for entry in TABLE}
    if name not in entries:
        raise UserError(f"unknown data set '{name}'; known: {', '.join(entries)}")
    if split not in entries[name].splits:
        raise UserError(f"data set '{name}' has no split '{split}'; it has: {', '.join(entries[name].splits)}")
    return entries[name]
