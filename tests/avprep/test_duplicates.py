"""`avprep duplicates`: planted copies are found, in a set and between sets, and nothing else is."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import ffmpeg
import pytest

import avprep
from avprep import Clip, DemoDataOptions, DuplicateOptions, Shares, SplitOptions
from avprep.errors import UserError
from avprep.ffmpeg_binary import find_ffmpeg
from avprep.selection import read_selection
from tests.conftest import run_command

# How a copy is encoded, how much later it begins, its size and its gain.
COPIES = {
    "small": (".avi", {"vcodec": "mpeg4", "qscale:v": 9, "acodec": "libmp3lame"}, 0.0, 104, "-9dB"),
    "large": (".webm", {"vcodec": "libvpx-vp9", "acodec": "libopus"}, 0.3, 312, "4dB"),
    "late": (".mkv", {"vcodec": "mpeg2video", "qscale:v": 6, "acodec": "aac"}, 0.5, 208, "0dB"),
}


def make_copy(original: Path, folder: Path, how: str) -> Path:
    suffix, codecs, start, width, gain = COPIES[how]
    path = folder / f"{how}{suffix}"
    file = ffmpeg.input(str(original), ss=start)
    picture, sound = file.video.filter("scale", width, -2), file.audio.filter("volume", gain)
    ffmpeg.output(picture, sound, str(path), **codecs).run(find_ffmpeg(), quiet=True)
    return path


def make_black_and_silent(path: Path) -> Path:
    picture = ffmpeg.input("color=black:size=96x96:rate=10:duration=4", f="lavfi")
    sound = ffmpeg.input("anullsrc=duration=4", f="lavfi")
    ffmpeg.output(picture, sound, str(path)).run(find_ffmpeg(), quiet=True)
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The shard sets train and test: 16 and 8 made-up clips, copies of four, and empty ones.

    The copies of a train clip are small, large and late in the test set; train has a late one, too.
    """
    folder = tmp_path_factory.mktemp("duplicates")
    avprep.make_demo_data(folder / "made", DemoDataOptions(2, 1, seconds=4.0))
    videos = {
        "train": sorted((folder / "made" / "train").glob("*/*_train_*")),
        "test": sorted((folder / "made" / "test").glob("*/*_test_*")),
    }
    originals = dict(zip(COPIES, videos["train"], strict=False))
    for split, hows in (("train", ["late"]), ("test", list(COPIES))):
        (folder / split).mkdir()
        for how in hows:
            videos[split].append(make_copy(originals[how], folder / split, how))
        for number in range(2):
            empty = folder / split / f"{split}_empty_{number}.mp4"
            videos[split].append(make_black_and_silent(empty))
    for split, paths in videos.items():
        clips = [Clip(path.stem, video=str(path), split=split) for path in paths]
        avprep.write_manifest(folder / f"{split}.json", clips)
        avprep.build_shards(folder / f"{split}.json", str(folder / split / "shards"))
    ids = {how: path.stem for how, path in originals.items()}
    return str(folder / "train" / "shards"), str(folder / "test" / "shards"), ids


def rows_of(table):
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_leaks_are_found_and_left_out_of_the_training_set(sets, tmp_path):
    train, test, ids = sets
    found = avprep.find_duplicates([train, test], tmp_path)
    assert (found.clips, found.groups, found.in_groups, found.leaks) == (32, 3, 7, 3)
    assert (found.without_picture, found.without_sound) == (4, 4)
    rows = rows_of(found.table)
    groups = {}
    for row in rows:
        groups.setdefault(row["group"], set()).add((row["set"], row["split"], row["video_id"]))
    expected = [{(train, "train", ids[how]), (test, "test", how)} for how in COPIES]
    expected[2].add((train, "train", "late"))
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, expected))
    assert {row["video_id"] for row in rows if row["kept"] == "yes"} == set(COPIES)
    assert all((row["kept"] == "yes") == (row["set"] == test) for row in rows)
    assert all(float(row["sound"]) + 0.3 * float(row["picture"]) <= 0.31 for row in rows)
    for_train, for_test = found.selections
    assert [(one.clips, one.dropped) for one in found.selections] == [(15, 4), (13, 0)]
    kept = set(read_selection(for_train.path))
    assert kept.isdisjoint({*ids.values(), "late"})
    assert len(kept) == 15
    assert set(COPIES) <= set(read_selection(for_test.path))


