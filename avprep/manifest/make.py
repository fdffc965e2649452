"""Manifests from what people have on disk: read the rows, find their files, write what matched."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from avprep.clips import Clip, Places, expanded
from avprep.encode.ahead import measure_clips
from avprep.errors import Unreadable, UserError
from avprep.labels import class_csv_of, known_labels, labels_of, read_label_csv, vggsound_labels
from avprep.manifest.sources.audioset import read_audioset
from avprep.manifest.sources.folder import match_folder
from avprep.manifest.sources.listing import match_listing, read_clip_table, read_listing
from avprep.manifest.sources.match import check_extracted
from avprep.manifest.sources.matched import DataSet, ManifestSummary, write_matched
from avprep.manifest.sources.pieces import Lengths, cut_into_pieces
from avprep.manifest.sources.records import content_column, is_table, unpack_column
from avprep.manifest.sources.segments import check_sources, match_segments
from avprep.manifest.sources.vggsound import read_vggsound
from avprep.manifest.sources.vggsounder import read_vggsounder
from avprep.options import (
    AudioSetOptions,
    ByteSize,
    FolderOptions,
    IsolationOptions,
    ManifestOutput,
    Sources,
    VGGSounderOptions,
    VGGSoundOptions,
)
from avprep.processes import available_cores
from avprep.progress import OnProgress, each, ignore
from avprep.storage import is_url

_LIMITS = IsolationOptions(scratch_size=ByteSize(10**10))  # of measuring a video's length


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Spare Python the search for cycles among millions of rows, which have none."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_garbage_collection()
def make_audioset_manifest(
    options: AudioSetOptions,
    sources: Sources,
    output: ManifestOutput,
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of an AudioSet segments CSV and its class CSV.

    Raises:
        UserError: see `read_audioset`, `match_segments` and `write_matched`.
        WorkFailed: see `write_matched`.
    """
    check_sources(sources)
    data_set = read_audioset(options.segments, read_label_csv(options.labels))
    _check_rows(data_set, options.segments, output)
    matched = match_segments(data_set, sources, each("file", on_progress))
    return write_matched(matched, options.segments, output)


@_without_garbage_collection()
def make_vggsound_manifest(
    options: VGGSoundOptions,
    sources: Sources,
    output: ManifestOutput,
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of a VGGSound CSV, of one split or of all.

    Raises:
        UserError: see `read_vggsound`, `match_segments` and `write_matched`.
        WorkFailed: see `write_matched`.
    """
    check_sources(sources)
    csv, labels = options.csv, options.labels
    data_set = read_vggsound(csv, vggsound_labels() if labels is None else known_labels(labels))
    _check_rows(data_set, csv, output)
    matched = match_segments(data_set.only(options.split, csv), sources, each("file", on_progress))
    return write_matched(matched, csv, output, labels)


@_without_garbage_collection()
def make_vggsounder_manifest(
    options: VGGSounderOptions,
    sources: Sources,
    output: ManifestOutput,
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of VGGSounder's CSV: VGGSound's test clips with all their labels.

    Raises:
        UserError: see `read_vggsounder`, `match_segments` and `write_matched`.
        WorkFailed: see `write_matched`.
    """
    check_sources(sources)
    labels = vggsound_labels() if options.labels is None else read_label_csv(options.labels)
    data_set = read_vggsounder(options.csv, labels)
    _check_rows(data_set, options.csv, output)
    matched = match_segments(data_set, sources, each("file", on_progress))
    return write_matched(matched, options.csv, output)


def make_folder_manifest(
    root: Places,
    output: ManifestOutput,
    options: FolderOptions = FolderOptions(),
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of a folder, with the classes of its sub-folders, a CSV or side files.

    Args:
        root: folder, archive, or prefix of an object store; or several, which count as one. Or a
            table of paths or URLs.
        output: what is written.
        options: what the classes are.
        on_progress: called with progress: files found.

    Raises:
        UserError: see `match_folder`, `read_listing` and `write_matched`.
        WorkFailed: see `write_matched`.
    """
    csv, labels, extracted = options.csv, options.labels, options.extracted
    check_extracted(extracted)
    if options.pieces.segment is not None and extracted is not None:
        raise UserError(
            "--segment cuts videos, --extracted takes files that are cut. Leave one out."
        )
    table = _table_among(expanded(root))
    if options.label_from is not None and (csv or table):
        raise UserError(f"--label-from: {csv or table} says what the classes are. Leave one out.")
    known = labels_of(output.out) or None if labels is None else known_labels(labels)
    if csv is None and table is not None:
        csv = table
        content = content_column(table)
        archive = output.out.with_suffix(".videos.tar").absolute() if content else None
        data_set = read_clip_table(table, known, archive)
        _check_rows(data_set, table, output)
        data_set, base = data_set.only(options.split, table), str(table.parent)
        if archive is not None:
            unpack_column(table, content, archive, each("file", on_progress))
        matched = match_listing(data_set, (), extracted, base=base)
        if archive is not None:
            remark = f"the videos in its column {content} were written to {archive}"
            matched = replace(matched, remarks=[*matched.remarks, remark])
    elif csv is None:
        file = labels or class_csv_of(output.out)
        on_files = each("file", on_progress)
        matched = match_folder(
            root,
            extracted,
            known,
            file,
            options.split,
            on_files,
            options.label_from,
            options.kinds,
        )
    else:
        data_set = read_listing(csv, known)
        _check_rows(data_set, csv, output)
        on_files = each("file", on_progress)
        data_set = data_set.only(options.split, csv)
        matched = match_listing(data_set, root, extracted, on_files, kinds=options.kinds)
    if options.pieces.segment is not None:
        matched = cut_into_pieces(matched, options.pieces, _measure(on_progress))
    return write_matched(matched, csv or matched.looked_in, output, labels)


def _measure(on_progress: OnProgress) -> Lengths:
    """A function that measures the videos of clips, on all cores."""

    def lengths_of(clips: Sequence[Clip]) -> Iterator[tuple[Clip, float | Unreadable]]:
        on_clip = each("clip", on_progress, len(clips))
        for measured in measure_clips(clips, _LIMITS, available_cores()):
            on_clip()
            yield measured

    return lengths_of


def _table_among(roots: Sequence[str]) -> Path | None:
    """The table that is given instead of places.

    Raises:
        UserError: there is one, and something else.
    """
    tables = [root for root in roots if is_table(root) and not os.path.isdir(root)]
    if not tables:
        return None
    if len(roots) > 1:
        raise UserError(
            f"{tables[0]}: give a table alone, if it says where its clips are; or give the places "
            f"of the videos and --csv {tables[0]}."
        )
    if is_url(tables[0]):
        raise UserError(f"{tables[0]}: a table must be a file on this machine. Use a local copy.")
    return Path(tables[0])


def _check_rows(data_set: DataSet, source: Path, output: ManifestOutput) -> None:
    """Raises UserError where there are bad rows, and they are not to be skipped."""
    if output.bad_rows == "refuse":
        data_set.notes.refuse_bad_rows(source)
