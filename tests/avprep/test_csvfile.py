"""Text files in whatever wrapping people have them; faults are named with their line."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.csvfile import csv_lines, csv_records, split_fields
from avprep.errors import UserError

TEXT = "id,naïve\n-b,2\n\nc,3"
LINES = [(1, "id,naïve"), (2, "-b,2"), (3, ""), (4, "c,3")]
WRAPPINGS = {
    "plain": TEXT.encode(),
    "byte order mark": TEXT.encode("utf-8-sig"),
    "Windows line ends": TEXT.replace("\n", "\r\n").encode(),
    "old Mac line ends": TEXT.replace("\n", "\r").encode(),
    "UTF-16 little-endian": TEXT.encode("utf-16"),
    "UTF-16 big-endian": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "gzip": gzip.compress(TEXT.encode()),
    "gzip of a byte order mark": gzip.compress(TEXT.encode("utf-8-sig")),
    "two gzip members": gzip.compress(TEXT[:9].encode()) + gzip.compress(TEXT[9:].encode()),
}
FAULTS = {
    "latin-1": (TEXT.encode("latin-1"), "line 1: not UTF-8 (byte 0xef). Save the file as UTF-8."),
    "latin-1 later": (b"a\nb\nc\xe9\n", "line 3: not UTF-8 (byte 0xe9). Save the file as UTF-8."),
    "binary": (b"a\n\0\0", "line 2: has a zero byte, so this is not a text file."),
    "cut gzip": (
        gzip.compress(TEXT.encode() * 100)[:-20],
        "the gzip file is cut short or damaged",
    ),
    "damaged gzip": (gzip.compress(TEXT.encode())[:12] + b"xxxxxxxx", "cut short or damaged"),
    "workbook": (b"PK\x03\x04....", "found a zip archive or an Excel workbook; unpack it, or"),
    "old workbook": (b"\xd0\xcf\x11\xe0...", "found an Excel workbook; save it as CSV."),
    "web page": (b"<!DOCTYPE html>", "found a web page or XML"),
    "half a UTF-16 character": (b"\xff\xfea\0b", "not UTF-16, though it begins as such"),
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_every_wrapping_gives_the_same_lines(name, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(WRAPPINGS[name])
    assert list(csv_lines(path)) == LINES
    records = [(line, fields) for line, fields in csv_records(path)]
    assert records == [(1, ["id", "naïve"]), (2, ["-b", "2"]), (4, ["c", "3"])]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("read", [csv_lines, csv_records])
def test_what_is_no_text_is_refused(read, name, tmp_path):
    content, complaint = FAULTS[name]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("read", [csv_lines, csv_records])
def test_an_absent_file_and_a_folder_are_named(read, tmp_path):
    with pytest.raises(UserError, match="No such file"):
        list(read(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="Is a directory"):
        list(read(tmp_path))


def test_a_quoted_field_may_hold_line_ends_and_lines_are_still_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'a,"x\ny"\nb,c\n')
    assert list(csv_records(path)) == [(1, ["a", "x\ny"]), (3, ["b", "c"])]


def test_the_line_where_an_open_quote_begins_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\nc,"d\ne,f\n')
    with pytest.raises(UserError, match="line 2: a quote is never closed; the file may be cut"):
        list(csv_records(path))


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('a, 1.000, 2.000, "x,y"', ["a", "1.000", "2.000", "x,y"]),
        ("a,b,,,", ["a", "b"]),
        ("a,,b", ["a", "", "b"]),
        ('a," ""x","y"""', ["a", '"x', 'y"']),
        ("", []),
        (" , ,", []),
    ],
)
def test_fields_lose_spaces_and_trailing_blanks_only(line, fields):
    assert split_fields(line) == fields


@pytest.mark.parametrize(
    ("line", "complaint"),
    [('a,"b', "a quote is never closed"), ('a,"b"c', "text follows a closing quote")],
)
def test_wrong_quoting_is_explained(line, complaint):
    with pytest.raises(ValueError, match=complaint):
        split_fields(line)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("c") / "t.csv"
    path.write_bytes(content)
    for read in (csv_lines, csv_records):
        try:
            list(read(path))
        except UserError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 (it may also succeed)
