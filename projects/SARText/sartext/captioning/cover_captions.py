"""Route 2: captions from label maps, stating only what the labels say.

Every image gets up to five styles of sentence, in this order: how much of each class, how neighbours lie to each other,
percentages, connected areas with their places, and lines that cross the image. A style without facts is passed over;
more captions than styles repeat them in other words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmovseg.data.vocabulary import Vocabulary
from mmovseg.projects.sartext.captioning.cover import CoverRules, Labels, cover_facts
from mmovseg.projects.sartext.captioning.facts import Count, stated_count
from mmovseg.projects.sartext.captioning.lexicon import Lexicon
from mmovseg.projects.sartext.captioning.object_captions import Sentence, WritingOptions, provenance_of
from mmovseg.projects.sartext.captioning.parsing import PERCENT_STEP
from mmovseg.projects.sartext.captioning.schema import CaptionRecord
from mmovseg.projects.sartext.captioning.wording import (
    Chooser,
    area_word,
    article,
    check_readable,
    join_words,
    number_alone,
    number_word,
)

MOST_RELATIONS = 2
MOST_CELLS = 4
MOST_CLASSES = 5
_ATTEMPTS = 12


@dataclass(frozen=True)
class MappedImage:
    """One image with its label map, except the pixels.

    image: path relative to the root of the data. optical_image: of the optical twin, if there is one.
    """

    image: str
    image_id: str
    source: str
    split: str
    optical_image: str | None = None


def caption_labels(
    image: MappedImage,
    labels: Labels,
    vocabulary: Vocabulary,
    lexicon: Lexicon,
    *,
    rules: CoverRules | None = None,
    options: WritingOptions | None = None,
) -> CaptionRecord | None:
    """Return the record of one image; None if too little of it is labelled or no class can be named.

    Args:
        image: whose map it is.
        labels: (H, W) class ids of the vocabulary, 255 = not labelled.
        vocabulary: of the labels.
        lexicon: limited to these classes.
        rules: when a statement is made.
        options: how many captions, seed.

    Raises:
        UserError: a label is no class of the vocabulary, or a caption cannot be read back.
    """
    options = options or WritingOptions()
    facts = cover_facts(labels, vocabulary, lexicon, rules or CoverRules())
    if facts is None:
        return None
    sentences = _write(facts, lexicon, image, options)
    return CaptionRecord(
        image=image.image,
        image_id=image.image_id,
        source=image.source,
        route="segmentation",
        split=image.split,
        captions=tuple(sentence.text for sentence in sentences),
        provenance=provenance_of(sentences, facts, lexicon, options.seed),
        optical_image=image.optical_image,
    )


def _write(facts: dict[str, Any], lexicon: Lexicon, image: MappedImage, options: WritingOptions) -> list[Sentence]:
    styles = [style for style in _STYLES if _STYLES[style](facts, lexicon, Chooser(0, "", "")).items]
    found: dict[str, Sentence] = {}
    for turn in range(options.num_captions * _ATTEMPTS):
        style = styles[len(found) % len(styles)]
        choose = Chooser(options.seed, image.source, image.image_id, turn=turn)
        parts = _STYLES[style](facts, lexicon, choose)
        template = choose.index(len(lexicon.templates("cover")), "cover")
        text = lexicon.templates("cover")[template].format(items=join_words(parts.items))
        if text not in found:
            check_readable(text, parts.stated, facts, lexicon)
            found[text] = Sentence(text, list(dict.fromkeys([style, f"cover/{template}", *parts.rules])), parts.stated)
        if len(found) == options.num_captions:
            break
    return list(found.values())


@dataclass(frozen=True)
class _Parts:
    items: list[str]
    rules: list[str]
    stated: list[tuple[str, Count]]


def _levels(facts: dict[str, Any], lexicon: Lexicon, choose: Chooser) -> _Parts:
    items, rules = [], []
    names = list(facts["cover"])[:MOST_CLASSES]
    for name in names:
        level = facts["cover"][name]["level"]
        noun = choose.pick(lexicon.nouns[name].cover, "noun", name)
        section = "plural_levels" if noun in lexicon.nouns[name].plural else "levels"  # no "much roads"
        items.append(choose.pick(lexicon.words[section][level], "level", name).format(noun=noun))
        rules.append(f"level:{level}")
    return _Parts(items, rules, [(name, None) for name in names])


def _percents(facts: dict[str, Any], lexicon: Lexicon, choose: Chooser) -> _Parts:
    items = []
    names = list(facts["cover"])[:MOST_CLASSES]
    for name in names:
        noun = choose.pick(lexicon.nouns[name].cover, "noun", name)
        percent = PERCENT_STEP * round(100 * facts["cover"][name]["share"] / PERCENT_STEP)
        items.append(choose.pick(lexicon.words["percents"], "percent", name).format(percent=percent, noun=noun))
    return _Parts(items, ["share:percent"], [(name, None) for name in names])


def _areas(facts: dict[str, Any], lexicon: Lexicon, choose: Chooser) -> _Parts:
    items: list[str] = []
    rules: list[str] = []
    stated: list[tuple[str, Count]] = []
    for name, known in list(facts["cover"].items()):
        is_road = lexicon.is_linear(name) and bool(lexicon.nouns[name].plural)  # nobody counts "patches of roads"
        if "areas" not in known or is_road or len(items) == MOST_CLASSES - 1:
            continue
        count = stated_count(known["areas"])
        noun = choose.pick(lexicon.nouns[name].cover, "noun", name)
        text = f"{number_word(count, lexicon, choose, name)} {area_word(count, lexicon, choose, name)} {noun}"
        places = [(known[key], key) for key in ("cell", "half") if key in known]
        if places:
            section = {"cell": "cells", "half": "halves"}[places[0][1]]
            text += f" {choose.pick(lexicon.words[section][places[0][0]], 'place', name)}"
            rules.append(f"location:{places[0][1]}")
        elif (
            1 < len(known.get("cells", ())) <= MOST_CELLS and "location:cells" not in rules
        ):  # one: CLIP reads 77 tokens
            parts = [
                f"{number_alone(stated_count(number), lexicon)} "
                f"{choose.pick(lexicon.words['cells'][cell], 'cell', name, cell)}"
                for cell, number in known["cells"].items()
            ]
            text += f" ({join_words(parts)})"
            rules.append("location:cells")
        items.append(text)
        stated.append((name, count))
    return _Parts(items, ["count:areas", *rules], stated)


def _related(facts: dict[str, Any], lexicon: Lexicon, choose: Chooser) -> _Parts:
    relations = facts["relations"]
    start = choose.index(max(len(relations), 1), "first relation")
    items, rules, stated = [], [], []
    for first, relation, second in (relations[start:] + relations[:start])[:MOST_RELATIONS]:
        slot = (first, second)
        one = _subject(facts, lexicon, choose, first, is_line=relation in ("along", "through"))
        other = choose.pick(lexicon.nouns[second].cover, "noun", *slot)
        items.append(choose.pick(lexicon.words["relations"][relation], "relation", *slot).format(a=one, b=other))
        rules.append(f"relation:{relation}")
        stated += [(first, None), (second, None)]
    return _Parts(items, rules, stated)


def _courses(facts: dict[str, Any], lexicon: Lexicon, choose: Chooser) -> _Parts:
    items, rules = [], []
    names = [name for name, known in facts["cover"].items() if "courses" in known]
    for name in names:
        course = choose.pick(facts["cover"][name]["courses"], "course", name)
        subject = _subject(facts, lexicon, choose, name, is_line=True)
        items.append(f"{subject} {choose.pick(lexicon.words['courses'][course], 'words', name)}")
        rules.append(f"course:{course}")
    return _Parts(items, rules, [(name, None) for name in names])


def _subject(facts: dict[str, Any], lexicon: Lexicon, choose: Chooser, name: str, *, is_line: bool) -> str:
    """Return "a road" for one line, "a strip of water" for one without a singular, "roads" for several."""
    noun = lexicon.nouns[name]
    cover = choose.pick(noun.cover, "noun", name)
    if not is_line or facts["cover"][name].get("areas") != 1:
        return cover
    return article(choose.pick(noun.singular, "noun", name) if noun.singular else f"{lexicon.words['strip']} {cover}")


_STYLES: dict[str, Callable[[dict[str, Any], Lexicon, Chooser], _Parts]] = {
    "levels": _levels,
    "related": _related,
    "percents": _percents,
    "areas": _areas,
    "courses": _courses,
}
