"""Near-duplicates among made-up hashes: found at any shift and number, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avprep.quality.near import (
    PICTURE,
    SOUND,
    Hashes,
    connected,
    distances,
    find_pairs,
    recognisable,
)

BY = ("both", "picture", "sound", "either")


def made_up(count: int, seed: int = 0) -> Hashes:
    rng = np.random.default_rng(seed)
    return Hashes(
        rng.integers(1, 256, (count, 10, 8), np.uint8),
        rng.integers(1, 256, (count, 128, 1), np.uint8),
    )


def flipped(rows: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Rows with a share of their bits flipped."""
    bits = np.random.default_rng(7).random((*rows.shape, 8)) < share
    return rows ^ np.packbits(bits, axis=-1)[..., 0]


def pairs_of(hashes: Hashes, by: str) -> list[tuple[int, int]]:
    pairs = find_pairs(hashes, by)
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.mark.parametrize("count", [50, 5000])
def test_a_damaged_copy_is_found_and_nothing_else(count):
    hashes = made_up(count)
    hashes.picture[[40, 5]] = flipped(hashes.picture[[3, 49]], 0.03)
    hashes.sound[[40, 5]] = flipped(hashes.sound[[3, 49]], 0.1)
    for by in BY:
        assert pairs_of(hashes, by) == [(3, 40), (5, 49)]
    pairs = find_pairs(hashes, "both")
    # Of the set bits, which are half: twice the share of all.
    assert pairs.picture == pytest.approx([0.06, 0.06], abs=0.03)
    assert pairs.sound == pytest.approx([0.18, 0.18], abs=0.04)


@pytest.mark.parametrize("shift", range(-16, 17, 4))
def test_a_copy_is_found_that_begins_up_to_a_second_earlier_or_later(shift):
    hashes = made_up(20)
    hashes.sound[9] = np.roll(hashes.sound[4], shift, axis=0)
    hashes.picture[9] = np.roll(hashes.picture[4], shift // 4, axis=0)
    assert pairs_of(hashes, "both") == [(4, 9)]


def test_a_shift_of_more_than_a_second_is_another_clip():
    hashes = made_up(20)
    hashes.sound[9] = np.roll(hashes.sound[4], 17, axis=0)
    assert pairs_of(hashes, "sound") == []


def test_one_kind_that_is_alike_is_not_both():
    hashes = made_up(20)
    hashes.picture[9] = hashes.picture[4]
    hashes.sound[17] = hashes.sound[4]
    found = {by: pairs_of(hashes, by) for by in BY}
    assert found == {
        "picture": [(4, 9)],
        "sound": [(4, 17)],
        "both": [],
        "either": [(4, 9), (4, 17)],
    }


def test_clips_with_too_little_to_recognise_are_set_aside():
    hashes = made_up(30)
    hashes.picture[:10] = 0  # flat
    hashes.sound[:15] = 0  # silent
    hashes.sound[15:20, 15:] = 0  # too short
    hashes.sound[15:20, :15] = hashes.sound[15, :15]
    for by in BY:
        assert pairs_of(hashes, by) == []
    assert np.flatnonzero(~recognisable(hashes.picture, PICTURE)).tolist() == list(range(10))
    assert np.flatnonzero(~recognisable(hashes.sound, SOUND)).tolist() == list(range(20))
    distance = distances(hashes.sound, SOUND, np.array([[5, 6], [0, 25], [15, 16], [20, 20]]))
    assert np.isnan(distance).tolist() == [True, True, True, False]


def test_where_sound_tells_nothing_moving_pictures_decide_and_still_ones_do_not():
    hashes = made_up(40)
    hashes.sound[:10] = 0
    hashes.picture[:5] = hashes.picture[:5, :1]  # still
    hashes.picture[[1, 6, 21]] = hashes.picture[[0, 5, 20]]
    assert pairs_of(hashes, "both") == [(5, 6)]


def test_where_pictures_tell_nothing_sound_decides():
    hashes = made_up(40)
    hashes.picture[:10] = 0
    hashes.sound[[1, 21, 11]] = hashes.sound[[0, 20, 9]]  # 9 has no picture, 11 has
    assert pairs_of(hashes, "both") == [(0, 1)]


def test_the_end_of_the_shorter_clip_is_no_difference():
    hashes = made_up(20)
    hashes.sound[9, :60] = hashes.sound[4, 8:68]
    hashes.sound[9, 60:] = 0
    assert pairs_of(hashes, "sound") == [(4, 9)]
    assert find_pairs(hashes, "sound").sound.tolist() == [0]


def test_still_pictures_are_compared_once():
    hashes = made_up(40)
    hashes.picture[:] = hashes.picture[:, :1]
    hashes.picture[7] = hashes.picture[2]
    assert pairs_of(hashes, "picture") == [(2, 7)]


@pytest.mark.parametrize("by", BY)
def test_many_copies_of_one_clip_are_one_group(by):
    hashes = made_up(600)
    hashes.picture[100:], hashes.sound[100:] = hashes.picture[100], hashes.sound[100]
    pairs = find_pairs(hashes, by)
    group = connected(600, pairs.first, pairs.second)
    assert group.tolist() == [*range(100), *[100] * 500]


def test_keys_in_several_parts_give_the_same_pairs(monkeypatch):
    hashes = made_up(3000)
    hashes.picture[2000:], hashes.sound[2000:] = hashes.picture[:1000], hashes.sound[:1000]
    whole = pairs_of(hashes, "both")
    assert whole == [(number, number + 2000) for number in range(1000)]
    monkeypatch.setattr("avprep.quality.near._KEYS_AT_ONCE", 10_000)
    assert pairs_of(hashes, "both") == whole


def test_no_clips_have_no_pairs():
    for count in (0, 1):
        assert pairs_of(made_up(count), "both") == []


@given(
    pairs=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25),
)
def test_groups_are_what_pairs_connect(pairs):
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    expected = list(range(20))
    for one, other in pairs:
        low, high = sorted((expected[one], expected[other]))
        expected = [low if name == high else name for name in expected]
    assert connected(20, first, second).tolist() == expected
