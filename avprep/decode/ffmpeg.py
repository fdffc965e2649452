"""The second engine: audio through ffmpeg-python, frames through OpenCV.

Slower than the first and built on other code, so it can read what PyAV cannot, and tests compare
the two. Frames are grabbed one after another, never sought by number.

The ffmpeg program runs three times: it lists the packets, describes the frames and resamples the
sound. The times it prints count from the file's beginning as long as all streams are mapped.
"""

from __future__ import annotations

import math
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
from avprep.decode.frames import PUBLISHED_SECONDS, SAME_TIME, choose_frames, step_for
from avprep.decode.header import Kind
from avprep.decode.media import NO_VIDEO, Reading, Request, no_frame_error, no_frames
from avprep.decode.partly import have_all
from avprep.decode.sniff import INPUT_OPTIONS, why_not_media
from avprep.errors import DecodeError
from avprep.ffmpeg_binary import find_ffmpeg
from avprep.images import resize_and_crop
from avprep.options import DecodeOptions

_MORE = 1.0  # seconds read beyond what a sample holds, to tell whether there is more


def decode_with_ffmpeg(request: Request) -> Reading:
    """Decode a file, or a segment of it, with ffmpeg and OpenCV.

    Raises:
        DecodeError: see `avprep.decode.decode_clip`.
    """
    options = request.options
    have_all(request.path)
    listing = _list_packets(request)
    begin = listing.origin + request.start
    if listing.is_read:
        listing.spans.check_begin(request.path, request.header, begin)
    is_read = options.frames and not (listing.is_sound_alone and options.missing_video == "omit")
    frames, times = _read_frames(request, listing) if is_read else no_frames(options)
    pcm = None if listing.audio is None else _read_audio(request, listing, listing.audio)
    if pcm is not None and (listing.spans.end("audio") or begin) <= begin:
        pcm = pcm[:0]  # past the end, ffmpeg returns the last packet
    return Reading("ffmpeg", listing.origin, listing.spans, frames, times, pcm)


@dataclass(frozen=True)
class _Listing:
    """What ffmpeg lists of a file, from its beginning to the clip's end.

    Attributes:
        is_read: whether ffmpeg can open the file and copy its packets.
        kinds: of its streams, except for cover pictures.
        origin: seconds, the file's beginning on its own clock, which the spans are in, too.
        priming: seconds at its beginning that only warm up the decoder.
        may_jump: whether time stamps may start over in a container of this kind.
        spans: when the packets are shown and heard.
        audio: number of the first audio stream that can be decoded.
    """

    is_read: bool
    kinds: frozenset[Kind]
    origin: float
    priming: float
    may_jump: bool
    spans: PacketSpans
    audio: int | None

    @property
    def is_sound_alone(self) -> bool:
        return self.kinds == {"audio"}


_ORIGIN = re.compile(rb"Duration: .*, start: (-?\d+\.\d+)")
_MAY_JUMP = re.compile(rb"Input #0, (?:mpegts|mpeg|ogg),")
_STREAM = re.compile(rb"Stream #0:(\d+).*?: (Video|Audio): (.*)")
_COVER = re.compile(rb"\((?:attached pic|timed thumbnails)\)")
_NO_STAMP = -(2**63)


def _list_packets(request: Request) -> _Listing:
    """What the clip's packets are; nothing is decoded."""
    longest = request.start + max(request.options.max_audio + _MORE, PUBLISHED_SECONDS)
    output = ffmpeg.output(
        _input(request)["u"],  # whatever can be decoded
        "pipe:1",
        format="framecrc",
        codec="copy",
        t=min(longest, request.end),
    )
    try:
        packets, words = _run(output)
    except ffmpeg.Error as error:
        packets, words = b"", error.stderr
    inputs, _, _ = words.partition(b"Output #0")
    streams = {
        int(number): _KINDS[kind]
        for number, kind, rest in _STREAM.findall(inputs)
        if not _COVER.search(rest)
    }
    copies = re.findall(rb"Stream #0:(\d+) -> #0:(\d+) \(copy\)", words)
    numbers = {int(output): int(number) for number, output in copies}
    match = _ORIGIN.search(inputs)
    origin = float(match[1]) if match else 0.0
    spans, audio = _read_packets(packets, streams, numbers, origin)
    # Matroska has no time before 0, but older versions count the decoder's warming up as such, and
    # keep its sound for some codecs.
    priming = max(-origin, 0.0) if b"Input #0, matroska" in inputs else 0.0
    may_jump = _MAY_JUMP.search(inputs) is not None
    kinds = frozenset(streams.values())
    return _Listing(bool(packets), kinds, origin, priming, may_jump, spans, audio)


