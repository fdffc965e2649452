"""Many values at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from json import JSONEncoder
from typing import Any, TypeVar

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: int = 1024) -> Iterator[list[Item]]:
    """The items in lists, all but the last of them of one size."""
    remaining = iter(items)
    while group := list(itertools.islice(remaining, size)):
        yield group


def json_texts(values: Sequence[Any], encoder: JSONEncoder) -> list[str]:
    """The JSON of each value, from one call because that is much faster.

    Args:
        values: all of them objects, or all of them arrays, that begin with a string.
        encoder: breaks no lines.
    """
    text = encoder.encode(values)[1:-1]
    opens, closes = text[0], text[-1]
    texts = text.replace(f'{closes}, {opens}"', f'{closes}\n{opens}"').split("\n")
    if len(texts) == len(values):
        return texts
    return [encoder.encode(value) for value in values]  # a string in it ends in `}, {` or `], [`
