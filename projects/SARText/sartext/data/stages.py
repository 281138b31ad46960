"""The three stages of the transfer in small: which MiniEarth scenes, seen how, with which captions.

Natural images are what a model learns language from; optical remote sensing brings it to the ground and the seasons of
the radar; SAR is the goal, and has the fewest captioned images. Here:

======== ============================ ======================================= ================
stage    region, sensor               read                                    training scenes
======== ============================ ======================================= ================
natural  temperate, spaceborne        optical, clear                          2,000
optical  tropical, airborne           optical, clear                          2,000
sar      tropical, airborne, X band   SAR (VV, VH), other scenes than optical 1,000
======== ============================ ======================================= ================

`optical` and `sar` are two views of one region, as the optical and the SAR images of the real stages are of one kind of
ground, but no scene is seen by both: the real stages are not paired either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from mmovseg.data.miniearth import load_miniearth
from mmovseg.data.miniearth.dataset import Split
from mmovseg.data.sample import DatasetDict, RawSample, Reader
from mmovseg.errors import UserError

Stage = Literal["natural", "optical", "sar"]
STAGES: tuple[Stage, ...] = get_args(Stage)
DOMAINS: dict[str, str] = {
    "natural": "default",
    "optical": "unseen_region_platform_band",
    "sar": "unseen_region_platform_band",
}
TRAIN_SCENES: dict[str, int] = {"natural": 2000, "optical": 2000, "sar": 1000}
# Scenes of a split before those of the stage, so that no scene is in two stages.
_FIRST: dict[str, int] = {"natural": 0, "optical": 0, "sar": 2000}
_TEST_SCENES = 500


def load_stage(
    stage: Stage, *, split: Split = "train", num_scenes: int | None = None, size: int = 64, seed: int = 0
) -> list[DatasetDict]:
    """Return the dataset dicts of a stage, for `MiniEarthReader`.

    Args:
        stage: ``natural``, ``optical`` or ``sar``.
        split: ``train``, ``val`` or ``test``; three areas of the world that do not touch.
        num_scenes: how many; None = as in the table above for training, else 500.
        size: side in pixels.
        seed: of the world.

    Raises:
        UserError: an unknown stage or split, or more scenes than there are.
    """
    if stage not in STAGES:
        raise UserError(f"the transfer has no stage '{stage}'; its stages are: {', '.join(STAGES)}")
    training = split == "train"
    count = num_scenes if num_scenes is not None else (TRAIN_SCENES[stage] if training else _TEST_SCENES)
    first = _FIRST[stage] if training else 0
    scenes = load_miniearth(split, num_scenes=first + count, size=size, domain=DOMAINS[stage], seed=seed)
    return scenes[first:]


Wording = Literal["list", "amount", "percent", "count"]
WORDINGS: tuple[Wording, ...] = get_args(Wording)
_AMOUNTS = ("mostly ", "much ", "some ", "a little ")


def wording_of(caption: str) -> Wording:
    """Return what a caption of MiniEarth states beyond names: ``percent``, ``count`` (of targets), ``amount``, or
    nothing (``list``).
    """
    if caption.startswith("land cover: "):
        return "percent"
    if caption.startswith(_AMOUNTS):
        return "amount"
    return "count" if ", with " in caption else "list"


class ChosenWording:
    """Keep those captions of MiniEarth that have one of the wordings.

    Lists of classes repeat from scene to scene, so a retrieval test on them asks what nobody could answer. Percentages
    and counts are as good as unique. Of a scene of a single class, which has no such caption, the first one stays.

    Args:
        reader: of MiniEarth.
        wordings: which to keep.

    Raises:
        UserError: an unknown wording, or none.
    """

    def __init__(self, *, reader: Reader, wordings: Sequence[Wording]) -> None:
        unknown = [name for name in wordings if name not in WORDINGS]
        if unknown or not wordings:
            said = f"'{unknown[0]}'" if unknown else "none"
            raise UserError(f"wording of captions is {said}, expected some of: {', '.join(WORDINGS)}")
        self.reader, self.wordings = reader, tuple(wordings)

    def __call__(self, dataset_dict: DatasetDict) -> RawSample:
        """Read one scene."""
        raw = self.reader(dataset_dict)
        raw.captions = [text for text in raw.captions if wording_of(text) in self.wordings] or raw.captions[:1]
        return raw