_KINDS: dict[bytes, Kind] = {b"Video": "video", b"Audio": "audio"}


def _read_packets(
    packets: bytes, streams: dict[int, Kind], numbers: dict[int, int], origin: float
) -> tuple[PacketSpans, int | None]:
    """When the listed packets are shown and heard, and the number of the first audio stream.

    Args:
        packets: in the form of ffmpeg's `framecrc`.
        streams: kinds of the file's streams, by their numbers.
        numbers: of the file's streams, by the numbers they have in the list.
        origin: seconds, the beginning of the file on its own clock.
    """
    spans = PacketSpans()
    used: dict[Kind, int] = {}  # the first stream of each kind, by its number in the list
    ticks: dict[int, float] = {}  # seconds
    for line in packets.decode("ascii", "replace").splitlines():
        if match := re.match(r"#tb (\d+): (\d+)/(\d+)", line):
            output = int(match[1])
            ticks[output] = int(match[2]) / int(match[3])
            if numbers[output] in streams:
                used.setdefault(streams[numbers[output]], output)
        elif match := re.match(r"(\d+), *(-?\d+), *(-?\d+), *(\d+),", line):
            output, dts, pts, length = map(int, match.groups())
            kind = next((kind for kind in used if used[kind] == output), None)
            start = origin + (dts if pts == _NO_STAMP else pts) * ticks[output]
            spans.add(kind, start, length * ticks[output])
    return spans, numbers[used["audio"]] if "audio" in used else None


def _read_audio(request: Request, listing: _Listing, stream: int) -> NDArray[np.int16]:
    """int16 [samples] of an audio stream, up to a little more than `max_audio`."""
    start, end = request.start, request.end
    begin, first_picture = listing.origin + listing.priming + start, listing.spans.begin("video")
    if first_picture is None and "video" in listing.kinds:
        first_picture = math.inf  # it is shown after the clip
    # Seeking by time fails where the clock jumps, in some containers before the first picture, and
    # in others altogether.
    if start and not listing.may_jump and begin >= (first_picture or 0.0):
        # By the file's own time stamps, since ffmpeg may count from the start of the sound.
        source = _input(request, seek_timestamp=1, ss=begin)
        samples = _resample(source[str(stream)], request, **_limits(t=end - start))
        first_sound = listing.spans.begin("audio")
        if len(samples) and first_sound is not None and begin < first_sound and end < math.inf:
            # Where the sound begins inside the segment, ffmpeg ends it with a whole block.
            heard = listing.origin + end - first_sound
            return samples[: round(heard * request.options.sample_rate)]
        if len(samples):
            return samples
    source = _input(request)
    if not start:
        limits = _limits(ss=listing.priming, t=end)
        return _resample(source[str(stream)], request, **limits)
    window = _limits(start=start, end=end)
    return _resample(source[str(stream)].filter("atrim", **window), request, also=source)


def _limits(**seconds: float) -> dict[str, float]:
    """Only those limits that are neither zero nor infinite."""
    return {name: value for name, value in seconds.items() if 0 < value < math.inf}


def _resample(sound: Any, request: Request, also: Any = None, **limits: float) -> NDArray[np.int16]:
    """int16 [samples] at the wanted rate.

    Args:
        sound: a stream of ffmpeg-python.
        request: the rate and channels.
        also: an input whose other streams are read too, so that times count from its beginning.
        limits: options of the output.
    """
    options = request.options
    longest = round((options.max_audio + _MORE) * options.sample_rate)
    # All channels are resampled and one is taken afterwards, in the published order.
    output = ffmpeg.output(
        # By default, older versions resample 16 bits with less precision.
        sound.filter("aresample", options.sample_rate, internal_sample_fmt="fltp").filter(
            "atrim", end_sample=longest
        ),
        "pipe:1",
        format="au",  # the simplest format that states the number of channels
        acodec="pcm_s16be",
        **limits,
    )
    try:
        data, _ = _run(output if also is None else _with_all_streams(output, also))
    except ffmpeg.Error:
        return np.empty(0, np.int16)
    _, payload, _, _, _, channels = struct.unpack(">6I", data[:24])
    samples = np.frombuffer(data, ">i2", offset=payload).reshape(-1, channels).astype(np.int16)
    if options.channels == "first" or channels == 1:
        return samples[:, 0].copy()
    return np.rint(samples.mean(axis=1)).astype(np.int16)


