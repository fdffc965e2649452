"""How far a long function is: what it hands to its `on_progress`. `cli/progress.py` shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

Item = TypeVar("Item")

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done so far; the first one of a stage comes before its work begins, or with it."""

    unit: str  # what is counted, in the singular: "file", "clip", "shard"; "B" for bytes
    done: int
    total: int | None = None  # None: not known yet
    failed: int = 0  # of those done
    causes: Mapping[str, int] = field(default_factory=dict)  # of failures, where they are known
    stage: str = ""  # what this is a part of, such as the file that is fetched


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """For callers who do not want to know."""


class Count(Protocol):
    """Counts what is done."""

    def __call__(self, more: int = 1) -> None:
        """So many more are."""


def each(unit: str, on_progress: OnProgress, total: int | None = None) -> Count:
    """A function to call whenever more is done."""
    done = 0
    on_progress(Progress(unit, done, total))

    def count(more: int = 1) -> None:
        nonlocal done
        done += more
        on_progress(Progress(unit, done, total))

    return count


def counted(items: Iterable[Item], unit: str, on_progress: OnProgress) -> Iterator[Item]:
    """Pass items on, counting them: not one by one, which would take longer than many an item."""
    count, number = each(unit, on_progress), 0
    for number, item in enumerate(items, start=1):
        yield item
        if number % _AT_ONCE == 0:
            count(_AT_ONCE)
    count(number % _AT_ONCE)
