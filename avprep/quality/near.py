"""Which of many clips are nearly the same, by their perceptual hashes. Pure, and all in numpy.

Clips that share a key – some bits of their sub-hashes, exactly alike – are candidates; a candidate
pair is compared bit by bit at every shift of up to a second. Millions of clips are never compared
each with each, and no memory but that of the hashes grows with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avprep.quality.hashes import PICTURES, STEPS, STEPS_PER_SECOND

By = Literal["both", "picture", "sound", "either"]


# A byte of a key: of the sub-hash so many steps later, the byte of this number.
Place = tuple[int, int]


@dataclass(frozen=True)
class Kind:
    """How the hashes of pictures, or of sound, are compared.

    The limits are of distances; docs/quality.md shows where they come from.
    """

    width: int  # bytes of a sub-hash
    shifts: int  # sub-hashes that one clip may begin before the other
    least: int  # sub-hashes that two clips must have in common; a clip with fewer is set aside
    alone: float  # at most in pairs that nothing else supports
    together: float  # at most in pairs that the other kind supports
    keys: tuple[tuple[Place, ...], ...]  # four bytes each; few clips need only the first ones


PICTURE = Kind(
    width=8,
    shifts=4,  # 1 s of a clip of 3 s with ten frames
    least=PICTURES // 2,
    alone=0.1,
    together=0.5,
    keys=tuple(tuple((0, (first + byte) % 8) for byte in range(4)) for first in (0, 2, 4, 6)),
)
SOUND = Kind(
    width=1,
    shifts=STEPS_PER_SECOND,
    least=STEPS_PER_SECOND,
    alone=0.28,
    together=0.31,
    keys=(((0, 0), (2, 0), (4, 0), (6, 0)),),
)


@dataclass(frozen=True)
class Hashes:
    """The hashes of n clips.

    Attributes:
        picture: uint8 [n, 10, 8]; zeros where there is nothing to recognise.
        sound: uint8 [n, 128, 1], likewise.
    """

    picture: NDArray[np.uint8]
    sound: NDArray[np.uint8]

    @classmethod
    def empty(cls, count: int) -> Hashes:
        """Of clips that have no hash yet."""
        return cls(
            np.zeros((count, PICTURES, PICTURE.width), np.uint8),
            np.zeros((count, STEPS, SOUND.width), np.uint8),
        )

    def put(self, clip: int, picture: bytes, sound: bytes) -> None:
        """Set the hashes of a clip, as `avprep.quality.hashes` makes them."""
        for rows, value in ((self.picture[clip], picture), (self.sound[clip], sound)):
            rows.reshape(-1)[: len(value)] = np.frombuffer(value, np.uint8)


@dataclass(frozen=True)
class Pairs:
    """Near-duplicates: `first[i]` < `second[i]`, each pair once, in this order.

    Attributes:
        first, second: int64 [pairs], positions of clips.
        picture, sound: float32 [pairs], distances; NaN where one of the two has too little to
            recognise.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    picture: NDArray[np.float32]
    sound: NDArray[np.float32]


def find_pairs(hashes: Hashes, by: By) -> Pairs:
    """Pairs of clips that are nearly the same, by picture, sound, both, or either.

    Of many clips that are all alike, not every pair is found, but enough that they are connected.
    """
    kinds = {"picture": [PICTURE], "sound": [SOUND]}.get(by, [PICTURE, SOUND])
    found = [np.zeros((0, 2), np.int64)]
    for kind in kinds:
        rows = hashes.picture if kind is PICTURE else hashes.sound
        limit = kind.together if by == "both" else kind.alone
        for candidates in _candidates(rows, kind):
            distance = distances(rows, kind, candidates)
            found.append(candidates[distance <= limit])
    pairs = np.unique(np.concatenate(found), axis=0)
    picture = distances(hashes.picture, PICTURE, pairs)
    sound = distances(hashes.sound, SOUND, pairs)
    near = {
        "picture": picture <= PICTURE.alone,
        "sound": sound <= SOUND.alone,
        "both": _near_by_both(hashes, pairs, picture, sound),
        "either": (picture <= PICTURE.alone) | (sound <= SOUND.alone),
    }[by]
    return Pairs(pairs[near, 0], pairs[near, 1], picture[near], sound[near])


