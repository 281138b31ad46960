"""Text that people write: lists, tables and JSON, from any editor or spreadsheet."""

from __future__ import annotations

from pathlib import Path

from mmovseg.errors import UserError


def read_text(path: str | Path, what: str = "") -> str:
    """Return the text of a UTF-8 file, without the byte-order mark that spreadsheets and Windows put first.

    Args:
        path: the file; its line ends stay as they are.
        what: it is, said before its name in errors.

    Raises:
        UserError: it cannot be read, or a line is not UTF-8; the sentence names the line.
    """
    name = f"{what} '{path}'" if what else f"'{path}'"
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise UserError(
            f"{name} line {line} is not UTF-8 text: it holds the byte 0x{byte:02x}; save it as UTF-8"
        ) from error


def column_separator(header: str) -> str:
    """Return what stands between the columns of a table: comma, semicolon or tab, whichever its first line has most of.

    Spreadsheets of many countries write semicolons.
    """
    return max((",", ";", "\t"), key=header.count)
