"""How messages word numbers, lists and settings: one clip is one clip."""

from __future__ import annotations

import pytest

from avprep.wording import changes, counted, first_of, size


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(1, "clip", "1 clip"), (0, "clip", "0 clips"), (2, "bad row", "2 bad rows"),
     (1, "class", "1 class"), (309, "class", "309 classes")],
)  # fmt: skip
def test_nouns_agree_with_their_number(number, noun, words):
    assert counted(number, noun) == words


def test_only_what_differs_is_named_with_both_values():
    old, new = {"frames": 10, "audio": "flac", "pixels": "square"}, {"frames": 4, "audio": "wav"}
    told = "frames = 10, not 4; audio = flac, not wav; pixels = square, not None"
    assert changes(old, new) == told
    assert changes({"av": "13.0"}, {"av": "14.0"}, " ") == "av 13.0, not 14.0"
    assert changes(old, dict(old)) == ""


def test_a_few_of_many_names_are_enough_for_a_message():
    assert first_of(range(7)) == "0, 1, 2, 3, 4, …"
    assert first_of("ab", 2) == "a, b"
    assert first_of(()) == ""


def test_sizes_have_the_unit_that_one_thinks_in():
    sizes = [size(n) for n in (0, 999, 1234, 123_456, 7.5e9, 2e16)]
    assert sizes == ["0 B", "999 B", "1.2 kB", "123 kB", "7.5 GB", "20000 TB"]
