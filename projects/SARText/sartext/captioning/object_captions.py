"""Route 1: captions from boxes and masks, stating only what the annotation says.

Every image gets up to five styles of sentence, in this order: all that is known of each class; the counts of all
classes; counts with places; counts with sizes and arrangement; one class broken down by cells. A style without facts
is passed over; more captions than styles repeat them in other words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.facts import Count, stated_count
from mmovseg.projects.sartext.captioning.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.objects import ObjectImage, ObjectRules, SizeLimits, object_facts
from mmovseg.projects.sartext.captioning.schema import CaptionRecord
from mmovseg.projects.sartext.captioning.wording import (
    Chooser,
    check_readable,
    counted_noun,
    join_words,
    number_alone,
    number_word,
)

EmptyImages = Literal["describe", "skip"]
EMPTY_IMAGES: tuple[EmptyImages, ...] = get_args(EmptyImages)
MOST_CLASSES = 4
"""So many classes share one detailed sentence; with more it would pass the context of CLIP. Plain counts name all."""

MOST_CELLS = 4
MOST_ABSENT = 6
_ATTEMPTS = 12
_PARTS = {
    "full": ("size", "arrangement", "cell"),
    "counted": (),
    "located": ("cell",),
    "arranged": ("size", "arrangement"),
    "spread": ("cells",),
}
_SCENIC = ("full", "spread", "absence")


@dataclass(frozen=True)
class WritingOptions:
    """How captions are written.

    Attributes:
        num_captions: an image; fewer where the words for more do not suffice.
        seed: of the choice of words.
        empty: images without an object get sentences that say so, or are left out. That nothing is there is a fact
            too, and models that never read "no ship" find ships everywhere; but such sentences repeat.
    """

    num_captions: int = 5
    seed: int = 0
    empty: EmptyImages = "describe"

    def __post_init__(self) -> None:
        if self.num_captions < 1:
            raise UserError(f"an image needs at least 1 caption, got {self.num_captions}")
        if self.empty not in EMPTY_IMAGES:
            raise UserError(f"empty is '{self.empty}'; it can be: {', '.join(EMPTY_IMAGES)}")


@dataclass(frozen=True)
class Sentence:
    """A caption with its rule ids and the (class, count) pairs that it states, in order."""

    text: str
    rules: list[str]
    stated: list[tuple[str, Count]]


def caption_objects(
    images: Iterable[ObjectImage],
    lexicon: Lexicon,
    *,
    limits: SizeLimits,
    rules: ObjectRules | None = None,
    options: WritingOptions | None = None,
) -> Iterator[CaptionRecord]:
    """Yield the record of each image, in their order; images without a caption are passed over.

    Args:
        images: with their objects.
        lexicon: limited to the annotated classes, which an image without objects is said to lack.
        limits: what is small and large, from `objects.fit_size_limits`.
        rules: when a statement is made.
        options: how many captions, seed.

    Raises:
        UserError: an object is of a class that the lexicon was not limited to, or a caption cannot be read back.
    """
    rules, options = rules or ObjectRules(), options or WritingOptions()
    for image in images:
        facts = object_facts(image, limits, rules)
        unknown = sorted(set(facts["objects"]) - set(lexicon.nouns))
        if unknown:
            known = ", ".join(lexicon.nouns)
            raise UserError(f"image '{image.image}' has an object of the class '{unknown[0]}'; known: {known}")
        if not facts["objects"] and options.empty == "skip":
            continue
        sentences = write_sentences(facts, lexicon, image.source, image.image_id, options)
        provenance = provenance_of(sentences, facts, lexicon, options.seed)
        if image.source_scene is not None:
            provenance["scene"] = image.source_scene
        yield CaptionRecord(
            image=image.image,
            image_id=image.image_id,
            source=image.source,
            route="annotation",
            split=image.split,
            captions=tuple(sentence.text for sentence in sentences),
            provenance=provenance,
            optical_image=image.optical_image,
        )


def provenance_of(sentences: Sequence[Sentence], facts: dict[str, Any], lexicon: Lexicon, seed: int) -> dict[str, Any]:
    """Return what a record says of its making."""
    return {
        "seed": seed,
        "version": lexicon.version,
        "lexicon": lexicon.sha256[:12],
        "classes": list(lexicon.nouns),
        "rules": [sentence.rules for sentence in sentences],
        "facts": facts,
    }


def write_sentences(
    facts: dict[str, Any], lexicon: Lexicon, source: str, image_id: str, options: WritingOptions
) -> list[Sentence]:
    """Return the captions of one image, all different."""
    styles = usable_styles(facts)
    found: dict[str, Sentence] = {}
    for turn in range(options.num_captions * _ATTEMPTS):
        # style and its turn: new words for a sentence that came before, the same for all that went well
        style = styles[len(found) % len(styles)]
        choose = Chooser(options.seed, source, image_id, turn=turn)
        sentence = _absence(facts, lexicon, choose) if style == "absence" else _sentence(style, facts, lexicon, choose)
        if sentence.text not in found:
            check_readable(sentence.text, sentence.stated, facts, lexicon)
            found[sentence.text] = sentence
        if len(found) == options.num_captions:
            break
    return list(found.values())


def usable_styles(facts: dict[str, Any]) -> list[str]:
    """Return the styles that have something to say."""
    groups = [facts["objects"][name] for name in _by_count(facts)]
    if not groups:
        return ["absence"]
    styles = []
    for style, parts in _PARTS.items():
        if style == "spread":
            is_usable = any(map(_can_spread, list(groups)[:MOST_CLASSES]))
        else:
            is_usable = not parts or any(part in group for group in groups for part in parts)
        if is_usable:
            styles.append(style)
    return styles


def _by_count(facts: dict[str, Any]) -> list[str]:
    return sorted(facts["objects"], key=lambda name: (-facts["objects"][name]["count"], name))


def _can_spread(group: dict[str, Any]) -> bool:
    return 1 < len(group.get("cells", ())) <= MOST_CELLS


def _sentence(style: str, facts: dict[str, Any], lexicon: Lexicon, choose: Chooser) -> Sentence:
    names = _by_count(facts)
    names = names if style == "counted" else names[:MOST_CLASSES]
    rules = [style]
    stated: list[tuple[str, Count]] = []
    items = []
    broken_down = [name for name in names if style == "spread" and _can_spread(facts["objects"][name])][:1]
    for name in names:
        group = facts["objects"][name]
        count = stated_count(group["count"], is_complete=group.get("is_complete", True))
        text = _item(style, name, count, group, lexicon, choose, rules)
        items.append(_with_cells(text, name, group, lexicon, choose, rules) if name in broken_down else text)
        stated.append((name, count))
    template = choose.index(len(lexicon.templates("objects")), "objects")
    rules.append(f"objects/{template}")
    text = lexicon.templates("objects")[template].format(
        objects="; ".join(items) if style == "spread" else join_words(items),
        there="is" if stated[0][1] == 1 else "are",
        are="is" if len(stated) == 1 and stated[0][1] == 1 else "are",
    )
    return Sentence(_with_scene(text, style, facts, lexicon, choose, rules), list(dict.fromkeys(rules)), stated)


def _item(
    style: str, name: str, count: Count, group: dict[str, Any], lexicon: Lexicon, choose: Chooser, rules: list[str]
) -> str:
    """Return what is said of one class, such as "two small ships in a row at the top"; adds to the rule ids."""
    noun = counted_noun(lexicon.nouns[name], count, lexicon, choose, name)
    words = [number_word(count, lexicon, choose, name)]
    rules.append("count")
    if "size" in _PARTS[style] and "size" in group:
        words.append(choose.pick(lexicon.words["sizes"][group["size"]], "size", name))
        rules.append(f"size:{group['size']}")
    words.append(noun)
    if "arrangement" in _PARTS[style] and "arrangement" in group:
        words.append(choose.pick(lexicon.words["arrangements"][group["arrangement"]], "arrangement", name))
        rules.append(f"arrangement:{group['arrangement']}")
    if "cell" in _PARTS[style] and "cell" in group:
        words.append(choose.pick(lexicon.words["cells"][group["cell"]], "cell", name))
        rules.append("location:group")
    return " ".join(words)


def _with_cells(
    text: str, name: str, group: dict[str, Any], lexicon: Lexicon, choose: Chooser, rules: list[str]
) -> str:
    """Return "four ships, two at the top and two on the left"; adds to the rule ids."""
    rules.append("location:cells")
    parts = [
        f"{number_alone(stated_count(number), lexicon)} {choose.pick(lexicon.words['cells'][cell], 'cell', name, cell)}"
        for cell, number in group["cells"].items()
    ]
    return choose.pick(lexicon.templates("spread"), "spread", name).format(group=text, parts=join_words(parts))


def _absence(facts: dict[str, Any], lexicon: Lexicon, choose: Chooser) -> Sentence:
    names = list(lexicon.nouns)[:MOST_ABSENT]
    absent = join_words([counted_noun(lexicon.nouns[name], 0, lexicon, choose, name) for name in names], last="or")
    template = choose.index(len(lexicon.templates("absence")), "absence")
    rules = ["absence", f"absence/{template}"]
    text = lexicon.templates("absence")[template].format(absent=absent)
    stated: list[tuple[str, Count]] = [(name, 0) for name in names]
    return Sentence(_with_scene(text, "absence", facts, lexicon, choose, rules), rules, stated)


def _with_scene(
    text: str, style: str, facts: dict[str, Any], lexicon: Lexicon, choose: Chooser, rules: list[str]
) -> str:
    scene = facts.get("scene")
    if scene is None or style not in _SCENIC:
        return text
    rules.append(f"scene:{scene}")
    words = choose.pick(lexicon.words["scenes"][scene], "scene words")
    return choose.pick(lexicon.templates("scene"), "scene").format(sentence=text, scene=words)
