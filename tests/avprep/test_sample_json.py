"""Programs that learn the types of a sample's JSON from a few samples can read all of them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from avprep.clips import Clip
from avprep.jobs import PoolOptions
from avprep.labels import LabelSet
from avprep.options import DecodeOptions, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set
from avprep.shards.plan import typical_first
from tests.media import Movie, make_movie

LOOKED_AT = 5  # samples, by Hugging Face `datasets`


def facts_in(tar: Path) -> list[dict[str, object]]:
    with tarfile.open(tar) as archive:
        members = [name for name in archive.getnames() if name.endswith(".json")]
        return [json.loads(archive.extractfile(name).read()) for name in members]


def learn_and_read(first: list[dict[str, object]], rest: list[dict[str, object]]) -> pa.Table:
    """Types from the first samples, as `datasets` finds them, and all samples read with those."""
    tables = [pa.Table.from_pylist([facts]) for facts in first]
    schema = pa.concat_tables(tables, promote_options="default").schema
    return pa.concat_tables([pa.Table.from_pylist([facts]).cast(schema) for facts in rest])


@pytest.mark.parametrize("special", ["labels", "segment", "split", "cut"])
@pytest.mark.parametrize("count", [1, 7])
def test_samples_that_differ_from_the_first_are_read_with_their_types(tmp_path, special, count):
    whole = make_movie(tmp_path, Movie("a.mkv", frames=25, audio_seconds=1.0, width=64, height=64))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    changes = {
        "labels": {"labels": ("dog",)},
        "segment": {"start": 0, "end": 0.5},
        "split": {"split": "train"},
        "cut": {"video": str(cut)},
    }[special]
    plain = [Clip(f"plain{n}", video=str(whole)) for n in range(14)]
    odd = [Clip(f"odd{n}", **{"video": str(whole), **changes}) for n in range(count)]
    options = ShardSetOptions(SampleOptions(DecodeOptions(frames=1)), samples_per_shard=7)
    labels = LabelSet(("dog",), ("dog",))
    report = build_shard_set([*plain, *odd], labels, str(tmp_path / "s"), options, PoolOptions(1))
    assert report.samples == 14 + count
    facts = [one for tar in sorted((tmp_path / "s").glob("*.tar")) for one in facts_in(tar)]
    assert len({tuple(one) for one in facts}) == 1
    table = learn_and_read(facts[:LOOKED_AT], facts)
    read = {row["video_id"]: row for row in table.to_pylist()}
    assert read["odd0"] == next(one for one in facts if one["video_id"] == "odd0")
    for clip in odd:
        row = read[clip.video_id]
        assert row["labels"] == list(clip.labels)
        assert row["split"] == clip.split
        found = 0.5 if special == "segment" else row["seconds_found"]
        assert row["segment"] == [0.0, found]
        assert 0 < found <= 1.1
        assert row["complete"] == (special != "cut")


def in_order(clips):
    labelled, timed = [bool(clip.labels) for clip in clips], [not clip.wav for clip in clips]
    return [clips[place] for place in typical_first(range(len(clips)), labelled, timed)]


def test_only_clips_that_say_more_than_others_come_first():
    clips = [Clip(f"c{n}", labels=("x",) if n in (5, 7, 8) else (), video="v") for n in range(9)]
    order = [clip.video_id for clip in in_order(clips)]
    assert order[0] == "c5"
    assert {"c5", "c7", "c8"} <= set(order[:6])
    assert sorted(order) == sorted(clip.video_id for clip in clips)
    alike = [Clip(f"c{n}", labels=("x",), video="v") for n in range(30)]
    assert in_order(alike) == alike
    packed = [Clip(f"c{n}", wav="w") for n in range(20)]
    assert in_order(packed) == packed
