"""What is wrong with a manifest, and how many clips its classes have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path

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
    manifest = Path(manifest)
    labels = labels_of(manifest) if options.labels is None else read_label_csv(options.labels)
    clips = counted(iter_manifest(manifest), "clip", on_progress)
    found = check.check_manifest(clips, labels or None, options.check_files)
    if options.plot is not None:
        plot_class_counts(found, options.plot)
    problems = [[field.name for field in fields(Problem)], *map(astuple, found.problems)]
    for path, rows in ((options.counts, _count_rows(found)), (options.report, problems)):
        if path is not None:
            storage.make_folder(path.parent)
            storage.write_atomic(path, csv_bytes(rows))
    return found


def _count_rows(found: ManifestCheck) -> Iterable[tuple[object, ...]]:
    """The table of classes."""
    names = found.names()
    yield "index", "mid", "display_name", "clips"
    for index, (mid, count) in enumerate(found.class_counts.items()):
        yield index, mid, names.get(mid, ""), count
