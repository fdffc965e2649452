"""Manifests from what people have on disk: read the rows, find their files, write what matched."""

from __future__ import annotations

from pathlib import Path

from avprep.labels import class_csv_of, known_labels, labels_of, read_label_csv, vggsound_labels
from avprep.manifest.sources.audioset import read_audioset
from avprep.manifest.sources.folder import match_folder
from avprep.manifest.sources.listing import match_listing, read_listing
from avprep.manifest.sources.match import check_extracted
from avprep.manifest.sources.matched import DataSet, ManifestSummary, write_matched
from avprep.manifest.sources.segments import check_sources, match_segments
from avprep.manifest.sources.vggsound import read_vggsound
from avprep.manifest.sources.vggsounder import read_vggsounder
from avprep.options import (
    AudioSetOptions,
    FolderOptions,
    ManifestOutput,
    Sources,
    VGGSounderOptions,
    VGGSoundOptions,
)
from avprep.progress import OnProgress, each, ignore


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
    root: str | Path,
    output: ManifestOutput,
    options: FolderOptions = FolderOptions(),
    on_progress: OnProgress = ignore,
) -> ManifestSummary:
    """Write the manifest of a folder, whose sub-folders or a CSV say what the classes are.

    Raises:
        UserError: see `match_folder`, `read_listing` and `write_matched`.
        WorkFailed: see `write_matched`.
    """
    root, csv, labels, extracted = Path(root), options.csv, options.labels, options.extracted
    check_extracted(extracted)
    known = labels_of(output.out) or None if labels is None else known_labels(labels)
    if csv is None:
        file = labels or class_csv_of(output.out)
        on_file = each("file", on_progress)
        matched = match_folder(root, extracted, known, file, options.split, on_file)
    else:
        data_set = read_listing(csv, known)
        _check_rows(data_set, csv, output)
        on_file = each("file", on_progress)
        matched = match_listing(data_set.only(options.split, csv), root, extracted, on_file)
    return write_matched(matched, csv or root, output, labels)


def _check_rows(data_set: DataSet, source: Path, output: ManifestOutput) -> None:
    """Raises UserError where there are bad rows, and they are not to be skipped."""
    if output.bad_rows == "refuse":
        data_set.notes.refuse_bad_rows(source)
