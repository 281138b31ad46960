"""Text files of users: marks of Windows, other encodings, and files that are not there."""

import pytest

from mmovseg.data.text import read_text
from mmovseg.errors import UserError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_mark_of_windows_is_no_text_and_line_ends_stay(tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("city\r\nKöln\r\n".encode(encoding))
    assert read_text(tmp_path / "a.csv") == "city\r\nKöln\r\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("city\nKöln\n".encode("latin-1"), r"^table '.*a.csv' line 2 is not UTF-8 text: .* 0xf6; save it as UTF-8$"),
        ("\ufeffcity\nK\n".encode("utf-16-le"), "line 1 is not UTF-8 text: it holds the byte 0xff"),
        (b"\xef\xbb\xbfcity\n\xff", "line 2 is not UTF-8 text: it holds the byte 0xff"),
    ],
)
def test_another_encoding_is_told_with_its_line(tmp_path, content, sentence):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_text(tmp_path / "a.csv", "table")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"^'.*none' cannot be read: No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(UserError, match="^list '.*' cannot be read: Is a directory"):
        read_text(tmp_path, "list")
