"""Class names as data: names, synonyms, palette and the seen/unseen split of a data set.

A vocabulary belongs to the data (label id = position); the model holds no class list and is asked with one.
Each data set has two flavours: `clean` (readable names) and, where a release exists, `released`
(the verbatim prompt strings of the released checkpoints, typos included, since these went into CLIP).
"""

from __future__ import annotations

import colorsys
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from mmovseg.data.text import read_text
from mmovseg.errors import UserError

_FOLDER = Path(__file__).parent / "vocabularies"


@dataclass(frozen=True)
class ClassEntry:
    """One class: `name` goes into the prompt, `synonyms` are averaged with it, `color` is RGB 0..255."""

    name: str
    synonyms: tuple[str, ...] = ()
    color: tuple[int, int, int] = (128, 128, 128)
    seen: bool = True


@dataclass(frozen=True)
class Vocabulary:
    """An ordered class list. Raises `UserError` when it is empty or names a class twice or not at all."""

    name: str
    classes: tuple[ClassEntry, ...]
    source: str = ""

    def __post_init__(self) -> None:
        where = f"vocabulary '{self.source or self.name}'"
        if not self.classes:
            raise UserError(f'{where} has no class names; give at least one, for example "water, road"')
        folded = [entry.name.strip().casefold() for entry in self.classes]
        if "" in folded:
            raise UserError(f"{where} has an empty class name at position {folded.index('') + 1} of {len(folded)}")
        twice = sorted({name for name in folded if folded.count(name) > 1})
        if twice:
            raise UserError(f"{where} names the class '{twice[0]}' more than once")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.classes]

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        return [entry.color for entry in self.classes]

    @property
    def seen_ids(self) -> list[int]:
        return [index for index, entry in enumerate(self.classes) if entry.seen]

    @property
    def unseen_ids(self) -> list[int]:
        return [index for index, entry in enumerate(self.classes) if not entry.seen]

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that reaches the model or the metric (names, synonyms, split, order)."""
        facts = [(entry.name, entry.synonyms, entry.seen) for entry in self.classes]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def subset(self, ids: Iterable[int]) -> Vocabulary:
        """Return the classes at `ids`, in that order."""
        return replace(self, classes=tuple(self.classes[index] for index in ids))

    def seen_subset(self) -> Vocabulary:
        """Return the classes that training may use labels of."""
        return self.subset(self.seen_ids)

    def find(self, name: str) -> int | None:
        """Return the index of the class whose name, else whose synonym, is `name` (case is ignored), or None."""
        wanted = name.strip().casefold()
        for words in ([(entry.name,) for entry in self.classes], [entry.synonyms for entry in self.classes]):
            for index, known in enumerate(words):
                if wanted in (word.strip().casefold() for word in known):
                    return index
        return None

    def to_dict(self) -> dict[str, object]:
        return {"name": self.name, "classes": [asdict(entry) for entry in self.classes]}


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Return `count` RGB colours spread over the hue circle, the same for the same count."""
    steps = (
        colorsys.hsv_to_rgb((i * 0.618034) % 1.0, 0.55 + 0.45 * (i % 2), 0.95 - 0.25 * (i % 3) / 2)
        for i in range(count)
    )
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in steps]


def vocabulary_from_names(
    names: str | Sequence[str], *, like: Vocabulary | None = None, source: str = "--classes"
) -> Vocabulary:
    """Make a vocabulary of free text, for example ``"water, road, solar farm"``.

    Args:
        names: comma-separated string or a list of names.
        like: a known vocabulary; a name that it knows (also as a synonym) keeps its colour and seen/unseen mark.
        source: named in error messages.

    Raises:
        UserError: no names, an empty name, or a name given twice.
    """
    if isinstance(names, str):
        words = [word.strip() for word in names.split(",")] if names.strip() else []
    else:
        words = [str(word).strip() for word in names]
    entries = []
    for word, color in zip(words, distinct_colors(len(words)), strict=True):
        known = like.find(word) if like is not None else None
        if known is None:
            entries.append(ClassEntry(name=word, color=color, seen=False))
        else:
            entries.append(replace(like.classes[known], name=word, synonyms=()))  # type: ignore[union-attr]
    return Vocabulary(name="custom", classes=tuple(entries), source=source)


