"""What is wrong with a manifest, and how many clips its classes have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from avprep import storage
from avprep.csvfile import csv_bytes
from avprep.labels import labels_of, read_label_csv
from avprep.manifest import check
from avprep.manifest.check import ManifestCheck, Problem, plot_class_counts
from avprep.manifest.model import iter_manifest
from avprep.options import CheckOptions
from avprep.progress import OnProgress, counted, ignore


def check_manifest(
    manifest: str | Path,
    options: CheckOptions = CheckOptions(),
    on_progress: OnProgress = ignore,
) -> ManifestCheck:
    """Look for unknown labels, missing and identical files and duplicates; count the classes.

    Args:
        manifest: its file.
        options: what is checked, and which files are written about it.
        on_progress: hears of clips done.

    Raises:
        UserError: the manifest or the class CSV cannot be read.
    """
    manifest, label_csv = Path(manifest), options.labels
    labels = labels_of(manifest) if label_csv is None else read_label_csv(label_csv)
    clips = counted(iter_manifest(manifest), "clip", on_progress)
    found = check.check_manifest(clips, labels or None, options.check_files)
    if options.plot is not None:
        plot_class_counts(found, options.plot)
    if options.counts is not None:
        _write_csv(options.counts, _count_rows(found))
    if options.report is not None:
        header = tuple(field.name for field in fields(Problem))
        _write_csv(options.report, [header, *map(astuple, found.problems)])
    return found


def _count_rows(found: ManifestCheck) -> Iterable[tuple[Any, ...]]:
    """The table of classes."""
    names = found.names()
    yield "index", "mid", "display_name", "clips"
    for index, (mid, count) in enumerate(found.class_counts().items()):
        yield index, mid, names.get(mid, ""), count


def _write_csv(path: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    storage.make_folder(path.parent)
    storage.write_atomic(path, csv_bytes(rows))
