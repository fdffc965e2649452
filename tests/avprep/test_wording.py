"""One clip is one clip."""

from __future__ import annotations

import pytest

from avprep.wording import counted


@pytest.mark.parametrize(
    ("number", "noun", "words"),
    [(1, "clip", "1 clip"), (0, "clip", "0 clips"), (2, "bad row", "2 bad rows"),
     (1, "class", "1 class"), (309, "class", "309 classes")],
)  # fmt: skip
def test_nouns_agree_with_their_number(number, noun, words):
    assert counted(number, noun) == words