def _read_frames(
    request: Request, listing: _Listing
) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """The chosen frames, and the times they are shown at: one pass for times, one for pictures."""
    window, rate = request.window(0.0), _reported_rate(request.path)
    frames = _on_screen(_list_frames(request, listing.priming, step_for(rate)))
    if not frames:
        raise _why_no_frames(request, listing)
    times = [frame.time for frame in frames]
    chosen = [frames[i] for i in choose_frames(times, rate, request.options.frames, window)]
    pictures = _fetch(request, {frame.number: frame for frame in chosen})
    since = times[0] if window.begin is None else window.begin
    shown = tuple(round(max(frame.time - since, 0.0), 6) for frame in chosen)
    return np.stack([pictures[frame.number] for frame in chosen]), shown


def _why_no_frames(request: Request, listing: _Listing) -> DecodeError:
    if "video" in listing.kinds:
        return no_frame_error(request, "ffmpeg can decode none of its video frames")
    if listing.kinds:
        return DecodeError("no-video", f"{request.path}: {NO_VIDEO}")
    return why_not_media(request.path)


@dataclass(frozen=True)
class _Frame:
    """A frame as the ffmpeg program describes it."""

    number: int  # in the order they come out of the decoder
    time: float  # seconds after the container's start
    pixel_aspect: float  # shown width of a pixel over its shown height
    is_plain: bool  # OpenCV decodes it correctly


_TIME_BASE = re.compile(rb"config in time_base: (\d+)/(\d+)")
_FRAME = re.compile(
    rb" n: *\d+ pts: *(?P<pts>-?\d+|NOPTS) .* sar:(?P<wide>\d+)/(?P<high>\d+)"
    rb" s:(?P<width>\d+)x(?P<height>\d+) i:(?P<fields>.) iskey:. type:(?P<type>.)"
)


def _list_frames(request: Request, priming: float, step: float) -> list[_Frame]:
    """The frames up to the end of the part of the clip that frames are taken from, and one more.

    Args:
        request: what is asked for.
        priming: seconds at the file's beginning that are not part of it.
        step: seconds between frames where none has a time stamp.
    """
    window, tick = request.window(0.0), 0.0
    is_guessing, is_odd = True, False
    frames: list[_Frame] = []
    number, time = 0, -step
    with closing(_describe_frames(request)) as lines:
        for line in lines:
            if base := _TIME_BASE.search(line):
                tick = int(base[1]) / int(base[2])
            elif b": Video: h264" in line or b"Input #0, mov,mp4" in line:
                is_guessing = False  # outputs no picture whose references are missing
            elif b"displaymatrix" in line:  # printed before the first frame, or after its own
                is_odd = True
            elif match := _FRAME.search(line):
                stamp = match["pts"]
                time = time + step if stamp == b"NOPTS" else int(stamp) * tick - priming
                if is_guessing and match["type"] == b"I":
                    is_guessing, is_odd, frames = False, is_odd or bool(frames), []
                frames.append(_Frame(number, time, _pixel_aspect(match), match["fields"] == b"P"))
                number += 1
                if time >= window.frames_end(frames[0].time):
                    break
    return [replace(one, is_plain=one.is_plain and not is_odd) for one in frames]


def _describe_frames(request: Request) -> Generator[bytes, None, None]:
    """What ffmpeg prints about a file and each frame that it decodes, line by line."""
    source = _input(request, noautorotate=None)
    output = ffmpeg.output(
        source["V:0"].filter("showinfo", checksum=0),
        "pipe:1",
        format="null",
        fps_mode="passthrough",
    )
    output = _with_all_streams(output, source).global_args("-nostdin", "-nostats")
    process = output.run_async(cmd=find_ffmpeg(), pipe_stderr=True)
    try:
        yield from process.stderr
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def _on_screen(frames: list[_Frame]) -> list[_Frame]:
    """The frames that are shown: not those that come out late; of equal times, the later one."""
    shown: list[_Frame] = []
    for frame in frames:
        if not shown or frame.time > shown[-1].time - SAME_TIME:
            shown.append(frame)
    return shown


