"""Manifests from what people have on disk: read the rows, find their files, write what matched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avprep.labels import class_csv_of, known_labels, labels_of, read_label_csv, vggsound_labels
from avprep.manifest.sources.audioset import read_audioset
from avprep.manifest.sources.folder import match_folder
from avprep.manifest.sources.listing import match_listing, read_listing
from avprep.manifest.sources.match import check_extracted
from avprep.manifest.sources.matched import ManifestSummary, Output, write_matched
from avprep.manifest.sources.segments import Sources, match_segments
from avprep.manifest.sources.vggsound import read_vggsound

OnFile = Callable[[], object]  # called after each file found


def from_audioset(
    segments: Path, labels: Path, sources: Sources, output: Output, on_file: OnFile = lambda: None
) -> ManifestSummary:
    """Write the manifest of an AudioSet segments CSV and its class CSV.

    Raises:
        UserError, WorkFailed: see `read_audioset`, `match_segments` and `write_matched`.
    """
    sources.check()
    data_set = read_audioset(segments, read_label_csv(labels))
    output.check_rows(segments, data_set.notes)
    return write_matched(match_segments(data_set, sources, on_file), segments, output)


def from_vggsound(
    csv: Path,
    labels: Path | None,
    split: str,
    sources: Sources,
    output: Output,
    on_file: OnFile = lambda: None,
) -> ManifestSummary:
    """Write the manifest of a VGGSound CSV, of one split or (where that is empty) of all.

    A class CSV `labels` is read if it is there, and else written from the sorted names; without
    one the classes have the numbers of the published classifiers.

    Raises:
        UserError, WorkFailed: see `read_vggsound`, `match_segments` and `write_matched`.
    """
    sources.check()
    known = vggsound_labels() if labels is None else known_labels(labels)
    data_set = read_vggsound(csv, known)
    output.check_rows(csv, data_set.notes)
    matched = match_segments(data_set.only(split, csv), sources, on_file)
    return write_matched(matched, csv, output, labels)


def from_folder(
    root: Path,
    csv: Path | None,
    labels: Path | None,
    split: str,
    extracted: Path | None,
    output: Output,
    on_file: OnFile = lambda: None,
) -> ManifestSummary:
    """Write the manifest of a folder, whose sub-folders or `csv` say what the classes are.

    A class CSV `labels` is read if it is there, and else written from the sorted names; without
    one, the manifest's own is read if it is there.

    Raises:
        UserError, WorkFailed: see `match_folder`, `read_listing` and `write_matched`.
    """
    check_extracted(extracted)
    known = labels_of(output.out) or None if labels is None else known_labels(labels)
    if csv is None:
        file = labels or class_csv_of(output.out)
        matched = match_folder(root, extracted, known, file, split, on_file)
    else:
        data_set = read_listing(csv, known)
        output.check_rows(csv, data_set.notes)
        matched = match_listing(data_set.only(split, csv), root, extracted, on_file)
    return write_matched(matched, csv or root, output, labels)
