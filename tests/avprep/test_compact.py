"""A manifest's clips in little memory are the clips that were read."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.clips import Clip
from avprep.compact import CompactClips
from avprep.labels import LabelSet
from avprep.manifest.model import iter_manifest, write_manifest
from avprep.shards.plan import CutByCount, plan_shards

# Also names that are not UTF-8, and what looks like the end of a clip's JSON.
texts = st.one_of(st.text(), st.sampled_from(["a], [", "a}, {", "\udcff", '"], ["', "\\", "\n"]))
times = st.one_of(st.none(), st.integers(0, 10**6), st.floats(0, 1e6))
clips = st.builds(
    Clip, texts, st.lists(texts).map(tuple), texts, times, times, texts, texts, split=texts
)


# As the first version planned them.
ORDER = [["été", "c0", "c1"], ["c4", "c3", "c2"], ["b], ["]]
FINGERPRINT = "bb27fbe0abaaee6655ab270f67ddf31a696d719f70839802993b21d9751b999e"
MANIFEST = "b3cbcf2897077cde9b0369ecee6b0870e3ecce56463ad490b9aa76ae5de3321f"


@given(st.lists(clips, max_size=20))
def test_clips_come_back_as_they_were(given_clips):
    compact = CompactClips.of(iter(given_clips))
    assert list(compact) == given_clips
    assert [compact[place] for place in range(len(compact))] == given_clips
    assert [json.loads(text) for text in compact.texts()] == [
        json.loads(json.dumps(astuple(clip))) for clip in given_clips
    ]


def test_parts_hold_the_chosen_clips_and_travel_without_the_others():
    many = [Clip(f"clip{number}", ("/m/a",), f"/v/{number}.mp4") for number in range(3000)]
    compact = CompactClips.of(many)
    part = compact.at([2999, 0, 7])
    assert list(part) == [many[2999], many[0], many[7]]
    assert list(part[1:]) == [many[0], many[7]]
    assert list(part.at([2, 0])) == [many[7], many[2999]]
    assert pickle.loads(pickle.dumps(part)) == part
    assert len(pickle.dumps(part)) < 1000
    with pytest.raises(IndexError):
        compact[3000]


def test_planned_shards_stay_those_of_earlier_versions():
    """A set that an earlier version began must be finished by this one."""
    manifest = [
        Clip("été", ("/m/b", "/m/a"), "/v/\udcff.mp4", 0.5, 30, split="train"),
        Clip("b], [", video="tar://v/b.mp4::x.tar"),
        *(Clip(f"c{number}", ("/m/a",), wav=f"/w/{number}.wav") for number in range(5)),
    ]
    labels = LabelSet(("/m/a", "/m/b"), ("A", "B"))
    plan = plan_shards(manifest, labels, {"seed": 3}, {"av": "1"}, CutByCount(3), seed=3)
    assert [[clip.video_id for clip in job.clips] for job in plan.jobs] == ORDER
    assert plan.fingerprint == FINGERPRINT
    assert plan.made_with["manifest"]["sha256"] == MANIFEST


def test_a_hundred_million_clips_can_be_planned_in_32_gib():
    names = (f"{number:011d}_{number % 600}.000" for number in range(20_000))
    few = (Clip(name, ("/m/a",), f"/data/audioset/videos/{name}.mp4") for name in names)
    tracemalloc.start()
    try:
        plan = plan_shards(
            CompactClips.of(few), LabelSet(("/m/a",), ("A",)), {}, {}, CutByCount(500)
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.clips == 20_000
    assert peak / plan.clips < 2**35 / 10**8


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_name_that_looks_like_the_end_of_an_entry_is_written_whole(tmp_path, suffix):
    odd = [Clip("a}, {", video="v"), Clip("b", video="v"), Clip("\udcff}, {", video="v")]
    path = tmp_path / f"m.{suffix}"
    write_manifest(path, odd)
    assert list(iter_manifest(path)) == odd
