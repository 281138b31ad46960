"""The Penn Treebank words of captions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmovseg.errors import UserError
from mmovseg.projects.sartext.evaluation.words import PUNCTUATION, split_words

CASES = {
    "Many buildings, some with red roofs.": "many buildings some with red roofs",
    "There is a L-shaped building; it's big!": "there is a l-shaped building it 's big",
    "They don't touch the buildings' walls": "they do n't touch the buildings walls",
    "I cannot see it (at all)": "i can not see it at all",
    "3,000 trees cover 50% of it": "3,000 trees cover 50 % of it",
    "ten--or more... ships": "ten or more ships",
    "a “grey” roof – and a ‘dark’ one": "a grey roof and a dark one",
    "etc. and the U.S. coast": "etc. and the u.s. coast",
    "roads and/or rails": "roads and/or rails",
    "row [3]": "row -lsb- 3 -rsb-",
    "There isn't.": "there is n't",
    "  . , ": "",
}


@pytest.mark.parametrize("text", CASES)
def test_words_are_those_that_the_reference_tokenizer_gave(text: str) -> None:
    assert split_words(text) == CASES[text].split()


def test_blanks_keep_punctuation() -> None:
    assert split_words("A ship, two.\nmore", "blanks") == ["a", "ship,", "two.", "more"]
    with pytest.raises(UserError, match="splitting is 'words'; it can be: ptb, blanks"):
        split_words("a", "words")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.realdata
def test_real_captions_split_as_by_the_reference_tokenizer(realdata: Path) -> None:
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("the reference tokenizer needs java")
    lines = (realdata / "captions/text/ucm_precomp/test_caps.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line.strip()]
    given = {number: [{"caption": line}] for number, line in enumerate(lines)}
    wanted = [found[0].split() for found in tokenizer.PTBTokenizer().tokenize(given).values()]
    found = [split_words(line) for line in lines]
    assert not any(word in PUNCTUATION for words in found for word in words)
    wrong = [line for line, ours, theirs in zip(lines, found, wanted, strict=True) if ours != theirs]
    assert len(wrong) <= len(lines) // 500, wrong[:5]
