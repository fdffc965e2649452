"""When packets are shown and heard, and time stamps that run on where a stream's clock jumps.

Transport and program streams are cut and joined as bytes, and their clocks wrap around, so time
stamps start over in mid-file. Jumps are closed by the rule of the ffmpeg program: the next packet
follows the one before. Other containers keep their gaps, for there a gap is a pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Stream

_LONGEST_PAUSE = 10.0  # seconds
_LONGEST_STEP_BACK = 0.1  # seconds
_LONGEST_FRAME = 10.0  # seconds; lower rates are hardly real


def may_jump(container: InputContainer) -> bool:
    """Whether the clock of a container of this kind may jump."""
    return bool(container.format.flags & Flags.ts_discont.value)  # type: ignore[operator]


def running_on(
    container: InputContainer, packets: Iterable[Packet], leader: int
) -> Iterator[Packet]:
    """The packets of a container, their time stamps moved so that they run on.

    Args:
        container: where they come from.
        packets: in the order they are read.
        leader: index of the stream that sets the clock for all: the pictures', if there are any.
    """
    if not may_jump(container):
        yield from packets
        return
    # One offset for all streams, so that a jump moves picture and sound alike.
    offset, is_leaders = 0.0, True  # seconds; whether it is the leader's own
    spans: dict[int, tuple[float, float]] = {}  # seconds, of each stream's last packet
    for packet in packets:
        base = packet.time_base
        if packet.dts is not None and base:
            time = float(packet.dts * base) + offset
            begin, end = spans.get(packet.stream_index, (time, time))
            leads = packet.stream_index == leader
            has_jumped = not begin - _LONGEST_STEP_BACK <= time <= end + _LONGEST_PAUSE
            if has_jumped or (leads and not is_leaders):
                offset += end - time
                is_leaders = leads
                time = end
            spans[packet.stream_index] = time, time + float((packet.duration or 0) * base)
        if offset and base:
            shift = round(offset / float(base))
            packet.dts = None if packet.dts is None else packet.dts + shift
            packet.pts = None if packet.pts is None else packet.pts + shift
        yield packet


class PacketClock:
    """Seconds of a stream's packets; counted where an elementary stream has no time stamps."""

    def __init__(self, stream: Stream) -> None:
        self._base = float(stream.time_base or 0)
        rate = getattr(stream, "average_rate", None)
        self._frame = min(1 / float(rate), _LONGEST_FRAME) if rate else 0.0
        self._next = 0.0

    def time_of(self, packet: Packet) -> tuple[float, float]:
        """(start, duration)."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        start = self._next if stamp is None else stamp * self._base
        length = (packet.duration or 0) * self._base or self._frame
        self._next = start + length
        return start, length
