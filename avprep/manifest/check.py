"""What is wrong with a manifest and how large its classes are, found in one pass over its clips."""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import os
import stat
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avprep import storage
from avprep.clips import Clip
from avprep.compact import CompactClips, repeats, shared
from avprep.failures import printable
from avprep.labels import LabelSet, labels_of
from avprep.manifest.model import iter_manifest
from avprep.options import CheckOptions
from avprep.progress import OnProgress, ignore
from avprep.progress import counted as passed_on
from avprep.wording import counted

if TYPE_CHECKING:  # both take half a second to import, and are needed only for files
    import pandas as pd
    from matplotlib.axes import Axes

KINDS = (
    *("unknown-label", "no-label", "duplicate-id", "duplicate-source", "missing-file"),
    *("dangling-link", "no-file", "empty-file", "identical-file"),
)
_SAMPLED_BYTES = 4096  # of files of one size, before all of them is read
_READ_AT_ONCE = 1 << 20
_NAMED_CLASSES = 60  # more bars than this have no names


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with one clip."""

    kind: str  # one of KINDS
    place: int  # of the clip in the manifest, from 0
    video_id: str
    detail: str


@dataclass
class ManifestCheck:
    """What a manifest holds.

    Attributes:
        labels: the label set; None if there is none to check against.
        clips: number of clips.
        unlabelled: number of clips without a label.
        counts: number of clips of each label, known or not.
        problems: in the order of the manifest.
    """

    labels: LabelSet | None = None
    clips: int = 0
    unlabelled: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def by_kind(self) -> dict[str, int]:
        """How many problems there are of each kind that occurs."""
        counts = Counter(problem.kind for problem in self.problems)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def class_counts(self) -> dict[str, int]:
        """Clips of each class, in the order of the label set; without one, of each label."""
        order = self.labels.mids if self.labels is not None else sorted(self.counts)
        return {mid: self.counts[mid] for mid in order}

    def unknown_labels(self) -> dict[str, int]:
        """Clips of each label that the label set lacks."""
        if self.labels is None:
            return {}
        return {mid: count for mid, count in self.counts.items() if not self.labels.knows(mid)}

    def names(self) -> dict[str, str]:
        """Mid → display name of each class."""
        if self.labels is None:
            return {}
        return dict(zip(self.labels.mids, self.labels.names, strict=True))


def check_manifest(
    manifest: str | Path,
    options: CheckOptions = CheckOptions(),
    on_progress: OnProgress = ignore,
) -> ManifestCheck:
    """Look for unknown labels, missing and identical files and duplicates; count the classes.

    Args:
        manifest: its file.
        options: what is checked, and which files are written about it.
        on_progress: called with progress: clips done.

    Raises:
        UserError: the manifest or the class CSV cannot be read.
    """
    labels = labels_of(Path(manifest), options.labels) or None
    clips = passed_on(iter_manifest(Path(manifest)), "clip", on_progress)
    found = find_problems(clips, labels, options.check_files)
    if options.plot is not None:
        plot_class_counts(found, options.plot)
    if options.counts is not None:
        write_class_counts(found, options.counts)
    if options.report is not None:
        write_problems(found, options.report)
    return found


def find_problems(
    clips: Iterable[Clip], labels: LabelSet | None, check_files: bool = True
) -> ManifestCheck:
    """Look at every clip.

    Args:
        clips: the manifest.
        labels: its label set; None if there is none to check against.
        check_files: whether the files must exist and not be empty: the video; or the extracted
            audio and its first frame. No two local videos, or two sounds, may have the same bytes;
            only files of equal size are read for that.
    """
    found = ManifestCheck(labels)
    ids, segments, unlabelled = array("q"), array("q"), array("I")
    faults: list[Problem] = []
    files = _Files()

    def looked_at() -> Iterator[Clip]:
        for place, clip in enumerate(clips):
            found.counts.update(set(clip.labels))
            if not clip.labels:
                unlabelled.append(place)
            if labels is not None:
                for label in itertools.filterfalse(labels.knows, clip.labels):
                    detail = f"{label!r} is not among the {len(labels)} classes"
                    found.problems.append(Problem("unknown-label", place, clip.video_id, detail))
            ids.append(hash(clip.video_id))
            segments.append(hash(_segment_of(clip)))
            if check_files:
                faults.extend(files.look_at(place, clip))
            yield clip

    compact = CompactClips.of(looked_at())
    found.clips, found.unlabelled = len(compact), len(unlabelled)
    for place, clip, first in repeats(compact, ids, lambda clip: clip.video_id):
        detail = f"entry {first} has the same video_id"
        found.problems.append(Problem("duplicate-id", place, clip.video_id, detail))
    for place, clip, first in repeats(compact, segments, _segment_of):
        detail = f"entry {first} has the same source {_source_of(clip)}"
        found.problems.append(Problem("duplicate-source", place, clip.video_id, detail))
    found.problems += faults
    if check_files:
        found.problems += itertools.chain(files.absent(compact), files.copies(compact))
    if len(unlabelled) < len(compact):  # a wholly unlabelled manifest is meant to be
        found.problems += (
            Problem("no-label", place, clip.video_id, "has no label, while others have")
            for place, clip in zip(unlabelled, compact.at(unlabelled), strict=True)
        )
    found.problems.sort(key=lambda problem: problem.place)
    return found


def write_problems(found: ManifestCheck, path: Path) -> None:
    """Write a CSV of every problem."""
    import pandas as pd

    columns = [field.name for field in fields(Problem)]
    # As objects, since pandas' own strings cannot hold a name that is not UTF-8.
    _write_csv(pd.DataFrame(found.problems, columns=columns, dtype=object).set_index("kind"), path)


def write_class_counts(found: ManifestCheck, path: Path) -> None:
    """Write a CSV of how many clips each class has."""
    import pandas as pd

    names = found.names()
    rows = [(mid, names.get(mid, ""), clips) for mid, clips in found.class_counts().items()]
    table = pd.DataFrame(rows, columns=["mid", "display_name", "clips"], dtype=object)
    _write_csv(table.rename_axis("index"), path)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    # Bytes of file names that are not UTF-8 become `\udc…`.
    data = table.to_csv(lineterminator="\n").encode("utf-8", "backslashreplace")
    storage.make_folder(path.parent)
    storage.write_atomic(path, data)


def plot_class_counts(found: ManifestCheck, path: Path) -> None:
    """Write a PNG of how many clips each class has, the most frequent first."""
    from matplotlib.figure import Figure

    names = {mid: mid for mid in found.counts} | found.names()
    counts = sorted(
        ((found.counts[mid], printable(name)) for mid, name in names.items()), reverse=True
    )
    named = len(counts) <= _NAMED_CLASSES
    height = max(2.5, 0.22 * len(counts)) if named else 4.5
    figure = Figure(figsize=(9, height), layout="constrained")
    axes = figure.add_subplot()
    (_draw_named if named else _draw_ranks)(axes, counts)
    missing = sum(count == 0 for count, _ in counts)
    axes.set_title(
        f"{counted(found.clips, 'clip')}, {counted(len(counts), 'class')}, "
        f"{missing} of them without a clip"
    )
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    storage.make_folder(path.parent)
    storage.write_atomic(path, image.getvalue())


def _draw_named(axes: Axes, counts: list[tuple[int, str]]) -> None:
    # By number, since classes may share a name.
    bars = axes.barh(
        range(len(counts)),
        [count for count, _ in counts],
        tick_label=[name for _, name in counts],
    )
    axes.bar_label(bars, padding=3, fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("clips")


def _draw_ranks(axes: Axes, counts: list[tuple[int, str]]) -> None:
    axes.fill_between(range(1, len(counts) + 1), [count for count, _ in counts], step="mid")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlim(1, len(counts))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("classes, the most frequent first")
    axes.set_ylabel("clips")
    listed = [f"{count:>8}  {name[:40]}" for count, name in (*counts[:5], *counts[-5:])]
    text = "\n".join([*listed[:5], f"{'…':>8}", *listed[5:]])
    axes.text(0.98, 0.97, text, transform=axes.transAxes, ha="right", va="top", fontsize=7,
              family="monospace", parse_math=False)  # fmt: skip


def _source_of(clip: Clip) -> str:
    return clip.wav or clip.video


def _segment_of(clip: Clip) -> tuple[str, float | None, float | None]:
    return _source_of(clip), clip.start, clip.end


def _files_of(clip: Clip) -> Iterator[str]:
    yield _source_of(clip)
    if clip.wav:
        yield os.path.join(clip.video_path, "frame_0", f"{clip.video_id}.jpg")


_FAULTS = {
    "missing-file": "no such file",
    "dangling-link": "a link to a file that is not there",
    "no-file": "a folder or device, not a file",
    "empty-file": "is empty",
}


class _Files:
    """The files of clips: which cannot be used, and which are copies of others."""

    def __init__(self) -> None:
        self._names: dict[str, array[int]] = {}  # folder → see `_listed`
        self._sources = array("q")  # hashes of the clips' sources
        self._sizes = array("q")  # of these; 0 for those that are not compared
        self._remote = array("I")  # the clips that have URLs
        # Segments of one file mostly stand together.
        self._fault_and_size = functools.lru_cache(1 << 16)(self._looked_up)

    def look_at(self, place: int, clip: Clip) -> Iterator[Problem]:
        """What is wrong with the local files of the next clip."""
        self._sources.append(hash(_source_of(clip)))
        self._sizes.append(0)
        for path in _files_of(clip):
            if storage.is_url(path):
                self._remote.append(place)
                continue
            fault, size = self._fault_and_size(path)
            if fault:
                yield Problem(fault, place, clip.video_id, f"{path}: {_FAULTS[fault]}")
            elif path == _source_of(clip):
                self._sizes[place] = size

    def absent(self, clips: CompactClips) -> Iterator[Problem]:
        """A problem for each URL that has no file."""
        there = storage.present(url for _, _, url in self._asked_for(clips))
        for place, video_id, url in self._asked_for(clips):
            if url not in there:
                detail = f"{url}: {_FAULTS['missing-file']}"
                yield Problem("missing-file", place, video_id, detail)

    def copies(self, clips: CompactClips) -> Iterator[Problem]:
        """A problem for each file with the bytes of an earlier one.

        Of files of one size a part is read, and all of those that are alike in that.
        """
        sizes = np.array(self._sizes)
        again = (place for place, *_ in repeats(clips, self._sources, _source_of))
        sizes[np.fromiter(again, np.int64)] = 0
        places = np.flatnonzero(sizes)
        places = places[shared(sizes[places])]
        parts = (hash(_part_of(_source_of(clip))) for clip in clips.at(places))
        places = places[shared(array("q", parts))]
        first: dict[object, str] = {}
        for place, clip in zip(places.tolist(), clips.at(places), strict=True):
            path = _source_of(clip)
            earlier = first.setdefault(_digest_of(path), path)
            if earlier != path:
                detail = f"{path}: the same bytes as {earlier}"
                yield Problem("identical-file", place, clip.video_id, detail)

    def _asked_for(self, clips: CompactClips) -> Iterator[tuple[int, str, str]]:
        """The URLs of clips, each with its clip's place and id."""
        places = np.unique(self._remote).tolist()
        for place, clip in zip(places, clips.at(places), strict=True):
            for path in filter(storage.is_url, _files_of(clip)):
                yield place, clip.video_id, path

    def _looked_up(self, path: str) -> tuple[str, int]:
        """Why a file cannot be used, one of `_FAULTS`, or ""; and its size."""
        if not self._may_be_there(path):
            return "missing-file", 0
        try:
            status = os.stat(path)
        except OSError:
            return "dangling-link" if os.path.islink(path) else "missing-file", 0
        if not stat.S_ISREG(status.st_mode):
            return "no-file", 0
        return "" if status.st_size else "empty-file", status.st_size

    def _may_be_there(self, path: str) -> bool:
        """Every folder is listed once, so a million missing files cost no million requests."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            self._names[folder] = _listed(folder)
        names, wanted = self._names[folder], hash(name)
        place = bisect_left(names, wanted)
        return place < len(names) and names[place] == wanted


def _listed(folder: str) -> array[int]:
    """Hashes of the names in a folder, sorted; millions of names would take much memory."""
    try:
        with os.scandir(folder or ".") as entries:
            names = array("q", (hash(entry.name) for entry in entries))
    except OSError:
        return array("q")
    np.asarray(names).sort()
    return names


def _part_of(path: str) -> object:
    """Bytes from the middle of a file, because many heads are alike; if unreadable, its name."""
    try:
        with open(path, "rb") as file:
            file.seek(os.fstat(file.fileno()).st_size // 2)
            return file.read(_SAMPLED_BYTES)
    except OSError:
        return path


def _digest_of(path: str) -> object:
    try:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while data := file.read(_READ_AT_ONCE):
                digest.update(data)
        return digest.digest()
    except OSError:
        return path
