"""The plan decides everything that a shard's bytes depend on, before any work."""

from __future__ import annotations

import re
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.clips import Clip
from avprep.errors import UserError, WorkFailed
from avprep.failures import FailureLimit, check_failures
from avprep.labels import LabelSet
from avprep.options import ByteSize, DecodeOptions, Part, SampleOptions, ShardSetOptions
from avprep.shards.format import sample_key
from avprep.shards.plan import (
    CutByBytes,
    CutByCount,
    default_samples_per_shard,
    differences,
    expected_bytes,
    part_of,
    parts_of,
    plan_shards,
)

NO_LABELS = LabelSet((), ())


def plan(clips, samples_per_shard=None, **kwargs):
    cut = CutByCount(samples_per_shard)
    return plan_shards(clips, NO_LABELS, {"audio": "flac"}, {"av": "1"}, cut, **kwargs)


def test_another_shard_size_of_as_many_shards_is_named():
    first, second = plan(clips(8), 6), plan(clips(8), 5)
    theirs = {"made_with": first.made_with, "clips": 8, "shards": 2}
    assert first.fingerprint != second.fingerprint
    assert differences(theirs, second) == ["another shard size"]
    assert differences(theirs, plan(clips(9)[1:], 6)) == ["another manifest of as many clips"]


def clips(count):
    return [Clip(f"clip{number}", video=f"/v/{number}.mp4") for number in range(count)]


@given(st.integers(0, 300), st.integers(1, 50), st.integers(0, 5))
def test_every_clip_is_in_exactly_one_shard(count, size, seed):
    result = plan(clips(count), samples_per_shard=size, seed=seed)
    planned = [clip.video_id for job in result.jobs for clip in job.clips]
    assert sorted(planned) == sorted(clip.video_id for clip in clips(count))
    assert all(len(job.clips) == size for job in result.jobs[:-1])
    assert result.clips == count


@given(st.integers(0, 200), st.integers(1, 9))
def test_parts_share_the_shards_without_overlap(count, parts):
    jobs = plan(clips(count), samples_per_shard=7).jobs
    split = [part_of(jobs, k, parts) for k in range(1, parts + 1)]
    assert sorted((job for part in split for job in part), key=lambda job: job.name) == list(jobs)
    assert max(map(len, split)) - min(map(len, split)) <= 1


def test_order_is_shuffled_by_the_seed_alone():
    first, again, other = plan(clips(50)), plan(clips(50)), plan(clips(50), seed=1)
    assert first == again
    assert first.jobs != other.jobs
    assert first.fingerprint != other.fingerprint


def test_duplicate_ids_keep_the_first_and_name_the_second():
    result = plan([Clip("x", video="/a/x.mp4"), Clip("y", video="y"), Clip("x", video="/b/x.mp4")])
    assert [failure.cause for failure in result.rejected] == ["duplicate-id"]
    assert "/b/x.mp4" in result.rejected[0].detail
    assert "/a/x.mp4" in result.rejected[0].detail
    assert result.clips == 3


def test_fingerprint_changes_with_whatever_changes_the_bytes():
    base = plan(clips(3)).fingerprint
    assert plan([*clips(2), Clip("clip2", video="/v/2.mp4", start=1.0)]).fingerprint != base
    labelled = plan_shards(
        clips(3), LabelSet(("/m/a",), ("A",)), {"audio": "flac"}, {"av": "1"}, CutByCount()
    ).fingerprint
    assert labelled != base
    newer = plan_shards(
        clips(3), NO_LABELS, {"audio": "flac"}, {"av": "2"}, CutByCount()
    ).fingerprint
    assert newer != base


@pytest.mark.parametrize(
    ("count", "expected"), [(0, 1), (1, 1), (10, 2), (4000, 500), (10**6, 500)]
)
def test_small_sets_are_spread_over_eight_shards(count, expected):
    assert default_samples_per_shard(count) == expected


