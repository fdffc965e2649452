"""What is wrong with a manifest and how large its classes are, found in one pass over its clips."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from avprep import storage
from avprep.clips import Clip
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
    unlabelled: list[Problem] = []
    ids: dict[str, int] = {}
    sources: dict[tuple[str, float | None, float | None], int] = {}
    files = _Files()
    remote: dict[str, list[Problem]] = {}  # what is wrong where a URL has no file
    for place, clip in enumerate(clips):
        found.clips += 1
        found.counts.update(set(clip.labels))

        def note(kind: str, detail: str, place: int = place, clip: Clip = clip) -> Problem:
            return Problem(kind, place, clip.video_id, detail)

        if labels is not None:
            found.problems += [
                note("unknown-label", f"{label!r} is not among the {len(labels)} classes")
                for label in clip.labels
                if not labels.knows(label)
            ]
        if not clip.labels:
            unlabelled.append(note("no-label", "has no label, while others have"))
        if (first := ids.setdefault(clip.video_id, place)) != place:
            found.problems.append(note("duplicate-id", f"entry {first} has the same video_id"))
        source = (clip.wav or clip.video, clip.start, clip.end)
        if (first := sources.setdefault(source, place)) != place:
            found.problems.append(
                note("duplicate-source", f"entry {first} has the same source {source[0]}")
            )
        if check_files:
            for path in _files_of(clip):
                if storage.is_url(path):
                    missing = note("missing-file", f"{path}: {_FAULTS['missing-file']}")
                    remote.setdefault(path, []).append(missing)
                elif fault := files.fault_of(path):
                    found.problems.append(note(fault, f"{path}: {_FAULTS[fault]}"))
            files.remember(source[0], place, clip.video_id)
    there = storage.present(remote)
    found.problems += [one for url, ones in remote.items() if url not in there for one in ones]
    found.problems += [
        Problem("identical-file", place, video_id, f"{path}: the same bytes as {first}")
        for path, first, place, video_id in files.copies()
    ]
    found.unlabelled = len(unlabelled)
    if len(unlabelled) < found.clips:  # a wholly unlabelled manifest is meant to be
        found.problems += unlabelled
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


def _files_of(clip: Clip) -> Iterator[str]:
    if clip.wav:
        yield clip.wav
        yield os.path.join(clip.video_path, "frame_0", f"{clip.video_id}.jpg")
    else:
        yield clip.video


_FAULTS = {
    "missing-file": "no such file",
    "dangling-link": "a link to a file that is not there",
    "no-file": "a folder or device, not a file",
    "empty-file": "is empty",
}


class _Files:
    """What the files are that were asked about; each is looked at once."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}
        self._sizes: dict[str, int] = {}
        self._clips: dict[str, tuple[int, str]] = {}  # path → place and id of its first clip

    def fault_of(self, path: str) -> str:
        """Why a file cannot be used, one of `_FAULTS`; "" if it can."""
        size = self._sizes.get(path)
        if size is None:
            if not self._is_listed(path):
                return "missing-file"
            try:
                status = os.stat(path)
            except OSError:
                return "dangling-link" if os.path.islink(path) else "missing-file"
            if not stat.S_ISREG(status.st_mode):
                return "no-file"
            size = self._sizes[path] = status.st_size
        return "" if size else "empty-file"

    def remember(self, path: str, place: int, video_id: str) -> None:
        """Compare a file, if it exists, with the others at the end."""
        if self._sizes.get(path):
            self._clips.setdefault(path, (place, video_id))

    def copies(self) -> Iterator[tuple[str, str, int, str]]:
        """(path, the first file with these bytes, place, video_id) of each copy."""
        groups = [list(self._clips)]
        for key in (self._sizes.__getitem__, _sample_of, _digest_of):
            groups = [same for group in groups for same in _grouped(group, key)]
        for first, *others in groups:
            for path in others:
                yield path, first, *self._clips[path]

    def _is_listed(self, path: str) -> bool:
        """Every folder is listed once, so a million missing files cost no million requests."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder or "."))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]


def _grouped(paths: Iterable[str], key: Callable[[str], object]) -> Iterator[list[str]]:
    """The files that share a key with another."""
    groups: dict[object, list[str]] = {}
    for path in paths:
        groups.setdefault(key(path), []).append(path)
    return (group for group in groups.values() if len(group) > 1)


def _sample_of(path: str) -> object:
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