def vocabulary_from_file(path: str | Path) -> Vocabulary:
    """Read a vocabulary from JSON.

    The layout: ``{"name": ..., "classes": [{"name": ..., "synonyms": [...], "color": [r, g, b], "seen": true}]}``.

    Raises:
        UserError: the file is missing, is not such JSON, or its classes are empty or doubled.
    """
    text = read_text(path, "vocabulary file")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"vocabulary file '{path}' is not valid JSON: {error}") from error
    return _parse(content, str(path))


def _parse(content: object, source: str) -> Vocabulary:
    if not isinstance(content, dict) or not isinstance(content.get("classes"), list):
        raise UserError(f"vocabulary file '{source}' needs a JSON object with a list under the key 'classes'")
    known = {"name", "synonyms", "color", "seen"}
    colors = distinct_colors(len(content["classes"]))
    entries = []
    for item, color in zip(content["classes"], colors, strict=True):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise UserError(f"vocabulary file '{source}' has a class without a name: {item!r}")
        unknown = sorted(set(item) - known)
        if unknown:
            raise UserError(f"vocabulary file '{source}' has the unknown key '{unknown[0]}' in class '{item['name']}'")
        synonyms = item.get("synonyms", [])
        if not isinstance(synonyms, list) or not all(isinstance(word, str) for word in synonyms):
            raise UserError(f"vocabulary file '{source}': the synonyms of '{item['name']}' must be a list of names")
        chosen = _color(item.get("color", color), item["name"], source)
        seen = item.get("seen", True)
        if not isinstance(seen, bool):
            raise UserError(f"vocabulary file '{source}': seen of '{item['name']}' must be true or false, not {seen!r}")
        entries.append(ClassEntry(item["name"], tuple(synonyms), chosen, seen))
    return Vocabulary(name=str(content.get("name", Path(source).stem)), classes=tuple(entries), source=source)


def _color(value: object, name: str, source: str) -> tuple[int, int, int]:
    if isinstance(value, list | tuple) and len(value) == 3:
        red, green, blue = value
        if all(isinstance(part, int) and 0 <= part <= 255 for part in value):
            return red, green, blue
    raise UserError(f"vocabulary file '{source}': the color of '{name}' must be three numbers 0..255, not {value!r}")


def list_vocabularies() -> list[tuple[str, str]]:
    """Return (data set, flavour) of every vocabulary that ships with the package."""
    pairs = []
    for path in sorted(_FOLDER.glob("*.json")):
        pairs += [(path.stem, flavour) for flavour in json.loads(path.read_text(encoding="utf-8"))]
    return pairs


def get_vocabulary(dataset: str, flavour: str = "clean") -> Vocabulary:
    """Return a shipped vocabulary, or one from a file when `dataset` or `flavour` is a path to JSON.

    Raises:
        UserError: the data set or the flavour is unknown; the message lists what exists.
    """
    for name in (flavour, dataset):
        if name.endswith(".json"):
            return vocabulary_from_file(name)
    path = _FOLDER / f"{dataset}.json"
    if not path.is_file():
        known = ", ".join(sorted({name for name, _ in list_vocabularies()}))
        raise UserError(f"no vocabulary for data set '{dataset}'; known: {known}")
    flavours = json.loads(path.read_text(encoding="utf-8"))
    if flavour not in flavours:
        raise UserError(f"data set '{dataset}' has no vocabulary '{flavour}'; it has: {', '.join(flavours)}")
    return _parse({"name": flavour, **flavours[flavour]}, f"{dataset}/{flavour}")


def closed_vocabulary(dataset: str, flavour: str = "clean") -> Vocabulary:
    """Return `get_vocabulary` with every class marked as seen, for models that hold a class list and train on all."""
    vocabulary = get_vocabulary(dataset, flavour)
    return replace(vocabulary, classes=tuple(replace(entry, seen=True) for entry in vocabulary.classes))
