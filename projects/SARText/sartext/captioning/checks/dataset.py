"""Check a whole caption file: every caption by itself, then what only shows in the company of others."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.checks.findings import (
    REPORTED_ONLY,
    Finding,
    Kind,
    Lexicons,
    Statements,
    check_language,
    check_length,
    check_statements,
)
from mmovseg.projects.sartext.captioning.checks.near_duplicates import group_near, jaccard, normalise, shingles
from mmovseg.projects.sartext.captioning.rewriting.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.schema import CaptionRecord

_KEPT_SPLITS = ("test", "val")


@dataclass(frozen=True)
class CheckOptions:
    """What counts as wrong.

    Attributes:
        shortest: fewest byte-pair tokens of a caption. longest: most, with start and end; 76 is the context of CoCa.
        near: Jaccard index of word triples from which two captions are nearly the same.
        cap: so many nearly identical captions may a split hold, the rest is over the cap; None = any number. Repeated
            captions are false negatives of the contrastive loss and make recall at k meaningless.
        scene_pattern: regular expression over `image_id` with a group `scene`; None takes `scene` of the provenance.
        root: of the images, to see whether they exist; None does not look.
    """

    shortest: int = 5
    longest: int = 76
    near: float = 0.8
    cap: int | None = 50
    scene_pattern: str | None = None
    root: Path | None = None


@dataclass
class CheckResult:
    """What the checks found.

    Attributes:
        findings: all of them, in the order of the file for each check.
        statements: route -> what captions state about their annotation.
        groups: (number of captions, one of them), the largest groups of nearly identical captions first.
        scenes: number of source scenes known; 0 = only leakage of whole images could be checked.
        distinct: number of different captions.
    """

    findings: list[Finding] = field(default_factory=list)
    statements: dict[str, Statements] = field(default_factory=lambda: defaultdict(Statements))
    groups: list[tuple[int, str]] = field(default_factory=list)
    scenes: int = 0
    distinct: int = 0


def check_records(
    records: Sequence[CaptionRecord],
    *,
    lexicon: Lexicon,
    count_tokens: Callable[[str], int],
    options: CheckOptions | None = None,
    caption_lexicons: Lexicons | None = None,
) -> CheckResult:
    """Check a caption file.

    Args:
        records: all of it.
        lexicon: whose words are banned.
        count_tokens: byte-pair tokens of a text.
        options: None takes the defaults.
        caption_lexicons: what the captions of annotations were made with; None = the shipped one.

    Raises:
        UserError: the pattern is none, fits no image, or provenance lacks what its route promises or names a lexicon
            that is not given.
    """
    lexicons = Lexicons() if caption_lexicons is None else caption_lexicons
    options = CheckOptions() if options is None else options
    result = CheckResult()
    for position, record in enumerate(records):
        for index, caption in enumerate(record.captions):
            for kind, message in _check_caption(caption, lexicon, count_tokens, options):
                result.findings.append(Finding(kind, position, index, message))
        if record.route in ("annotation", "segmentation"):
            for kind, index, message in check_statements(record, position, result.statements, lexicons):
                result.findings.append(Finding(kind, position, index, message))
        result.findings += _check_image(record, position, options)
    _check_repeats(records, options, result)
    _check_scenes(records, options, result)
    return result


def _check_caption(
    caption: str, lexicon: Lexicon, count_tokens: Callable[[str], int], options: CheckOptions
) -> Iterator[tuple[Kind, str]]:
    length = check_length(count_tokens(caption), shortest=options.shortest, longest=options.longest)
    if length is not None:
        yield length
    language = check_language(caption, lexicon)
    if language is not None:
        yield "language", language
    banned = lexicon.find_banned(caption)
    if banned:
        yield "banned word", ", ".join(f"{one.word} ({one.category})" for one in banned)


def _check_image(record: CaptionRecord, position: int, options: CheckOptions) -> Iterator[Finding]:
    if options.root is not None and not (options.root / record.image).is_file():
        yield Finding("missing image", position, None, f"'{options.root / record.image}' does not exist")
    seen: dict[str, int] = {}
    for index, caption in enumerate(record.captions):
        text = normalise(caption)
        if text in seen:
            yield Finding("duplicate in image", position, index, f"equals caption {seen[text] + 1}")
            continue
        parts = shingles(text)
        near = next((other for one, other in seen.items() if jaccard(parts, shingles(one)) >= options.near), None)
        if near is not None:
            yield Finding("near duplicate in image", position, index, f"nearly caption {near + 1}")
        seen[text] = index


def _check_repeats(records: Sequence[CaptionRecord], options: CheckOptions, result: CheckResult) -> None:
    """Find groups of nearly identical captions, and what of them is over the cap of a split.

    Which captions of a group stay is drawn by a hash of the image, so that it is not the first images of the file that
    keep theirs.
    """
    places = [(position, index) for position, record in enumerate(records) for index in range(len(record.captions))]
    texts = [records[position].captions[index] for position, index in places]
    result.distinct = len({normalise(text) for text in texts})
    groups: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, group in zip(places, group_near(texts, threshold=options.near), strict=True):
        groups[group].append(place)
    largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    result.groups = [(len(members), texts[group]) for group, members in largest[:10] if len(members) > 1]
    if options.cap is None:
        return
    for members in groups.values():
        by_split: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place in members:
            by_split[records[place[0]].split].append(place)
        for split, placed in by_split.items():
            placed.sort(key=lambda place: (_draw(records[place[0]].image_id), place))
            for position, index in placed[options.cap :]:
                message = f"one of {len(placed)} nearly identical captions of the split '{split}'"
                result.findings.append(Finding("over the cap", position, index, message))


def _draw(image_id: str) -> bytes:
    return hashlib.blake2b(image_id.encode(), digest_size=8).digest()


def _check_scenes(records: Sequence[CaptionRecord], options: CheckOptions, result: CheckResult) -> None:
    """Find images, and source scenes with images, in several splits; those outside the test split are to go."""
    scenes: dict[tuple[str, str], list[int]] = defaultdict(list)
    images: dict[tuple[str, str], list[int]] = defaultdict(list)
    for position, record in enumerate(records):
        images[record.source, record.image].append(position)
        scene = scene_of(record, options.scene_pattern)
        if scene is not None:
            scenes[record.source, scene].append(position)
    if options.scene_pattern is not None and not scenes:
        raise UserError(f"the pattern '{options.scene_pattern}' fits no image_id, for example '{records[0].image_id}'")
    result.scenes = len(scenes)
    found: dict[int, str] = {}
    for what, groups in (("image", images), ("scene", scenes)):
        for (_, name), positions in groups.items():
            splits = {records[position].split for position in positions}
            if len(splits) < 2:
                continue
            stays = next((split for split in _KEPT_SPLITS if split in splits), sorted(splits)[0])
            for position in positions:
                if records[position].split != stays:
                    message = f"{what} '{name}' is in the splits {', '.join(sorted(splits))}"
                    found.setdefault(position, message)
    result.findings += [Finding("split leakage", position, None, found[position]) for position in sorted(found)]


def scene_of(record: CaptionRecord, pattern: str | None) -> str | None:
    """Return the source scene of an image, None where it is not known.

    A scene that is but the name of the image does not count: several sets number the images of each split anew, and
    equal numbers would look like shared scenes.

    Raises:
        UserError: the pattern is no regular expression with a group `scene`.
    """
    if pattern is None:
        scene = record.provenance.get("scene")
        return scene if isinstance(scene, str) and scene != PurePosixPath(record.image).stem else None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"'{pattern}' is no regular expression: {error}") from error
    if "scene" not in compiled.groupindex:
        raise UserError(f"the pattern '{pattern}' has no group (?P<scene>...)")
    match = compiled.search(record.image_id)
    return match.group("scene") if match else None


def drop_found(records: Sequence[CaptionRecord], findings: Sequence[Finding]) -> Iterator[CaptionRecord]:
    """Yield the records without what the findings name; one without captions left goes."""
    whole: set[int] = set()
    single: dict[int, set[int]] = defaultdict(set)
    for finding in findings:
        if finding.kind in REPORTED_ONLY:
            continue
        if finding.caption is None:
            whole.add(finding.record)
        else:
            single[finding.record].add(finding.caption)
    for position, record in enumerate(records):
        kept = [index for index in range(len(record.captions)) if index not in single[position]]
        if position not in whole and kept:
            yield record if len(kept) == len(record.captions) else record.with_captions(kept)
