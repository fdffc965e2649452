"""Calls to libav that the first engine's modules share, and what libav's errors cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext

from avprep.decode.partly import for_libav
from avprep.decode.sniff import INPUT_OPTIONS, why_not_media


def open_file(path: str | Path) -> InputContainer:
    """Open a file that holds its media itself.

    Raises:
        DecodeError: garbage or truncated.
    """
    try:
        # Titles may be in any encoding.
        return av.open(for_libav(path), "r", options=INPUT_OPTIONS, metadata_errors="replace")
    except (ArgumentError, InvalidDataError) as error:  # the first: a demuxer not in the list
        raise why_not_media(path) from error


def packets_of(container: InputContainer, streams: Iterable[Stream]) -> Iterator[Packet]:
    """Packets up to the point where the file ends or can no longer be read.

    For a stream that appears within the file (a second sound in a VOB, other PIDs in a broadcast)
    PyAV raises IndexError at the end.
    """
    try:
        yield from (packet for packet in container.demux(list(streams)) if packet.size)
    except MemoryError:
        raise
    except (IndexError, FFmpegError):  # a file cut short: what was read so far counts
        return


def decoded(context: AudioCodecContext | VideoCodecContext, packet: Packet | None) -> list[Any]:
    """The video or audio frames that come out for a packet; None: all that are left."""
    try:
        return context.decode(packet)
    except MemoryError:
        raise
    except FFmpegError:  # a damaged packet costs its own frames
        return []
