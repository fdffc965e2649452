"""Streams whose container misleads: frames in the order, and at the times, that ffmpeg shows them.

The truth is the ffmpeg program's own output, read picture by picture.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from avprep.decode import DecodeOptions, decode_clip
from tests.media import number_in, run_ffmpeg
from tests.odd_media import (
    MP2,
    PCM,
    X264,
    YUV,
    Shown,
    film,
    pitches,
    shown_by_ffmpeg,
    sound_by_ffmpeg,
)

ENGINES = ("pyav", "ffmpeg")
MPEG2 = ("-c:v", "mpeg2video", "-g", "25", "-bf", "2", "-q:v", "3", *YUV)
MPEG4 = ("-c:v", "mpeg4", "-g", "50", "-bf", "2", "-q:v", "3", *YUV)
H264 = (*X264, "-g", "50", "-bf", "3")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", *YUV, "-x265-params")
OPEN_GROUPS = (*X264, "-bf", "3", "-g", "50", "-x264-params", "open-gop=1")
REFRESH = (*X264, "-x264-params", "intra-refresh=1:keyint=50")
MP3 = ("-c:a", "libmp3lame")
AAC = ("-c:a", "aac")


def plain(name: str, *options: tuple[str, ...]) -> Callable[[Path], Path]:
    return lambda folder: film(folder / name, *options, numbers=range(300))


def without_its_first(share: float, name: str, *options: tuple[str, ...]) -> Callable[[Path], Path]:
    """A stream that begins in mid-file, between two key frames."""

    def make(folder: Path) -> Path:
        path = film(folder / name, *options, numbers=range(400))
        data = path.read_bytes()
        path.write_bytes(data[int(len(data) * share) // 188 * 188 :])
        return path

    return make


def without_its_beginning(
    seconds: float, name: str, *options: tuple[str, ...]
) -> Callable[[Path], Path]:
    """The same of a container that cannot be cut as bytes."""

    def make(folder: Path) -> Path:
        source, path = film(folder / f"whole-{name}", *options, numbers=range(400)), folder / name
        with av.open(str(source)) as whole, av.open(str(path), "w") as cut:
            streams = [cut.add_stream_from_template(stream) for stream in whole.streams]
            for packet in whole.demux():
                if packet.dts is not None and packet.dts * packet.time_base >= seconds:
                    packet.stream = streams[packet.stream_index]
                    cut.mux(packet)
        return path

    return make


def put_together(name: str, *parts: tuple[range, tuple[str, ...]]) -> Callable[[Path], Path]:
    """Streams joined as bytes, as by `cat`."""

    def make(folder: Path) -> Path:
        pieces = []
        for number, (numbers, options) in enumerate(parts):
            piece = folder / f"{number}.{name}"
            film(piece, *options, numbers=numbers)
            pieces.append(piece.read_bytes())
        path = folder / name
        path.write_bytes(b"".join(pieces))
        return path

    return make


def shifted(name: str, numbers: range, seconds: float, video: tuple[str, ...]):
    def make(folder: Path) -> Path:
        return film(
            folder / name, video, MP2, numbers=numbers,
            extra=("-output_ts_offset", str(seconds)),
        )  # fmt: skip

    return make


def joined(name: str, *makers: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        data = b"".join(maker(folder).read_bytes() for maker in makers)
        path = folder / name
        path.write_bytes(data)
        return path

    return make


def lacking(box: bytes, name: str, *options: tuple[str, ...]) -> Callable[[Path], Path]:
    """An MP4 one of whose tables is lost: `stss` names key frames, `ctts` times of showing."""

    def make(folder: Path) -> Path:
        path = film(folder / name, *options, numbers=range(300))
        data = path.read_bytes()
        assert data.count(box) == 1
        path.write_bytes(data.replace(box, b"free"))
        return path

    return make


def copied(name: str, source: Callable[[Path], Path], *options: str, before: tuple[str, ...] = ()):
    def make(folder: Path) -> Path:
        path = folder / name
        run_ffmpeg(*before, "-i", str(source(folder)), "-c", "copy", *options, str(path))
        return path

    return make


# Clocks that stutter at the beginning: their rate is known to a frame or two.
STUTTERING = frozenset({"no-order-table.mp4", "fragments-cut.mp4"})
# Where ffmpeg shows guesswork that happens to be legible: the first picture that is none.
INTACT_FROM = {"mid-group-mpeg4.ts": 102}
first, second = range(125), range(125, 300)
KINDS: dict[str, Callable[[Path], Path]] = {
    "b-frames-h264.avi": plain("b-frames-h264.avi", H264, MP3),
    "b-frames-mpeg4.avi": plain("b-frames-mpeg4.avi", MPEG4, MP3),
    "b-frames-mpeg4.mp4": plain("b-frames-mpeg4.mp4", MPEG4, AAC),
    "b-frames.ts": plain("b-frames.ts", H264, MP2),
    "b-frames-mpeg2.ts": plain("b-frames-mpeg2.ts", MPEG2, MP2),
    "b-frames.flv": plain("b-frames.flv", H264, MP3),
    "b-frames.mpg": plain("b-frames.mpg", MPEG2, MP2),
    "theora.ogv": plain(
        "theora.ogv", ("-c:v", "libtheora", "-q:v", "7", *YUV), ("-c:a", "libvorbis")
    ),
    "mid-group.ts": without_its_first(0.15, "mid-group.ts", (*X264, "-g", "100")),
    "mid-group-mpeg2.ts": without_its_first(
        0.12, "mid-group-mpeg2.ts", (*MPEG2[:2], "-g", "60", *MPEG2[4:])
    ),
    "mid-group.mpg": without_its_first(0.12, "mid-group.mpg", MPEG2),
    "mid-group-hevc.ts": without_its_first(
        0.15, "mid-group-hevc.ts", (*HEVC, "log-level=none:keyint=100")
    ),
    "mid-group-mpeg4.ts": without_its_first(
        0.15, "mid-group-mpeg4.ts", (*MPEG4[:2], "-g", "100", *MPEG4[4:])
    ),
    "mid-group-vp8.webm": without_its_beginning(
        1.7, "mid-group-vp8.webm",
        ("-c:v", "libvpx", "-g", "90", "-deadline", "realtime", "-b:v", "600k", *YUV),
        ("-c:a", "libopus"),
    ),
    "mid-refresh.ts": without_its_first(0.15, "mid-refresh.ts", REFRESH),
    "joined.ts": put_together("joined.ts", (first, (H264, MP2)), (second, (H264, MP2))),
    "joined.mpg": put_together("joined.mpg", (first, (MPEG2, MP2)), (second, (MPEG2, MP2))),
    "joined-three.ts": put_together(
        "joined-three.ts",
        *((range(at, at + 90), (H264, MP2)) for at in (0, 90, 180)),
    ),
    "jump-forward.ts": joined(
        "jump-forward.ts",
        shifted("a.ts", first, 0, H264),
        shifted("b.ts", second, 500, H264),
    ),
    "jump-back.ts": joined(
        "jump-back.ts",
        shifted("a.ts", first, 500, H264),
        shifted("b.ts", second, 3, H264),
    ),
    # The clock of 33 bits at 90 kHz wraps around after 95,443.7 s.
    "wrap.ts": shifted("wrap.ts", range(300), 95438.7, H264),
    "no-key-table.mp4": lacking(b"stss", "no-key-table.mp4", H264, AAC),
    "no-key-table-hevc.mp4": lacking(
        b"stss", "no-key-table-hevc.mp4", (*HEVC, "log-level=none:keyint=50"), AAC
    ),
    "no-order-table.mp4": lacking(b"ctts", "no-order-table.mp4", H264, AAC),
    "refresh.mp4": plain("refresh.mp4", REFRESH, AAC),
    "refresh.ts": plain("refresh.ts", REFRESH, MP2),
    "refresh.mkv": copied("refresh.mkv", plain("refresh-source.ts", REFRESH, MP2)),
    "open-groups.ts": plain("open-groups.ts", OPEN_GROUPS, MP2),
    "open-groups-cut.mkv": copied(
        "open-groups-cut.mkv", plain("open-source.mkv", OPEN_GROUPS, PCM), before=("-ss", "3")
    ),
    "open-groups-cut.ts": copied(
        "open-groups-cut.ts", plain("open-source.ts", OPEN_GROUPS, MP2), before=("-ss", "3")
    ),
    "open-groups-hevc-cut.mkv": copied(
        "open-groups-hevc-cut.mkv",
        plain("open-hevc.mkv", (*HEVC, "log-level=none:keyint=50:open-gop=1:bframes=4"), PCM),
        before=("-ss", "3"),
    ),
    "cut.mp4": copied("cut.mp4", plain("cut-source.mp4", H264, AAC), before=("-ss", "1.3")),
    "fragments-cut.mp4": copied(
        "fragments-cut.mp4", plain("fragments-source.mp4", H264, AAC),
        "-movflags", "frag_keyframe+empty_moov", before=("-ss", "1.3"),
    ),
    "frames-apart.webm": copied(
        "frames-apart.webm",
        plain(
            "hidden.webm",
            ("-c:v", "libvpx-vp9", "-b:v", "1M", "-deadline", "good", "-cpu-used", "5",
             "-auto-alt-ref", "1", "-lag-in-frames", "16"),
            ("-c:a", "libvorbis"),
        ),
        "-bsf:v", "vp9_superframe_split",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Film:
    """A kind's file, and what ffmpeg shows and plays of it."""

    path: Path
    shown: list[Shown]
    sound: NDArray[np.int16]  # [samples], 16 kHz


