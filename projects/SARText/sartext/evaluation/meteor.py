"""METEOR, taken from `pycocoevalcap` where it and Java are installed; and why SPICE is not computed."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence

from mmovseg.projects.sartext.evaluation.caption_metrics import Scores, Words

SPICE_REASON = (
    "not computed: the reference program needs Java 8 to 15 and downloads a parser of 400 MB when it is first used"
)


def meteor_reason() -> str | None:
    """Return why METEOR cannot be computed here, or None if it can."""
    try:
        importlib.import_module("pycocoevalcap.meteor.meteor")
    except ImportError:
        return "not computed: the package pycocoevalcap is not installed"
    return None if shutil.which("java") else "not computed: it runs in Java, and there is no 'java' on the path"


def meteor(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scores:
    """Return METEOR 1.5 in 0..1, of the test set and of each image.

    Args:
        candidates: one caption an image, as words.
        references: at least one caption an image.

    Raises:
        RuntimeError: the Java program could not be run; ask `meteor_reason` first.
    """
    module = importlib.import_module("pycocoevalcap.meteor.meteor")
    given = {number: [" ".join(text) for text in own] for number, own in enumerate(references)}
    found = {number: [" ".join(text)] for number, text in enumerate(candidates)}
    try:
        corpus, images = module.Meteor().compute_score(given, found)
    except (OSError, ValueError) as error:  # it ended, so that there is no number to read
        raise RuntimeError(f"the Java program of METEOR failed: {error}") from error
    return Scores(float(corpus), tuple(float(value) for value in images))