def _near_by_both(
    hashes: Hashes,
    pairs: NDArray[np.int64],
    picture: NDArray[np.float32],
    sound: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Whether picture and sound agree, or the one of them agrees that both clips have."""
    near = (picture <= PICTURE.together) & (sound + _PICTURE_WEIGHT * picture <= SOUND.together)
    sees = recognisable(hashes.picture, PICTURE)[pairs].any(axis=1)
    hears = recognisable(hashes.sound, SOUND)[pairs].any(axis=1)
    moves = _movement(hashes.picture[pairs[:, 0]]) >= _MOVES
    return near | (~sees & (sound <= SOUND.alone)) | (~hears & moves & (picture <= PICTURE.alone))


def _movement(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How different successive pictures of a clip are: float32 [n]."""
    before, after = rows[:, :-1], rows[:, 1:]
    return _share(before ^ after, before | after)


def recognisable(rows: NDArray[np.uint8], kind: Kind) -> NDArray[np.bool_]:
    """Which clips have enough to recognise: bool [n]."""
    return np.count_nonzero(_is_something(rows), axis=1) >= kind.least


def connected(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each clip, named by its first clip: int64 [count].

    Clips are in one group where a chain of pairs leads from one to the other.
    """
    group = np.arange(count)
    while True:
        least = np.minimum(group[first], group[second])
        before = group.copy()
        # A clip, and the one that its group is named by, both learn of the lower name.
        for members in (first, second):
            np.minimum.at(group, before[members], least)
            np.minimum.at(group, members, least)
        group = group[group]
        if np.array_equal(group, before):
            return group


def distances(rows: NDArray[np.uint8], kind: Kind, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """The distance at the best shift: float32 [pairs].

    Of the bits that are set in one of the two clips, those that are not in the other: 0 for equal
    ones, about 0.67 for unrelated ones. NaN where both have too few sub-hashes in common.

    Args:
        rows: uint8 [n, steps, bytes] of all clips.
        kind: how to compare.
        pairs: int64 [pairs, 2].
    """
    best = np.full(len(pairs), np.nan, np.float32)
    for start in range(0, len(pairs), _CHUNK):
        part = slice(start, start + _CHUNK)
        one, other = rows[pairs[part, 0]], rows[pairs[part, 1]]
        for shift in range(-kind.shifts, kind.shifts + 1):
            best[part] = np.fmin(best[part], _distance(one, other, kind, shift))
    return best


def _distance(
    one: NDArray[np.uint8], other: NDArray[np.uint8], kind: Kind, shift: int
) -> NDArray[np.float32]:
    """Of clips whose others begin `shift` sub-hashes later: float32 [pairs]."""
    steps = one.shape[1] - abs(shift)
    one = one[:, max(0, shift) :][:, :steps]
    other = other[:, max(0, -shift) :][:, :steps]
    one_has, other_has = _is_something(one), _is_something(other)
    # Past the end of either of the two there is no difference.
    overlap = _before_end(one_has) & _before_end(other_has)
    one, other = one * overlap[..., None], other * overlap[..., None]
    few = np.count_nonzero(one_has & other_has, axis=1) < kind.least
    return np.where(few, np.float32(np.nan), _share(one ^ other, one | other))


def _share(some: NDArray[np.uint8], all_of: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How many of the bits are set among some of them: float32 [n]."""
    part, whole = (_ONES[bits].sum(axis=(1, 2), dtype=np.uint32) for bits in (some, all_of))
    return (part / np.maximum(whole, 1)).astype(np.float32)


def _before_end(has: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True up to the last True of each row."""
    return np.logical_or.accumulate(has[:, ::-1], axis=1)[:, ::-1]


def _is_something(rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which sub-hashes have anything to recognise: bool [n, steps]."""
    return rows.view(f"u{rows.shape[2]}")[..., 0] != 0


def _candidates(rows: NDArray[np.uint8], kind: Kind) -> Iterator[NDArray[np.int64]]:
    """Pairs of clips that share a key at steps which a shift allows: int64 [pairs, 2] each."""
    count, steps, _ = rows.shape
    # As many bytes as keep chance from making many candidates.
    size = next(size for most, size in _KEY_BYTES if count * steps <= most)
    passes = -(-count * steps // _KEYS_AT_ONCE)
    for places in kind.keys:
        for number in range(passes):
            keys = [
                _keys(rows[start : start + _CHUNK], places[:size], (number, passes))
                + np.uint64(start << _STEP_BITS)
                for start in range(0, count, _CHUNK)
            ]
            yield _neighbours(np.concatenate(keys), kind.shifts)


def _keys(
    rows: NDArray[np.uint8], places: Sequence[Place], part: tuple[int, int]
) -> NDArray[np.uint64]:
    """The keys of some clips that belong to one part of all: key, clip and step in one number."""
    steps = rows.shape[1] - max(later for later, _ in places)
    key = np.zeros((len(rows), steps), np.uint32)
    is_used = np.ones(key.shape, bool)
    something = _is_something(rows)
    for later, byte in places:
        key = key << 8 | rows[:, later : later + steps, byte]
        is_used &= something[:, later : later + steps]
    is_used[:, 1:] &= key[:, 1:] != key[:, :-1]  # a still picture has one key
    key *= np.uint32(2654435761)  # odd: another order of the same keys, and evenly spread
    number, parts = part
    is_used &= key % np.uint32(parts) == number
    clip, step = np.nonzero(is_used)
    place_of = (clip << _STEP_BITS | step).astype(np.uint64)
    return key[is_used].astype(np.uint64) << np.uint64(32) | place_of


def _neighbours(keys: NDArray[np.uint64], shifts: int) -> NDArray[np.int64]:
    """Pairs of clips whose places among the sorted keys are close and whose keys are equal."""
    keys.sort()
    found = [np.zeros(0, np.uint64)]
    start = np.flatnonzero((keys[1:] ^ keys[:-1]) < _ONE_KEY)
    for distance in range(1, _FARTHEST + 1):
        one, other = keys[start], keys[start + distance]
        step = (one & _STEP).astype(np.int32) - (other & _STEP).astype(np.int32)
        clip, later = (place % _ONE_KEY >> np.uint64(_STEP_BITS) for place in (one, other))
        near = (clip != later) & (np.abs(step) <= shifts)
        found.append(clip[near] << np.uint64(32) | later[near])
        start = start[: np.searchsorted(start, len(keys) - distance - 1)]
        start = start[(keys[start] ^ keys[start + distance + 1]) < _ONE_KEY]
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs >> np.uint64(32), pairs % _ONE_KEY], axis=1).astype(np.int64)


_CHUNK = 1 << 14  # clips or pairs at a time
_KEYS_AT_ONCE = 1 << 25
_STEP_BITS = 7
_STEP = np.uint64(2**_STEP_BITS - 1)
_ONE_KEY = np.uint64(2**32)  # numbers with the same key differ by less
MOST_CLIPS = 2 ** (32 - _STEP_BITS)
_FARTHEST = 32  # clips with one key are compared with this many others each
_KEY_BYTES = ((1 << 17, 2), (1 << 23, 3), (MOST_CLIPS * STEPS, 4))  # sub-hashes, bytes
_PICTURE_WEIGHT = 0.3  # pictures say less: many clips may have one background
_MOVES = 0.3  # a talking head before a fixed background has less
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)
