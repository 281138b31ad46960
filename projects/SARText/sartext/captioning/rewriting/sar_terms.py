"""Say how something looks to a radar, where the image bears it out: "the water appears as a dark smooth area".

Water is dark to a radar, unless wind or rain roughens it; buildings are bright, unless they stand oblique. So no words
are added by rule alone: the mean of the region on this very image must differ from that of the image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mmovseg.errors import UserError

_FILE = Path(__file__).with_name("sar_terms.json")
MIN_SHARE = 0.02
"""A region smaller than this share of the image is not measured: speckle would decide."""


@dataclass(frozen=True)
class SarTerm:
    """How a radar sees something.

    Attributes:
        classes: names of label classes that are it.
        words: nouns of captions that mean it.
        phrase: how it appears.
        least_db, most_db: bounds of the region's mean against the image's, dB; None = no bound.
        is_smooth: its spread (of the dB values) must be at most that of the image.
    """

    classes: tuple[str, ...]
    words: tuple[str, ...]
    phrase: str
    least_db: float | None
    most_db: float | None
    is_smooth: bool


@lru_cache(maxsize=4)
def load_sar_terms(path: str | Path = _FILE) -> tuple[SarTerm, ...]:
    """Read the terms.

    Raises:
        UserError: the file cannot be read or a term lacks something.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return tuple(
            SarTerm(**{**term, "classes": tuple(term["classes"]), "words": tuple(term["words"])}) for term in content
        )
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is not a list of SAR terms: {error}") from error


def verify_terms(
    sar_db: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, terms: Sequence[SarTerm]
) -> dict[str, float]:
    """Measure which terms the image bears out.

    Args:
        sar_db: (H, W) dB, NaN where there is no data.
        labels: (H, W) class ids, others are ignored.
        class_names: by class id.
        terms: to be measured.

    Returns:
        Phrase -> mean of the region minus mean of the image, dB, of the terms that hold.

    Raises:
        UserError: the sizes differ.
    """
    if sar_db.shape != labels.shape:
        raise UserError(f"the SAR image has {sar_db.shape} pixels and its label map {labels.shape}")
    valid = np.isfinite(sar_db)
    found: dict[str, float] = {}
    if not valid.any():
        return found
    mean, spread = float(sar_db[valid].mean()), float(sar_db[valid].std())
    for term in terms:
        ids = [index for index, name in enumerate(class_names) if name in term.classes]
        region = valid & np.isin(labels, ids)
        if region.sum() < MIN_SHARE * valid.sum():
            continue
        difference = float(sar_db[region].mean()) - mean
        holds = (term.least_db is None or difference >= term.least_db) and (
            term.most_db is None or difference <= term.most_db
        )
        if holds and (not term.is_smooth or float(sar_db[region].std()) <= spread):
            found[term.phrase] = difference
    return found


def add_sar_term(caption: str, verified: Sequence[str], *, terms: Sequence[SarTerm]) -> tuple[str, str | None]:
    """Return a caption with how the first thing that it names looks to a radar, and the phrase added, None if none.

    Args:
        caption: one sentence; of several the last is added to.
        verified: phrases of `verify_terms`.
        terms: where their words are.
    """
    words = re.findall(r"[a-z]+(?:-[a-z]+)*", caption.lower())
    for word in words:
        for term in terms:
            if word in term.words and term.phrase in verified:
                verb = "appear" if word.endswith("s") else "appears"
                phrase = term.phrase
                if verb == "appear" and phrase.startswith("a "):
                    phrase = f"{phrase.removeprefix('a ')}s"
                return f"{caption}, and the {word} {verb} as {phrase}", term.phrase
    return caption, None
