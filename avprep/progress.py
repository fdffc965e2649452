"""How far a long function is: what it hands to its `on_progress`. `cli/progress.py` shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


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


def each(unit: str, on_progress: OnProgress, total: int | None = None) -> Callable[[], None]:
    """A function to call whenever one more is done."""
    done = 0
    on_progress(Progress(unit, done, total))

    def count() -> None:
        nonlocal done
        done += 1
        on_progress(Progress(unit, done, total))

    return count


def counted(items: Iterable[Item], unit: str, on_progress: OnProgress) -> Iterator[Item]:
    """Pass items on, counting them."""
    count = each(unit, on_progress)
    for item in items:
        yield item
        count()
