"""Write clips as files in the published layout, for people who want to look.

    OUT/audio/ID.wav             16 kHz mono, 16 bit
    OUT/audio/ID.nil             in its place, where the clip has no sound
    OUT/frames/frame_{0..9}/ID.jpg
    OUT/extract.json             where the videos are, options and totals
    OUT/failures.csv             clips that failed, and why

A clip's file in audio/ is written last, so its presence means that the clip is complete.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from avprep import storage
from avprep.clips import Clip, Places, Scan, clips_of, discover_files, expanded
from avprep.encode.ahead import encode_clips
from avprep.encode.wire import EncodedSample
from avprep.errors import Unreadable, UserError
from avprep.failures import FAILURES_FILE, ClipFailure, failures_csv
from avprep.jobs import run_jobs
from avprep.option import flat
from avprep.options import FileKinds, IsolationOptions, PoolOptions, SampleOptions
from avprep.origins.place import place_of
from avprep.progress import OnProgress, Progress, each, ignore
from avprep.wording import changes

EXTRACT_FILE = "extract.json"
_CLIPS_A_JOB = 32  # the start of a decoding process costs as much CPU as one or two clips
_JOBS_A_WORKER = 4  # at least, so that all workers end at about the same time
_LONGEST_NAME = 255  # bytes of a file name on Linux and macOS


@dataclass(frozen=True)
class ExtractSettings:
    """What every job of an extraction shares."""

    videos: str  # where the clips were found
    out: Path
    sample: SampleOptions
    limits: IsolationOptions


@dataclass(frozen=True)
class ExtractReport:
    """What one extraction found and did."""

    clips: int
    found: int  # clips extracted before
    extracted: int
    incomplete: int  # of those, clips whose files hold less than they promise
    failures: tuple[ClipFailure, ...]
    passed_over: tuple[str, ...] = ()  # files that are not clips though they look like it


def extract(
    videos: Places,
    out: str | Path,
    sample: SampleOptions = SampleOptions(),
    limits: IsolationOptions = IsolationOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
    kinds: FileKinds = FileKinds(),
) -> ExtractReport:
    """Write audio and frames of every video in some places, in the published layout.

    Existing files are kept, so the same call resumes after an interruption.

    Args:
        videos: folder, archive, or prefix of an object store; or several, which count as one.
        out: gets `audio/ID.wav` and `frames/frame_{0..9}/ID.jpg`.
        sample: what the files hold; the audio is always WAV.
        limits: time and memory that one clip may take.
        pool: who does the work.
        on_progress: called with progress: files found, then clips done.
        kinds: which files are taken.

    Raises:
        UserError: no video in `videos`, or `out` holds files of other videos or options.
        WorkFailed: workers died repeatedly.
    """
    scan, roots = Scan(kinds.kinds), expanded(videos)
    clips = clips_of(discover_files(roots, scan, each("file", on_progress)))
    settings = ExtractSettings(_named(roots), Path(out), replace(sample, audio="wav"), limits)
    lost = [
        ClipFailure(file, file, "extract", "unreadable", f"{file}: {reason}")
        for file, reason in scan.lost
    ]
    make_layout(settings)
    todo = [clip for clip in clips if not _is_done(settings.out, clip.video_id)]
    found = done = len(clips) - len(todo)
    failures: list[ClipFailure] = []
    incomplete = 0
    on_progress(Progress("clip", done, len(clips)))
    jobs = list(_batches(todo, clips_a_job(len(todo), pool.count())))
    decoders = pool.decoders(len(jobs))
    work = functools.partial(_extract_batch, settings=settings, decoders=decoders)
    for batch in run_jobs(work, jobs, pool):
        failures += batch.failures
        done += batch.clips
        incomplete += batch.incomplete
        on_progress(Progress("clip", done, len(clips), len(failures)))
    extracted = len(todo) - len(failures)
    failures = sorted((*failures, *lost), key=lambda failure: failure.video_id)
    storage.write_atomic(settings.out / FAILURES_FILE, failures_csv(failures))
    facts = _facts(settings, len(clips), failures)
    storage.write_atomic(settings.out / EXTRACT_FILE, facts)
    every = len(clips) + len(lost)
    passed_over = tuple(scan.passed_over)
    return ExtractReport(every, found, extracted, incomplete, tuple(failures), passed_over)


def _named(roots: Sequence[str]) -> str:
    """The one name of some places, however they were given."""
    return ", ".join(root if storage.is_url(root) else str(Path(root).resolve()) for root in roots)


def clips_a_job(clips: int, workers: int) -> int:
    """How many clips a worker extracts before it reports."""
    return min(max(clips // (workers * _JOBS_A_WORKER), 1), _CLIPS_A_JOB)


def make_layout(settings: ExtractSettings) -> None:
    """Make the folders, or refuse one whose files are of other videos or other options.

    Two folders of videos cannot share one: a file's stem is the id in both.
    """
    storage.claim(
        settings.out,
        EXTRACT_FILE,
        _facts(settings, clips=0, failures=[]),
        functools.partial(_check_facts, settings=settings),
        functools.partial(_refuse_strangers, settings.out),
    )
    frames = [f"frames/frame_{number}" for number in range(settings.sample.decode.frames)]
    for folder in ("audio", *frames):
        storage.make_folder(settings.out / folder)
        storage.remove_abandoned(settings.out / folder)
    storage.remove_abandoned(tempfile.gettempdir())  # of decoders


def _refuse_strangers(out: Path) -> None:
    if found := storage.strangers(out, EXTRACT_FILE):
        raise UserError(
            f"{out}: not empty, and nothing was extracted into it before (holds {found[0]!r}). "
            "Choose another --out."
        )


def _check_facts(data: bytes, settings: ExtractSettings) -> None:
    where = settings.out / EXTRACT_FILE
    try:
        facts = json.loads(data)
        videos, options = facts["videos"], flat(facts["options"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: is damaged ({error!r}), and the files beside it may be of other videos. "
            "Delete that folder and extract again, or choose another --out."
        ) from error
    if videos != settings.videos:
        raise UserError(
            f"{settings.out}: its files were extracted from {videos}, not from "
            f"{settings.videos}. Choose another --out. If it is the same folder and was "
            f"moved, write its new place into {where}."
        )
    if changed := changes(options, flat(asdict(settings.sample))):
        raise UserError(
            f"{settings.out}: its files were extracted with other options ({changed}). Choose "
            "another --out, or delete this folder first."
        )


def audio_path(out: Path, video_id: str) -> Path:
    """Where a clip's audio is."""
    return out / "audio" / f"{video_id}.wav"


