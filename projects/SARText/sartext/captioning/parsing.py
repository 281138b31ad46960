"""Read captions back into facts, and compare them with the annotation.

The reader knows nothing of templates: it finds the phrases of the lexicon, longest first, and puts them together by
their order. So it also reads sentences of other origin as far as the lexicon has their words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mmovseg.projects.sartext.captioning.facts import LARGEST_EXACT, MANY, SEVERAL, Count
from mmovseg.projects.sartext.captioning.lexicon import Lexicon

FaultKind = Literal[
    "noun", "count", "location", "size", "arrangement", "scene", "share", "relation", "course", "silent", "missing"
]
"""The last two are of whole captions and images, see `verify`."""
PERCENT_STEP = 5
"""Captions state area shares rounded to this many percent."""


@dataclass
class Mention:
    """One class as a caption speaks of it.

    Attributes:
        category: name of the class.
        count: 0 = said to be absent, None = no number given.
        unit: what is counted, single objects or areas covered by the class; None without a count.
        size: of its objects.
        arrangement: of its objects.
        level: dominant, large or some, of the area.
        percent: of the area.
        places: (cell or half, number there or None), in the order of the text.
        courses: of a line, such as "left to right".
    """

    category: str
    count: Count = None
    unit: Literal["object", "area"] | None = None
    size: str | None = None
    arrangement: str | None = None
    level: str | None = None
    percent: int | None = None
    places: list[tuple[str, Count]] = field(default_factory=list)
    courses: list[str] = field(default_factory=list)


@dataclass
class ParsedCaption:
    """What a caption says. `relations` holds (class, relation, class), such as ("road", "along", "water")."""

    mentions: list[Mention] = field(default_factory=list)
    relations: list[tuple[str, str, str]] = field(default_factory=list)
    scene: str | None = None

    def counts(self) -> dict[str, Count]:
        """Return what is said of the number of each class, the first statement where there are several."""
        found: dict[str, Count] = {}
        for mention in self.mentions:
            if mention.count is not None:
                found.setdefault(mention.category, mention.count)
        return found


@dataclass(frozen=True)
class Fault:
    """A statement that the annotation does not bear out; `category` is empty for one about the whole image."""

    kind: FaultKind
    category: str
    message: str

    def __str__(self) -> str:
        return self.message


class _Reader:
    """Puts phrases together: what stands before a noun describes it, what stands behind it places it."""

    def __init__(self) -> None:
        self.parsed = ParsedCaption()
        self.begin_clause()

    def begin_clause(self) -> None:
        """Forget what waits for a noun; a stop ends a statement."""
        self.current: Mention | None = None
        self.is_absent = False
        self.early: list[tuple[str, Count]] = []
        self.subject: Mention | None = None
        self.relation: str | None = None
        self.clear_waiting()

    def clear_waiting(self) -> None:
        self.number: Count = None
        self.waiting: dict[str, Any] = {}

    def take(self, kind: str, value: Any) -> None:
        """Take the next phrase."""
        if kind == "end":
            self.begin_clause()
        elif kind == "number":
            self.number, self.is_absent = value, value == 0
        elif kind in ("size", "level", "percent", "unit"):
            self.waiting[kind] = value
        elif kind == "noun":
            self.take_noun(value)
        elif kind == "place":
            places = self.early if self.current is None else self.current.places
            places.append((value, self.number))
            self.clear_waiting()
        elif kind == "relation":
            self.subject, self.relation = self.current, value
        elif kind == "scene":
            self.parsed.scene = value
        elif self.current is not None and kind == "arrangement":
            self.current.arrangement = value
        elif self.current is not None and kind == "course":
            self.current.courses.append(value)

    def take_noun(self, category: str) -> None:
        """Begin a mention with everything that waits for one."""
        count = 0 if self.is_absent and self.number is None else self.number
        unit = None if count is None else self.waiting.pop("unit", "object")
        self.waiting.pop("unit", None)
        self.current = Mention(category, count, unit, places=self.early, **self.waiting)
        self.early = []
        self.parsed.mentions.append(self.current)
        if self.relation is not None and self.subject is not None:
            self.parsed.relations.append((self.subject.category, self.relation, category))
        self.relation = None
        self.clear_waiting()


def parse_caption(text: str, lexicon: Lexicon) -> ParsedCaption:
    """Return what a caption says of the classes that the lexicon is limited to.

    Args:
        text: any sentence.
        lexicon: from `Lexicon.for_classes`; words of other classes are passed over.
    """
    reader = _Reader()
    for kind, value in lexicon.phrases.scan(text):
        reader.take(kind, value)
    return reader.parsed


def find_faults(parsed: ParsedCaption, facts: Mapping[str, Any]) -> list[Fault]:
    """Return what a caption says against the facts of its image.

    Args:
        parsed: the caption, read with a lexicon of all classes that the data set annotates.
        facts: `provenance["facts"]` of the record: `objects` and `cover` by class, `relations`, `scene`. A fact that
            is absent there (a size, say) may not be stated.

    Returns:
        Nothing for a caption that is right. A caption need not say everything.
    """
    faults = [fault for mention in parsed.mentions for fault in _mention_faults(mention, facts)]
    known = {tuple(relation) for relation in facts.get("relations", ())}
    faults += [
        Fault("relation", first, f"says '{first}' is {relation} '{second}'")
        for first, relation, second in parsed.relations
        if (first, relation, second) not in known
    ]
    if parsed.scene is not None and parsed.scene != facts.get("scene"):
        faults.append(Fault("scene", "", f"says the scene is {parsed.scene}, not {facts.get('scene')}"))
    return faults


def _mention_faults(mention: Mention, facts: Mapping[str, Any]) -> Iterator[Fault]:
    name = mention.category
    known = {**facts.get("cover", {}).get(name, {}), **facts.get("objects", {}).get(name, {})}
    if mention.count == 0:
        if known:
            yield Fault("count", name, f"says there is no '{name}'")
        return
    if not known:
        yield Fault("noun", name, f"names '{name}', which is not annotated")
        return
    yield from _count_faults(mention, known)
    yield from _place_faults(mention, known)
    for kind in ("size", "arrangement"):
        said = getattr(mention, kind)
        if said is not None and said != known.get(kind):
            yield Fault(kind, name, f"says '{name}' is {said}, not {known.get(kind)}")  # type: ignore[arg-type]
    if mention.level is not None and mention.level != known.get("level"):
        yield Fault("share", name, f"says '{name}' is {mention.level}, not {known.get('level')}")
    share = 100 * known.get("share", 0.0)
    if mention.percent is not None and abs(mention.percent - share) > PERCENT_STEP / 2 + 1e-6:
        yield Fault("share", name, f"says '{name}' has {mention.percent} percent, not {share:.1f}")
    for course in mention.courses:
        if course not in known.get("courses", ()):
            yield Fault("course", name, f"says '{name}' runs {course}")


def _count_faults(mention: Mention, known: Mapping[str, Any]) -> Iterator[Fault]:
    said = mention.count
    if said is None:
        return
    count = known.get("areas" if mention.unit == "area" else "count")
    is_complete = known.get("is_complete", True)
    if said == SEVERAL:
        right = not is_complete
    elif said == MANY:
        right = count is not None and count > LARGEST_EXACT
    else:
        right = count == said and is_complete
    if not right:
        yield Fault("count", mention.category, f"says {said} '{mention.category}' ({mention.unit}), not {count}")


def _place_faults(mention: Mention, known: Mapping[str, Any]) -> Iterator[Fault]:
    """A place with a number is one of several; a place without one holds for all that the mention speaks of."""
    name = mention.category
    cells = Counter(known.get("cells", {}))
    for place, number in mention.places:
        if number is None:
            right = place in (known.get("cell"), known.get("half"))
        else:
            right = cells[place] == number or (number == MANY and cells[place] > LARGEST_EXACT)
        if not right:
            there = "" if number is None else f"{number} "
            yield Fault("location", name, f"says {there}'{name}' at {place}, not {known.get('cell') or dict(cells)}")
