import pytest

from mmovseg.data.vocabulary import ClassEntry, Vocabulary, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.evaluation.label_mapping import map_prompts
from mmovseg.testing.checks import tiny_vocabulary

LABELS = tiny_vocabulary(seen=3, unseen=2)  # meadow, forest, desert, city, lake


def flavour(*names, name="released"):
    return Vocabulary(name=name, classes=tuple(ClassEntry(name=word) for word in names), source="file.json")


def test_no_prompts_and_equal_names_are_the_labels_themselves():
    for prompts in (None, LABELS, flavour(*LABELS.names, name="custom")):
        mapping = map_prompts(LABELS, prompts)
        assert (mapping.rule, mapping.columns) == ("same", (0, 1, 2, 3, 4))
        assert (mapping.not_asked, mapping.extra_names) == ((), ())


def test_another_flavour_of_the_same_length_maps_by_position():
    mapping = map_prompts(LABELS, flavour("grasland", "tree", "bare", "developedspace", "watr"))
    assert (mapping.rule, mapping.columns, mapping.asked) == ("position", (0, 1, 2, 3, 4), (0, 1, 2, 3, 4))


def test_the_same_classes_in_another_order_map_by_name():
    mapping = map_prompts(LABELS, flavour("lake", "city", "desert area", "forest", "meadow", name="mine"))
    assert (mapping.rule, mapping.columns) == ("name", (4, 3, 2, 1, 0))


def test_a_flavour_that_contradicts_the_order_of_the_labels_is_refused():
    with pytest.raises(UserError, match="'file.json' has 'lake' as class 0, but the labels have it as class 4"):
        map_prompts(LABELS, flavour("lake", "tree", "bare", "developedspace", "grass"))


def test_free_text_maps_by_name_and_synonym_even_when_the_length_fits():
    prompts = vocabulary_from_names("Lake, airport, meadow area, runway, forest", like=LABELS)
    mapping = map_prompts(LABELS, prompts)
    assert mapping.rule == "name"
    assert mapping.columns == (4, 5, 0, 6, 1)
    assert mapping.extra_names == ("airport", "runway")
    assert (mapping.asked, mapping.not_asked) == ((0, 1, 4), (2, 3))


def test_two_names_of_one_class_are_merged():
    mapping = map_prompts(LABELS, vocabulary_from_names("lake, lake area, city"))
    assert mapping.columns == (4, 4, 3)
    assert mapping.extra_names == ()


def test_free_text_without_any_label_class_is_refused():
    with pytest.raises(UserError, match=r"\(airport, runway\) is a class of the labels, which are: meadow"):
        map_prompts(LABELS, vocabulary_from_names("airport, runway"))
