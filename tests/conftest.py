"""Settings that all tests share: no network, no window, and the same random state at the start of each."""

from __future__ import annotations

import os
import random
import sys

os.environ.setdefault("MPLBACKEND", "Agg")
# A test that asks for foundation weights must see an unreachable hub, also on a machine with a network. Read at import.
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def fixed_random_state():
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")  # tests that do not use torch shall not pay for its import
    if torch is not None:
        torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def realdata():
    """Folder of real samples; a test that asks for it is skipped where there is none."""
    from mmovseg.testing.realdata import realdata_root

    folder = realdata_root()
    if folder is None:
        pytest.skip("no folder of real samples (MMOVSEG_REALDATA, default ../shared/data)")
    return folder
