"""How long a video is: where its last packets end, which heads only promise."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Stream

from avprep.decode import check_file, checked_header
from avprep.decode.clock import PacketClock, may_jump, running_on
from avprep.decode.extent import TOLERANCE
from avprep.decode.libav import open_file, packets_of
from avprep.decode.pyav import first_usable
from avprep.errors import DecodeError
from avprep.options import DecodeOptions

_LAST = 1.0  # seconds that are read where a file can be entered at its end


def length_of(path: str | Path) -> float:
    """Seconds from a file's beginning to the end of its sound or pictures, whichever lasts longer.

    Only a file's end is read where its head tells when that is, and all packets otherwise.

    Raises:
        DecodeError: it has no sound and no pictures, or cannot be read.
    """
    check_file(Path(path))
    header = checked_header(path, DecodeOptions())
    try:
        with open_file(path) as container:
            streams = _streams_of(container)
            if not streams:
                raise DecodeError("garbage", f"{path}: has neither sound nor pictures")
            origin = float(Fraction(container.start_time or 0, av.time_base))
            promised = header.promised or origin + (container.duration or 0) / av.time_base
            has_stamps = not av.format.Flags(container.format.flags) & av.format.Flags.no_timestamps
            if promised > origin + _LAST and has_stamps and not may_jump(container):
                end = _end_near(container, streams, promised)
                if end is not None and abs(end - promised) <= TOLERANCE:
                    return promised - origin
        with open_file(path) as container:
            end = _end_of(container, _streams_of(container))
    except FFmpegError as error:
        raise DecodeError("garbage", f"{path}: {error.strerror}") from error
    if end is None:
        raise DecodeError("truncated", f"{path}: has no complete packet")
    return end - origin


def _streams_of(container: InputContainer) -> list[Stream]:
    """The streams that a sample is made of."""
    first = first_usable(container.streams.video), first_usable(container.streams.audio)
    return [stream for stream in first if stream is not None]


def _end_near(container: InputContainer, streams: list[Stream], promised: float) -> float | None:
    """When the last packets end, read from shortly before the time that is promised."""
    try:
        container.seek(round((promised - _LAST) * av.time_base))
    except FFmpegError:  # a file without an index
        return None
    return _end_of(container, streams)


def _end_of(container: InputContainer, streams: list[Stream]) -> float | None:
    """When the last of the container's remaining packets ends, on the file's clock."""
    clocks = {stream.index: PacketClock(stream) for stream in streams}
    end = None
    packets = packets_of(container, container.streams)
    for packet in running_on(container, packets, streams[0].index):
        if packet.stream_index in clocks:
            start, length = clocks[packet.stream_index].time_of(packet)
            end = max(start + length, end or 0.0)
    return end
