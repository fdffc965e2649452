"""Which frames a clip is represented by: arithmetic on times, no I/O.

The published rule counts frames: with `n = min(frame_count, int(fps * 10))`, the i-th of 10 is at
`idx = int(i * n / 10)`, and the frame read is the one before it, `max(idx - 1, 0)`. Frame numbers
mean little where the rate varies or the header's count is wrong, so the rule's index is turned
into a time by the mean rate of the clip's own frames, and the frame shown at that time is taken.
At a constant rate both are the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

PUBLISHED_SECONDS = 10  # frames are taken from the clip's first 10 s
SAME_TIME = 1e-6  # seconds; far below a frame, far above rounding
_TOLERANCE = 0.25  # of a frame; millisecond time stamps jitter around the true time
_USUAL_RATE = 25.0
_HIGHEST_PLAUSIBLE_RATE = 240.0  # containers without a rate report their clock's, such as 1000


@dataclass(frozen=True)
class Window:
    """The part of a file that is the clip, in seconds of one of the file's clocks."""

    begin: float | None  # None: the file's beginning, wherever its first frame is
    end: float  # exclusive; may be infinite

    def frames_end(self, first: float) -> float:
        """When the part that frames are taken from ends, if the first frame is shown at `first`."""
        begin = first if self.begin is None else self.begin
        return min(begin + PUBLISHED_SECONDS, self.end)

    def is_before(self, time: float) -> bool:
        """Whether a time is not later than the beginning of a segment."""
        return self.begin is not None and time <= self.begin + SAME_TIME


def wanted_indices(available: int, count: int) -> list[int]:
    """The published frame indices.

    Args:
        available: frames in the clip's first 10 s, limited by its rate.
        count: how many to take.

    Returns:
        `count` ascending indices below `available`; a clip of few frames repeats some.
    """
    return [max(int(i * available / count) - 1, 0) for i in range(count)]


def step_for(reported_rate: float) -> float:
    """Seconds between frames, if only the container's rate is known."""
    is_plausible = 0 < reported_rate <= _HIGHEST_PLAUSIBLE_RATE
    return 1 / (reported_rate if is_plausible else _USUAL_RATE)


def choose_frames(
    times: Sequence[float],
    reported_rate: float,
    count: int,
    window: Window,
    *,
    more_follow: bool = False,
) -> list[int]:
    """Positions in `times` of the frames to take.

    Args:
        times: ascending display times, seconds; they may reach beyond the clip on either side.
        reported_rate: frames per second according to the container; 0 if unknown.
        count: how many to take.
        window: the clip, on the same clock.
        more_follow: whether more frames follow after `times`.

    Returns:
        `count` ascending positions.

    Raises:
        ValueError: `times` is empty.
    """
    if not times:
        raise ValueError("a clip without frames has none to choose from")
    # The frame on screen when the segment begins is its first.
    begin = window.begin
    first = 0 if begin is None else max(bisect_right(times, begin + SAME_TIME) - 1, 0)
    limit = window.frames_end(times[0])
    last = max(bisect_left(times, limit - SAME_TIME), first + 1)
    clip = list(times[first:last])
    steps, span = len(clip) - 1, clip[-1] - clip[0]
    if begin is not None:
        clip[0] = max(clip[0], begin)
    available = len(clip)
    # The container's rate is more exact than time stamps in milliseconds, if it is right at all.
    if abs(reported_rate * span - steps) <= 0.5 and reported_rate > 0:
        rate = reported_rate
        available = min(available, int(rate * PUBLISHED_SECONDS))
    else:
        is_followed = more_follow or last < len(times)
        over = limit if is_followed or not steps else min(clip[-1] + span / steps, limit)
        rate = available / max(over - clip[0], SAME_TIME)
    slack = _TOLERANCE / rate
    return [
        first + max(bisect_right(clip, clip[0] + index / rate + slack) - 1, 0)
        for index in wanted_indices(available, count)
    ]
