"""The second engine: audio through ffmpeg-python, frames through OpenCV.

Slower than the first and built on other code, so it can read what PyAV cannot, and bears witness
against it in tests. Frames are grabbed one after another, never sought by number.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from avprep.decode.extent import PacketSpans
from avprep.decode.frames import PUBLISHED_SECONDS, choose_frames, plausible_rate
from avprep.decode.header import KINDS, Header, Kind
from avprep.decode.media import SHORTEST_AUDIO, Media, channels_to_mono, no_frames
from avprep.decode.sniff import INPUT_OPTIONS, why_not_media
from avprep.errors import DecodeError
from avprep.ffmpeg_binary import find_ffmpeg
from avprep.images import resize_and_crop
from avprep.options import DecodeOptions

cv2.setNumThreads(1)  # as many workers as cores share the machine already
# OpenCV has an ffmpeg of its own, which takes its orders from here alone.
os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join(map(";".join, INPUT_OPTIONS.items()))


_SAME_TIME = 1e-6  # seconds


def decode_with_ffmpeg(
    path: str | Path,
    start: float | None,
    end: float | None,
    options: DecodeOptions,
    header: Header,
) -> Media:
    """Decode a file, or a segment of it, with ffmpeg and OpenCV.

    Raises:
        DecodeError: see `avprep.decode.decode_clip`.
    """
    listing = _list_packets(path, start, end, options)
    spans, begin = listing.spans, listing.origin + (start or 0.0)
    if listing.is_read:
        spans.check_begin(path, header, begin)
    clock = _read_clock(path) if start or end is not None else _Clock()
    frames, times = no_frames(options)
    if options.frames:
        frames, times = _read_frames(path, start, end, options, clock)
    pcm = _read_audio(path, start, end, options, clock, listing.audio)
    is_over = max(spans.end(kind) or begin for kind in KINDS) <= begin
    if start and not any(times) and (pcm is None or is_over):
        detail = f"{path}: has nothing to show or to hear from {start:g} s on"
        raise DecodeError("too-short", detail)
    longest = float("inf") if end is None else end - (start or 0.0)
    wanted: dict[Kind, float] = {}
    if options.frames:
        wanted["video"] = begin + min(PUBLISHED_SECONDS, longest)
    if pcm is not None:
        wanted["audio"] = begin + min(options.max_audio, longest)
    heard = None if pcm is None else len(pcm) / options.sample_rate
    extent = spans.extent(header, begin, wanted, heard)
    if pcm is None and options.frames and options.missing_audio == "omit":
        return Media(np.empty(0, np.int16), frames, times, "ffmpeg", extent)
    if pcm is None:
        if options.missing_audio == "fail" or not options.frames:
            raise DecodeError("no-audio", f"{path}: has no audio that ffmpeg can read")
        seconds = spans.length("video", begin, begin + longest)
        pcm = np.zeros(round(seconds * options.sample_rate), np.int16)
    if len(pcm) < SHORTEST_AUDIO:
        raise DecodeError("too-short", f"{path}: {len(pcm) / options.sample_rate:.3f} s of audio")
    limit = round(options.max_audio * options.sample_rate)
    return Media(pcm[:limit], frames, times, "ffmpeg", extent, len(pcm) > limit)


_MORE = 1.0  # seconds read beyond what a sample holds, to tell whether there is more


def _read_audio(
    path: str | Path,
    start: float | None,
    end: float | None,
    options: DecodeOptions,
    clock: _Clock,
    stream: int | None,
) -> NDArray[np.int16] | None:
    """int16 [samples] of an audio stream; None where there is none."""
    if stream is None:
        return None
    # By its own time stamps, for ffmpeg may count from the start of the sound instead of the file.
    seek = {"seek_timestamp": 1, "ss": clock.container + start} if start else {}
    length = {"t": end - (start or 0.0)} if end is not None else {}
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS, **seek)
    longest = round((options.max_audio + _MORE) * options.sample_rate)
    # All channels are resampled and one is taken afterwards, in the published order.
    output = ffmpeg.output(
        source[str(stream)]
        .filter("aresample", options.sample_rate)
        .filter("atrim", end_sample=longest),
        "pipe:1",
        format="au",  # the simplest stream that says how many channels it has
        acodec="pcm_s16be",
        **length,
    )
    try:
        data, _ = output.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error:
        return None
    _, payload, _, _, _, channels = struct.unpack(">6I", data[:24])
    samples = np.frombuffer(data, ">i2", offset=payload).reshape(-1, channels)
    if not len(samples):
        return None
    return channels_to_mono(samples.T.astype(np.int16), options.channels)


@dataclass(frozen=True)
class _Listing:
    """What is in a file from its beginning to the clip's end."""

    spans: PacketSpans
    origin: float  # the file's beginning on its own clock, which the spans are in, too
    audio: int | None  # number of the first audio stream that there is something of
    is_read: bool  # false where ffmpeg cannot open the file


