"""Packing extracted files: what training could not read is refused, with its cause."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avprep.audio import decode_audio, encode_flac, encode_wav, plain_wav
from avprep.clips import Clip
from avprep.encode.sample import encode_clip
from avprep.errors import DecodeError
from avprep.images import encode_jpeg
from avprep.options import DecodeOptions, SampleOptions
from avprep.shards.build import tool_versions

OPTIONS = SampleOptions(DecodeOptions(frames=1, frame_size=32))


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """A clip of extracted files."""
    (tmp_path / "frames" / "frame_0").mkdir(parents=True)
    picture = encode_jpeg(np.zeros((32, 32, 3), np.uint8), 75)
    (tmp_path / "frames" / "frame_0" / "a.jpg").write_bytes(picture)
    (tmp_path / "a.wav").write_bytes(encode_wav(np.zeros(400, np.int16)))
    return Clip("a", wav=str(tmp_path / "a.wav"), video_path=str(tmp_path / "frames"))


def cause_of(clip: Clip) -> str:
    with pytest.raises(DecodeError) as error:
        encode_clip(clip, OPTIONS)
    return error.value.cause


def test_the_shortest_clip_there_is_can_be_packed(clip):
    assert encode_clip(clip, OPTIONS).num_samples == 400


def test_a_clip_without_one_window_of_sound_is_too_short(clip):
    Path(clip.wav).write_bytes(encode_wav(np.zeros(399, np.int16)))
    assert cause_of(clip) == "too-short"


def test_a_picture_that_lacks_its_end_is_truncated(clip):
    path = Path(clip.video_path, "frame_0", "a.jpg")
    path.write_bytes(path.read_bytes()[:-2])
    assert cause_of(clip) == "truncated"


def test_what_is_wrong_with_a_file_is_said_in_the_same_words_every_time(clip):
    picture = Path(clip.video_path, "frame_0", "a.jpg")
    # Whole to those who read the size alone: its table of colours is no table.
    picture.write_bytes(picture.read_bytes().replace(b"\xff\xdb\x00\x43", b"\xff\xdb\x00\x02"))
    with pytest.raises(DecodeError) as error:
        encode_clip(clip, OPTIONS)
    assert " at 0x" not in error.value.detail
    Path(clip.wav).write_bytes(b"no sound")
    with pytest.raises(
        DecodeError, match=r"a\.wav: is not FLAC or WAV \(Format not recognised\.\)"
    ):
        encode_clip(clip, OPTIONS)


@pytest.mark.parametrize("name", ["a\0b.wav", "x" * 300 + ".wav"])
def test_a_name_that_no_file_can_have_is_called_one(clip, name):
    assert cause_of(replace(clip, wav=str(Path(clip.wav).with_name(name)))) == "bad-name"


def test_a_pipe_is_refused_and_not_waited_for(clip, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert cause_of(replace(clip, wav=str(tmp_path / "pipe.wav"))) == "unreadable"


def test_another_sample_rate_is_written_as_what_it_is(clip):
    Path(clip.wav).write_bytes(encode_wav(np.zeros(900, np.int16), 22050))
    options = replace(OPTIONS, decode=replace(OPTIONS.decode, sample_rate=22050))
    assert encode_clip(clip, options).audio[:4] == b"fLaC"
    assert cause_of(clip) == "garbage"


def test_a_wav_is_plain_where_libsndfile_would_read_the_same():
    pcm = np.arange(-500, 500, dtype=np.int16)
    wav = encode_wav(pcm)
    for sound in (pcm, pcm[:1], pcm[:0]):
        np.testing.assert_array_equal(plain_wav(memoryview(encode_wav(sound))), sound)
    np.testing.assert_array_equal(decode_audio(wav), pcm)
    sizes = [struct.pack("<I", size + 2001) for size in (36, 0)]
    odd = b"".join((wav[:4], sizes[0], wav[8:40], sizes[1], wav[44:], b"."))  # half a sample more
    for other in (encode_flac(pcm), encode_wav(pcm, 8000), wav[:-2], wav[:40], wav + bytes(2), odd):
        assert plain_wav(other) is None


def test_shards_depend_on_the_ffmpeg_program_only_where_it_decodes():
    assert "ffmpeg" not in tool_versions(OPTIONS)
    engine = replace(OPTIONS, decode=replace(OPTIONS.decode, decoder="ffmpeg"))
    assert any(map(str.isdigit, tool_versions(engine)["ffmpeg"]))
