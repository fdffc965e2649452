"""`avprep manifest check`: what is wrong with a manifest."""

from __future__ import annotations

import csv
import io
import json
import statistics
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avprep.errors import UserError, WorkFailed
from avprep.failures import printable
from avprep.wording import counted

if TYPE_CHECKING:
    from avprep.labels import LabelSet
    from avprep.manifest.check import ManifestCheck

_PATH = click.Path(path_type=Path)
_EXAMPLES = 3  # of each kind of problem


@click.command()
@click.argument("manifest", type=_PATH)
@click.option(
    "--labels", type=_PATH, help="Class CSV. [default: M.classes.csv beside M.json, if there]"
)
@click.option(
    "--files/--no-files",
    "check_files",
    default=True,
    show_default=True,
    help="Whether to look at the clips' files: there, not empty, no two the same.",
)
@click.option("--counts", type=_PATH, help="CSV to write: clips of each class.")
@click.option("--report", type=_PATH, help="CSV to write: every problem.")
@click.option("--plot", type=_PATH, help="PNG to write: clips of each class, as bars.")
@click.option("--strict", is_flag=True, help="End with exit code 1 if there is a problem.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(
    manifest: Path,
    labels: Path | None,
    check_files: bool,
    counts: Path | None,
    report: Path | None,
    plot: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Check MANIFEST: labels known, files there and different, no duplicates; count classes.

    \b
    Example:
      avprep manifest check manifest.json --plot classes.png
    """
    from avprep import storage
    from avprep.cli.progress import ProgressBar
    from avprep.labels import class_csv_of, labels_of, read_label_csv
    from avprep.manifest.check import check_manifest, plot_class_counts
    from avprep.manifest.model import iter_manifest

    label_csv = labels or class_csv_of(manifest)
    label_set = (labels_of(manifest) if labels is None else read_label_csv(labels)) or None
    if plot is not None and plot.suffix != ".png":
        raise UserError(f"--plot {plot}: give a name that ends in .png.")
    with ProgressBar("check", "clip") as bar:
        found = check_manifest(bar.counted(iter_manifest(manifest)), label_set, check_files)
    if plot is not None:
        plot_class_counts(found, label_set, plot)
    for path, rows in ((counts, count_rows(found, label_set)), (report, problem_rows(found))):
        if path is not None:
            storage.make_folder(path.parent)
            storage.write_atomic(path, as_csv(rows))
    click.echo(
        json.dumps(summary(found, label_set))
        if as_json
        else describe(found, label_set, manifest, label_csv)
    )
    if strict and found.problems:
        raise WorkFailed(f"{manifest}: {counted(len(found.problems), 'problem')}.")


def summary(found: ManifestCheck, labels: LabelSet | None) -> dict[str, Any]:
    """The findings for a program."""
    return {
        "clips": found.clips,
        "labelled": found.clips - found.unlabelled,
        "problems": found.by_kind(),
        "classes": len(labels) if labels is not None else None,
        "class_counts": class_counts(found, labels),
        "unknown_labels": {}
        if labels is None
        else {label: count for label, count in found.counts.items() if not labels.knows(label)},
    }


def class_counts(found: ManifestCheck, labels: LabelSet | None) -> dict[str, int]:
    """Clips of each class, in the order of the label set; of labels as they come without one."""
    order = labels.mids if labels is not None else sorted(found.counts)
    return {mid: found.counts[mid] for mid in order}


def describe(found: ManifestCheck, labels: LabelSet | None, manifest: Path, label_csv: Path) -> str:
    """The findings for a person."""
    counts = class_counts(found, labels)
    lines = [
        f"{manifest}: {counted(found.clips, 'clip')}, {found.clips - found.unlabelled} with labels"
    ]
    if labels is None:
        lines.append(f"labels are not checked: there is no class CSV {label_csv}")
    if counts:
        values = sorted(counts.values())
        lines.append(
            f"{counted(len(counts), 'class')}, {values.count(0)} of them without a clip; "
            f"clips per class: least {values[0]}, median {statistics.median(values):g}, "
            f"most {values[-1]}"
        )
    for kind, number in found.by_kind().items():
        lines.append(f"{kind:>18}  {number}")
        examples = [problem for problem in found.problems if problem.kind == kind][:_EXAMPLES]
        lines += [
            f"{'':>18}    {printable(f'{p.video_id} (entry {p.place}): {p.detail}')}"
            for p in examples
        ]
    if not found.problems:
        lines.append("no problems")
    return "\n".join(lines)


def count_rows(found: ManifestCheck, labels: LabelSet | None) -> list[tuple[Any, ...]]:
    """The table of classes."""
    names = dict(zip(labels.mids, labels.names, strict=True)) if labels is not None else {}
    rows: list[tuple[Any, ...]] = [("index", "mid", "display_name", "clips")]
    for index, (mid, count) in enumerate(class_counts(found, labels).items()):
        rows.append((index, mid, names.get(mid, ""), count))
    return rows


def problem_rows(found: ManifestCheck) -> list[tuple[Any, ...]]:
    """The table of problems."""
    from avprep.manifest.check import Problem

    header = tuple(field.name for field in fields(Problem))
    return [header, *map(astuple, found.problems)]


def as_csv(rows: list[tuple[Any, ...]]) -> bytes:
    """Rows as CSV, UTF-8."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