def _list_packets(
    path: str | Path, start: float | None, end: float | None, options: DecodeOptions
) -> _Listing:
    """What the clip's packets are, by ffmpeg; nothing is decoded."""
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)
    longest = (start or 0.0) + max(options.max_audio + _MORE, PUBLISHED_SECONDS)
    output = ffmpeg.output(
        source["u"],  # whatever is known well enough to be decoded
        "pipe:1",
        format="framecrc",
        codec="copy",
        t=min(longest, end or longest),
    )
    spans = PacketSpans()
    try:
        listing, words = output.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error:
        return _Listing(spans, 0.0, None, is_read=False)
    start_told = re.search(rb"Duration: .*, start: (-?\d+\.\d+)", words)
    origin = float(start_told[1]) if start_told else 0.0
    inputs, _, _ = words.partition(b"Output #0")
    covers = re.findall(
        rb"Stream #0:(\d+).*: Video: .*\((?:attached pic|timed thumbnails)\)", inputs
    )
    sources = dict(re.findall(rb"Stream #0:(\d+) -> #0:(\d+) \(copy\)", words))
    numbers = {int(output): int(source) for source, output in sources.items()}
    first: dict[Kind, int] = {}
    bases: dict[int, float] = {}
    for line in listing.decode("ascii", "replace").splitlines():
        if told := re.match(r"#tb (\d+): (\d+)/(\d+)", line):
            bases[int(told[1])] = int(told[2]) / int(told[3])
        elif told := re.match(r"#media_type (\d+): (video|audio)", line):
            number = int(told[1])
            if b"%d" % numbers[number] not in covers:
                first.setdefault("video" if told[2] == "video" else "audio", number)
        elif told := re.match(r"(\d+), *(-?\d+), *(-?\d+), *(\d+),", line):
            number, dts, pts, length = map(int, told.groups())
            kind = next((kind for kind in first if first[kind] == number), None)
            stamp = dts if pts == _NO_STAMP else pts
            spans.add(kind, origin + stamp * bases[number], length * bases[number])
    audio = numbers[first["audio"]] if "audio" in first else None
    return _Listing(spans, origin, audio, is_read=True)


_NO_STAMP = -(2**63)


def _read_frames(
    path: str | Path,
    start: float | None,
    end: float | None,
    options: DecodeOptions,
    clock: _Clock,
) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """The chosen frames, and the times they are shown at: one pass for times, one for pictures."""
    times = _frame_times(path, start, end, clock.picture - clock.container)
    if not times:
        raise _why_no_frames(path, start)
    begin = start or times[0][1]
    rate = plausible_rate(_reported_rate(path), [time for _, time in times])
    shown = [max(time, begin) for _, time in times]
    chosen = [times[i] for i in choose_frames(shown, rate, options.frames)]
    pictures = _grab(path, {number for number, _ in chosen}, options.frame_size)
    frames = np.stack([pictures[number] for number, _ in chosen])
    return frames, tuple(round(max(time - begin, 0.0), 6) for _, time in chosen)


def _grab(path: str | Path, wanted: set[int], size: int) -> dict[int, NDArray[np.uint8]]:
    """The frames of the given numbers, resized."""
    capture = _open(path)
    if _has_interlaced(path, max(wanted) + 1):
        return _select(path, wanted, size, capture)
    pictures = {}
    for number in range(max(wanted) + 1):
        if not capture.grab():
            raise DecodeError("truncated", f"{path}: ends at frame {number} on a second reading")
        if number in wanted:
            converted, bgr = capture.retrieve()
            if not converted:
                detail = f"{path}: OpenCV cannot convert its frame {number}"
                raise DecodeError("no-frames", detail)
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            pictures[number] = resize_and_crop(rgb, size, _pixel_aspect(capture))
    capture.release()
    return pictures


def _has_interlaced(path: str | Path, frames: int) -> bool:
    """Whether there are interlaced pictures among the first frames.

    OpenCV 5 fails to convert those and hands out whatever was in memory, without a word.
    """
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)["v:0"]
    output = ffmpeg.output(
        source.filter("showinfo", checksum=0),
        "pipe:1",
        format="null",
        fps_mode="passthrough",
        **{"frames:v": frames},
    )
    try:
        _, words = output.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error:
        return False
    return re.search(rb" i:[TB] ", words) is not None


