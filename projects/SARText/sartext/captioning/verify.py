"""Read a caption file back and compare every statement with the annotation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.parsing import Fault, find_faults, parse_caption
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, read_captions


@dataclass
class Verification:
    """What reading back found.

    images: annotated ones that have captions. captions: how many were compared. statements: counts that they state.
    faults: image id, caption, fault; the caption is empty where an image has none.
    """

    images: int = 0
    captions: int = 0
    statements: int = 0
    faults: list[tuple[str, str, Fault]] = field(default_factory=list)

    @property
    def right_images(self) -> int:
        """Images without a fault."""
        return self.images - len({image_id for image_id, _, _ in self.faults})

    def first_fault(self) -> str:
        """Return image, caption and fault of the first one; there must be one."""
        image_id, caption, fault = self.faults[0]
        return f"image '{image_id}': '{caption}' {fault}" if caption else f"image '{image_id}' {fault}"

    def summary(self) -> str:
        """Return one sentence."""
        return (
            f"{self.right_images} of {self.images} images agree with their annotation "
            f"({self.captions} captions read back, {self.statements} counts, {len(self.faults)} faults)"
        )


def verify_captions(path: str | Path, annotated: Iterable[CaptionRecord | None], lexicon: Lexicon) -> Verification:
    """Compare the captions of a file with facts taken from the annotation anew; provenance in the file is not used.

    An annotated image that the file lacks is a fault, and so is a caption in which nothing is read: what it says cannot
    be wrong, but it was not compared either.

    Args:
        path: JSONL file.
        annotated: records of the same images made now, for the facts in them; None for an image without one.
        lexicon: limited to the annotated classes.

    Raises:
        UserError: the file is bad, or an image of it is not among those annotated.
    """
    facts = {record.image_id: record.provenance["facts"] for record in annotated if record is not None}
    found = Verification(images=len(facts))
    seen: set[str] = set()
    for record in read_captions(path):
        if record.image_id not in facts:
            raise UserError(f"'{path}' has captions of '{record.image_id}', which the annotation does not list")
        seen.add(record.image_id)
        for caption in record.captions:
            parsed = parse_caption(caption, lexicon)
            found.captions += 1
            found.statements += sum(mention.count is not None for mention in parsed.mentions)
            faults = find_faults(parsed, facts[record.image_id])
            if not parsed.mentions:
                faults.append(Fault("silent", "", "names no annotated class, so that nothing can be compared"))
            found.faults += [(record.image_id, caption, fault) for fault in faults]
    missing = Fault("missing", "", "is annotated and has no caption in the file")
    found.faults += [(image_id, "", missing) for image_id in facts if image_id not in seen]
    return found
