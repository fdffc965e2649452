"""Which frames a clip is represented by: arithmetic on times, no I/O.

The published rule counts frames: with `n = min(frame_count, int(fps * 10))`, the i-th of 10 is at
`idx = int(i * n / 10)`, and the frame read is the one before it, `max(idx - 1, 0)`. Frame numbers
mean little where the rate varies or the header's count is wrong, so the rule's index is turned
into a time, and the frame shown at that time is taken. At a constant rate both are the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

PUBLISHED_SECONDS = 10  # frames are taken from the clip's first 10 s
_HIGHEST_PLAUSIBLE_RATE = 240.0  # containers without a rate report their clock's, such as 1000
_TOLERANCE = 0.25  # of a frame; millisecond time stamps jitter around the true time


def wanted_indices(available: int, rate: float, count: int = 10) -> list[int]:
    """The published frame indices.

    Args:
        available: frames in the clip.
        rate: frames a second.
        count: how many to take.

    Returns:
        `count` ascending indices below `available`; a clip of few frames repeats some.
    """
    n = min(available, int(rate * PUBLISHED_SECONDS))
    return [max(int(i * n / count) - 1, 0) for i in range(count)]


def plausible_rate(reported: float | None, times: Sequence[float]) -> float:
    """The reported frame rate, or the mean one of ascending frame times if it makes no sense."""
    if reported and 0 < reported <= _HIGHEST_PLAUSIBLE_RATE:
        return reported
    span = times[-1] - times[0] if len(times) > 1 else 0.0
    return (len(times) - 1) / span if span > 0 else 25.0


def choose_frames(times: Sequence[float], rate: float, count: int = 10) -> list[int]:
    """Positions in `times` of the frames to take.

    Args:
        times: ascending display times of the clip's frames, seconds, the first one's being the
            clip's start.
        rate: frames a second.
        count: how many to take.

    Returns:
        `count` ascending positions.

    Raises:
        ValueError: `times` is empty.
    """
    if not times:
        raise ValueError("a clip without a frame has none to choose from")
    slack = _TOLERANCE / rate
    return [
        max(bisect_right(times, times[0] + index / rate + slack) - 1, 0)
        for index in wanted_indices(len(times), rate, count)
    ]