def _select(
    path: str | Path, wanted: set[int], size: int, capture: cv2.VideoCapture
) -> dict[int, NDArray[np.uint8]]:
    """The same as `_grab` through ffmpeg, for what OpenCV decodes and cannot convert."""
    numbers = sorted(wanted)
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)["v:0"]
    any_of = "+".join(f"eq(n,{number})" for number in numbers)
    output = ffmpeg.output(
        source.filter("select", any_of),
        "pipe:1",
        format="rawvideo",
        pix_fmt="rgb24",
        fps_mode="passthrough",
        **{"frames:v": len(numbers)},
    )
    try:
        raw, _ = output.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error as error:
        detail = f"{path}: neither OpenCV nor ffmpeg converts its pictures"
        raise DecodeError("no-frames", detail) from error
    width, height = (
        int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    if len(raw) != len(numbers) * width * height * 3:
        raise DecodeError("truncated", f"{path}: ends before frame {numbers[-1]} for ffmpeg")
    pictures = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)
    aspect = _pixel_aspect(capture)
    resized = (resize_and_crop(one, size, aspect) for one in pictures)
    return dict(zip(numbers, resized, strict=True))


def _frame_times(
    path: str | Path, start: float | None, end: float | None, offset: float
) -> list[tuple[int, float]]:
    """(number, seconds) of the frames on screen during the clip's first 10 s.

    Args:
        path: the video file.
        start: of the segment.
        end: of the segment.
        offset: seconds that the first picture comes after time 0.
    """
    last = float("inf") if end is None else end
    capture = _open(path)
    rate = plausible_rate(capture.get(cv2.CAP_PROP_FPS), ())
    times: list[tuple[int, float]] = []
    number = 0
    while capture.grab():
        time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if number and time <= 0:  # a container without time stamps
            time = number / rate
        time += offset
        begin = start if start else (times[0][1] if times else time)
        if times and time >= min(last, begin + PUBLISHED_SECONDS) - _SAME_TIME:
            break
        if start and times and time <= start + _SAME_TIME:
            times.clear()  # only the frame on screen when the segment begins counts
        times.append((number, time))
        number += 1
    capture.release()
    return times


@dataclass(frozen=True)
class _Clock:
    """Where things begin, in seconds of the container's own time stamps."""

    container: float = 0.0
    picture: float = 0.0


def _read_clock(path: str | Path) -> _Clock:
    """What ffmpeg says of the beginning of a file; OpenCV's times count from the first picture."""
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)
    output = ffmpeg.output(
        source["v:0"],
        "pipe:1",
        format="framecrc",
        fps_mode="passthrough",
        enc_time_base="1/90000",
        **{"frames:v": 1},
    ).global_args("-copyts")
    try:
        listing, words = output.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error:
        return _Clock()
    container = re.search(rb"Duration: .*, start: (-?\d+\.\d+)", words)
    time_base = re.search(rb"^#tb 0: (\d+)/(\d+)", listing, re.MULTILINE)
    frame = re.search(rb"^0, *-?\d+, *(-?\d+),", listing, re.MULTILINE)
    if container is None or time_base is None or frame is None:
        return _Clock()
    picture = int(frame[1]) * int(time_base[1]) / int(time_base[2])
    return _Clock(float(container[1]), picture)


def _description(path: str | Path) -> bytes:
    """What ffmpeg says of a file's streams."""
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)
    nothing = ffmpeg.output(source, "pipe:1", format="null", codec="copy")
    try:
        _, words = nothing.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)
    except ffmpeg.Error as error:
        words = error.stderr
    return words


def _why_no_frames(path: str | Path, start: float | None) -> DecodeError:
    capture = _open(path)
    opened, streams = capture.isOpened(), capture.get(cv2.CAP_PROP_FRAME_WIDTH)
    capture.release()
    if opened and streams:
        if start:
            return DecodeError("too-short", f"{path}: ends before the segment at {start:g} s")
        return DecodeError("no-frames", f"{path}: OpenCV decodes not one frame of it")
    kinds = set(re.findall(rb"Stream #0:.*: (Audio|Video):", _description(path)))
    if kinds == {b"Audio"}:
        return DecodeError("no-video", f"{path}: has no video stream")
    return why_not_media(path)


def _open(path: str | Path) -> cv2.VideoCapture:
    return cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG)


def _reported_rate(path: str | Path) -> float:
    capture = _open(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate


def _pixel_aspect(capture: cv2.VideoCapture) -> float:
    """Shown width of a pixel over its shown height, of the picture as OpenCV has turned it."""
    width, height = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if width <= 0 or height <= 0:
        return 1.0
    is_turned = round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
    return height / width if is_turned else width / height
