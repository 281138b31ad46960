"""How the names a model is asked with meet the classes that the labels know."""

from __future__ import annotations

from dataclasses import dataclass

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError

RULES: dict[str, str] = {
    "same": "the model was asked with the label classes themselves",
    "name": (
        "asked names are matched to label classes by name or synonym, two names of one class are merged; a prediction "
        "of an asked name that no label class has counts as wrong; pixels of label classes that were not asked for "
        "are left out"
    ),
    "position": "the names asked with are another flavour of the label classes and are matched by position",
}


@dataclass(frozen=True)
class LabelMapping:
    """`columns[k]` is the matrix column of asked name k: a label class, or one past them for a name without class."""

    rule: str
    columns: tuple[int, ...]
    extra_names: tuple[str, ...]
    asked: tuple[int, ...]
    not_asked: tuple[int, ...]


def map_prompts(vocabulary: Vocabulary, prompts: Vocabulary | None) -> LabelMapping:
    """Decide which label class each asked name stands for.

    All names found by name or synonym: by name. Else, as many names as label classes and not free text: by position.
    Else by name, with what is left over counted as wrong (names) or left out (label classes).

    Args:
        vocabulary: the label space; label id = position.
        prompts: what the model is asked with; None means the label space itself. `custom` marks free text.

    Raises:
        UserError: no asked name is a label class, or names that would be matched by position are known at others.
    """
    if prompts is None or prompts.names == vocabulary.names:
        everything = tuple(range(len(vocabulary)))
        return LabelMapping("same", everything, (), everything, ())
    found = [_find(vocabulary, prompts, k) for k in range(len(prompts))]
    one_to_one = None not in found and len(set(found)) == len(vocabulary) == len(prompts)
    if len(prompts) == len(vocabulary) and prompts.name != "custom" and not one_to_one:
        return _by_position(vocabulary, prompts)
    if all(index is None for index in found):
        raise UserError(
            f"none of the names asked for ({', '.join(prompts.names[:8])}) is a class of the labels, "
            f"which are: {', '.join(vocabulary.names)}"
        )
    extra = [k for k, index in enumerate(found) if index is None]
    columns = tuple(len(vocabulary) + extra.index(k) if index is None else index for k, index in enumerate(found))
    asked = tuple(sorted({index for index in found if index is not None}))
    not_asked = tuple(i for i in range(len(vocabulary)) if i not in asked)
    return LabelMapping("name", columns, tuple(prompts.names[k] for k in extra), asked, not_asked)


def _find(vocabulary: Vocabulary, prompts: Vocabulary, k: int) -> int | None:
    entry = prompts.classes[k]
    candidates = (vocabulary.find(word) for word in (entry.name, *entry.synonyms))
    return next((index for index in candidates if index is not None), None)


def _by_position(vocabulary: Vocabulary, prompts: Vocabulary) -> LabelMapping:
    folded = [name.casefold() for name in vocabulary.names]
    for k, name in enumerate(prompts.names):
        if name.casefold() in folded and folded.index(name.casefold()) != k:
            raise UserError(
                f"vocabulary '{prompts.source or prompts.name}' has '{name}' as class {k}, but the labels have it "
                f"as class {folded.index(name.casefold())}; keep the order of the labels, or ask by name with --classes"
            )
    everything = tuple(range(len(vocabulary)))
    return LabelMapping("position", everything, (), everything, ())
