"""Tars that other programs wrote become a shard set, without a copy of a byte."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avprep import storage
from avprep.audio import SAMPLE_RATE
from avprep.clips import expanded, is_writable
from avprep.errors import UserError
from avprep.failures import FAILURES_FILE, ClipFailure, failures_csv
from avprep.labels import LabelSet, label_set_from_names, read_label_csv
from avprep.options import IndexOptions
from avprep.progress import OnProgress, each, ignore
from avprep.shards.foreign import ForeignSample, ForeignTar, scan_tar
from avprep.shards.format import (
    DATASET_FILE,
    DatasetInfo,
    SampleEntry,
    ShardIndex,
    ShardInfo,
    count_modalities,
    index_name,
    read_dataset,
    write_dataset,
)
from avprep.wording import counted

_NAMED = 20  # problems in an error
_INDEXER = "avprep index"  # in `options`: who made the indexes


@dataclass(frozen=True)
class Indexed:
    """What `index_tars` found."""

    out: str
    shards: int
    samples: int
    classes: int
    seconds: float  # of audio
    problems: tuple[ClipFailure, ...]  # samples that were left out


def index_tars(
    tars: Sequence[str | Path],
    options: IndexOptions = IndexOptions(),
    on_progress: OnProgress = ignore,
) -> Indexed:
    """Write a dataset.json and indexes for tars, so that `cavmae` trains from them.

    Args:
        tars: local files whose names end in .tar, folders with such files, or patterns of these.
        options: what the members of a sample are.
        on_progress: called with progress: tars done.

    Raises:
        UserError: a tar is compressed, damaged, or holds what training does not take; a sample
            cannot be used and `bad_samples` is "refuse"; labels that are not in the class CSV; or
            the folder holds another shard set.
    """
    if not (options.audio or options.frame):
        raise UserError("--audio and --frame are both empty. Name the suffix of at least one.")
    for flag, source in (("--labels", options.labels), ("--id", options.id)):
        if source in ("json", "json:"):
            raise UserError(f"{flag} {source}: name the key of the JSON, such as json:{flag[2:]}.")
    paths = _tars(tars)
    out = _folder(paths, options.out)
    count = each("tar", on_progress, len(paths))
    found: list[ForeignTar] = []
    for path in paths:
        found.append(scan_tar(path, options))
        count()
    problems = _set_aside(found)
    if problems and options.bad_samples == "refuse":
        raise UserError(*_named(problems))
    samples = [sample for tar in found for sample in tar.samples]
    if not samples and problems:
        raise UserError(f"no sample can be used. The first: {problems[0].detail}.")
    if not samples:
        raise UserError(
            f"{paths[0].parent}: no sample has a .{options.audio} and a {options.frame}. Name the "
            "members with --audio and --frame."
        )
    labels = _label_set(samples, options)
    return _write(out, found, labels, options, problems)


def _tars(tars: Sequence[str | Path]) -> list[Path]:
    """The files, each once.

    Raises:
        UserError: there are none, two have the same name, or one is behind a URL.
    """
    for given in tars:
        if storage.is_url(given):
            raise UserError(f"{given}: only tars on a local disk can be indexed. Copy them first.")
    paths: list[Path] = []
    for path in map(Path, expanded(tars)):
        paths += _in_folder(path) if path.is_dir() else [path]
    if not paths:
        raise UserError("no tar given; name files that end in .tar, or folders with such files.")
    for path in paths:
        if not path.is_file():
            what = "is not an ordinary file" if path.exists() else "no such file"
            raise UserError(f"{path}: {what}.")
        if not is_writable(path.name):
            raise UserError(f"{path}: its name is not UTF-8. Rename it.")
        if path.suffix != ".tar":
            scan_tar(path, IndexOptions())  # says it if it is compressed
            raise UserError(f"{path}: its name does not end in .tar. Rename it.")
    if twice := [name for name, n in Counter(path.name for path in paths).items() if n > 1]:
        raise UserError(f"two tars have the name {twice[0]}. Rename one, or index one folder.")
    return paths


def _in_folder(folder: Path) -> list[Path]:
    """Its tars; compressed ones too, which are refused with what helps, and not passed over."""
    suffixes = tuple(suffix for suffix in storage.ARCHIVE_SUFFIXES if suffix != ".zip")
    names = sorted(os.listdir(folder))
    return [folder / name for name in names if name.lower().endswith((*suffixes, ".tar.zst"))]


def _folder(paths: Sequence[Path], out: Path | None) -> Path:
    """The folder of the shard set, which has the tars or links to them.

    Raises:
        UserError: it holds another shard set, or the tars lie in several folders.
    """
    folders = {path.parent.resolve() for path in paths}
    if out is None and len(folders) > 1:
        raise UserError(
            "the tars lie in several folders. Name one for the shard set: --out FOLDER."
        )
    out = out or paths[0].parent
    storage.make_folder(out)
    if storage.exists(out / DATASET_FILE):
        if read_dataset(out).options.get("made_by") != _INDEXER:
            raise UserError(f"{out}: is a shard set of `avprep shard`. Choose another --out.")
    elif strangers := [name for name in storage.list_names(out) if name.endswith(".index.json")]:
        raise UserError(f"{out}: holds {strangers[0]} of another build. Choose another --out.")
    return out


def _set_aside(found: Sequence[ForeignTar]) -> list[ClipFailure]:
    """Take samples away whose name is there already, or that differ from the first one."""
    places: dict[str, str] = {}
    problems = [problem for tar in found for problem in tar.problems]
    first = next((sample for tar in found for sample in tar.samples), None)
    for tar in found:
        kept = []
        for sample in tar.samples:
            entry, where = sample.entry, f"{tar.path}: {sample.entry.key}"
            cause, detail = "", ""
            if entry.video_id in places:
                cause = "duplicate-id"
                detail = f"has the id {entry.video_id!r}, as has {places[entry.video_id]}"
            elif first and len(entry.sizes) != len(first.entry.sizes):
                cause, detail = "no-frames", _counted(sample, first)
            elif first and sample.frame_size != first.frame_size:
                cause = "garbage"
                detail = f"has frames of {sample.frame_size} pixels, others of {first.frame_size}"
            if cause:
                failure = (entry.video_id, str(tar.path), "index", cause, f"{where}: {detail}")
                problems.append(ClipFailure(*failure))
            else:
                places[entry.video_id] = where
                kept.append(sample)
        tar.samples = kept
    return problems


def _counted(sample: ForeignSample, first: ForeignSample) -> str:
    frames, expected = len(sample.entry.sizes) - 2, len(first.entry.sizes) - 2
    return f"has {frames} frames, the first sample {expected} (half a sample)"


def _named(problems: Sequence[ClipFailure]) -> list[str]:
    lines = [problem.detail for problem in problems[:_NAMED]]
    if len(problems) > _NAMED:
        lines.append(f"… and {len(problems) - _NAMED} more")
    return [
        *lines,
        f"{counted(len(problems), 'sample')} cannot be used. Leave out what cannot be used with "
        "--bad-samples skip, or name the members with --audio, --frame and --id.",
    ]


def _label_set(samples: Sequence[ForeignSample], options: IndexOptions) -> LabelSet:
    """Raises:
    UserError: the labels are numbers, and there is no class CSV.
    """
    if options.classes is not None:
        return read_label_csv(options.classes)
    names = {label for sample in samples for label in sample.labels}
    if names and all(name.isdecimal() for name in names):
        raise UserError(
            f"--labels {options.labels}: these are numbers of classes, such as {min(names)}. Say "
            "what they stand for: --classes CSV (index,mid,display_name)."
        )
    return label_set_from_names(names)


def _numbers(sample: ForeignSample, labels: LabelSet, options: IndexOptions) -> tuple[int, ...]:
    """Raises:
    UserError: a class is not in the label set.
    """
    mids = []
    for text in sample.labels:
        is_number = text.isdecimal() and int(text) < len(labels)
        mid = labels.resolve(text) or (labels.mids[int(text)] if is_number else None)
        if mid is None:
            raise UserError(
                f"{options.classes}: has no class {text!r}, which {sample.entry.key} has."
            )
        mids.append(mid)
    return labels.indices_of(mids)


def _write(
    out: Path,
    found: Sequence[ForeignTar],
    labels: LabelSet,
    options: IndexOptions,
    problems: Sequence[ClipFailure],
) -> Indexed:
    entries = [
        [replace(sample.entry, labels=_numbers(sample, labels, options)) for sample in tar.samples]
        for tar in found
    ]
    pairs = list(zip(found, entries, strict=True))
    digest = hashlib.sha256(repr([(tar.path.name, own) for tar, own in pairs]).encode()).hexdigest()
    indexes = [_index_of(tar, own, digest) for tar, own in pairs if own]
    failed = failures_csv(problems)
    storage.delete(out / DATASET_FILE)  # first: it describes other indexes
    for tar in found:
        _link(tar.path, out / tar.path.name)
    for index in indexes:
        storage.write_atomic(out / index_name(index.name), index.to_bytes())
    storage.write_atomic(out / FAILURES_FILE, failed)
    every = list(itertools.chain.from_iterable(entries))
    counts = Counter(label for entry in every for label in entry.labels)
    first = next(sample for tar in found for sample in tar.samples)
    info = DatasetInfo(
        labels=tuple(zip(labels.mids, labels.names, strict=True)),
        options={
            "made_by": _INDEXER,
            "audio": "wav" if options.audio.endswith("wav") else "flac",
            "sample_rate": SAMPLE_RATE,
            "frames": len(first.entry.sizes) - 2,
            "frame_size": first.frame_size or 0,
        },
        tools={},
        shards=tuple(ShardInfo(i.name, len(i.samples), i.bytes, i.sha256) for i in indexes),
        samples=len(every),
        clips=len(every) + len(problems),
        seconds=round(sum(index.seconds for index in indexes), 3),
        failures=dict(sorted(Counter(problem.cause for problem in problems).items())),
        class_counts=tuple(counts[label] for label in range(len(labels))),
        fingerprint=digest,
        modalities=count_modalities(every),
        files={FAILURES_FILE: hashlib.sha256(failed).hexdigest()},
    )
    write_dataset(out, info)
    return Indexed(str(out), len(indexes), info.samples, len(labels), info.seconds, tuple(problems))


def _index_of(tar: ForeignTar, entries: Sequence[SampleEntry], fingerprint: str) -> ShardIndex:
    return ShardIndex(
        name=tar.path.name,
        fingerprint=fingerprint,
        bytes=tar.size,
        sha256="",  # reading every byte would take as long as copying them
        seconds=round(sum(entry.num_samples for entry in entries) / SAMPLE_RATE, 3),
        samples=tuple(entries),
        failures=(),
    )


def _link(tar: Path, place: Path) -> None:
    """Have a tar under the folder of the shard set.

    Raises:
        UserError: another file has its name there.
    """
    if place.exists() and place.samefile(tar):
        return
    try:
        os.symlink(tar.resolve(), place)
    except FileExistsError:
        raise UserError(f"{place}: exists and is not {tar}. Choose another --out.") from None
    except OSError as error:
        raise UserError(f"{place}: cannot be made ({error.strerror}).") from error