@given(st.lists(st.text(min_size=1, max_size=300), unique=True, min_size=2, max_size=20))
def test_keys_are_dot_free_short_and_never_collide(ids):
    keys = [sample_key(video_id) for video_id in ids]
    assert len(set(keys)) == len(ids)
    for key in keys:
        assert "." not in key
        assert "/" not in key
        assert 0 < len(key) <= 80
        assert key.isascii()


@pytest.mark.parametrize(
    "video_id",
    ["00W1lcxW-WU_40.000", "--4gqARaEJE", "a b", "été", "日本", "x\ny", "=2E", "a" * 255],
)
def test_keys_of_known_hostile_ids_differ_from_their_neighbours(video_id):
    assert sample_key(video_id) != sample_key(video_id.replace(".", "=2E") + "_")
    assert sample_key(video_id) == sample_key(video_id)


def test_part_must_be_k_of_n():
    assert Part.parse("3/16") == Part(3, 16)
    for bad in ("0/3", "4/3", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(UserError, match="--part"):
            Part.parse(bad)


SAMPLE = SampleOptions()
segments = st.lists(st.one_of(st.none(), st.floats(0.1, 300)), max_size=60)


@given(segments, st.integers(1, 10**8))
def test_shards_of_a_size_hold_every_clip_in_order_and_exceed_it_only_by_a_single_clip(ends, size):
    given_clips = [Clip(str(k), video="v", end=end) for k, end in enumerate(ends)]
    cut = CutByBytes(size, SAMPLE)
    places = array("I", range(len(given_clips)))
    found = parts_of(places, [cut.weight(clip) for clip in given_clips], cut.target(len(ends)))
    parts = [[given_clips[place] for place in part] for part in found]
    assert [clip for part in parts for clip in part] == given_clips
    weights = [sum(expected_bytes(clip, SAMPLE) for clip in part) for part in parts]
    for part, weight in zip(parts, weights, strict=True):
        assert weight <= size or len(part) == 1
    for weight, following in zip(weights, parts[1:], strict=False):
        assert weight + expected_bytes(following[0], SAMPLE) > size


def test_what_a_clip_should_take_follows_the_documented_rule():
    clip, longer = Clip("x", video="v"), Clip("x", video="v", start=60.0, end=85.0)
    hour = Clip("x", video="v", start=0.0, end=3600.0)
    assert expected_bytes(clip, SAMPLE) == 302_080
    assert expected_bytes(longer, SAMPLE) == 302_080 + 15 * 32000 * 0.6
    assert expected_bytes(hour, SAMPLE) == 302_080 + 20 * 32000 * 0.6  # no more sound is kept
    wav = SampleOptions(DecodeOptions(frames=1), audio="wav")
    assert expected_bytes(clip, wav) == 320_000 + round(224**2 * 0.2) + 3 * 768 + 512


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("1.5 gb", 15 * 10**8), ("256MiB", 2**28), ("500M", 5 * 10**8), ("7", 7)],
)
def test_sizes_are_read(text, size):
    assert ByteSize.parse(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GB", "1TB!", "GB", "1e9", "0.1B", "nan"])
def test_sizes_that_are_none_are_named(text):
    with pytest.raises(UserError, match=re.escape(f"--shard-size {text}: must be a size such as")):
        ShardSetOptions(shard_bytes=text)


@pytest.mark.parametrize(
    ("limit", "failed", "clips", "passes"),
    [
        *(("20", 20, 100, True), ("20", 21, 100, False), ("0", 0, 5, True), ("0", 1, 5, False)),
        *(("5%", 5, 100, True), ("5%", 6, 100, False), ("0.5%", 1, 200, True)),
        *((None, 99, 100, True), (None, 100, 100, False), (None, 0, 0, True)),
    ],
)
def test_more_failures_than_allowed_fail_the_command(limit, failed, clips, passes):
    allowed = FailureLimit.parse(limit) if limit is not None else None
    if passes:
        check_failures(failed, clips, allowed)
    else:
        with pytest.raises(WorkFailed, match=f"{failed} of {clips}|none of the {clips}"):
            check_failures(failed, clips, allowed)
