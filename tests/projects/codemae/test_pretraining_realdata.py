"""Real optical and SAR images through the pretraining data: QXS-SAROPT as pairs, MSTAR chips as unpaired SAR."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmovseg.config import apply_overrides, get_config, instantiate
from mmovseg.data.statistics import compute_statistics, read_statistics

CONFIG = "projects/CoDeMAE/configs/common/data_ospretrain.py"


@pytest.mark.realdata
def test_real_images_in_the_layout_of_ospretrain(realdata, tmp_path):
    for name, folder in (
        ("QXSLAB_SARPORT/RGB", "qxs_saropt/opt"),
        ("QXSLAB_SARPORT/SAR", "qxs_saropt/sar"),
        ("Unpaired/RGB", "qxs_saropt/opt"),
        ("Unpaired/SAR/MSTAR", "mstar10/val"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(realdata / folder)
    options = [f"dataloader.train.dataset.root={tmp_path}", "dataloader.train.num_workers=0"]
    config = apply_overrides(get_config(CONFIG), [*options, "dataloader.train.batch_size=2"])
    config.dataloader.train.dataset.update(unequal="repeat", statistics=None)
    dataset = instantiate(config.dataloader.train.dataset)
    assert (dataset.num_pairs, dataset.num_optical) == (14, 14) and dataset.num_sar >= 30
    items = list(itertools.chain(*itertools.islice(iter(instantiate(config.dataloader.train)), 30)))
    assert {item["paired"] for item in items} == {True, False}
    assert all(item["image"].shape == item["sar"].shape == (3, 224, 224) for item in items)
    assert all(item["sar"][0].equal(item["sar"][2]) for item in items), "grey SAR is repeated"
    reader = instantiate(config.dataloader.train.mapper.reader)
    measured = compute_statistics(dataset[:14], reader, default_source="none")
    found, released = measured["QXSLAB_SARPORT"], read_statistics("ospretrain")["QXSLAB_SARPORT"]
    np.testing.assert_allclose(found.sar.mean, released.sar.mean, rtol=0.3)  # 62 here, 69 over the whole set
    np.testing.assert_allclose(found.sar.std, released.sar.std, rtol=0.3)
    np.testing.assert_allclose(found.optical.mean, released.optical.mean, rtol=0.3)
