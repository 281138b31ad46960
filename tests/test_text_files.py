"""Lists and tables as editors and spreadsheets save them: with a mark in front, or in another encoding."""

import pytest

from mmovseg.data.datasets.folders import load_pair_csv, load_pair_jsonl
from mmovseg.data.datasets.ospretrain import read_lists
from mmovseg.data.prepare import read_split_list
from mmovseg.data.vocabulary import get_vocabulary, vocabulary_from_file
from mmovseg.errors import UserError
from mmovseg.projects.codemae.data.change import load_bright
from mmovseg.projects.codemae.data.classification import load_class_list, load_listed_pairs
from mmovseg.projects.crossearth.data.labellers import read_class_map
from mmovseg.projects.crossearth.data.unification import read_unification
from mmovseg.projects.sartext.captioning import lexicon as caption_lexicon
from mmovseg.projects.sartext.captioning.rewriting import lexicon as rewriting_lexicon
from mmovseg.projects.sartext.evaluation.answers import load_answer_rules


def load_pairs(path):
    return load_listed_pairs(folder=path.parent.name, split="list", labels="vector", root=str(path.parent.parent))


def load_classes(path):
    return load_class_list(folder=path.parent.name, list_file=path.name, classes=["Köln"], root=str(path.parent.parent))


READERS = {
    "csv": ("list.csv", "file_name,image_id\nKöln.png,1\n", load_pair_csv),
    "csv of a spreadsheet": ("list.csv", "file_name;image_id\r\nKöln.png;1\r\n", load_pair_csv),
    "jsonl": ("list.jsonl", '{"file_name": "Köln.png"}\n', load_pair_jsonl),
    "vocabulary": ("list.json", '{"classes": [{"name": "Köln"}]}', vocabulary_from_file),
    "split": ("list.txt", "Köln.png\n", read_split_list),
    "ospretrain": ("train.txt", "Köln.png\n", lambda path: read_lists(path.parent)),
    "bright": ("list.txt", "Köln\n", lambda path: load_bright(str(path), root=path.parent, folder="")),
    "class list": ("list.txt", "Köln/1.png\n", load_classes),
    "listed pairs": ("list.txt", "Köln\n", load_pairs),
    "class map": ("list.json", '{"water": ["Köln"]}', lambda path: read_class_map(path, get_vocabulary("miniearth"))),
    "unification": ("list.json", '{"crossearth_cover6": {"oem": {"Köln": null}}}', read_unification),
    "lexicon": ("list.json", '{"nouns": {"Köln": {"cover": ["town"]}}}', caption_lexicon.load_lexicon),
    "spelling": ("list.json", '{"köln": "town"}', lambda path: rewriting_lexicon.load_lexicon(spelling=path)),
    "synonyms": ("list.json", '{"Köln": "town"}', lambda path: load_answer_rules(str(path))),
}
FILES = (
    "Köln.png",
    "Köln/1.png",
    "RGB/Köln.png",
    "SAR/Köln.png",
    "Label/Köln.npy",
    "pre-event/Köln_pre_disaster.tif",
    "post-event/Köln_post_disaster.tif",
    "target/Köln_building_damage.tif",
)


@pytest.fixture(params=READERS, ids=str)
def reader(request, tmp_path):
    """Path of a file that is to be written, its text, and what reads it."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    name, text, read = READERS[request.param]
    return tmp_path / name, text, read


def test_the_mark_of_windows_changes_nothing(reader):
    path, text, read = reader
    path.write_bytes(text.encode("utf-8"))
    plain = read(path)
    load_answer_rules.cache_clear()  # it reads a file once
    path.write_bytes(text.encode("utf-8-sig"))
    assert read(path) == plain


def test_another_encoding_is_told_in_one_sentence(reader):
    path, text, read = reader
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"'{path}' line [12] is not UTF-8 text: it holds the byte 0xf6; save it as"):
        read(path)
