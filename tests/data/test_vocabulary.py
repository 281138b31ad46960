"""Class lists: who is meant by a word, and what a file may say."""

import json

import pytest

from mmovseg.data.vocabulary import ClassEntry, Vocabulary, vocabulary_from_file, vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.evaluation.label_mapping import map_prompts


def test_the_name_of_a_class_comes_before_the_synonyms_of_others():
    classes = (ClassEntry("vegetation", ("Forest", "grass")), ClassEntry("water"), ClassEntry("forest", seen=False))
    vocabulary = Vocabulary("land", classes)
    assert [vocabulary.find(word) for word in ("forest", " GRASS ", "water", "sand")] == [2, 0, 1, None]
    asked = vocabulary_from_names("forest, water", like=vocabulary)
    assert asked.unseen_ids == [0] and map_prompts(vocabulary, asked).columns == (2, 1)


@pytest.mark.parametrize("seen", ["false", "no", 0, None])
def test_seen_is_true_or_false(tmp_path, seen):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"classes": [{"name": "water"}, {"name": "road", "seen": seen}]}))
    with pytest.raises(UserError, match="classes.json': seen of 'road' must be true or false, not"):
        vocabulary_from_file(path)
    path.write_text(json.dumps({"classes": [{"name": "water"}, {"name": "road", "seen": False}]}))
    assert vocabulary_from_file(path).unseen_ids == [1]
