"""A clip: one video file, or one segment of it; it becomes one sample of a shard set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clip:
    """One entry of a manifest.

    `video` names the raw file (decoded when the clip is sharded); `wav` and `video_path` name
    files already extracted in the published layout (`wav` = `<audio>/ID.wav`, frames at
    `<video_path>/frame_{0..9}/ID.jpg`). At least one of the two sources is set.
    """

    video_id: str
    labels: tuple[str, ...] = ()  # mids of the label set
    video: str = ""
    start: float | None = None  # seconds into `video`; the segment is [start, end)
    end: float | None = None
    wav: str = ""
    video_path: str = ""
    split: str = ""
