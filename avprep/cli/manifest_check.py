"""`avprep manifest check`: what is wrong with a manifest."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import PATH, flags
from avprep.errors import WorkFailed
from avprep.failures import printable
from avprep.option import Options, option
from avprep.options import CheckOptions
from avprep.wording import counted

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from avprep.commands.manifest_check import ManifestFindings

_EXAMPLES = 3  # of each kind of problem


@dataclass(frozen=True)
class Strictness(Options):
    """Whether a problem fails the command."""

    strict: bool = option(False, "End with exit code 1 if there is a problem.")


@click.command()
@click.argument("manifest", type=PATH)
@flags(options=CheckOptions, strictness=Strictness, summary=Summary)
def check(manifest: Path, options: CheckOptions, strictness: Strictness, summary: Summary) -> None:
    """Check MANIFEST: labels known, files there and different, no duplicates; count classes.

    \b
    Example:
      avprep manifest check manifest.json --plot classes.png
    """
    from avprep.cli.progress import Bars

    with Bars("check") as bars:
        findings = avprep.check_manifest(manifest, options, bars)
    summary.show(facts_of(findings), "\n".join(described(findings, manifest)))
    if strictness.strict and findings.found.problems:
        raise WorkFailed(f"{manifest}: {counted(len(findings.found.problems), 'problem')}.")


def facts_of(findings: ManifestFindings) -> dict[str, Any]:
    """The findings for a program."""
    found = findings.found
    return {
        "clips": found.clips,
        "labelled": found.clips - found.unlabelled,
        "problems": found.by_kind(),
        "classes": None if findings.labels is None else len(findings.labels),
        "class_counts": findings.class_counts,
        "unknown_labels": findings.unknown_labels,
    }


def described(findings: ManifestFindings, manifest: Path) -> Iterator[str]:
    """The findings for a person."""
    found = findings.found
    labelled = found.clips - found.unlabelled
    yield f"{manifest}: {counted(found.clips, 'clip')}, {labelled} with labels"
    if findings.labels is None:
        yield f"labels are not checked: there is no class CSV {findings.label_csv}"
    if values := sorted(findings.class_counts.values()):
        yield (
            f"{counted(len(values), 'class')}, {values.count(0)} of them without a clip; "
            f"clips per class: least {values[0]}, median {statistics.median(values):g}, "
            f"most {values[-1]}"
        )
    for kind, number in found.by_kind().items():
        yield f"{kind:>18}  {number}"
        examples = [problem for problem in found.problems if problem.kind == kind]
        for problem in examples[:_EXAMPLES]:
            text = printable(f"{problem.video_id} (entry {problem.place}): {problem.detail}")
            yield f"{'':>18}    {text}"
    if not found.problems:
        yield "no problems"
