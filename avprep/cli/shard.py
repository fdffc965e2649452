"""`avprep shard`: a manifest becomes WebDataset shards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import avprep
from avprep.cli.common import ClassCsv, Summary, Tolerance, incomplete_line, lacking_line
from avprep.cli.flags import PATH, flags
from avprep.cli.progress import Bars, say
from avprep.errors import TRANSIENT
from avprep.failures import check_failures, failure_table
from avprep.option import Options, option
from avprep.options import BuildOptions, PoolOptions, ShardSetOptions
from avprep.wording import counted, duration, first_of, size

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from avprep.packing import Beginning
    from avprep.shards.build import Found


@dataclass(frozen=True)
class Target(Options):
    """Where the shards go."""

    out: str = option(help="Folder or URL prefix of the shard set.")
    dry_run: bool = option(
        False, "Write nothing; decode 200 of the clips and estimate time, disk space and memory."
    )


@click.command()
@click.argument("manifest", type=PATH)
@flags(
    target=Target,
    class_csv=ClassCsv,
    which=BuildOptions,
    tolerance=Tolerance,
    summary=Summary,
    options=ShardSetOptions,
    pool=PoolOptions,
)
def shard(
    manifest: Path,
    target: Target,
    class_csv: ClassCsv,
    which: BuildOptions,
    tolerance: Tolerance,
    summary: Summary,
    options: ShardSetOptions,
    pool: PoolOptions,
) -> None:
    """Pack the clips of MANIFEST into WebDataset shards with a dataset.json.

    Each shard is one job, written under a temporary name and renamed: run the same command again
    after an interruption and it does what is missing. Clips are decoded from the videos that the
    manifest names, or packed from extracted files where it names those. Several machines may run
    it on one folder at the same time: they share the work.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
      avprep shard manifest.json --out shards/ --workers 8 --dry-run
      avprep shard manifest.json --out shards/ --workers 8
    """
    out = target.out
    if target.dry_run:
        with Bars("dry run") as bars:
            found = avprep.forecast(manifest, out, class_csv.labels, options, which, pool, bars)
        summary.show(asdict(found), "\n".join(foretold(found, out)))
        return
    started = time.monotonic()
    with Bars("shard") as bars:

        def tell(beginning: Beginning) -> None:
            if not summary.as_json:
                click.echo(describe_labels(beginning, manifest))
            if lines := describe_found(beginning.found, out):
                say(lines)

        report = avprep.build_shards(
            manifest, out, class_csv.labels, options, which, pool, bars, tell
        )
    for words in report.tracker_failures:
        click.echo(f"warning: {words}", err=True)
    facts = {**facts_of(report, out), "seconds": round(time.monotonic() - started, 2)}
    summary.show(facts, "\n".join(described(report, out)))
    check_failures(len(report.failures), report.clips, tolerance.max_failures)


def describe_labels(beginning: Beginning, manifest: Path) -> str:
    """Which classes the shards will have."""
    source = f" of {beginning.label_csv}" if beginning.label_csv else ""
    return f"{manifest}: {counted(beginning.classes, 'class')}{source}"


def describe_found(found: Found, out: str) -> str:
    """What lay in the folder before; empty where that was nothing."""
    lines = []
    if found.leftovers:
        lines.append(
            f"deleted {counted(found.leftovers, 'unfinished file')} of processes that are gone"
        )
    if found.damaged:
        damaged = counted(len(found.damaged), "damaged shard")
        lines.append(f"builds {damaged} again: {first_of(found.damaged)}")
    if found.finished:
        lines.append(f"{counted(found.finished, 'shard')} finished, {found.to_build} to be built")
    return "\n".join(f"{out}: {line}" for line in lines)


def facts_of(report: avprep.BuildReport, out: str) -> dict[str, Any]:
    """The summary for a program."""
    return {
        "shards": out,
        "labels": str(report.label_csv) if report.label_csv else None,
        "complete": report.complete,
        "shards_found": report.found,
        "shards_built": report.built,
        "shards_missing": report.missing,
        "clips": report.clips,
        "samples": report.samples,
        "incomplete": report.incomplete,
        "modalities": report.modalities,
        "failed": dict(Counter(failure.cause for failure in report.failures)),
        "bytes": report.bytes,
        "audio_seconds": report.seconds,
    }


def described(report: avprep.BuildReport, out: str) -> Iterator[str]:
    """The summary for a person."""
    from avprep.storage import join

    yield f"found {counted(report.found, 'shard')}, built {report.built}"
    yield (
        f"{out}: {counted(report.samples, 'sample')}, {report.bytes / 1e6:.1f} MB, "
        f"{report.seconds / 3600:.2f} h of audio"
    )
    if report.incomplete:
        yield incomplete_line(report.incomplete)
    if lacking := lacking_line(report.samples, report.modalities):
        yield lacking
    if report.failures:
        yield f"{len(report.failures)} of {counted(report.clips, 'clip')} failed:"
        yield failure_table(report.failures)
    if passing := sum(failure.cause in TRANSIENT for failure in report.failures):
        them = "it" if passing == 1 else "them"
        yield (
            f"{counted(passing, 'clip')} {'was' if passing == 1 else 'were'} unreachable; run the "
            f"same command again to try {them} once more"
        )
    if report.complete:
        yield f"complete: {join(out, 'dataset.json')}"
    else:
        yield f"{report.missing} shards are still to be built by other parts"


def foretold(forecast: avprep.Forecast, out: str) -> Iterator[str]:
    """What a build will take, for a person."""
    to_do = forecast.clips - forecast.done
    yield (
        f"{out}: {counted(forecast.clips, 'clip')}, {forecast.done} done, {to_do} to do; "
        f"decoded {forecast.decoded} of them"
    )
    workers = counted(forecast.workers, "worker")
    yield f"CPU time: {between(forecast.cpu_seconds, duration)}"
    yield f"time with {workers}: {between(forecast.seconds, duration)}"
    yield f"disk: {between(forecast.bytes, size)}"
    yield f"memory with {workers}: {size(forecast.memory)}"
    if not forecast.failures:
        most = avprep.Estimate.of_count(0, forecast.decoded, to_do).high if to_do else 0
        yield f"failing clips: 0 in the sample (0 to {most:.0f} in all)"
        return
    yield "failing clips:"
    for cause, count in forecast.failures.items():
        yield f"  {cause}: {between(count, '{:.0f}'.format)}"


def between(estimate: avprep.Estimate, worded: Callable[[float], str]) -> str:
    """`3.4 h (3.1 h to 3.7 h)`; without the bounds where they are the same."""
    value, low, high = map(worded, (estimate.value, estimate.low, estimate.high))
    return value if low == high else f"{value} ({low} to {high})"
