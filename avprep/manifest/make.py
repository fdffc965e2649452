"""Manifests from what people have on disk: read the rows, find their files, write what matched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from avprep.clips import Clip, Places, expanded
from avprep.encode.ahead import measure_clips
from avprep.errors import Unreadable, UserError
from avprep.labels import (
    LabelSet,
    class_csv_of,
    known_labels,
    labels_of,
    read_label_csv,
    vggsound_labels,
)
from avprep.manifest.sources.audioset import read_audioset
from avprep.manifest.sources.folder import match_folder
from avprep.manifest.sources.listing import match_listing, read_clip_table, read_listing
from avprep.manifest.sources.match import check_extracted
from avprep.manifest.sources.matched import DataSet, ManifestSummary, Matched, write_matched
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


def make_audioset_manifest(
    options: AudioSetOptions,
    sources: Sources,
    output: ManifestOutput,
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of an AudioSet segments CSV and its class CSV.

    Args:
        options: these files, and which of their rows are taken.
        sources: where the videos or extracted files are.
        output: what is written.
        on_progress: hears of files found.

    Raises:
        UserError: a file cannot be read, a place cannot be listed, a row is bad and not to be
            skipped, or no clip has a file.
        WorkFailed: `output.strict`, and a clip is missing, a row is bad or a file is unusable.
    """
    check_sources(sources)
    data_set = read_audioset(options.segments, read_label_csv(options.labels))
    return _write_segments(data_set, options.segments, sources, output, on_progress)


def make_vggsound_manifest(
    options: VGGSoundOptions,
    sources: Sources,
    output: ManifestOutput,
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of a VGGSound CSV, of one split or of all.

    Args, Raises: as of `make_audioset_manifest`.
    """
    check_sources(sources)
    csv, labels = options.csv, options.labels
    data_set = read_vggsound(csv, vggsound_labels() if labels is None else known_labels(labels))
    data_set = data_set.only(options.split, csv)
    return _write_segments(data_set, csv, sources, output, on_progress, labels)


def make_vggsounder_manifest(
    options: VGGSounderOptions,
    sources: Sources,
    output: ManifestOutput,
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of VGGSounder's CSV: VGGSound's test clips with all their labels.

    Args, Raises: as of `make_audioset_manifest`.
    """
    check_sources(sources)
    labels = vggsound_labels() if options.labels is None else read_label_csv(options.labels)
    data_set = read_vggsounder(options.csv, labels)
    return _write_segments(data_set, options.csv, sources, output, on_progress)


def _write_segments(
    data_set: DataSet,
    csv: Path,
    sources: Sources,
    output: ManifestOutput,
    on_progress: OnProgress,
    labels: Path | None = None,
) -> ManifestSummary:
    """Find the files of a data set's segments, and write what matched."""
    _check_rows(data_set, csv, output)
    matched = match_segments(data_set, sources, each("file", on_progress))
    return write_matched(matched, csv, output, labels)


def make_folder_manifest(
    root: Places,
    output: ManifestOutput,
    options: FolderOptions = FolderOptions(),
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of a folder, whose sub-folders or a CSV say what the classes are.

    Args:
        root: folder, archive, or prefix of an object store; or several, which count as one. Or a
            table of paths or URLs.
        output: what is written.
        options: what the classes are.
        on_progress: hears of files found.

    Raises:
        UserError: options exclude each other, a file cannot be read, a place cannot be listed, a
            row is bad and not to be skipped, or no clip has a file.
        WorkFailed: `output.strict`, and a clip is missing, a row is bad or a file is unusable.
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
    if csv is not None:
        matched = _match_csv(csv, root, known, output, options, on_progress)
    elif table is not None:
        csv, matched = table, _match_table(table, known, output, options, on_progress)
    else:
        matched = match_folder(
            root,
            extracted,
            known,
            labels or class_csv_of(output.out),
            options.split,
            each("file", on_progress),
            options.label_from,
            options.kinds,
        )
    if options.pieces.segment is not None:
        matched = cut_into_pieces(matched, options.pieces, _measure(on_progress))
    return write_matched(matched, csv or matched.looked_in, output, labels)


def _match_csv(
    csv: Path,
    root: Places,
    known: LabelSet | None,
    output: ManifestOutput,
    options: FolderOptions,
    on_progress: OnProgress,
) -> Matched:
    """The videos of a folder that a CSV names."""
    data_set = read_listing(csv, known)
    _check_rows(data_set, csv, output)
    on_file = each("file", on_progress)
    data_set = data_set.only(options.split, csv)
    return match_listing(data_set, root, options.extracted, on_file, kinds=options.kinds)


def _match_table(
    table: Path,
    known: LabelSet | None,
    output: ManifestOutput,
    options: FolderOptions,
    on_progress: OnProgress,
) -> Matched:
    """The videos that a table says the places of; those in the table are written to an archive."""
    content = content_column(table)
    archive = output.out.with_suffix(".videos.tar").absolute() if content else None
    data_set = read_clip_table(table, known, archive)
    _check_rows(data_set, table, output)
    data_set = data_set.only(options.split, table)
    if archive is not None:
        unpack_column(table, content, archive, each("file", on_progress))
    matched = match_listing(data_set, (), options.extracted, base=str(table.parent))
    if archive is None:
        return matched
    remark = f"the videos in its column {content} were written to {archive}"
    return replace(matched, remarks=[*matched.remarks, remark])


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