def _fetch(request: Request, wanted: dict[int, _Frame]) -> dict[int, NDArray[np.uint8]]:
    """The frames of the given numbers, resized."""
    # OpenCV 5 silently returns uninitialised memory for interlaced pictures, knows only quarter
    # turns, and may count other frames where a stream begins within a group of pictures.
    pictures = None
    if all(frame.is_plain for frame in wanted.values()):
        pictures = _grab(request, wanted)
    return _select(request, wanted) if pictures is None else pictures


def _grab(request: Request, wanted: dict[int, _Frame]) -> dict[int, NDArray[np.uint8]] | None:
    """`_fetch` by OpenCV alone; None if it stops earlier than ffmpeg."""
    capture = _open(request.path)
    pictures = {}
    for number in range(max(wanted) + 1):
        if not capture.grab():
            return None
        if number in wanted:
            converted, bgr = capture.retrieve()
            if not converted:
                return None
            rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            pictures[number] = _resized(rgb, wanted[number].pixel_aspect, request.options)
    capture.release()
    return pictures


def _select(request: Request, wanted: dict[int, _Frame]) -> dict[int, NDArray[np.uint8]]:
    """`_fetch` by ffmpeg alone, which turns pictures as their display matrix says."""
    numbers = sorted(wanted)
    any_of = "+".join(f"eq(n,{number})" for number in numbers)
    output = ffmpeg.output(
        _input(request)["V:0"].filter("select", any_of).filter("showinfo", checksum=0),
        "pipe:1",
        format="rawvideo",
        pix_fmt="rgb24",
        fps_mode="passthrough",
        **{"frames:v": len(numbers)},
    )
    try:
        raw, words = _run(output)
    except ffmpeg.Error as error:
        detail = f"{request.path}: neither OpenCV nor ffmpeg can convert its pictures"
        raise DecodeError("no-frames", detail) from error
    pictures, rest = {}, np.frombuffer(raw, np.uint8)
    for number, match in zip(numbers, _FRAME.finditer(words), strict=False):
        shape = (int(match["height"]), int(match["width"]), 3)
        size = math.prod(shape)
        if len(rest) >= size:
            rgb, rest = rest[:size].reshape(shape), rest[size:]
            pictures[number] = _resized(rgb, _pixel_aspect(match), request.options)
    if len(pictures) < len(numbers):
        detail = f"{request.path}: ends before frame {numbers[-1]} for ffmpeg"
        raise DecodeError("truncated", detail)
    return pictures


def _pixel_aspect(match: re.Match[bytes]) -> float:
    """Shown width of a pixel over its shown height."""
    wide, high = int(match["wide"]), int(match["high"])
    return wide / high if wide and high else 1.0


def _resized(rgb: NDArray[Any], pixel_aspect: float, options: DecodeOptions) -> NDArray[np.uint8]:
    aspect = pixel_aspect if options.pixels == "square" else 1.0
    return resize_and_crop(rgb, options.frame_size, aspect)


def _open(path: str | Path) -> cv2.VideoCapture:
    # OpenCV has an ffmpeg of its own, which takes its orders from here alone.
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "|".join(map(";".join, INPUT_OPTIONS.items()))
    return cv2.VideoCapture(f"file:{path}", cv2.CAP_FFMPEG)


def _reported_rate(path: str | Path) -> float:
    capture = _open(path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate


def _input(request: Request, **options: Any) -> Any:
    return ffmpeg.input(f"file:{request.path}", **INPUT_OPTIONS, **options)


def _with_all_streams(output: Any, source: Any) -> Any:
    """Make an output's times count from the file's beginning, not from its own stream's."""
    rest = ffmpeg.output(source["u"], os.devnull, format="null", codec="copy")
    return ffmpeg.merge_outputs(output, rest)


def _run(output: Any) -> tuple[bytes, bytes]:
    """What ffmpeg writes, and its messages."""
    # A stream that begins within a group of pictures may begin with more errors than frames.
    output = output.global_args("-max_error_rate", "1")
    return output.run(cmd=find_ffmpeg(), capture_stdout=True, capture_stderr=True)
