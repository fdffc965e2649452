"""`avprep extract`: videos become audio and frame files."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import avprep
from avprep.cli.common import Summary, Tolerance, incomplete_line
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.failures import check_failures, failure_table, printable
from avprep.option import Options, option
from avprep.options import FileKinds, IsolationOptions, PoolOptions, SampleOptions
from avprep.wording import counted


@dataclass(frozen=True)
class Target(Options):
    """Where the files go."""

    out: Path = option(help="Output folder.")


@click.command()
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@flags(
    target=Target,
    kinds=FileKinds,
    tolerance=Tolerance,
    summary=Summary,
    sample=SampleOptions,
    limits=IsolationOptions,
    pool=PoolOptions,
    without=("audio",),
)
def extract(
    places: tuple[str, ...],
    target: Target,
    kinds: FileKinds,
    tolerance: Tolerance,
    summary: Summary,
    sample: SampleOptions,
    limits: IsolationOptions,
    pool: PoolOptions,
) -> None:
    """Extract 16 kHz mono audio and 10 frames of every video in a folder.

    A PLACE is a folder, an archive, a prefix of an object store, or a pattern of these in quotes.

    Files follow the published layout: audio/ID.wav and frames/frame_{0..9}/ID.jpg. Run the same
    command again after an interruption and it does what is missing. To go straight to shards,
    skip this command: `avprep shard` decodes the videos itself.

    \b
    Example:
      avprep extract videos/ --out extracted/
      avprep manifest folder videos/ --extracted extracted/ --out manifest.json
    """
    started = time.monotonic()
    with Bars("extract") as bars:
        report = avprep.extract(places, target.out, sample, limits, pool, bars, kinds)
    facts = {**facts_of(report, target.out), "seconds": round(time.monotonic() - started, 2)}
    summary.show(facts, "\n".join(described(report, target.out)))
    check_failures(len(report.failures), report.clips, tolerance.max_failures)


def facts_of(report: avprep.ExtractReport, out: Path) -> dict[str, Any]:
    """The summary for a program."""
    return {
        "out": str(out),
        "clips": report.clips,
        "found": report.found,
        "extracted": report.extracted,
        "incomplete": report.incomplete,
        "passed_over": len(report.passed_over),
        "failed": dict(Counter(failure.cause for failure in report.failures)),
    }


def described(report: avprep.ExtractReport, out: Path) -> Iterator[str]:
    """The summary for a person."""
    from avprep.clips import described_passed_over

    if report.found:
        yield f"found {counted(report.found, 'clip')} extracted before"
    yield f"{out}: extracted {report.extracted} of {counted(report.clips, 'clip')}"
    if report.incomplete:
        yield incomplete_line(report.incomplete)
    yield from map(printable, described_passed_over(report.passed_over))
    if report.failures:
        yield f"{counted(len(report.failures), 'clip')} failed:"
        yield failure_table(report.failures)
