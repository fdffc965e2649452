"""Files that are odd in one respect each: both engines read them, or say what is wrong."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from avprep.decode import DecodeOptions, Media, decode_clip
from avprep.errors import DecodeError
from tests.media import Movie, make_movie, number_in, numbers_of, run_ffmpeg

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
PLAIN = [0, 4, 9, 14, 19, 24, 29, 34, 39, 44]  # of 50 frames
each_engine = pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])


def decode(path: Path, engine: str, *segment: float | None, missing_audio: str = "fail") -> Media:
    return decode_clip(
        path, *segment, options=DecodeOptions(decoder=engine, missing_audio=missing_audio)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("edges")


@pytest.fixture(scope="module")
def upright(folder: Path) -> Path:
    return make_movie(folder, Movie("upright.mp4", video=H264, audio=("-c:a", "flac")))


@pytest.fixture(scope="module")
def upright_oblong(folder: Path) -> Path:
    """320x144 pixels that are shown half as wide as high."""
    oblong = Movie(
        "oblong.mp4", width=320, pixel_aspect=0.5,
        video=H264, audio=("-c:a", "flac"), extra=("-aspect", "10:9"),
    )  # fmt: skip
    return make_movie(folder, oblong)


@each_engine
@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("pixels", ["upright", "upright_oblong"])
def test_pictures_are_turned_as_the_file_says(request, folder, pixels, turn, engine):
    source = request.getfixturevalue(pixels)
    turned = folder / f"{pixels}-{turn}-{engine}.mp4"
    run_ffmpeg("-display_rotation", str(turn), "-i", str(source), "-c", "copy", str(turned))
    frames = decode(turned, engine).frames
    # Anticlockwise, so turning clockwise gives the upright picture back.
    assert [number_in(np.rot90(frame, -turn // 90)) for frame in frames] == PLAIN


@each_engine
def test_stored_pixels_are_taken_as_if_they_were_square(folder, upright_oblong, engine):
    plain = folder / f"plain-{engine}.mp4"  # the same packets, without a word of pixels
    run_ffmpeg("-i", str(upright_oblong), "-c", "copy", "-aspect", "320:144", str(plain))
    stored = DecodeOptions(decoder=engine, pixels="stored")
    taken = decode_clip(upright_oblong, options=stored).frames
    assert np.array_equal(taken, decode(plain, engine).frames)
    assert not np.array_equal(taken, decode(upright_oblong, engine).frames)


@each_engine
@pytest.mark.parametrize("size", ["1x1", "2x2", "7x5", "3x2000", "2000x3"])
def test_extreme_sizes_keep_their_colour(folder, size, engine):
    path = folder / f"{size}-{engine}.mkv"
    run_ffmpeg(
        *("-f", "lavfi", "-i", f"color=c=0x20C040:s={size}:r=10:d=1"),
        *("-f", "lavfi", "-i", "sine=d=1", "-c:v", "ffv1", "-pix_fmt", "bgr0", "-c:a", "flac"),
        str(path),
    )
    frames = decode(path, engine).frames
    assert frames.shape == (10, 224, 224, 3)
    assert np.abs(frames.astype(int) - (0x20, 0xC0, 0x40)).max() <= 3


COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 220, 40))


@each_engine
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
@pytest.mark.parametrize(("matrix", "tag"), [("bt601", "smpte170m"), ("bt709", "bt709")])
def test_colours_follow_the_matrix_and_the_range_in_the_file(
    folder, matrix, tag, levels, pixels, engine
):
    path = folder / f"{matrix}-{levels}-{pixels}-{engine}.mkv"
    quarters = np.array(COLOURS, np.uint8).reshape(2, 2, 3).repeat(64, axis=0).repeat(64, axis=1)
    run_ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "128x128", "-framerate", "10"),
        *("-i", "pipe:0", "-f", "lavfi", "-i", "sine=d=1"),
        *("-vf", f"scale=out_color_matrix={matrix}:out_range={levels},format={pixels}"),
        *("-colorspace", tag, "-color_range", levels, "-c:v", "libx264", "-crf", "1", str(path)),
        stdin=quarters.tobytes() * 10,
    )
    frame = decode(path, engine).frames[0]
    found = [frame[y, x] for y in (56, 168) for x in (56, 168)]
    assert np.abs(np.subtract(found, COLOURS, dtype=int)).max() <= 4


@each_engine
def test_an_edit_list_hides_what_comes_before_it(folder, engine):
    aac = ("-c:a", "aac", "-aac_pns", "0")
    video = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
    long = Movie(f"long-{engine}.mp4", frames=250, audio_seconds=10.0, video=video, audio=aac)
    source, cut = make_movie(folder, long), folder / f"cut-{engine}.mp4"
    run_ffmpeg("-ss", "3.3", "-i", str(source), "-t", "4", "-c", "copy", str(cut))
    whole = decode(cut, engine)
    first = numbers_of(whole)[0]
    assert first == 83  # the first frame that begins at 3.3 s or later
    assert whole.frame_times[0] == 0.0
    start = whole.frame_times[3]
    assert numbers_of(decode(cut, engine, start + 0.01, start + 1.0))[0] == numbers_of(whole)[3]


@each_engine
def test_of_several_audio_streams_the_first_is_taken(folder, engine):
    source = make_movie(folder, Movie(f"one-{engine}.mkv"))
    path = folder / f"two-{engine}.mkv"
    run_ffmpeg(
        *("-i", str(source), "-f", "lavfi", "-i", "sine=frequency=1000:duration=2"),
        *("-map", "0:v", "-map", "0:a", "-map", "1:a", "-c:v", "copy", "-c:a", "flac"),
        *("-disposition:a:1", "default", str(path)),
    )
    assert np.array_equal(decode(path, engine).pcm, decode(source, engine).pcm)


@each_engine
def test_an_album_cover_is_not_the_video(folder, upright, engine):
    cover, path = folder / f"cover-{engine}.jpg", folder / f"cover-{engine}.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "color=red:s=600x600", "-frames:v", "1", str(cover))
    run_ffmpeg(
        *("-i", str(upright), "-i", str(cover), "-map", "1:v", "-map", "0:v", "-map", "0:a"),
        *("-c", "copy", "-disposition:v:0", "attached_pic", str(path)),
    )
    assert numbers_of(decode(path, engine)) == PLAIN


@each_engine
def test_of_two_videos_the_first_is_taken_as_by_the_published_code(shared, engine):
    # nasa.mp4 holds one of 25 frames a second, then one of 29.97.
    times = decode(shared / "media" / "nasa.mp4", engine).frame_times
    assert times[-1] == pytest.approx(224 / 25, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "replacement", "cause"),
    [
        (b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT", "no-audio"),
        (b"V_MPEG4/ISO/AVC", b"V_ABCD4/ISO/AVC", "no-video"),
    ],
)
def test_a_format_that_no_decoder_knows_is_named(folder, name, replacement, cause):
    source = make_movie(folder, Movie(f"{cause}.mkv"))
    source.write_bytes(source.read_bytes().replace(name, replacement))
    with pytest.raises(DecodeError, match="no decoder for its") as failure:
        decode(source, "pyav")
    assert failure.value.cause == cause


@each_engine
@pytest.mark.parametrize(
    ("frames", "expected"), [(1, [0] * 10), (5, [0, 0, 0, 0, 1, 1, 2, 2, 3, 3])]
)
def test_clips_of_a_fifth_of_a_second_repeat_frames(folder, frames, expected, engine):
    path = make_movie(folder, Movie(f"{frames}-{engine}.mkv", frames=frames, audio_seconds=0.2))
    media = decode(path, engine)
    assert numbers_of(media) == expected
    assert len(media.pcm) == 3200


@each_engine
@pytest.mark.parametrize(
    ("segment", "samples"), [((None, None), 32000), ((0.5, None), 24000), ((0.5, 1.5), 16000)]
)
def test_silence_lasts_as_long_as_the_picture(folder, segment, samples, engine):
    movie = Movie(f"silent-{engine}.mp4", video=H264, audio=(), audio_seconds=0)
    path = make_movie(folder, movie)
    media = decode(path, engine, *segment, missing_audio="silence")
    assert len(media.pcm) == samples
    assert not media.pcm.any()
    with pytest.raises(DecodeError) as failure:
        decode(path, engine, *segment)
    assert failure.value.cause == "no-audio"


@each_engine
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("missing_audio", ["fail", "silence"])
def test_a_segment_past_the_end_is_too_short(folder, suffix, missing_audio, engine):
    movie = Movie(f"ends.{suffix}", video=H264, audio=("-c:a", "mp2"))
    path = folder / movie.name
    if not path.exists():
        make_movie(folder, movie)
    with pytest.raises(DecodeError) as failure:
        decode(path, engine, 30.0, 33.0, missing_audio=missing_audio)
    assert failure.value.cause == "too-short"
    assert "30 s" in failure.value.detail


def test_damaged_sound_does_not_cost_the_picture(folder):
    aac = ("-c:a", "aac")
    path = make_movie(
        folder, Movie("damaged.mp4", video=H264, audio=aac, frames=250, audio_seconds=10)
    )
    whole = decode(path, "pyav")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(audio=0) if p.pos is not None]
        for packet in packets[50:60]:
            data[packet.pos + 2 : packet.pos + packet.size] = b"\xff" * (packet.size - 2)
    path.write_bytes(data)
    damaged = decode(path, "pyav")
    assert numbers_of(damaged) == numbers_of(whole)
    assert len(damaged.pcm) > 0.9 * len(whole.pcm)


@each_engine
@pytest.mark.parametrize("start", [None, 1.0])
def test_what_holds_no_picture_is_told_apart(folder, upright, engine, start):
    sound, text = folder / "sound.m4a", folder / "text.mp4"
    if not sound.exists():
        run_ffmpeg("-i", str(upright), "-vn", "-c:a", "aac", str(sound))
    text.write_text("not a film\n" * 100)
    for path, cause in ((sound, "no-video"), (text, "garbage")):
        with pytest.raises(DecodeError) as error:
            decode(path, engine, start)
        assert error.value.cause == cause
        assert path.name in error.value.detail


@each_engine
def test_a_segment_of_sound_alone_is_read_without_pictures(folder, upright, engine):
    sound = folder / "alone.wav"
    if not sound.exists():
        run_ffmpeg("-i", str(upright), "-vn", str(sound))
    options = DecodeOptions(frames=0, decoder=engine)
    whole = decode_clip(sound, options=options)
    later = decode_clip(sound, start=1.0, options=options)
    assert len(whole.pcm) - len(later.pcm) == pytest.approx(16000, abs=2)
    with pytest.raises(DecodeError) as error:
        decode_clip(sound, start=3600.0, options=options)
    assert error.value.cause in ("too-short", "no-audio")
