"""How much of a clip a file really holds, compared with what its head promises.

A download that was cut and a film with a damaged fragment decode without an error: they are only
shorter. What counts is what a sample uses: an hour-long film cut after fifty minutes has all of its
first ten seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from avprep.decode.header import Header, Kind
from avprep.errors import DecodeError

# Heads are rounded, count a codec's padding or a last frame's duration: up to 0.1 s in whole files.
TOLERANCE = 0.25  # seconds
# Codecs that fall silent (Opus, AMR) still send a packet every 0.4 s or more often.
_LONGEST_PAUSE = 0.5  # seconds without a packet of any stream
_CLOCK_STEP = 0.02  # seconds between packets that only come from rounded time stamps

Span = tuple[float, float]  # seconds


@dataclass(frozen=True)
class Extent:
    """Seconds of the clip found and promised; equal if the file promises nothing."""

    found: float
    promised: float

    @property
    def is_complete(self) -> bool:
        """Whether the file holds what it promises of what a sample uses."""
        return self.found >= self.promised - TOLERANCE


class PacketSpans:
    """The times that packets of a file cover, on the file's own clock."""

    def __init__(self) -> None:
        self._spans: defaultdict[Kind | None, list[Span]] = defaultdict(list)

    def add(self, kind: Kind | None, start: float, duration: float) -> None:
        """Note a packet; `kind` is None for unused streams."""
        self._spans[kind].append((start, start + duration))

    def begin(self, kind: Kind) -> float | None:
        """When the first packet of the stream begins."""
        return min((start for start, _ in self._spans[kind]), default=None)

    def end(self, kind: Kind) -> float | None:
        """When the last packet of the stream ends."""
        return max((end for _, end in self._spans[kind]), default=None)

    def length(self, kind: Kind, begin: float, until: float) -> float:
        """Seconds from the first packet to the end of the last, between two times."""
        first, last = self.begin(kind), self.end(kind)
        if first is None or last is None:
            return 0.0
        return max(min(last, until) - max(first, begin), 0.0)

    def check_begin(self, path: str | Path, header: Header, begin: float) -> None:
        """Refuse a clip that the file promises but no longer holds.

        Raises:
            DecodeError: truncated.
        """
        promised = (header.promised or 0.0) - begin
        if promised <= TOLERANCE:
            return
        if all(end <= begin for spans in self._spans.values() for _, end in spans):
            detail = f"{path}: nothing is left of the last {promised:.1f} s it promises"
            raise DecodeError("truncated", detail)

    def extent(
        self, header: Header, begin: float, wanted: Mapping[Kind, float], heard: float | None
    ) -> Extent:
        """Compare with the promise.

        Args:
            header: what the file promises.
            begin: when the clip begins.
            wanted: when a sample stops using each kind of stream.
            heard: seconds of decoded sound; None if the clip has no sound.

        Returns:
            for the file or, if that is known, for the stream that lacks most.
        """
        until = max(wanted.values(), default=begin)
        everything = [span for spans in self._spans.values() for span in spans]
        if header.promised is None:
            found = round(_covered(everything, begin, until, _LONGEST_PAUSE), 3)
            return Extent(found, found)
        until = min(header.promised, until)
        extents = [(_covered(everything, begin, until, _LONGEST_PAUSE), until - begin)]
        for kind, last in wanted.items():
            if kind in header.promised_by_kind:
                until = min(header.promised_by_kind[kind], last)
                end = self.end(kind)
                extents.append((0.0 if end is None else min(end, until) - begin, until - begin))
        if heard is not None:  # packets that are there may be damaged
            until = min(header.promised, wanted["audio"])
            there = _covered(_without_pauses(self._spans["audio"]), begin, until, _CLOCK_STEP)
            extents.append((until - begin - max(there - heard, 0.0), until - begin))
        found, promised = max(extents, key=lambda extent: extent[1] - extent[0])
        return Extent(round(max(found, 0.0), 3), round(max(promised, 0.0), 3))


def _without_pauses(spans: Sequence[Span]) -> list[Span]:
    """Packets of sound, shortened where a muxer made one last until the next after a pause."""
    usual = median(end - start for start, end in spans) if spans else 0.0
    return [(start, min(end, start + 2 * usual)) for start, end in spans]


def _covered(spans: Iterable[Span], begin: float, until: float, longest_pause: float) -> float:
    """Seconds between two times that lie within spans or in short pauses between them."""
    covered, reached = 0.0, begin
    for start, end in sorted(spans):
        start, end = max(start, begin), min(end, until)
        if end <= reached:
            continue
        pause = start - reached
        covered += end - (start if pause > longest_pause else reached)
        reached = end
    return covered
