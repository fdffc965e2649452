"""What is wrong with a manifest, and how many clips its classes have."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from avprep import storage
from avprep.labels import LabelSet, class_csv_of, labels_of, read_label_csv
from avprep.manifest import check
from avprep.manifest.check import ManifestCheck, Problem, plot_class_counts
from avprep.manifest.model import iter_manifest
from avprep.options import CheckOptions
from avprep.progress import OnProgress, counted, ignore


@dataclass(frozen=True)
class ManifestFindings:
    """What a manifest holds, and what is wrong with it."""

    found: ManifestCheck
    labels: LabelSet | None
    label_csv: Path  # where the label set is, or would be

    @property
    def class_counts(self) -> dict[str, int]:
        """Clips of each class, in the order of the label set; without one, of the labels found."""
        order = sorted(self.found.counts) if self.labels is None else self.labels.mids
        return {mid: self.found.counts[mid] for mid in order}

    @property
    def unknown_labels(self) -> dict[str, int]:
        """Clips of each label that the label set does not have."""
        if self.labels is None:
            return {}
        counts = self.found.counts.items()
        return {label: count for label, count in counts if not self.labels.knows(label)}


def check_manifest(
    manifest: str | Path,
    options: CheckOptions = CheckOptions(),
    on_progress: OnProgress = ignore,
) -> ManifestFindings:
    """Look for unknown labels, missing and identical files and duplicates; count the classes.

    Args:
        manifest: its file.
        options: what is checked, and which files are written about it.
        on_progress: hears of clips done.

    Raises:
        UserError: the manifest or the class CSV cannot be read.
    """
    manifest = Path(manifest)
    label_csv = options.labels or class_csv_of(manifest)
    labels = labels_of(manifest) if options.labels is None else read_label_csv(label_csv)
    clips = counted(iter_manifest(manifest), "clip", on_progress)
    found = check.check_manifest(clips, labels or None, options.check_files)
    findings = ManifestFindings(found, labels or None, label_csv)
    if options.plot is not None:
        plot_class_counts(found, findings.labels, options.plot)
    if options.counts is not None:
        _write_csv(options.counts, _count_rows(findings))
    if options.report is not None:
        header = tuple(field.name for field in fields(Problem))
        _write_csv(options.report, [header, *map(astuple, found.problems)])
    return findings


def _count_rows(findings: ManifestFindings) -> Iterable[tuple[Any, ...]]:
    """The table of classes."""
    labels = findings.labels
    names = dict(zip(labels.mids, labels.names, strict=True)) if labels is not None else {}
    yield "index", "mid", "display_name", "clips"
    for index, (mid, count) in enumerate(findings.class_counts.items()):
        yield index, mid, names.get(mid, ""), count


def _write_csv(path: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    storage.make_folder(path.parent)
    storage.write_atomic(path, text.getvalue().encode("utf-8", "backslashreplace"))
