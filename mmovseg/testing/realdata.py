"""Where the real samples are, if they are here at all."""

from __future__ import annotations

import os
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]


def realdata_root() -> Path | None:
    """Return the folder of real samples, or None if it is absent.

    It is named by the environment variable `MMOVSEG_REALDATA`; the default is ``../shared/data`` beside the repository.
    A relative path starts at the root of the repository.
    """
    folder = (_REPOSITORY / os.environ.get("MMOVSEG_REALDATA", "../shared/data")).resolve()
    return folder if folder.is_dir() else None
