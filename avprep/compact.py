"""Millions of clips in little memory."""

from __future__ import annotations

import json
import operator
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from avprep.batches import batched, json_texts
from avprep.clips import Clip

_ENCODER = json.JSONEncoder()
_fields = operator.attrgetter(*(field.name for field in fields(Clip)))


class CompactClips(Sequence[Clip]):
    """Clips, each held as JSON text and made whenever it is asked for.

    A clip of AudioSet takes 150 bytes, where the object takes 500.
    """

    def __init__(self, text: bytearray, starts: array[int], places: Sequence[int]) -> None:
        self._text = text  # of all clips, one after another
        self._starts = starts  # of each clip in the text, and its end
        self._places = places  # of the clips that this sequence has

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> CompactClips:
        """The same clips; read once, one after another."""
        if isinstance(clips, CompactClips):
            return clips
        text, starts = bytearray(), array("Q")
        for group in batched(map(_fields, clips)):
            for one in json_texts(group, _ENCODER):
                starts.append(len(text))
                text += one.encode()
        starts.append(len(text))
        return cls(text, starts, range(len(starts) - 1))

    def at(self, places: Iterable[int]) -> CompactClips:
        """The clips at some places of this sequence, in that order."""
        chosen = array("I", map(self._places.__getitem__, places))
        return CompactClips(self._text, self._starts, chosen)

    def texts(self) -> Iterator[bytearray]:
        """Of each clip, what `json.dumps` makes of its fields: the same for the same clip."""
        for place in self._places:
            yield self._text[self._starts[place] : self._starts[place + 1]]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Clip]:
        for group in batched(self.texts()):
            yield from map(_clip_of, json.loads(b"[%s]" % b",".join(group)))

    @overload
    def __getitem__(self, place: int) -> Clip: ...
    @overload
    def __getitem__(self, place: slice) -> CompactClips: ...
    def __getitem__(self, place: int | slice) -> Clip | CompactClips:
        if isinstance(place, slice):
            return CompactClips(self._text, self._starts, self._places[place])
        (clip,) = self.at([place])
        return clip

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CompactClips):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self.texts(), other.texts()))

    def __reduce__(self) -> tuple[Any, ...]:
        return CompactClips.of, (list(self),)  # without the text of other clips


def shared(values: array[int] | NDArray[np.int64]) -> NDArray[np.intp]:
    """The places of int64 values that occur more than once, ascending."""
    numbers = np.asarray(values)
    ordered = np.sort(numbers)
    return np.flatnonzero(np.isin(numbers, ordered[1:][ordered[1:] == ordered[:-1]]))


def repeats(
    clips: CompactClips, hashes: array[int], key: Callable[[Clip], Hashable]
) -> Iterator[tuple[int, Clip, int]]:
    """Each clip whose key an earlier one has: its place, itself, and the place of the first one.

    Args:
        clips: all of them.
        hashes: of their keys, which are compared only where these are the same.
        key: what is compared.
    """
    places = shared(hashes).tolist()
    first: dict[Hashable, int] = {}
    for place, clip in zip(places, clips.at(places), strict=True):
        earlier = first.setdefault(key(clip), place)
        if earlier != place:
            yield place, clip, earlier


def _clip_of(values: list[Any]) -> Clip:
    video_id, labels, *others = values
    return Clip(video_id, tuple(labels), *others)
