"""Manifests merged, split, sampled, moved and checked."""

from __future__ import annotations

import os
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avprep.clips import Clip
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.manifest.check import (
    find_problems,
    plot_class_counts,
    write_class_counts,
    write_problems,
)
from avprep.manifest.groups import held_together
from avprep.manifest.ops import merge_clips, sample_per_class, split_clips
from avprep.manifest.paths import NewRoot, rerooted

CLASSES = [f"/m/{letter}" for letter in "abcde"]
ONE_LABEL = st.lists(st.sampled_from(CLASSES), max_size=60).map(
    lambda labels: [Clip(f"c{n}", (label,), f"{n}.mp4") for n, label in enumerate(labels)]
)
MANY_LABELS = st.lists(st.sets(st.sampled_from(CLASSES), max_size=3), max_size=60).map(
    lambda sets: [Clip(f"c{n}", tuple(sorted(s)), f"{n}.mp4") for n, s in enumerate(sets)]
)
PARTS = st.dictionaries(
    st.sampled_from(["train", "val", "test"]), st.floats(0.1, 10), min_size=2, max_size=3
)


def counts_of(clips):
    return Counter(label for clip in clips for label in clip.labels)


@given(clips=ONE_LABEL, parts=PARTS, seed=st.integers(0, 5))
def test_every_part_has_its_share_of_every_class_to_within_one_clip(clips, parts, seed):
    divided = split_clips(clips, parts, seed)
    everything = counts_of(clips)
    for name, share in parts.items():
        for label, count in everything.items():
            wanted = count * share / sum(parts.values())
            assert abs(counts_of(divided[name])[label] - wanted) <= 1


@given(clips=MANY_LABELS, parts=PARTS, seed=st.integers(0, 5))
def test_a_split_loses_and_repeats_nothing_and_keeps_the_order(clips, parts, seed):
    divided = split_clips(clips, parts, seed)
    assert list(divided) == list(parts)
    together = [clip for chosen in divided.values() for clip in chosen]
    assert sorted(c.video_id for c in together) == sorted(c.video_id for c in clips)
    place = {clip.video_id: n for n, clip in enumerate(clips)}
    for name, chosen in divided.items():
        assert all(clip.split == name for clip in chosen)
        assert [replace(clip, split="") for clip in chosen] == [
            clips[place[clip.video_id]] for clip in chosen
        ]
        places = [place[clip.video_id] for clip in chosen]
        assert places == sorted(places)
    assert split_clips(clips, parts, seed) == divided


def test_another_seed_is_another_split():
    clips = [Clip(f"c{n}", ("/m/a",), f"{n}.mp4") for n in range(50)]
    first, second = (split_clips(clips, {"a": 1, "b": 1}, seed) for seed in (0, 1))
    assert first != second


def test_many_labels_are_shared_out_far_better_than_by_chance():
    """A rare class beside a frequent one: 10 of 1000 clips have both."""
    clips = [
        Clip(f"c{n}", ("/m/a", "/m/b") if n % 100 == 0 else ("/m/a",), f"{n}.mp4")
        for n in range(1000)
    ]
    divided = split_clips(clips, {"train": 0.8, "test": 0.2}, 0)
    assert counts_of(divided["test"]) == {"/m/a": 200, "/m/b": 2}


@given(seed=st.integers(0, 20))
def test_segments_of_one_video_stay_together(seed):
    clips = [
        Clip(f"v{video}_{n}", (f"/m/{n}",), f"{video}.mp4", 10.0 * n, 10.0 * n + 10)
        for video in range(12)
        for n in range(4)
    ]
    divided = split_clips(clips, {"train": 3, "test": 1}, seed)
    videos = [{clip.video for clip in chosen} for chosen in divided.values()]
    assert not videos[0] & videos[1]
    assert [len(chosen) for chosen in divided.values()] == [36, 12]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Clip("a", video="v.mp4"), Clip("b", video="v.mp4")),
        (Clip("a", video="v.mp4"), Clip("b", video="v.mp4", start=3.0)),
        (Clip("00W1lcxW-WU_40.000"), Clip("00W1lcxW-WU_70.000")),
        (Clip("00W1lcxW-WU_30_40", video="x/1.mp4"), Clip("2", video="y/Y00W1lcxW-WU_000361.mkv")),
        (Clip("a", video="tar://00W1lcxW-WU_1_2.mp4::x.tar"), Clip("00W1lcxW-WU_000002")),
        (Clip("a"), Clip("same")),
    ],
)
def test_clips_of_one_source_or_group_belong_together(one, other):
    clips = [Clip("alone"), one, Clip("00W1lcxW-wu_50.000", video="z.mp4"), other]
    groups = {"a": ["7", "8"], "elsewhere": ["8"], "same": ["7"]}
    assert held_together(clips, groups) == [[0], [1, 3], [2]]