def test_inside_one_set_one_of_each_group_is_kept(sets, tmp_path):
    train, _, ids = sets
    found = avprep.find_duplicates([train], tmp_path)
    assert (found.groups, found.leaks) == (1, 0)
    assert {row["video_id"] for row in rows_of(found.table)} == {ids["late"], "late"}
    (selected,) = found.selections
    assert selected.path == tmp_path / "selection-shards.csv"
    assert (selected.clips, selected.dropped) == (18, 1)


def test_the_set_named_last_keeps_its_clips_where_splits_do_not_decide(sets, tmp_path):
    train, *_ = sets
    other = shutil.copytree(train, tmp_path / "copied")
    found = avprep.find_duplicates([str(other), train], tmp_path / "out")
    assert [(one.clips, one.dropped) for one in found.selections] == [(2, 17), (18, 1)]
    names = [one.path.name for one in found.selections]
    assert names == ["selection-copied.csv", "selection-shards.csv"]


@pytest.mark.parametrize("by", ["picture", "sound", "either"])
def test_by_one_kind_alone_empty_clips_are_set_aside_as_well(by, sets, tmp_path):
    train, test, _ = sets
    found = avprep.find_duplicates([train, test], tmp_path, DuplicateOptions(by=by))
    ids = {row["video_id"] for row in rows_of(found.table)}
    assert "small" in ids
    assert not any("empty" in video_id for video_id in ids)


def test_the_page_plays_pairs_side_by_side(sets, tmp_path, browser):
    train, test, ids = sets
    found = avprep.find_duplicates([train, test], tmp_path)
    assert found.shown == 4
    browser.open(found.page)
    pairs = browser.run(
        "return [...document.querySelectorAll('.pair')].map(pair =>"
        " [...pair.querySelectorAll('h4')].map(e => e.textContent))"
    )
    assert sorted(pairs) == sorted([*([how, ids[how]] for how in COPIES), ["late", "late"]])
    tops = "return [...document.querySelector('.pair').querySelectorAll('.player')]"
    first, second = browser.run(tops + ".map(e => e.getBoundingClientRect().top)")
    assert first == second
    assert browser.run("return document.querySelectorAll('.pair audio').length") == 8
    assert browser.console_messages() == []
    assert browser.network_requests() == []
    few = avprep.find_duplicates([train, test], tmp_path, DuplicateOptions(max_mb=0.5))
    assert 0 < few.shown < 4
    assert few.page.stat().st_size < 500_000


def test_a_set_without_hashes_is_told_to_be_measured(sets, tmp_path):
    _, test, _ = sets
    old = shutil.copytree(test, tmp_path / "old")
    for measures in old.glob("*.measures.json"):
        measures.unlink()
    with pytest.raises(UserError, match=rf"run `avprep measure {old}`"):
        avprep.find_duplicates([str(old)], tmp_path / "out")
    with pytest.raises(UserError, match="named twice"):
        avprep.find_duplicates([test, test], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_found_and_a_split_takes_its_table(sets, tmp_path):
    train, test, ids = sets
    said = run_command(tmp_path, "avprep", "duplicates", train, test, "--out", "found")
    assert said.splitlines()[:2] == [
        "3 groups of near-duplicates by picture and sound: 7 of 32 clips",
        "3 groups across sets or splits",
    ]
    assert "4 clips not compared by sound: too little to recognise" in said
    facts = json.loads(
        run_command(tmp_path, "avprep", "duplicates", train, "--out", "one", "--json")
    )
    assert facts["selections"] == {"one/selection-shards.csv": {"clips": 18, "dropped": 1}}
    manifest = Path(train).parent.parent / "train.json"
    options = SplitOptions(Shares(a=1, b=1), groups=tmp_path / "found" / "duplicates.csv")
    parts = avprep.split_manifest(manifest, tmp_path / "parts", options)
    sides = [{clip.video_id for clip in avprep.read_manifest(part.path)} for part in parts]
    assert any({ids["late"], "late"} <= side for side in sides)
