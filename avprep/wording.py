"""Numbers and settings in the words of a message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def counted(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`, `3 classes`, `2 bad rows`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def changes(old: Mapping[str, Any], new: Mapping[str, Any], between: str = " = ") -> str:
    """`frames = 3, not 10; audio = flac, not wav`: what differs; empty where nothing does."""
    return "; ".join(
        f"{name}{between}{old.get(name)}, not {new.get(name)}"
        for name in dict.fromkeys((*old, *new))
        if old.get(name) != new.get(name)
    )


def first_of(names: Iterable[object], limit: int = 5) -> str:
    """`3, 8, 12, …`: some of the names or numbers that a message is about."""
    listed = list(names)
    return ", ".join(map(str, listed[:limit])) + (", …" if len(listed) > limit else "")


def duration(seconds: float) -> str:
    """`45 s`, `12.5 min`, `3.4 h`, `6.2 days`: as exactly as one plans by."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def size(number: float) -> str:
    """`340 MB`, `12.3 GB`, `1.2 TB`: a number of bytes."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"


def lacking_words(clips: int) -> str:
    """What is said of clips that lack a modality that is needed."""
    return f"{counted(clips, 'clip')} left out because of missing audio or frames"