@pytest.mark.parametrize(
    "names",
    [
        ("playingdrum_1", "playingdrum_2"),
        ("Playingdrum_1", "Playingdrum_2"),
        ("circle-tone_train_000", "circle-tone_train_001"),
        ("playing-drum_10_20", "playing-drum_20_30"),
        ("00W1lcxW-WU_2", "00W1lcxW-WU_1"),  # parts of a series, or what a browser appends
        ("bbaf2n", "bbaf3s"),
        ("", ""),
    ],
)
def test_names_that_are_no_segments_of_a_youtube_video_hold_nothing_together(names):
    assert held_together([Clip(name) for name in names]) == [[0], [1]]


def test_a_chain_of_groups_and_files_is_one_group():
    clips = [Clip("a", video="1"), Clip("b", video="2"), Clip("c", video="1"), Clip("d", video="3")]
    assert held_together(clips, {"c": ["x"], "d": ["x", "y"], "b": ["y"]}) == [[0, 1, 2, 3]]


@given(sizes=st.lists(st.integers(1, 6), min_size=4, max_size=30), seed=st.integers(0, 5))
def test_shares_are_met_as_closely_as_the_groups_allow(sizes, seed):
    clips = [Clip(f"{g}.{n}", ("/m/a",)) for g, size in enumerate(sizes) for n in range(size)]
    groups = {clip.video_id: [clip.video_id.partition(".")[0]] for clip in clips}
    divided = split_clips(clips, {"train": 3, "test": 1}, seed, groups)
    sides = [{clip.video_id.partition(".")[0] for clip in chosen} for chosen in divided.values()]
    assert not sides[0] & sides[1]
    assert abs(len(divided["train"]) - len(clips) * 0.75) <= max(sizes)
    assert split_clips(clips, {"train": 3, "test": 1}, seed, groups) == divided


def test_large_groups_go_first_so_that_single_clips_even_out_the_shares():
    clips = [Clip(f"c{n}", ("/m/a",)) for n in range(100)]
    groups = {f"c{n}": ["big"] for n in range(50, 90)}
    for seed in range(10):
        divided = split_clips(clips, {"train": 0.5, "test": 0.5}, seed, groups)
        assert [len(chosen) for chosen in divided.values()] == [50, 50]


@given(clips=ONE_LABEL, per_class=st.integers(1, 8), seed=st.integers(0, 5))
def test_a_sample_has_exactly_so_many_of_each_class_or_all(clips, per_class, seed):
    chosen = sample_per_class(clips, per_class, seed)
    everything = counts_of(clips)
    assert counts_of(chosen) == {c: min(n, per_class) for c, n in everything.items()}
    assert [clip for clip in clips if clip in chosen] == list(chosen)
    assert sample_per_class(clips, per_class, seed) == chosen


@given(clips=MANY_LABELS, per_class=st.integers(1, 8), seed=st.integers(0, 5))
def test_a_sample_of_many_labels_serves_every_class_and_wastes_nothing(clips, per_class, seed):
    chosen = sample_per_class(clips, per_class, seed)
    have, everything = counts_of(chosen), counts_of(clips)
    assert all(have[label] >= min(count, per_class) for label, count in everything.items())
    assert len(chosen) <= per_class * len(everything)
    assert all(clip.labels for clip in chosen)


def test_merging_keeps_the_first_of_each_id_and_tells_repeats_from_conflicts():
    a, b, c = (Clip(name, ("/m/a",), f"{name}.mp4") for name in "abc")
    other = replace(b, labels=("/m/b",))
    clips, same, conflicts = merge_clips([[a, b], iter([a, other, c])])
    assert clips == [a, b, c]
    assert same == 1
    assert [(found.kept, found.dropped) for found in conflicts] == [(b, other)]


