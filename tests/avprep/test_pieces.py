"""Long videos are cut by their true length, and ids say where."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.decode.length import length_of
from avprep.errors import DecodeError, UserError
from avprep.manifest.model import read_manifest
from avprep.manifest.sources.pieces import pieces_of
from avprep.options import PieceOptions
from tests.avprep.test_archives import pack, report_of
from tests.avprep.test_manifest_commands import run
from tests.media import run_ffmpeg
from tests.web_server import WebServer


def make_video(path: Path, seconds: float, sound: float | None = None, *options: str) -> Path:
    """A small video; its sound may last for another time, or be absent (0)."""
    sound = seconds if sound is None else sound
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = ["-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=10:duration={seconds}"]
    if sound:
        inputs += ["-f", "lavfi", "-i", f"sine=sample_rate=16000:duration={sound}"]
    run_ffmpeg(*inputs, "-g", "20", *options, path)
    return path


@pytest.mark.parametrize(
    "suffix", ["mp4", "mkv", "webm", "mov", "avi", "flv", "mpg", "ts", "ogv", "wmv", "m4v"]
)
def test_the_length_is_that_of_the_video_in_every_container(suffix, tmp_path):
    codecs = ("-c:a", "libopus", "-ar", "48000") if suffix == "webm" else ("-ar", "44100")
    rate = ("-r", "25") if suffix == "mpg" else ()
    path = make_video(tmp_path / f"a.{suffix}", 23, None, *codecs, *rate)
    assert length_of(path) == pytest.approx(23, abs=0.15)


@pytest.mark.parametrize(("pictures", "sound"), [(5, 9), (9, 5), (9, 0)])
def test_the_longer_of_sound_and_pictures_counts(pictures, sound, tmp_path):
    path = make_video(tmp_path / "a.mp4", pictures, sound)
    assert length_of(path) == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_a_cut_file_is_as_long_as_what_is_left_of_it(suffix, tmp_path):
    options = ("-movflags", "faststart") if suffix == "mp4" else ()
    path = make_video(tmp_path / f"a.{suffix}", 40, None, *options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert 10 < length_of(path) < 30


def test_a_file_that_promises_no_length_is_measured(tmp_path):
    path = tmp_path / "a.mkv"
    make = (imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i")
    source = "testsrc2=size=64x48:rate=10:duration=12"
    streamed = subprocess.run([*make, source, "-f", "matroska", "pipe:1"], capture_output=True)
    path.write_bytes(streamed.stdout)
    assert length_of(path) == pytest.approx(12, abs=0.15)


def test_only_the_end_of_a_long_file_is_read(tmp_path, monkeypatch):
    from avprep.decode import length

    path = make_video(tmp_path / "a.mp4", 120)
    read, packets_of = [], length.packets_of
    monkeypatch.setattr(
        length, "packets_of", lambda *words: (read.append(p) or p for p in packets_of(*words))
    )
    assert length_of(path) == pytest.approx(120, abs=0.1)
    assert 0 < len(read) < 150  # of about 3,000


@given(
    st.floats(0.01, 400),
    st.floats(0.5, 60),
    st.none() | st.floats(0.5, 60),
    st.floats(0.1, 0.5),
)
def test_pieces_cover_a_video_up_to_what_is_too_short(length, segment, stride, shortest):
    pieces = pieces_of(length, PieceOptions(segment, stride, shortest))
    step = stride or segment
    for number, (start, end) in enumerate(pieces):
        assert start == pytest.approx(number * step, abs=1e-5)
        assert shortest <= end - start <= segment + 1e-5
        assert end <= length + 0.1
        assert number == len(pieces) - 1 or end - start == pytest.approx(segment, abs=1e-5)
        assert number == len(pieces) - 1 or end < length - 0.1
    next_start = len(pieces) * step
    reached = pieces[-1][1] if pieces else 0.0
    assert reached >= length - 0.101 or next_start > length - shortest - 0.001
    assert len(pieces) <= math.ceil(length / step)


@pytest.mark.parametrize(
    ("length", "options", "pieces"),
    [
        (30, {}, [(0, 10), (10, 20), (20, 30)]),
        (30.04, {}, [(0, 10), (10, 20), (20, 30)]),
        (29.96, {}, [(0, 10), (10, 20), (20, 30)]),
        (25, {}, [(0, 10), (10, 20), (20, 25)]),
        (21.5, {}, [(0, 10), (10, 20)]),
        (21.5, {"shortest": 1}, [(0, 10), (10, 20), (20, 21.5)]),
        (22, {"stride": 5}, [(0, 10), (5, 15), (10, 20), (15, 22)]),
        (32, {"stride": 15}, [(0, 10), (15, 25), (30, 32)]),
        (7.3456, {}, [(0, 7.345)]),
        (1, {}, []),
    ],
)
def test_the_last_piece_follows_the_rule(length, options, pieces):
    assert pieces_of(length, PieceOptions(10, **options)) == pieces


def test_a_folder_of_long_videos_becomes_clips_that_say_where(tmp_path):
    make_video(tmp_path / "v" / "dog" / "long.mp4", 25)
    make_video(tmp_path / "v" / "cat" / "short.mkv", 1)
    (tmp_path / "v" / "cat" / "bad.mp4").write_bytes(b"no video at all")
    (tmp_path / "v" / "cat" / "empty.mp4").touch()
    words = ("--segment", 10, "--out", tmp_path / "m.json")
    printed = run("manifest", "folder", tmp_path / "v", *words)
    clips = read_manifest(tmp_path / "m.json")
    assert [(c.video_id, c.labels, c.start, c.end) for c in clips] == [
        ("long_0_10", ("dog",), 0, 10),
        ("long_10_20", ("dog",), 10, 20),
        ("long_20_25", ("dog",), 20, 25),
    ]
    assert {clip.video for clip in clips} == {str(tmp_path / "v" / "dog" / "long.mp4")}
    assert "2 videos cannot be measured" in printed
    lost = report_of(tmp_path, "lost")
    assert len(lost) == 2
    assert any("bad.mp4,cannot be measured: garbage" in line for line in lost)
    assert any("empty.mp4,cannot be measured: empty" in line for line in lost)
    (extra,) = report_of(tmp_path, "extra")
    assert "short.mkv" in extra
    assert "lasts 1.0" in extra
    assert "s, which is shorter than --shortest" in extra


def test_videos_in_archives_and_tables_are_cut_as_in_folders(tmp_path):
    video = make_video(tmp_path / "v" / "dog" / "long.mp4", 25)
    archive = pack(tmp_path / "x.tar.gz", {"dog/long.mp4": video.read_bytes()})
    (tmp_path / "t.csv").write_text("path,label\nv/dog/long.mp4,dog\nv/gone.mp4,dog\n")
    facts = []
    for place in (tmp_path / "v", archive, tmp_path / "t.csv"):
        words = ("--segment", 10, "--stride", 8, "--out", tmp_path / "m.json")
        run("manifest", "folder", place, *words)
        clips = read_manifest(tmp_path / "m.json")
        facts.append([(c.video_id, c.labels, c.start, c.end) for c in clips])
    assert facts[0] == facts[1] == facts[2]
    assert [start for _, _, start, _ in facts[0]] == [0, 8, 16]
    assert len(report_of(tmp_path, "missing")) == 1


@pytest.mark.parametrize("has_ranges", [True, False])
def test_of_a_long_video_on_a_server_little_is_read(has_ranges, tmp_path):
    content = make_video(tmp_path / "a.mp4", 300, None, "-b:v", "500k").read_bytes()
    with WebServer({"/a.mp4": content}, has_ranges) as web:
        (tmp_path / "t.jsonl").write_text(json.dumps({"url": f"{web.url}/a.mp4"}))
        words = ("--segment", 100, "--out", tmp_path / "m.json")
        run("manifest", "folder", tmp_path / "t.jsonl", *words)
        ids = [clip.video_id for clip in read_manifest(tmp_path / "m.json")]
        assert ids == ["a_0_100", "a_100_200", "a_200_300"]
        assert not has_ranges or web.sent["/a.mp4"] < len(content) // 2


def test_what_does_not_go_together_is_one_clear_line(tmp_path):
    make_video(tmp_path / "v" / "a.mp4", 3)
    (tmp_path / "t.csv").write_text("path,label,start,end\nv/a.mp4,dog,0,2\n")
    out = ("--out", tmp_path / "m.json")
    for words, message in (
        ((tmp_path / "t.csv", "--segment", 10), "rows of the table have times already"),
        ((tmp_path / "v", "--stride", 10), "--stride needs --segment"),
        ((tmp_path / "v", "--segment", 1), "is less than --shortest 2"),
        ((tmp_path / "v", "--segment", 10, "--extracted", tmp_path), "audio/|takes cut files"),
        ((tmp_path / "v", "--segment", 10, "--shortest", 5), "none of its 1 path"),
    ):
        with pytest.raises(UserError, match=message):
            run("manifest", "folder", *words, *out)


def test_what_has_no_media_has_no_length(tmp_path):
    for content in (b"", b"x" * 5000):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(DecodeError):
            length_of(tmp_path / "a.mp4")
