"""Numbers in the words of a message."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 clip`, `2 clips`, `3 classes`, `2 bad rows`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"


def lacking_words(clips: int) -> str:
    """What is said of clips that lack a modality that is needed."""
    return f"{counted(clips, 'clip')} left out because of missing audio or frames"
