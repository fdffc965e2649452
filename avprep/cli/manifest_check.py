"""`avprep manifest check`: what is wrong with a manifest."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from avprep.errors import UserError, WorkFailed
from avprep.failures import printable
from avprep.wording import counted

if TYPE_CHECKING:
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
    from avprep.csvfile import csv_bytes
    from avprep.labels import class_csv_of, labels_of, read_label_csv
    from avprep.manifest.check import check_manifest, plot_class_counts
    from avprep.manifest.model import iter_manifest
    from avprep.progress import ProgressBar

    if plot is not None and plot.suffix != ".png":
        raise UserError(f"--plot {plot}: give a name that ends in .png.")
    label_set = (labels_of(manifest) if labels is None else read_label_csv(labels)) or None
    with ProgressBar("check", "clip") as bar:
        found = check_manifest(bar.counted(iter_manifest(manifest)), label_set, check_files)
    if plot is not None:
        plot_class_counts(found, plot)
    for path, rows in ((counts, count_rows(found)), (report, problem_rows(found))):
        if path is not None:
            storage.make_folder(path.parent)
            storage.write_atomic(path, csv_bytes(rows))
    label_csv = labels or class_csv_of(manifest)
    click.echo(
        json.dumps(summary(found)) if as_json else "\n".join(described(found, manifest, label_csv))
    )
    if strict and found.problems:
        raise WorkFailed(f"{manifest}: {counted(len(found.problems), 'problem')}.")


def summary(found: ManifestCheck) -> dict[str, Any]:
    """The findings for a program."""
    return {
        "clips": found.clips,
        "labelled": found.clips - found.unlabelled,
        "problems": found.by_kind(),
        "classes": len(found.labels) if found.labels is not None else None,
        "class_counts": found.class_counts(),
        "unknown_labels": found.unknown_labels(),
    }


def described(found: ManifestCheck, manifest: Path, label_csv: Path) -> Iterator[str]:
    """The findings for a person."""
    labelled = found.clips - found.unlabelled
    yield f"{manifest}: {counted(found.clips, 'clip')}, {labelled} with labels"
    if found.labels is None:
        yield f"labels are not checked: there is no class CSV {label_csv}"
    if counts := sorted(found.class_counts().values()):
        yield (
            f"{counted(len(counts), 'class')}, {counts.count(0)} of them without a clip; "
            f"clips per class: least {counts[0]}, median {statistics.median(counts):g}, "
            f"most {counts[-1]}"
        )
    for kind, number in found.by_kind().items():
        yield f"{kind:>18}  {number}"
        examples = (problem for problem in found.problems if problem.kind == kind)
        for problem in itertools.islice(examples, _EXAMPLES):
            place = f"{problem.video_id} (entry {problem.place})"
            yield f"{'':>18}    {printable(f'{place}: {problem.detail}')}"
    if not found.problems:
        yield "no problems"


def count_rows(found: ManifestCheck) -> list[tuple[Any, ...]]:
    """The table of classes."""
    names, counts = found.names(), found.class_counts()
    rows = ((n, mid, names.get(mid, ""), count) for n, (mid, count) in enumerate(counts.items()))
    return [("index", "mid", "display_name", "clips"), *rows]


def problem_rows(found: ManifestCheck) -> list[tuple[Any, ...]]:
    """The table of problems."""
    from avprep.manifest.check import Problem

    return [tuple(field.name for field in fields(Problem)), *map(astuple, found.problems)]
