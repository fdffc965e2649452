"""`avprep report`: a shard set on one page."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.audio import SAMPLE_RATE
from avprep.failures import ClipFailure
from avprep.options import ReportOptions
from avprep.pages.clips import ClipView, view_clip
from avprep.pages.gallery import Candidate, cost_on_page, within_size
from avprep.pages.histogram import histogram
from avprep.pages.page import render_page
from avprep.pages.survey import (
    Overview,
    read_failures,
    some_of_each_cause,
    survey_shards,
)
from avprep.progress import OnProgress, each, ignore
from avprep.shards.format import (
    DatasetInfo,
    SampleEntry,
    read_dataset,
    read_sample,
    split_members,
    stored_members,
)
from avprep.wording import size

_SCRIPTS = ("clip.js", "report.js")
_READS_AT_ONCE = 8
_WORST_SHARE = 0.5  # of the page's size, for the clips with the worst faults
_FINEST_BIN = 0.1  # seconds


@dataclass(frozen=True)
class ReportSummary:
    """What was put on the page."""

    page: bytes
    clips: int
    too_large: int  # clips chosen for the gallery that did not fit
    unreadable: tuple[str, ...]  # clips chosen for the gallery whose bytes are damaged
    incomplete: int  # samples of the set whose files hold less than they promise
    samples: int  # of the set
    faults: Mapping[str, int]  # samples of the set with each fault; empty for one without measures


@dataclass(frozen=True)
class GalleryClip:
    """A clip of the gallery; `view` is None if it cannot be read, and `problem` says why."""

    shard: str
    entry: SampleEntry
    view: ClipView | None
    problem: str = ""


def make_report(
    location: str, options: ReportOptions, on_progress: OnProgress = ignore
) -> ReportSummary:
    """Make the page of a shard set.

    Reads dataset.json, failures.csv, the indexes, and of the shards only the clips shown.

    Args:
        location: folder or URL prefix.
        options: see `ReportOptions`.
        on_progress: called with progress: shards whose index was read.

    Raises:
        UserError: no shard set there, or an index is missing or damaged.
    """
    info = read_dataset(location)
    on_shard = each("shard", on_progress, len(info.shards))
    overview = survey_shards(location, info, options.gallery, on_shard)
    values = _values(location, info, overview, read_failures(location), options)
    limit = options.max_mb * 1e6 - len(_rendered(values, info, [], 0))
    seen = overview.quality
    values_of = {worst.candidate: worst.values for worst in seen.worst} if seen else {}
    for_worst = limit * _WORST_SHARE if options.gallery.most else 0
    worst, _ = within_size([*values_of], for_worst)
    limit -= sum(cost_on_page(candidate.entry) for candidate in worst)
    chosen, too_large = within_size(overview.candidates, limit)
    with ThreadPoolExecutor(_READS_AT_ONCE) as threads:
        view = functools.partial(gallery_clip, location)
        clips, worst_clips = list(threads.map(view, chosen)), list(threads.map(view, worst))
    clips.sort(key=lambda clip: (_class_order(clip.entry, info), clip.entry.video_id))
    shown = [(clip, values_of[one]) for clip, one in zip(worst_clips, worst, strict=True)]
    page = _rendered(values, info, clips, too_large, shown)
    unreadable = {clip.entry.video_id: clip for clip in (*clips, *worst_clips) if clip.view is None}
    faults = seen.faults if seen else {}
    return ReportSummary(
        page, len(clips), too_large, (*unreadable,), info.incomplete, info.samples, faults
    )


def _rendered(
    values: dict[str, Any],
    info: DatasetInfo,
    clips: list[GalleryClip],
    too_large: int,
    worst: Sequence[tuple[GalleryClip, Mapping[str, float]]] = (),
) -> bytes:
    named = [number for number in by_name(info) if info.class_counts[number]]
    shown = {number for clip in clips for number in clip.entry.labels}
    return render_page(
        "avprep.pages",
        "report.html",
        _SCRIPTS,
        **values,
        clips=clips,
        worst=worst,
        too_large=too_large,
        shown_classes=[number for number in named if number in shown],
        other_classes=[number for number in named if number not in shown],
    )


def by_name(info: DatasetInfo) -> list[int]:
    """The numbers of all classes, in the order of their names."""
    return sorted(range(len(info.labels)), key=lambda number: info.labels[number][1].casefold())


def _class_order(entry: SampleEntry, info: DatasetInfo) -> tuple[str, ...]:
    return tuple(info.labels[label][1].casefold() for label in entry.labels)


def gallery_clip(location: str, candidate: Candidate) -> GalleryClip:
    """A clip with its frames and sound, or why they cannot be read."""
    shard, entry = candidate.shard, candidate.entry
    try:
        view = view_clip(_members(read_sample(location, shard, entry), shard, entry))
        if view.video_id != entry.video_id:
            raise ValueError(f"these bytes are the clip {view.video_id!r}")
    except (OSError, ValueError) as error:
        return GalleryClip(shard, entry, None, str(error))
    return GalleryClip(shard, entry, view)


def _members(data: bytes, shard: str, entry: SampleEntry) -> dict[str, bytes | memoryview]:
    """The members of a sample; one of another program gets a JSON as ours have it.

    Raises:
        ValueError: see `split_members`.
    """
    if not entry.starts:
        return {**split_members(data, entry.key)}
    audio = "wav" if data[entry.starts[1] :][:4] == b"RIFF" else "flac"
    facts = {
        "video_id": entry.video_id,
        "sample_rate": SAMPLE_RATE,
        "num_samples": entry.num_samples,
        "frame_times": [],
        "source": shard,
        "modalities": entry.modalities,
    }
    members = stored_members(entry, data, entry.offset, audio)
    return {**members, "json": json.dumps(facts).encode()}


def _values(
    location: str,
    info: DatasetInfo,
    overview: Overview,
    failures: Sequence[ClipFailure] | None,
    options: ReportOptions,
) -> dict[str, Any]:
    """What the template shows besides the gallery."""
    failed = sum(info.failures.values())
    counts = info.class_counts
    filled = [number for number, count in enumerate(counts) if count]
    total = sum(shard.bytes for shard in info.shards)
    return {
        "name": options.title or location.rstrip("/").rsplit("/", 1)[-1],
        "location": location,
        "info": info,
        "version": metadata.version("avprep-cavmae"),
        "options": options,
        "failed": failed,
        "failed_share": f"{100 * failed / info.clips:.2g} %" if info.clips else "0 %",
        "size": size(total),
        "clip_size": size(total / info.samples) if info.samples else "",
        "hours": readable_duration(info.seconds),
        "class_order": sorted(filled, key=lambda number: (-counts[number], number)),
        "class_counts": [counts[number] for number in filled],
        "empty_classes": [info.labels[n] for n in by_name(info) if not counts[n]],
        "splits": overview.splits,
        "durations": histogram(overview.seconds, _FINEST_BIN),
        "lengths": _lengths(overview.seconds),
        "unknown_lengths": info.modalities.get("audio", info.samples) - len(overview.seconds),
        "lacking": info.lacking(),
        "quality": overview.quality,
        "failures": None if failures is None else some_of_each_cause(failures, options.failures),
        "causes": Counter(info.failures).most_common(),
        "summary": _summary(location, info, overview),
    }


def _lengths(seconds: NDArray[np.float64]) -> list[tuple[str, str]]:
    """A few numbers about the clips' lengths, for people."""
    if not len(seconds):
        return []
    numbers = {
        "shortest": seconds.min(),
        "median": np.median(seconds),
        "mean": seconds.mean(),
        "longest": seconds.max(),
    }
    return [(name, f"{float(value):.2f} s") for name, value in numbers.items()]


