"""Manifests and label sets: what is written is read back, what is wrong is named."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avprep.clips import Clip, discover_clips, video_ids
from avprep.errors import UserError
from avprep.labels import LabelSet, label_set_from_names, read_label_csv, write_label_csv
from avprep.manifest.model import from_entry, iter_manifest, read_manifest, to_entry, write_manifest
from avprep.manifest.sources.folder import folder_manifest
from avprep.manifest.sources.listing import match_listing, read_listing

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
TEXT = TEXT.filter(bool)
MID = TEXT.filter(lambda text: "," not in text)
STARTS = st.none() | st.floats(0, 1e6)
ENDS = st.none() | st.floats(2e6, 3e6)
CLIPS = st.builds(
    Clip,
    video_id=TEXT,
    labels=st.lists(MID, max_size=3).map(tuple),
    video=TEXT,
    start=STARTS,
    end=ENDS,
    wav=TEXT | st.just(""),
    video_path=TEXT | st.just(""),
    split=st.sampled_from(["", "train"]),
)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
@settings(deadline=None)  # the first example imports the format's library
@given(clips=st.lists(CLIPS, max_size=5))
def test_any_clip_survives_writing_and_reading(clips, suffix, tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / f"m{suffix}"
    assert write_manifest(path, clips) == len(clips)
    assert read_manifest(path) == clips


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_entries_that_look_like_json_or_are_not_utf8_leave_the_others_alone(suffix, tmp_path):
    names = ["ä.mp4", '}, {"video_id": "x', "caf\udce9.mp4", '\\"}, {"']
    clips = [Clip(name, video=name) for name in names]
    path = tmp_path / f"m{suffix}"
    write_manifest(path, clips)
    assert read_manifest(path) == clips
    raw = path.read_bytes()
    assert raw.count("ä".encode()) == raw.count(rb"caf\udce9") == 2


def test_published_manifests_are_read_as_they_are(shared, tmp_path):
    head = (shared / "metadata" / "official_manifest_head.json").read_text()
    path = tmp_path / "published.json"
    path.write_text(head[: head.rindex("  },") + 3] + "]}")  # the excerpt ends inside an entry
    clips = read_manifest(path)
    assert clips[0].video_id == "--4gqARaEJE"
    assert clips[0].labels == ("/m/068hy", "/m/07q6cd_", "/m/0bt9lr", "/m/0jbk")
    assert [to_entry(clip) for clip in clips] == json.loads(path.read_text())["data"]


def test_published_label_csv_is_read_as_it_is(shared):
    labels = read_label_csv(shared / "metadata" / "class_labels_indices.csv")
    assert labels.mids[0] == "/m/09x0r"
    assert labels.names[1] == "Male speech, man speaking"
    assert labels.indices_of(("/m/05zppz", "/m/09x0r")) == (0, 1)


@given(
    names=st.sets(TEXT.filter(lambda text: not set("\r\0") & set(text) and text.strip() == text))
)
def test_label_sets_survive_writing_and_reading(names, tmp_path_factory):
    try:
        labels = label_set_from_names(names)
    except UserError:
        return  # two names that differ in a comma alone
    path = tmp_path_factory.mktemp("l") / "labels.csv"
    write_label_csv(path, labels)
    assert read_label_csv(path) == labels
    assert list(labels.names) == sorted(names)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ([], "expected an object"),
        ({"video_id": "x"}, "has no 'wav'"),
        ({"video_id": 3, "wav": "", "video_path": "", "labels": ""}, "must be a string"),
        ({"video_id": "", "wav": "a", "video_path": "", "labels": ""}, "is empty"),
        ({"video_id": "x", "wav": "", "video_path": "", "labels": ""}, "neither"),
        ({"video_id": "x", "wav": "a", "video_path": "", "labels": "", "start": "1"}, "seconds"),
        ({"start_time": 5}, "'start_time' looks like the start. Call it start, or leave it out"),
        ({"video_id": "x", "End": 5}, "'End' looks like the end. Call it end"),
        ({"start": 5, "duration": 10}, "'duration' stands with a start. Give the end instead"),
        ({"timestamp": 5}, "'timestamp' looks like a time, but it is not clear which"),
    ],
)
def test_a_wrong_entry_is_named_with_its_place(entry, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        from_entry(entry, "m.json: data[3]")
    assert str(caught.value).startswith("m.json: data[3]")


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv"])
def test_a_byte_order_mark_and_keys_of_other_programs_are_no_matter(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    write_manifest(path, [Clip("a", video="a.mp4", start=1.0, end=2.0)])
    text = path.read_text().replace('"start"', '"duration": 60, "fps": 25, "start"')
    path.write_text("\ufeff" + text)
    assert read_manifest(path) == [Clip("a", video="a.mp4", start=1.0, end=2.0)]


def test_a_wrong_line_of_a_jsonl_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, [Clip("a", video="a.mp4")])
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(UserError, match="line 2: not JSON"):
        list(iter_manifest(path))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1"),
        ("mid,name\n", "line 1"),
        ("index,mid,display_name\n1,a,A\n", "line 2: expected class 0"),
        ("index,mid,display_name\n0,a,A\n1,a,B\n", "was used before"),
    ],
)
def test_a_wrong_class_csv_is_named_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_label_csv(path)


@pytest.mark.parametrize(
    ("times", "complaint"),
    [
        ('"start": NaN', "'start' must be 0 or more seconds, found nan"),
        ('"end": Infinity', "'end' must be 0 or more seconds, found inf"),
        ('"start": -1', "'start' must be 0 or more seconds, found -1"),
        (f'"end": 1{"0" * 400}', "'end' must be 0 or more seconds, found 1000"),
        ('"start": 3, "end": 3', "'end' 3 does not come after 'start' 3"),
        ('"end": 0', "'end' 0 does not come after 'start' 0"),
    ],
)
def test_a_segment_that_is_none_is_refused_where_it_stands(tmp_path, times, complaint):
    path = tmp_path / "m.jsonl"
    path.write_text(
        f'{{"video_id": "a", "wav": "", "video_path": "", "labels": "", "video": "v", {times}}}\n'
    )
    with pytest.raises(UserError, match=f"m.jsonl: line 1: {complaint}"):
        read_manifest(path)


def test_a_large_document_is_read_in_pieces_and_says_where_it_is_damaged(tmp_path):
    odd = "}], {"
    clips = [Clip(f"{number}{odd * (number % 7 == 0)}", video="v") for number in range(80_000)]
    document = {"by": [{}], "data": [*map(to_entry, clips)], "more": [{"data": []}]}
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document, indent=1))
    tracemalloc.start()
    try:
        same = [clip == other for clip, other in zip(iter_manifest(path), clips, strict=True)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(same)
    assert peak < 2 * path.stat().st_size
    damaged = path.read_text()[:-20]
    path.write_text(damaged)
    lines = damaged.count("\n") + 1
    with pytest.raises(UserError, match=rf"m.json: not JSON \(.*: line {lines} column"):
        read_manifest(path)


def test_unknown_label_says_which_are_known():
    with pytest.raises(UserError, match=r"'cow'.*2 classes \(cat, dog\)"):
        LabelSet(("cat", "dog"), ("Cat", "Dog")).index_of("cow")


def test_ids_are_stems_and_clashes_get_their_path(tmp_path):
    for name in ("a/x.mp4", "b/x.mkv", "b/y.MOV", "c/z.mp4", "c/z.webm", "c/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    ids = {Path(clip.video).name: clip.video_id for clip in discover_clips(tmp_path)}
    assert ids == {
        "x.mp4": "a__x",
        "x.mkv": "b__x",
        "y.MOV": "y",
        "z.mp4": "c__z.mp4",
        "z.webm": "c__z.webm",
    }


PARTS = st.text("ab_=.", min_size=1, max_size=4).filter(lambda part: part.strip("."))


@given(st.sets(st.lists(PARTS, min_size=1, max_size=3).map("/".join), max_size=12), st.randoms())
@example({"x/a__b.mp4", "a/b.mp4", "c/b.mp4"}, random.Random(0))
@example({"/v/a.mp4", "v/a.mp4", "w/a.mp4"}, random.Random(0))
def test_no_two_files_get_one_id_in_whatever_order_they_come(paths, order):
    paths = sorted(paths)
    ids = dict(zip(paths, video_ids(paths), strict=True))
    assert len(set(ids.values())) == len(paths)
    order.shuffle(paths)
    assert dict(zip(paths, video_ids(paths), strict=True)) == ids


def test_segments_that_differ_by_milliseconds_have_ids_of_their_own(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "a.mp4").touch()
    table = tmp_path / "l.csv"
    starts = ("0", "30", "12345.12", "12345.14", "12345.1401")
    table.write_text("path,label,start\n" + "".join(f"a.mp4,ant,{start}\n" for start in starts))
    found = match_listing(read_listing(table, None), tmp_path / "v", None)
    assert [clip.video_id for clip in found.clips()] == [
        *("a_0_end", "a_30_end", "a_12345.12_end", "a_12345.14_end", "a_12345.1401_end"),
    ]


def test_a_file_that_rows_spell_differently_is_one_clip(tmp_path):
    (tmp_path / "v/x").mkdir(parents=True)
    (tmp_path / "v/x/a.mp4").touch()
    table = tmp_path / "l.csv"
    names = ("x/a.mp4", "./x/a.mp4", "x/a", "a", tmp_path / "v/x/a.mp4")
    table.write_text("path,label\n" + "".join(f"{name},{n}\n" for n, name in enumerate(names)))
    data_set = read_listing(table, None)
    (clip,) = match_listing(data_set, tmp_path / "v", None).clips()
    assert (clip.video_id, clip.labels) == ("a", ("0", "1", "2", "3", "4"))
    ((_, lines),) = data_set.notes.corrected.items()
    assert sorted(lines) == [3, 4, 5, 6]


def test_sub_folders_are_classes_and_loose_videos_stay_unlabelled(tmp_path):
    for name in ("dog, bark/a.mp4", "cat/deep/b.mp4", "loose.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    clips, labels = folder_manifest(tmp_path)
    assert labels.names == ("cat", "dog, bark")
    assert {clip.video_id: clip.labels for clip in clips} == {
        "a": ("dog_ bark",),
        "b": ("cat",),
        "loose": (),
    }


def test_a_symlink_loop_ends(tmp_path):
    (tmp_path / "a.mp4").touch()
    os.symlink(tmp_path, tmp_path / "again")
    assert len(discover_clips(tmp_path)) == 1


def test_a_write_that_fails_leaves_the_old_manifest(tmp_path):
    path = tmp_path / "m.json"
    write_manifest(path, [Clip("a", video="a.mp4")])

    def failing():
        yield Clip("b", video="b.mp4")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_manifest(path, failing())
    assert [clip.video_id for clip in read_manifest(path)] == ["a"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.json"]
