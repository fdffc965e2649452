"""Selections are read as written, and every fault in one is named with its line."""

from __future__ import annotations

import pytest

from avprep.errors import UserError
from avprep.selection import read_selection, select, write_selection

IDS = ("plain", "--4gqARaEJE", " spaced ", "a,b;c", 'say "hi"', "two\nlines", "a\rb", "naïve")


def test_ids_survive_writing_and_reading(tmp_path):
    path = tmp_path / "new" / "kept.csv"
    write_selection(path, IDS)
    assert read_selection(path) == IDS
    assert path.read_bytes().startswith(b"video_id\nplain\n")


def test_an_id_that_is_not_utf8_is_found_again(tmp_path):
    write_selection(tmp_path / "kept.csv", ["caf\udce9"])
    assert select(tmp_path / "kept.csv", ["b", "caf\udce9"]).positions == (1,)


@pytest.mark.parametrize(
    "text",
    [
        "video_id\na\nb\na\n",
        "\ufeffrms_db,Video ID\r\n-3.5,a\r\n,b\r\n",
        "label;video_id\n1,5;a\n;b\n",
        'video_id\n"a"\n\n"b"\n',
    ],
)
def test_further_columns_repetitions_and_spellings_do_not_matter(tmp_path, text):
    (tmp_path / "kept.csv").write_bytes(text.encode())
    assert read_selection(tmp_path / "kept.csv") == ("a", "b")


def test_positions_follow_the_clips_and_strangers_the_file(tmp_path):
    write_selection(tmp_path / "kept.csv", ["z", "c", "a", "y"])
    selected = select(tmp_path / "kept.csv", ["a", "b", "c"])
    assert selected.positions == (0, 2)
    assert selected.strangers == ("z", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must name one column video_id, found nothing. Give a CSV"),
        ("id,label\na,b\n", "line 1 must name one column video_id, found 'id,label'."),
        ("video_id,video_id\na,a\n", "line 1 must name one column video_id"),
        ("video_id\na\nb,c\n", "line 3: has 2 fields, line 1 has 1. Put fields that hold commas"),
        ("label,video_id\nx,a\nx,\n", "line 3: video_id is empty. Name a clip, or delete it."),
        ("video_id\n", "names no clip. Give a selection with at least one row."),
        ('video_id\n"a\n', "line 2: a quote is never closed"),
    ],
)
def test_a_faulty_selection_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "kept.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_selection(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_selection_is_named(tmp_path):
    with pytest.raises(UserError, match=r"kept\.csv: cannot be read \(No such file"):
        read_selection(tmp_path / "kept.csv")


@pytest.mark.parametrize(
    "text",
    [
        '["a", "b", "a"]',
        '[{"video_id": "a", "labels": "x"}, {"video_id": "b"}]',
        '\ufeff{"data": [{"video_id": "a", "wav": "", "labels": ""}, {"video_id": "b"}]}',
    ],
)
def test_a_json_list_and_a_manifest_are_selections(tmp_path, text):
    (tmp_path / "kept.json").write_text(text)
    assert read_selection(tmp_path / "kept.json") == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not JSON"),
        ('{"ids": ["a"]}', "give a JSON list of ids, or a manifest"),
        ('["a", 7]', "entry 1: expected an id, found '7'"),
        ('[{"id": "a"}]', "entry 0: expected an id"),
        ("[]", "names no clip"),
    ],
)
def test_faulty_json_is_refused_with_its_place(tmp_path, text, message):
    (tmp_path / "kept.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_selection(tmp_path / "kept.json")
