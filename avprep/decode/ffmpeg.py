"""The second engine: audio through ffmpeg-python, frames through OpenCV.

Slower than the first and built on other code, so it can read what PyAV cannot, and bears witness
against it in tests. Frames are grabbed one after another, never sought by number.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from avprep.decode.extent import PacketSpans
from avprep.decode.frames import (
    PUBLISHED_SECONDS,
    SAME_TIME,
    choose_frames,
    step_for,
    window_end,
)
from avprep.decode.header import KINDS, Header, Kind
from avprep.decode.media import SHORTEST_AUDIO, Media, channels_to_mono, no_frames
from avprep.decode.sniff import INPUT_OPTIONS, why_not_media
from avprep.errors import DecodeError
from avprep.ffmpeg_binary import find_ffmpeg
from avprep.images import resize_and_crop
from avprep.options import DecodeOptions


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
    clock = _read_clock(path)
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
    # Where the clock jumps, no time leads to the right place; before the first picture, none does
    # in some containers; and others cannot be entered at all.
    if start and not clock.may_jump and clock.container + start >= clock.picture:
        length = {} if end is None else {"t": end - start}
        # By its own time stamps, for ffmpeg may count from the start of the sound instead of the
        # file.
        seek = {"seek_timestamp": 1, "ss": clock.container + start}
        source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS, **seek)
        samples = _run_resampler(_resampled(source[str(stream)], options, **length), options)
        if samples is not None:
            return samples
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)
    if not start:
        skip = {"ss": clock.priming} if clock.priming else {}
        length = {} if end is None else {"t": end}
        return _run_resampler(_resampled(source[str(stream)], options, **skip, **length), options)
    window = {"start": start, **({} if end is None else {"end": end})}
    output = _resampled(source[str(stream)].filter("atrim", **window), options)
    # Where pictures are not read, ffmpeg counts from the start of the sound.
    pictures = ffmpeg.output(source["u"], os.devnull, format="null", codec="copy")
    return _run_resampler(ffmpeg.merge_outputs(output, pictures), options)


def _resampled(sound: Any, options: DecodeOptions, **limits: float) -> Any:
    """An output of 16 bits at the wanted rate, a little longer than what a sample holds."""
    longest = round((options.max_audio + _MORE) * options.sample_rate)
    # All channels are resampled and one is taken afterwards, in the published order.
    return ffmpeg.output(
        # Older versions resample 16 bits with less precision unless told otherwise.
        sound.filter("aresample", options.sample_rate, internal_sample_fmt="fltp").filter(
            "atrim", end_sample=longest
        ),
        "pipe:1",
        format="au",  # the simplest stream that says how many channels it has
        acodec="pcm_s16be",
        **limits,
    )


def _run_resampler(output: Any, options: DecodeOptions) -> NDArray[np.int16] | None:
    """int16 [samples]; None where there are none."""
    try:
        data, _ = _run(output)
    except ffmpeg.Error:
        return None
    _, payload, _, _, _, channels = struct.unpack(">6I", data[:24])
    samples = np.frombuffer(data, ">i2", offset=payload).reshape(-1, channels)
    if not len(samples):
        return None
    return channels_to_mono(samples.T.astype(np.int16), options.channels)


def _run(output: Any) -> tuple[bytes, bytes]:
    """What ffmpeg writes, and what it says."""
    # A stream that begins within a group of pictures may have more errors than frames at first.
    output = output.global_args("-max_error_rate", "1")
    return output.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)


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
        listing, words = _run(output)
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
    begin = start or None
    frames = _on_screen(_list_frames(path, begin, end, clock))
    if not frames:
        raise _why_no_frames(path, start)
    times = [frame.time for frame in frames]
    positions = choose_frames(times, _reported_rate(path), options.frames, begin=begin, end=end)
    chosen = [frames[i] for i in positions]
    pictures = _fetch(path, {frame.number: frame for frame in chosen}, options)
    since = times[0] if begin is None else begin
    shown = tuple(round(max(frame.time - since, 0.0), 6) for frame in chosen)
    return np.stack([pictures[frame.number] for frame in chosen]), shown


@dataclass(frozen=True)
class _Frame:
    """What the ffmpeg program says of a frame that it shows."""

    number: int  # in the order they come out of the decoder
    time: float  # seconds after the container's start
    pixel_aspect: float  # shown width of a pixel over its shown height
    is_plain: bool  # OpenCV can be trusted with it


_MAY_JUMP = re.compile(rb"Input #0, (?:mpegts|mpeg|ogg),")
_TIME_BASE = re.compile(rb"config in time_base: (\d+)/(\d+)")
_FRAME = re.compile(
    rb" n: *\d+ pts: *(?P<pts>-?\d+|NOPTS) .* sar:(?P<wide>\d+)/(?P<high>\d+) .*"
    rb" i:(?P<fields>.) iskey:. type:(?P<type>.)"
)


def _list_frames(
    path: str | Path, begin: float | None, end: float | None, clock: _Clock
) -> list[_Frame]:
    """The frames up to the end of the part of the clip that frames are taken from, and one more."""
    step, tick, offset = step_for(_reported_rate(path)), 0.0, 0.0
    is_guessing, is_odd = True, False
    frames: list[_Frame] = []
    number, time = 0, -step
    with closing(_describe_frames(path)) as lines:
        for line in lines:
            if base := _TIME_BASE.search(line):
                tick = int(base[1]) / int(base[2])
            elif b": Video: h264" in line or b"Input #0, mov,mp4" in line:
                is_guessing = False  # gives no picture before all it refers to is there
            elif b"displaymatrix" in line:  # said before the first frame, or behind its own
                is_odd = True
            elif told := _FRAME.search(line):
                time = time + step if told["pts"] == b"NOPTS" else int(told["pts"]) * tick + offset
                if not number and begin is not None:
                    offset = clock.picture - clock.container - time
                    time += offset
                if is_guessing and told["type"] == b"I":
                    is_guessing, is_odd, frames = False, is_odd or bool(frames), []
                frames.append(_Frame(number, time, _pixel_aspect(told), told["fields"] == b"P"))
                number += 1
                if time >= window_end(frames[0].time, begin, end):
                    break
    return [replace(one, is_plain=one.is_plain and not is_odd) for one in frames]


def _describe_frames(path: str | Path) -> Generator[bytes, None, None]:
    """What ffmpeg says of a file and of each frame that it decodes, line by line."""
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS, noautorotate=None)["V:0"]
    output = ffmpeg.output(
        source.filter("showinfo", checksum=0), "pipe:1", format="null", fps_mode="passthrough"
    ).global_args("-nostdin", "-nostats")
    process = output.run_async(cmd=find_ffmpeg(), pipe_stderr=True)
    try:
        yield from process.stderr
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def _on_screen(frames: list[_Frame]) -> list[_Frame]:
    """Those that are shown: what comes out late is not; of equal times, the later frame is."""
    shown: list[_Frame] = []
    for frame in frames:
        if not shown or frame.time > shown[-1].time - SAME_TIME:
            shown.append(frame)
    return shown


def _fetch(
    path: str | Path, wanted: dict[int, _Frame], options: DecodeOptions
) -> dict[int, NDArray[np.uint8]]:
    """The frames of the given numbers, resized."""
    # OpenCV 5 fails to convert interlaced pictures and hands out whatever was in memory, without
    # a word; of display matrices it knows quarter turns alone; and of what a stream that begins
    # within a group of pictures shows first, it may count other frames.
    pictures = None
    if all(frame.is_plain for frame in wanted.values()):
        pictures = _grab(path, wanted, options)
    return _select(path, wanted, options) if pictures is None else pictures


def _grab(
    path: str | Path, wanted: dict[int, _Frame], options: DecodeOptions
) -> dict[int, NDArray[np.uint8]] | None:
    """The same as `_fetch` through OpenCV alone; None where it gives up earlier than ffmpeg."""
    capture = _open(path)
    pictures = {}
    for number in range(max(wanted) + 1):
        if not capture.grab():
            return None
        if number in wanted:
            converted, bgr = capture.retrieve()
            if not converted:
                return None
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            pictures[number] = _resized(rgb, wanted[number].pixel_aspect, options)
    capture.release()
    return pictures


def _select(
    path: str | Path, wanted: dict[int, _Frame], options: DecodeOptions
) -> dict[int, NDArray[np.uint8]]:
    """The same as `_fetch` through ffmpeg alone, turned as it turns them."""
    numbers = sorted(wanted)
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)["V:0"]
    any_of = "+".join(f"eq(n,{number})" for number in numbers)
    output = ffmpeg.output(
        source.filter("select", any_of).filter("showinfo", checksum=0),
        "pipe:1",
        format="image2pipe",
        vcodec="ppm",
        pix_fmt="rgb24",
        fps_mode="passthrough",
        **{"frames:v": len(numbers)},
    )
    try:
        raw, words = _run(output)
    except ffmpeg.Error as error:
        detail = f"{path}: neither OpenCV nor ffmpeg converts its pictures"
        raise DecodeError("no-frames", detail) from error
    pictures, told = _read_ppm(raw), list(_FRAME.finditer(words))
    if len(pictures) != len(numbers) or len(told) != len(numbers):
        raise DecodeError("truncated", f"{path}: ends before frame {numbers[-1]} for ffmpeg")
    return {
        number: _resized(picture, _pixel_aspect(words_of_it), options)
        for number, picture, words_of_it in zip(numbers, pictures, told, strict=True)
    }


def _read_ppm(raw: bytes) -> list[NDArray[np.uint8]]:
    """The whole images of a stream of PPM files, each uint8 [height, width, 3]."""
    images = []
    while head := re.match(rb"P6\s(\d+) (\d+)\s255\s", raw):
        width, height = int(head[1]), int(head[2])
        end = head.end() + width * height * 3
        if len(raw) < end:
            break
        pixels = np.frombuffer(raw[head.end() : end], np.uint8)
        images.append(pixels.reshape(height, width, 3))
        raw = raw[end:]
    return images


def _pixel_aspect(told: re.Match[bytes]) -> float:
    """Shown width of a pixel over its shown height."""
    wide, high = int(told["wide"]), int(told["high"])
    return wide / high if wide and high else 1.0


def _resized(rgb: NDArray[Any], pixel_aspect: float, options: DecodeOptions) -> NDArray[np.uint8]:
    aspect = pixel_aspect if options.pixels == "square" else 1.0
    return resize_and_crop(rgb, options.frame_size, aspect)


@dataclass(frozen=True)
class _Clock:
    """Where things begin, in seconds of the container's own time stamps.

    Attributes:
        container: the beginning of the file.
        picture: the first picture.
        priming: seconds before both that hold what an encoder put there to warm up.
        may_jump: whether the container's kind is one whose time stamps may start over.
    """

    container: float = 0.0
    picture: float = 0.0
    priming: float = 0.0
    may_jump: bool = False


def _read_clock(path: str | Path) -> _Clock:
    """What ffmpeg says of the beginning of a file; its times may count from that of one stream."""
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)
    output = ffmpeg.output(
        source["V:0"],
        "pipe:1",
        format="framecrc",
        fps_mode="passthrough",
        enc_time_base="1/90000",
        **{"frames:v": 1},
    ).global_args("-copyts")
    try:
        listing, words = _run(output)
    except ffmpeg.Error:
        return _Clock()
    container = re.search(rb"Duration: .*, start: (-?\d+\.\d+)", words)
    time_base = re.search(rb"^#tb 0: (\d+)/(\d+)", listing, re.MULTILINE)
    frame = re.search(rb"^0, *-?\d+, *(-?\d+),", listing, re.MULTILINE)
    if container is None or time_base is None or frame is None:
        return _Clock()
    picture = int(frame[1]) * int(time_base[1]) / int(time_base[2])
    begin = float(container[1])
    if begin < 0 and b"Input #0, matroska" in words:
        # Matroska has no time before 0. Older versions count what warms up the decoder as such,
        # and keep its sound for some codecs.
        return _Clock(0.0, picture, -begin)
    return _Clock(begin, picture, may_jump=_MAY_JUMP.search(words) is not None)


def _description(path: str | Path) -> bytes:
    """What ffmpeg says of a file's streams."""
    source = ffmpeg.input(f"file:{path}", **INPUT_OPTIONS)
    nothing = ffmpeg.output(source, "pipe:1", format="null", codec="copy")
    try:
        _, words = _run(nothing)
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
    cv2.setNumThreads(1)  # as many workers as cores share the machine already
    # OpenCV has an ffmpeg of its own, which takes its orders from here alone.
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join(map(";".join, INPUT_OPTIONS.items()))
    return cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG)


def _reported_rate(path: str | Path) -> float:
    capture = _open(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate
