"""CSV files as people have them: with or without gzip and byte order mark, with any line ends.

Every error names its line, because that is what lets a person correct a table of two million
lines.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

from avprep.errors import UserError

_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"PAR1": "a Parquet file",
    b"<": "a web page or XML, perhaps an error page of the server; download it again",
}
_SPACE_AFTER_QUOTE = re.compile(r'(?<=[^",])"\s+(?=,)')
_QUOTED = re.compile('"[^"]*"')
_SHOWN = 60  # characters of a faulty line in a message


def csv_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, from 1, without line ends.

    Raises:
        UserError: unreadable, a cut gzip file, not text, or not UTF-8 (or UTF-16 with its mark).
    """
    for number, line in enumerate(_raw_lines(path, newline=None), start=1):
        if not line.isascii() or "\0" in line:
            _check_text(line, path, number)
        yield number, line.rstrip("\n")


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the number of its first line; without empty lines.

    Quoted fields may contain line ends, and spaces are part of the fields. The first line
    determines the delimiter; see `delimiter_of`.

    Raises:
        UserError: see `csv_lines`; or a quote is never closed or closed within a field.
    """

    def checked() -> Iterator[str]:
        for number, line in enumerate(_raw_lines(path, newline=""), start=1):
            if not line.isascii() or "\0" in line:
                _check_text(line, path, number)
            yield line

    lines = checked()
    head = next(lines, "")
    reader = csv.reader(itertools.chain((head,), lines), delimiter=delimiter_of(head), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path}: line {first}: {_quoting_fault(error)}.") from error
        if fields:
            yield first, fields


def delimiter_of(line: str) -> str:
    """The delimiter of a line's fields: the first comma, semicolon or tab outside quotes."""
    match = re.search("[,;\t]", _QUOTED.sub("", line))
    return match[0] if match else ","


def split_fields(line: str, delimiter: str = ",") -> list[str]:
    """The fields of one CSV line; spaces around them and trailing empty ones are left out.

    Raises:
        ValueError: a quote is never closed, or closed within a field; the text says so.
    """
    tidy = _SPACE_AFTER_QUOTE.sub('"', line.strip())
    try:
        reader = csv.reader((tidy,), delimiter=delimiter, skipinitialspace=True, strict=True)
        fields = next(reader, [])
    except csv.Error as error:
        raise ValueError(_quoting_fault(error)) from error
    fields = [field.strip() for field in fields]
    while fields and not fields[-1]:
        fields.pop()
    return fields


def shown(line: str) -> str:
    """A line for a message: short, and printable."""
    return repr(line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…")


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as a CSV file in UTF-8; bytes of file names that are not UTF-8 become `\\udc…`."""
    text = io.StringIO()
    # Fields that hold a character of the line end are quoted; a lone \r ends a line for readers.
    csv.writer(_UnixLines(text), lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


class _UnixLines:
    """A text file for `csv.writer`, which writes a row at a time."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write(row.removesuffix("\r\n") + "\n")


def _raw_lines(path: Path, newline: str | None) -> Iterator[str]:
    try:
        with contextlib.ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            if _peek(file).startswith(_GZIP):
                file = cast("IO[bytes]", stack.enter_context(gzip.open(file)))
            head = _peek(file)
            for magic, what in _OTHER_FORMATS.items():
                if head.startswith(magic):
                    raise UserError(f"{path}: expected a CSV file, found {what}.")
            # Bytes that are not UTF-8 become surrogates here, so that their line can be named.
            encoding, errors = ("utf-8-sig", "surrogateescape")
            if head.startswith(_UTF16):
                encoding, errors = ("utf-16", "strict")
            yield from io.TextIOWrapper(file, encoding, errors, newline)
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is cut short or damaged ({error}).") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-16, though it begins as such ({error.reason})."
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _peek(file: IO[bytes]) -> bytes:
    head = file.read(4)
    file.seek(0)
    return head


def _check_text(line: str, path: Path, number: int) -> None:
    for character in line:
        if "\udc80" <= character <= "\udcff":
            byte = ord(character) - 0xDC00
            raise UserError(
                f"{path}: line {number}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8."
            )
        if character == "\0":
            raise UserError(f"{path}: line {number}: has a zero byte, so this is not a text file.")


def _quoting_fault(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quote is never closed; the file may be cut short"
    if "expected after" in text:
        return "text follows a closing quote"
    return text
