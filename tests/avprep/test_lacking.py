"""A clip without sound, or without pictures, is a sample without placeholders, where asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import avprep
from avprep.clips import Clip
from avprep.decode import decode_clip
from avprep.encode.sample import encode_clip
from avprep.errors import DecodeError
from avprep.jobs import PoolOptions
from avprep.labels import LabelSet
from avprep.options import DecodeOptions, SampleOptions, ShardSetOptions, VerifyOptions
from avprep.shards.build import build_shard_set
from avprep.shards.format import read_dataset, read_index, split_members
from tests.media import Movie, make_movie, number_in, picture, run_ffmpeg

OMIT = DecodeOptions(missing_audio="omit", missing_video="omit")
AUDIO_FILES = ("sound.wav", "sound.flac", "sound.mp3", "sound.ogg", "sound.m4a", "sound.opus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A video, its pictures alone, its sound alone in several containers, and pictures."""
    folder = tmp_path_factory.mktemp("lacking")
    movie = make_movie(folder, Movie("both.mp4", audio=("-c:a", "aac")))
    run_ffmpeg("-i", movie, "-c", "copy", "-an", folder / "mute.mp4")
    run_ffmpeg("-i", movie, "-c", "copy", "-vn", folder / "blind.mp4")
    for name in AUDIO_FILES:
        run_ffmpeg("-i", movie, "-vn", folder / name)
    grey = Image.fromarray(picture(77, 320, 240))
    grey.convert("RGB").save(folder / "picture.jpg", quality=95)
    Image.fromarray(picture(77, 320, 240).astype(np.uint16) * 257).save(folder / "deep.png")
    grey.convert("RGBA").save(folder / "clear.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned a quarter clockwise when shown
    grey.rotate(90, expand=True).save(folder / "phone.jpg", exif=turned, quality=95)
    run_ffmpeg(
        *("-i", folder / "sound.mp3", "-i", folder / "picture.jpg", "-map", 0, "-map", 1),
        *("-c", "copy", "-disposition:v", "attached_pic", folder / "cover.mp3"),
    )
    return folder


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("name", [*AUDIO_FILES, "blind.mp4", "cover.mp3"])
def test_sound_alone_is_a_clip_without_frames(folder, name, engine):
    options = DecodeOptions(missing_video="omit", decoder=engine)
    media = decode_clip(folder / name, options=options)
    assert media.frames.shape == (0, 224, 224, 3)
    assert media.frame_times == ()
    assert media.extent.is_complete
    assert len(media.pcm) / 16000 == pytest.approx(2.0, abs=0.1)
    with pytest.raises(DecodeError, match="no-video"):
        decode_clip(folder / name, options=DecodeOptions(decoder=engine))


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
def test_what_a_clip_has_is_read_whatever_may_be_missing(folder, engine):
    strict, lenient = (
        decode_clip(
            folder / "both.mp4",
            options=DecodeOptions(missing_audio=missing, missing_video=missing, decoder=engine),
        )
        for missing in ("fail", "omit")
    )
    assert np.array_equal(strict.pcm, lenient.pcm)
    assert np.array_equal(strict.frames, lenient.frames)


@pytest.mark.parametrize("name", ["picture.jpg", "deep.png", "clear.png", "phone.jpg"])
def test_a_picture_is_a_clip_of_one_frame(folder, name):
    media = decode_clip(folder / name, options=OMIT)
    assert number_in(media.frames[0]) == 77
    assert (len(media.frames), media.frame_times, len(media.pcm)) == (1, (0.0,), 0)
    with pytest.raises(DecodeError, match="no-audio"):
        decode_clip(folder / name)


def test_a_damaged_picture_costs_itself_alone(folder, tmp_path):
    data = (folder / "picture.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "odd.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"?" * 99)
    with pytest.raises(DecodeError, match="truncated"):
        decode_clip(tmp_path / "cut.jpg", options=OMIT)
    with pytest.raises(DecodeError, match="garbage"):
        decode_clip(tmp_path / "odd.png", options=OMIT)


def test_a_file_that_has_neither_fails(folder, tmp_path):
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    run_ffmpeg("-i", tmp_path / "words.srt", "-c:s", "srt", tmp_path / "words.mkv")
    with pytest.raises(DecodeError, match="no-audio"):
        decode_clip(tmp_path / "words.mkv", options=OMIT)


NAMES = ("both.mp4", "mute.mp4", "sound.wav", "picture.jpg")
CLASSES = LabelSet(("a",), ("a",))


def build(folder, out, decode):
    clips = [Clip(name, ("a",), video=str(folder / name)) for name in NAMES]
    options = ShardSetOptions(SampleOptions(decode), samples_per_shard=len(NAMES))
    return build_shard_set(clips, CLASSES, str(out), options, PoolOptions(1))


def test_a_shard_set_holds_no_placeholders_and_says_what_each_sample_has(folder, tmp_path):
    out = tmp_path / "s"
    report = build(folder, out, OMIT)
    assert not report.failures
    info = read_dataset(out)
    assert info.modalities == report.modalities == {"audio": 2, "image": 3}
    tar = (out / info.shards[0].name).read_bytes()
    has = {"both.mp4": 10, "mute.mp4": 10, "sound.wav": 0, "picture.jpg": 1}
    for entry in read_index(out, info.shards[0].name).samples:
        members = split_members(tar[entry.offset : entry.offset + entry.size], entry.key)
        sound = entry.video_id in ("both.mp4", "sound.wav")
        frames = has[entry.video_id]
        pictures = [f"{number}.jpg" for number in range(frames)]
        assert list(members) == ["json", *["flac"] * sound, *pictures]
        facts = json.loads(bytes(members["json"]))
        modalities = ["audio"] * sound + ["image"] * bool(frames)
        assert facts["modalities"] == list(entry.modalities) == modalities
        assert (facts["num_samples"] > 0) == sound
        assert len(facts["frame_times"]) == frames
        assert all(len(members[name]) in entry.sizes for name in members)
    findings = avprep.verify(str(out), VerifyOptions(deep=True), PoolOptions(1))
    assert not findings.damaged
    assert not findings.files
    page = avprep.report(str(out), str(tmp_path / "page.html"))
    assert (page.clips, page.unreadable) == (4, ())
    assert "2 samples without audio" in (tmp_path / "page.html").read_text()


def test_the_card_of_a_set_of_sound_alone_names_no_frames(folder, tmp_path):
    clips = [Clip("sound", video=str(folder / "sound.wav"))]
    options = ShardSetOptions(SampleOptions(OMIT))
    build_shard_set(clips, CLASSES, str(tmp_path / "s"), options, PoolOptions(1))
    card = (tmp_path / "s/README.md").read_text()
    assert '"flac"' in card
    assert ".jpg" not in card


def test_without_leave_they_fail_as_ever(folder, tmp_path):
    report = build(folder, tmp_path / "s", DecodeOptions())
    assert {one.video_id: one.cause for one in report.failures} == {
        "mute.mp4": "no-audio",
        "sound.wav": "no-video",
        "picture.jpg": "no-audio",
    }
    assert report.modalities == {"audio": 1, "image": 1}


def test_extracted_files_hold_no_placeholders_either_and_are_made_once(folder, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("both.mp4", "mute.mp4", "blind.mp4"):
        (videos / name).symlink_to(folder / name)
    out, sample = tmp_path / "out", SampleOptions(OMIT)
    report = avprep.extract(videos, out, sample, pool=PoolOptions(1))
    assert (report.extracted, report.failures) == (3, ())
    assert sorted(path.name for path in (out / "audio").iterdir()) == [
        *("blind.wav", "both.wav", "mute.nil")
    ]
    for number in (0, 9):
        frames = sorted(path.name for path in (out / f"frames/frame_{number}").iterdir())
        assert frames == ["both.jpg", "mute.jpg"]
    assert avprep.extract(videos, out, sample, pool=PoolOptions(1)).found == 3


def test_extracted_files_are_packed_without_frames_only_if_none_is_there(folder, tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    (videos / "both.mp4").symlink_to(folder / "both.mp4")
    (videos / "blind.mp4").symlink_to(folder / "blind.mp4")
    avprep.extract(videos, out, SampleOptions(OMIT), pool=PoolOptions(1))

    def pack(name, decode):
        clip = Clip(name, wav=f"{out}/audio/{name}.wav", video_path=f"{out}/frames")
        return encode_clip(clip, SampleOptions(decode))

    assert pack("blind", OMIT).frames == ()
    assert len(pack("both", OMIT).frames) == 10
    with pytest.raises(DecodeError, match="missing"):
        pack("blind", DecodeOptions())
    (out / "frames/frame_3/both.jpg").unlink()
    with pytest.raises(DecodeError, match="missing"):
        pack("both", OMIT)