@pytest.fixture(scope="module")
def film_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Film]:
    """Makes each kind's film once."""

    @functools.cache
    def make(name: str) -> Film:
        path = KINDS[name](tmp_path_factory.mktemp("order"))
        intact_from = INTACT_FROM.get(name, 0)
        shown = [one for one in shown_by_ffmpeg(path) if one.number >= intact_from]
        return Film(path, shown, sound_by_ffmpeg(path))

    return make


def expected(shown: list[Shown], begin: float | None, end: float | None) -> list[int]:
    """The published rule at 25 frames per second, by what is on screen."""
    since = shown[0].time if begin is None else max(begin, shown[0].time)
    limit = min(since + 10, end or float("inf"))
    earlier = [one for one in shown if one.time <= since + 1e-6]
    clip = [earlier[-1], *(one for one in shown if since + 1e-6 < one.time < limit - 1e-6)]
    count = min(len(clip), 250)
    times = [since + max(int(i * count / 10) - 1, 0) / 25 + 0.01 for i in range(10)]
    return [
        [one for one in clip if one.time <= time or one is clip[0]][-1].number for time in times
    ]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", KINDS)
def test_pictures_and_sound_are_those_that_ffmpeg_plays_at_their_times(film_of, name, engine):
    made = film_of(name)
    slack = 2 if name in STUTTERING else 0
    for start, end in ((None, None), (5.3, 9.3)):
        media = decode_clip(made.path, start, end, options=DecodeOptions(decoder=engine))
        numbers = [number_in(frame) for frame in media.frames]
        pairs = list(zip(numbers, expected(made.shown, start, end), strict=True))
        assert all(abs(one - other) <= slack for one, other in pairs), (start, pairs)

        around = made.sound[int((start or 0) * 16000) :][: len(media.pcm)]
        assert abs(len(media.pcm) - len(around)) < 1600
        pairs = list(zip(pitches(media.pcm), pitches(around), strict=True))
        # The tone rises by 40 Hz per second; segments and codecs may be off by a tenth of one.
        assert all(abs(one - other) <= 6 for one, other in pairs), (start, pairs)