def _summary(location: str, info: DatasetInfo, overview: Overview) -> dict[str, Any]:
    """The numbers of the page for programs that read it."""
    return {
        "shards": location,
        "samples": info.samples,
        "clips": info.clips,
        "seconds": info.seconds,
        "incomplete": info.incomplete,
        "modalities": dict(info.modalities),
        "failures": dict(info.failures),
        "faults": overview.quality.faults if overview.quality else {},
        "splits": dict(overview.splits),
        "classes": [
            {"mid": mid, "name": name, "samples": count}
            for (mid, name), count in zip(info.labels, info.class_counts, strict=True)
        ],
    }


def readable_duration(seconds: float) -> str:
    """`5400` → `1.5 h`."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            value = seconds / length
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{seconds:.1f} s"


def report(
    shards: str,
    out: str,
    options: ReportOptions = ReportOptions(),
    on_progress: OnProgress = ignore,
) -> ReportSummary:
    """Write an HTML page that shows a shard set and needs no network.

    Args:
        shards: folder or URL prefix.
        out: file or URL of the page.
        options: what goes onto the page.
        on_progress: called with progress: shards whose index was read.

    Raises:
        UserError: no shard set there, an index is missing or damaged, or the page cannot be
            written.
    """
    summary = make_report(shards, options, on_progress)
    if not storage.is_url(out):
        storage.make_folder(Path(out).parent)
    storage.write_atomic(out, summary.page)
    return summary
