"""Hidden and trash folders, and what downloads leave, hold no clips; their number is said."""

from __future__ import annotations

import json
import os

import pytest

from avprep.clips import Scan, discover_clips, discover_files, scan_files
from avprep.errors import UserError
from avprep.kinds import VIDEO_SUFFIXES
from avprep.manifest.model import read_manifest
from tests.avprep.test_manifest_commands import run, touch

FOLDERS = [
    *(".Trash-1000", ".Trash-1000/files", ".Trashes/501", "$RECYCLE.BIN/S-1-5", ".AppleDouble"),
    *("__MACOSX", "@eaDir", "lost+found", ".ipynb_checkpoints", "#recycle", "@Recycle", ".git"),
    *("System Volume Information", ".hidden/deep/er", "~snapshot", "RECYCLER", "b.mp4.download"),
    *("Trash", "Recycle Bin", "Network Trash Folder", "FOUND.001", "@sharebin", "rsync~tmp"),
    *("$Recycle.Bin.old", "Temporary Items", "Config.Msi", "Deleted Items"),
]
FILES = [
    *("._a.mp4", ".a.mp4", "b.mp4.part", "b.mp4.crdownload", "b.mp4.ytdl", "b.mp4.aria2"),
    *("b.mp4.download", "b.mp4.opdownload", "b.mp4.!ut", "b.mp4.!qB", "b.temp.mp4", "b.TEMP.MP4"),
    *("b.mp4.part-Frag12", "b.mp4.part-Frag12.part", "b.f137.mp4.part", "b.mp4.tmp", "b.tmp.mp4"),
    *("b.mp4.partial", "b.part.mp4", "b.webm.temp", "Unconfirmed 12345.crdownload", "b.mp4.st"),
]


def passed_over_beside_a(root):
    """What a scan passes over that finds a.mp4 and no other clip."""
    scan = Scan()
    (found,) = discover_files([str(root)], scan)
    assert found.below.endswith("a.mp4")
    return scan.passed_over


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_the_system_holds_no_clips(folder, tmp_path):
    touch(tmp_path, "ant/a.mp4", f"{folder}/x.mp4", f"ant/{folder}/y.mkv", f"{folder}/notes.txt")
    passed_over = passed_over_beside_a(tmp_path)
    assert sorted(passed_over) == sorted(
        [str(tmp_path / folder / "x.mp4"), str(tmp_path / "ant" / folder / "y.mkv")]
    )


@pytest.mark.parametrize("name", FILES)
def test_an_unfinished_file_is_no_clip(name, tmp_path):
    touch(tmp_path, "a.mp4", name)
    passed_over = passed_over_beside_a(tmp_path)
    assert passed_over == [str(tmp_path / name)]


@pytest.mark.parametrize("control", ["b.mp4.aria2", "b.mp4.st", "b.mp4.lftp-pget-status"])
def test_a_file_whose_download_is_under_way_is_no_clip(control, tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", control)
    passed_over = passed_over_beside_a(tmp_path)
    assert sorted(passed_over) == [str(tmp_path / "b.mp4"), str(tmp_path / control)]


def test_single_streams_beside_their_video_are_no_clips(tmp_path):
    touch(tmp_path, "T [x].mp4", "T [x].f137.mp4", "T [x].f251-drc.webm", "U.f137.mp4", "v.f1.mp4")
    touch(tmp_path, "T [x].fhls-720.mp4", "T [x].fdash-video=1.mp4")
    touch(tmp_path, "other/v.mp4")
    ids = [clip.video_id for clip in discover_clips(tmp_path)]
    assert sorted(ids) == ["T [x]", "U.f137", "v", "v.f1"]


@pytest.mark.parametrize(
    "name",
    ["temp.mp4", "part.mp4", "movie.part1.mp4", "a.temperature.mp4", "b.f.mp4", "x.download.mp4"],
)
def test_names_that_only_look_alike_are_clips(name, tmp_path):
    touch(tmp_path, "a.mp4", name)
    assert len(discover_clips(tmp_path)) == 2


def test_a_link_to_itself_costs_itself_only(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "loop").symlink_to("loop")
    assert [clip.video_id for clip in discover_clips(tmp_path)] == ["a", "loop"]


def test_other_files_are_neither_clips_nor_counted(tmp_path):
    touch(tmp_path, "a.mp4", "notes.txt", "a.tmp", ".DS_Store", ".git/config", "a.mp4.json")
    assert passed_over_beside_a(tmp_path) == []


def test_a_hidden_folder_that_is_named_is_scanned(tmp_path):
    touch(tmp_path, ".cache/a.mp4")
    assert len(discover_clips(tmp_path / ".cache")) == 1
    with pytest.raises(UserError, match=r"has no videos.* 1 file is passed over .*\.cache/a\.mp4"):
        discover_clips(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root lists every folder")
def test_a_trash_that_cannot_be_listed_stops_nothing(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "lost+found").mkdir(mode=0)
    assert len(list(scan_files(tmp_path, VIDEO_SUFFIXES))) == 1


def test_every_command_says_how_many_files_are_passed_over(demo_clip, tmp_path):
    touch(tmp_path / "v", "ant/b.mp4.part", ".Trash-1000/files/c.mp4")
    touch(tmp_path / "v", os.fsdecode(b".caf\xe9.mp4"))
    (tmp_path / "v" / "ant" / "abcdefghijk.mp4").write_bytes(demo_clip.read_bytes())
    note = "3 files are passed over (hidden, in the trash or unfinished downloads): "
    (tmp_path / "s.csv").write_text("abcdefghijk,30,rapping,test\n")
    (tmp_path / "a.csv").write_text("abcdefghijk,30,40,/m/a\n")
    (tmp_path / "l.csv").write_text("index,mid,display_name\n0,/m/a,A\n")
    (tmp_path / "c.csv").write_text("path,label\nant/abcdefghijk.mp4,rapping\n")
    out, videos = ("--out", tmp_path / "m.json"), ("--videos", tmp_path / "v")
    for number, words in enumerate(
        (
            ("folder", tmp_path / "v"),
            ("folder", tmp_path / "v", "--csv", tmp_path / "c.csv"),
            ("vggsound", "--csv", tmp_path / "s.csv", *videos),
            ("audioset", "--segments", tmp_path / "a.csv", "--labels", tmp_path / "l.csv", *videos),
        )
    ):
        out = ("--out", tmp_path / f"{number}.json")
        assert note in run("manifest", *words, *out)
        assert len(read_manifest(out[1])) == 1
    words = ("extract", tmp_path / "v", "--out", tmp_path / "x", "--workers", 1)
    assert note in run(*words)
    assert json.loads(run(*words, "--json").splitlines()[0])["passed_over"] == 3
