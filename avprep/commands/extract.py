"""Videos become audio and frame files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from avprep.clips import discover_clips
from avprep.extraction import ExtractReport, ExtractSettings, extract_clips
from avprep.options import IsolationOptions, PoolOptions, SampleOptions
from avprep.progress import OnProgress, Progress, each, ignore


def extract(
    videos: str | Path,
    out: str | Path,
    sample: SampleOptions = SampleOptions(),
    limits: IsolationOptions = IsolationOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
) -> ExtractReport:
    """Write audio and frames of every video below a folder, in the published layout.

    What is there already is kept, so the same call resumes where another was interrupted.

    Args:
        videos: folder.
        out: gets `audio/ID.wav` and `frames/frame_{0..9}/ID.jpg`.
        sample: what the files hold; the audio is always WAV.
        limits: what one clip may cost before it is given up.
        pool: who does the work.
        on_progress: hears of files found, then of clips done.

    Raises:
        UserError: no video below `videos`, or `out` holds files of other videos or options.
        WorkFailed: workers died again and again.
    """
    passed_over: list[str] = []
    clips = discover_clips(Path(videos), passed_over, each("file", on_progress))
    settings = ExtractSettings(Path(videos), Path(out), replace(sample, audio="wav"), limits)

    def show(done: int, failed: int) -> None:
        on_progress(Progress("clip", done, len(clips), failed))

    report = extract_clips(clips, settings, pool, show)
    return replace(report, passed_over=tuple(passed_over))
