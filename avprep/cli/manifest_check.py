"""`avprep manifest check`: what is wrong with a manifest."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import PATH, flags
from avprep.cli.progress import Bars
from avprep.errors import WorkFailed
from avprep.failures import printable
from avprep.option import Options, option
from avprep.options import CheckOptions
from avprep.wording import counted

_EXAMPLES = 3  # of each kind of problem


@dataclass(frozen=True)
class Strictness(Options):
    """Whether a problem fails the command."""

    strict: bool = option(False, "End with exit code 1 if there is a problem.")


@click.command()
@click.argument("manifest", type=PATH)
@flags(options=CheckOptions, strictness=Strictness, summary=Summary)
def check(manifest: Path, options: CheckOptions, strictness: Strictness, summary: Summary) -> None:
    """Check the labels, files and ids of MANIFEST for errors and duplicates; count classes.

    \b
    Example:
      avprep manifest check manifest.json --plot classes.png
    """
    from avprep.labels import class_csv_of

    with Bars("check") as bars:
        found = avprep.check_manifest(manifest, options, bars)
    label_csv = options.labels or class_csv_of(manifest)
    summary.show(facts_of(found), "\n".join(described(found, manifest, label_csv)))
    if strictness.strict and found.problems:
        raise WorkFailed(f"{manifest}: {counted(len(found.problems), 'problem')}.")


def facts_of(found: avprep.ManifestCheck) -> dict[str, Any]:
    """The findings for a program."""
    return {
        "clips": found.clips,
        "labelled": found.clips - found.unlabelled,
        "problems": found.by_kind(),
        "classes": None if found.labels is None else len(found.labels),
        "class_counts": found.class_counts(),
        "unknown_labels": found.unknown_labels(),
    }


def described(found: avprep.ManifestCheck, manifest: Path, label_csv: Path) -> Iterator[str]:
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
        examples = [problem for problem in found.problems if problem.kind == kind]
        for problem in examples[:_EXAMPLES]:
            text = printable(f"{problem.video_id} (entry {problem.place}): {problem.detail}")
            yield f"{'':>18}    {text}"
    if not found.problems:
        yield "no problems"