@pytest.mark.parametrize(
    ("root", "path", "moved"),
    [
        ("videos=/data", "videos/a.mp4", "/data/a.mp4"),
        ("videos/=/data/", "videos/a.mp4", "/data/a.mp4"),
        ("videos=/data", "videos2/a.mp4", None),
        ("videos=/data", "videos", "/data"),
        ("/old/x=y", "/old/x/b/a.mp4", "y/b/a.mp4"),
        ("/=/mnt", "/a.mp4", "/mnt/a.mp4"),
        ("/old=", "/old/a.mp4", "a.mp4"),
        ("=/data", "sub/a.mp4", "/data/sub/a.mp4"),
        ("=/data", "/a.mp4", None),
        ("a=b", "a=c/x", None),
    ],
)
def test_paths_move_by_whole_folder_names(root, path, moved):
    assert NewRoot.parse(root).apply(path) == moved


@given(path=st.text("ab/", min_size=1).filter(lambda p: not p.startswith("/") and "//" not in p))
def test_moving_there_and_back_changes_nothing(path):
    there = NewRoot("", "/new").apply(path)
    assert NewRoot("/new", "").apply(there) == path


def test_all_paths_of_a_clip_move_and_a_misspelt_root_is_an_error():
    clip = Clip("x", (), "v/x.mp4", wav="e/audio/x.wav", video_path="e/frames")
    (moved,) = rerooted([clip], [NewRoot("v", "/v"), NewRoot("e", "/e")])
    assert moved == replace(clip, video="/v/x.mp4", wav="/e/audio/x.wav", video_path="/e/frames")
    with pytest.raises(UserError, match=r"no path is below 'w'; paths look like 'v/x.mp4'"):
        list(rerooted([clip], [NewRoot("v", "/v"), NewRoot("w", "/w")]))
    with pytest.raises(UserError, match="give OLD=NEW"):
        NewRoot.parse("videos")


def test_every_kind_of_problem_is_found_where_it_is(tmp_path):
    for name in ("a.mp4", "b.mp4", "audio/e.wav", "audio/f.wav", "frames/frame_0/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    frames = str(tmp_path / "frames")
    clips = [
        Clip("a", ("/m/a",), str(tmp_path / "a.mp4")),
        Clip("b", ("/m/a", "/m/zz"), str(tmp_path / "b.mp4")),
        Clip("a", ("/m/b",), str(tmp_path / "gone.mp4")),
        Clip("d", (), str(tmp_path / "a.mp4")),
        Clip("e", ("/m/a",), wav=str(tmp_path / "audio/e.wav"), video_path=frames),
        Clip("f", ("/m/a",), wav=str(tmp_path / "audio/f.wav"), video_path=frames),
        Clip("s", ("/m/a",), str(tmp_path / "a.mp4"), start=0.0, end=5.0),
    ]
    labels = LabelSet(("/m/a", "/m/b"), ("A", "B"))
    found = find_problems(clips, labels)
    assert [(p.kind, p.place) for p in found.problems] == [
        ("unknown-label", 1),
        ("duplicate-id", 2),
        ("missing-file", 2),
        ("duplicate-source", 3),
        ("no-label", 3),
        ("missing-file", 5),
    ]
    assert found.problems[-1].detail == f"{frames}/frame_0/f.jpg: no such file"
    assert found.counts == {"/m/a": 5, "/m/zz": 1, "/m/b": 1}
    assert (found.clips, found.unlabelled) == (7, 1)
    assert "missing-file" not in find_problems(clips, labels, check_files=False).by_kind()
    assert "unknown-label" not in find_problems(clips, None).by_kind()


def test_links_to_nowhere_empty_files_and_copies_are_found(tmp_path):
    big = bytes(range(256)) * 8192
    contents = {
        "a": big, "copy": big, "head": b"x" + big[1:], "tail": big[:-1] + b"x", "short": big[:-1],
        "empty": b"", "none": b"", "b": b"b", "c": b"c",
    }  # fmt: skip
    for name, data in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(data)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "b.mp4")
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "gone.mp4")
    (tmp_path / "folder.mp4").mkdir()
    names = [*contents, "link", "dangling", "gone", "folder"]
    clips = [Clip(name, video=str(tmp_path / f"{name}.mp4")) for name in names]
    clips += [Clip("a2", video=str(tmp_path / "a.mp4"), start=1.0)]  # one file, two segments
    found = find_problems(clips, None)
    assert {p.video_id: p.kind for p in found.problems} == {
        "copy": "identical-file", "empty": "empty-file", "none": "empty-file",
        "link": "identical-file", "dangling": "dangling-link", "gone": "missing-file",
        "folder": "no-file",
    }  # fmt: skip
    assert [p.place for p in found.problems] == sorted(p.place for p in found.problems)
    details = {p.video_id: p.detail for p in found.problems}
    assert details["copy"] == f"{tmp_path}/copy.mp4: the same bytes as {tmp_path}/a.mp4"
    assert details["dangling"].endswith("dangling.mp4: a link to a file that is not there")
    assert find_problems(clips, None, check_files=False).problems == []


