"""Folders of sound and of pictures are folders of clips; beside videos they stay what they were."""

from __future__ import annotations

import csv
import json

import pytest

import avprep
from avprep.clips import Scan, discover_files
from avprep.errors import UserError
from avprep.options import FileKinds, FolderOptions, ManifestOutput

SOUNDS = ("a.wav", "b.flac", "c.MP3", "d.ogg", "e.m4a", "f.opus")
PICTURES = ("p.jpg", "q.PNG", "r.jpeg")


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names_in(folder, kinds=()):
    files = discover_files([str(folder)], Scan(kinds))
    return sorted(file.video.rpartition("/")[2] for file in files)


def test_beside_videos_sound_and_pictures_are_no_clips(tmp_path):
    make(tmp_path, "v.mp4", *SOUNDS, *PICTURES)
    assert names_in(tmp_path) == ["v.mp4"]


def test_without_videos_sound_files_are_clips_and_without_those_pictures(tmp_path):
    make(tmp_path, "notes.txt", *SOUNDS, *PICTURES)
    assert names_in(tmp_path) == sorted(SOUNDS)
    make(tmp_path / "pictures", *PICTURES)
    assert names_in(tmp_path / "pictures") == sorted(PICTURES)


def test_the_kinds_that_are_asked_for_are_taken_and_no_others(tmp_path):
    make(tmp_path, "v.mp4", *SOUNDS, *PICTURES)
    assert names_in(tmp_path, ("audio",)) == sorted(SOUNDS)
    assert names_in(tmp_path, ("image", "video")) == sorted([*PICTURES, "v.mp4"])
    (tmp_path / "only").mkdir()
    make(tmp_path / "only", *SOUNDS)
    with pytest.raises(UserError, match=r"has no pictures\. Looked .* \.jpeg \.jpg \.png"):
        names_in(tmp_path / "only", ("image",))


def manifest_of(place, out, **options):
    made = avprep.make_folder_manifest(place, ManifestOutput(out=out), FolderOptions(**options))
    return made, json.loads(out.read_text())["data"]


def test_a_folder_of_sound_says_how_to_shard_it(tmp_path):
    make(tmp_path / "in", "dog/a.wav", "cat/b.flac", "cat/cover.jpg")
    made, clips = manifest_of(tmp_path / "in", tmp_path / "m.json")
    assert [(clip["video_id"], clip["labels"]) for clip in clips] == [("b", "cat"), ("a", "dog")]
    assert any("--missing-video omit" in note for note in made.notes)
    made, clips = manifest_of(tmp_path / "in", tmp_path / "n.json", kinds=("image",))
    assert [clip["video_id"] for clip in clips] == ["cover"]


@pytest.mark.parametrize("place", ["in", "in/audio"])
@pytest.mark.parametrize("suffix", [".wav", ""])
def test_a_csv_of_sound_files_with_folds_is_matched(tmp_path, place, suffix):
    make(tmp_path / "in/audio", "1-a.wav", "2-b.wav", "3-c.wav")
    with (tmp_path / "esc.csv").open("w", newline="") as file:
        rows = [("filename", "fold", "category")]
        rows += [(f"{name}{suffix}", name[0], "dog") for name in ("1-a", "2-b", "3-c")]
        rows = [rows[0], *((f"audio/{r[0]}" if place == "in" else r[0], *r[1:]) for r in rows[1:])]
        csv.writer(file).writerows(rows)
    _, clips = manifest_of(tmp_path / place, tmp_path / "m.json", csv=tmp_path / "esc.csv")
    assert [clip["split"] for clip in clips] == ["1", "2", "3"]
    assert [clip["video_id"] for clip in clips] == ["1-a", "2-b", "3-c"]


def test_extract_takes_the_kinds_that_are_asked_for(tmp_path):
    make(tmp_path / "in", "v.mp4", "s.wav")
    report = avprep.extract(tmp_path / "in", tmp_path / "out", kinds=FileKinds(("audio",)))
    assert [failure.video_id for failure in report.failures] == ["s"]