def is_extracted(out: Path, video_id: str) -> bool:
    """Whether a clip's sound is there."""
    return _exists(audio_path(out, video_id))


def _mark_of_silence(out: Path, video_id: str) -> Path:
    return out / "audio" / f"{video_id}.nil"


def _is_done(out: Path, video_id: str) -> bool:
    return is_extracted(out, video_id) or _exists(_mark_of_silence(out, video_id))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a file name
        return False


def frame_path(out: Path, video_id: str, number: int) -> Path:
    """Where a clip's frame is."""
    return out / "frames" / f"frame_{number}" / f"{video_id}.jpg"


@dataclass(frozen=True)
class _Batch:
    """What a job did."""

    clips: int
    incomplete: int
    failures: list[ClipFailure]


def _extract_batch(clips: tuple[Clip, ...], settings: ExtractSettings, decoders: int) -> _Batch:
    failures = []
    incomplete = 0
    outcomes = encode_clips(
        [clip for clip in clips if _fits(clip.video_id)], settings.sample, settings.limits, decoders
    )
    with contextlib.closing(outcomes):
        for clip, outcome in outcomes:
            if isinstance(outcome, Unreadable):
                failures.append(_failure(clip, outcome.cause, outcome.detail))
            else:
                _write_files(clip, outcome, settings.out)
                incomplete += not outcome.complete
    failures += [
        _failure(
            clip, "bad-name", f"{clip.video}: its name is too long for a file, or has a zero byte"
        )
        for clip in clips
        if not _fits(clip.video_id)
    ]
    return _Batch(len(clips), incomplete, failures)


def _fits(video_id: str) -> bool:
    """Whether files can be named after a clip; a member of an archive may be called anything."""
    name = os.fsencode(f"{video_id}.wav")
    return len(name) <= _LONGEST_NAME and b"\0" not in name


def _failure(clip: Clip, cause: str, detail: str) -> ClipFailure:
    return ClipFailure(clip.video_id, clip.video, "extract", cause, detail)


def _write_files(clip: Clip, sample: EncodedSample, out: Path) -> None:
    files = [
        (frame_path(out, clip.video_id, number), jpeg) for number, jpeg in enumerate(sample.frames)
    ]
    last = audio_path if sample.audio else _mark_of_silence
    for path, data in [*files, (last(out, clip.video_id), sample.audio)]:
        # Not synced one by one: eleven syncs a clip would cost more than decoding it. A power cut
        # can lose the latest files; a killed process cannot.
        with storage.scratch_file(path.parent) as file:
            file.write(data)
            file.rename(path)


def _facts(settings: ExtractSettings, clips: int, failures: Sequence[ClipFailure]) -> bytes:
    facts = {
        "videos": settings.videos,
        "options": asdict(settings.sample),
        "clips": clips,
        "failures": dict(Counter(failure.cause for failure in failures)),
    }
    return storage.json_bytes(facts)


def _batches(clips: Sequence[Clip], size: int) -> Iterator[tuple[Clip, ...]]:
    """Jobs of some clips; those in an archive are one job, so that it is read once."""
    files: dict[str, list[Clip]] = {}
    for clip in clips:
        place = place_of(clip.video)
        files.setdefault("" if place.kind == "video" else place.file, []).append(clip)
    apart = files.pop("", [])
    for start in range(0, len(apart), size):
        yield tuple(apart[start : start + size])
    yield from map(tuple, files.values())