def test_a_wholly_unlabelled_manifest_is_no_problem(tmp_path):
    (tmp_path / "a.mp4").write_text("a")
    assert find_problems([Clip("a", (), str(tmp_path / "a.mp4"))], None).problems == []


def test_twenty_million_clips_can_be_checked_in_4_gib():
    names = (f"{number:011d}_{number % 600}.000" for number in range(20_000))
    clips = (Clip(name, ("/m/a",), f"/data/audioset/videos/{name}.mp4") for name in names)
    tracemalloc.start()
    try:
        found = find_problems(clips, LabelSet(("/m/a",), ("A",)), check_files=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.clips == 20_000
    assert peak / found.clips < 2**32 / 20e6


@pytest.mark.parametrize("classes", [1, 60, 527])
def test_the_plot_is_a_picture_with_a_bar_for_each_class(classes, tmp_path):
    names = [f"class $_{n} of {{many" for n in range(classes)]  # no mathematics for matplotlib
    labels = LabelSet(tuple(f"/m/{n}" for n in range(classes)), tuple(names))
    clips = [Clip(f"{n}-{i}", (f"/m/{n}",), "x.mp4") for n in range(classes) for i in range(n % 7)]
    path = tmp_path / "plots" / "classes.png"
    plot_class_counts(find_problems(clips, labels, check_files=False), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 600
        # As many bars, so a taller picture; above 60 classes one curve.
        assert (image.height > 1200) == (classes == 60)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10


def test_classes_have_a_bar_each_whatever_their_names(tmp_path):
    labels = LabelSet(("/m/0", "/m/1", "/m/2"), ("crowd", "dog", "crowd"))
    clips = [Clip(f"{n}-{i}", (f"/m/{n}",), "x.mp4") for n in range(3) for i in range(3 + n)]
    clips += [Clip("odd", (os.fsdecode(b"not UTF-8: \xff"),), "x.mp4")] * 3
    plot_class_counts(find_problems(clips, labels, check_files=False), tmp_path / "classes.png")
    with Image.open(tmp_path / "classes.png") as image:
        column = [image.convert("RGB").getpixel((image.width // 4, y)) for y in range(image.height)]
    bars = [color for color, _ in groupby(column) if color == (31, 119, 180)]
    assert len(bars) == 4


def test_the_csvs_of_a_check_hold_whatever_names_there_are(tmp_path):
    labels = LabelSet(("/m/0", "/m/1"), ('Bark, "loud"', "NA"))
    odd = os.fsdecode(b"\xff.mp4")
    found = find_problems([Clip("a,b", ("/m/0",), odd), Clip("NA", ("/m/1", "/m/9"), odd)], labels)
    write_class_counts(found, tmp_path / "counts.csv")
    assert (tmp_path / "counts.csv").read_text() == (
        'index,mid,display_name,clips\n0,/m/0,"Bark, ""loud""",1\n1,/m/1,NA,1\n'
    )
    write_problems(found, tmp_path / "problems.csv")
    assert (tmp_path / "problems.csv").read_text() == (
        "kind,place,video_id,detail\n"
        'missing-file,0,"a,b",\\udcff.mp4: no such file\n'
        "unknown-label,1,NA,'/m/9' is not among the 2 classes\n"
        "duplicate-source,1,NA,entry 0 has the same source \\udcff.mp4\n"
        "missing-file,1,NA,\\udcff.mp4: no such file\n"
    )
    write_class_counts(find_problems([], None), tmp_path / "empty.csv")
    assert (tmp_path / "empty.csv").read_text() == "index,mid,display_name,clips\n"
