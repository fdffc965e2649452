"""The messages between a process that wants samples and its child that makes them.

Each message is a length and that many bytes: a request is one message of JSON; an answer is a JSON
header and the payloads that it announces. Before it answers, the child may ask that a part of the
video be put into its file, and waits for an empty message. Nothing is pickled.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import IO

from avprep.clips import Clip
from avprep.errors import Unreadable
from avprep.options import DecodeOptions, SampleOptions

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class EncodedSample:
    """The payload of a sample's members, ready to be written."""

    audio: bytes  # FLAC or WAV, 16-bit mono; empty where the clip has none
    frames: tuple[bytes, ...]  # JPEG, in time order; none where the clip has none
    frame_times: tuple[float, ...]  # seconds; empty for packed files, whose times are not known
    num_samples: int  # of audio
    decoder: str  # "pyav", "ffmpeg", "pillow" for a picture, or "files"
    complete: bool = True  # whether the source holds what it promises, as far as it is used here
    seconds_found: float = 0.0
    seconds_promised: float = 0.0
    audio_shortened: bool = False  # the clip has more sound than the sample
    measures: Mapping[str, float | str] = field(default_factory=dict)  # of `measure_clip`


_FACTS = tuple(
    one.name for one in fields(EncodedSample) if one.name not in ("audio", "frames", "frame_times")
)


def pack_request(clip: Clip, options: SampleOptions | None, is_part: bool = False) -> bytes:
    """The message that asks for a clip's sample, or for the length of its video.

    Args:
        clip: whose.
        options: what the sample holds; None for the length.
        is_part: whether parts of the video's file are not there yet.
    """
    asked = None if options is None else asdict(options)
    return json.dumps({"clip": asdict(clip), "options": asked, "is_part": is_part}).encode()


def unpack_request(message: bytes) -> tuple[Clip, SampleOptions | None, bool]:
    """The inverse of `pack_request`."""
    request = json.loads(message)
    fields, options = request["clip"], request["options"]
    clip = Clip(**{**fields, "labels": tuple(fields["labels"])})
    if options is not None:
        options = SampleOptions(**{**options, "decode": DecodeOptions(**options["decode"])})
    return clip, options, request["is_part"]


def pack_wish(begin: int, count: int) -> bytes:
    """The message that asks for a part of the video's file."""
    return json.dumps({"wish": [begin, count]}).encode()


def unpack_wish(message: bytes) -> tuple[int, int] | None:
    """First byte and number of bytes of the part that a message asks for; None: it answers."""
    wish = json.loads(message).get("wish")
    return None if wish is None else (int(wish[0]), int(wish[1]))


def pack_answer(outcome: EncodedSample | float | Unreadable) -> list[bytes]:
    """The messages that answer a request: a header, then the payloads it announces."""
    if isinstance(outcome, Unreadable):
        return [json.dumps(asdict(outcome)).encode()]
    if isinstance(outcome, float):
        return [json.dumps({"seconds": outcome}).encode()]
    header = {
        "payloads": 1 + len(outcome.frames),
        "frame_times": outcome.frame_times,
        **{name: getattr(outcome, name) for name in _FACTS},
    }
    return [json.dumps(header).encode(), outcome.audio, *outcome.frames]


def unpack_answer(head: bytes, receive: Callable[[], bytes]) -> EncodedSample | float | Unreadable:
    """The inverse of `pack_answer`.

    Args:
        head: the first message.
        receive: gives the next.
    """
    header = json.loads(head)
    if "cause" in header:
        return Unreadable(**header)
    if "seconds" in header:
        return float(header["seconds"])
    audio, *frames = (receive() for _ in range(header["payloads"]))
    facts = {name: header[name] for name in _FACTS}
    return EncodedSample(audio, tuple(frames), tuple(header["frame_times"]), **facts)


def write_message(stream: IO[bytes], payload: bytes) -> None:
    """Write one message to a raw (unbuffered) pipe."""
    view = memoryview(_LENGTH.pack(len(payload)) + payload)
    while view:
        view = view[stream.write(view) :]


def read_message(read: Callable[[int], bytes]) -> bytes:
    """Read one message.

    Args:
        read: gives up to as many bytes as it is asked for; none at the end.

    Raises:
        EOFError: the pipe ended.
    """
    return _read_exactly(read, _LENGTH.unpack(_read_exactly(read, _LENGTH.size))[0])


def _read_exactly(read: Callable[[int], bytes], count: int) -> bytes:
    buffer = bytearray()
    while len(buffer) < count:
        piece = read(min(count - len(buffer), 1 << 20))
        if not piece:
            raise EOFError
        buffer += piece
    return bytes(buffer)
