"""`avprep shard`: a manifest becomes WebDataset shards."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from avprep.cli.options import (
    decode_options,
    incomplete_line,
    limit_options,
    parse_part,
    parse_size,
    pool_options,
    sample_options,
    worker_pool,
)
from avprep.errors import UserError
from avprep.failures import check_failures, failure_table, parse_limit

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from avprep.clips import Clip
    from avprep.labels import LabelSet
    from avprep.shards.build import BuildReport, Found, Progress


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--out", required=True, help="Folder or URL prefix of the shard set.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Class CSV (index,mid,display_name). [default: M.classes.csv beside M.json]",
)
@click.option(
    "--samples-per-shard",
    type=click.IntRange(min=1),
    help="Clips a shard. [default: 500, fewer for a set of under 4000]",
)
@click.option(
    "--shard-size",
    help="Bytes a shard instead, as in 1GB or 500MB; by what clips of their length should take.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the clips' order.")
@click.option(
    "--audio",
    type=click.Choice(["flac", "wav"]),
    default="flac",
    show_default=True,
    help="Both are lossless: flac is half the size, wav loads several times faster.",
)
@click.option("--part", default="1/1", help="Build only the k-th of n parts, as in --part 3/16.")
@click.option("--retry-failed", is_flag=True, help="Build shards with failed clips again.")
@click.option("--max-failures", help="End with exit code 1 above this many (20) or share (5%).")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@decode_options
@pool_options
def shard(
    manifest: Path,
    out: str,
    labels: Path | None,
    samples_per_shard: int | None,
    shard_size: str | None,
    seed: int,
    audio: Literal["flac", "wav"],
    part: str,
    retry_failed: bool,
    max_failures: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Pack the clips of MANIFEST into WebDataset shards with a dataset.json.

    Each shard is one job, written under a temporary name and renamed: run the same command again
    after an interruption and it does what is missing. Clips are decoded from the videos that the
    manifest names, or packed from extracted files where it names those. Several machines may run
    it on one folder at the same time: they share the work.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
      avprep shard manifest.json --out shards/ --workers 8
    """
    from avprep.labels import class_csv_of, read_label_csv
    from avprep.manifest.model import read_manifest
    from avprep.progress import ProgressBar
    from avprep.shards.build import ShardSetOptions, build_shard_set

    limit = parse_limit(max_failures) if max_failures is not None else None
    which_part = parse_part(part)
    if shard_size is not None and samples_per_shard is not None:
        raise UserError("give --samples-per-shard or --shard-size, not both.")
    shard_bytes = parse_size(shard_size) if shard_size is not None else None
    clips = read_manifest(manifest)
    label_csv = labels or class_csv_of(manifest)
    if labels is None and not label_csv.exists():
        label_set = label_set_of(clips, manifest)
    else:
        label_set = read_label_csv(label_csv)
    if not as_json:
        click.echo(
            f"{manifest}: {len(label_set)} classes" + (f" of {label_csv}" if label_set else "")
        )
    started = time.monotonic()
    with ProgressBar("shard", "clip", len(clips)) as bar:

        def show(progress: Progress) -> None:
            bar.reach(progress.clips_done, progress.clips_total, progress.failed)

        def tell(found: Found) -> None:
            if lines := describe_found(found, out):
                bar.say(lines)

        report = build_shard_set(
            clips,
            label_set,
            out,
            ShardSetOptions(
                sample_options(options, audio),
                limit_options(options),
                samples_per_shard,
                seed,
                shard_bytes,
            ),
            worker_pool(options),
            which_part,
            retry_failed,
            show,
            tell,
        )
    summary = {
        "shards": out,
        "labels": str(label_csv) if label_set else None,
        "complete": report.complete,
        "shards_found": report.found,
        "shards_built": report.built,
        "shards_missing": report.missing,
        "clips": report.clips,
        "samples": report.samples,
        "incomplete": report.incomplete,
        "failed": dict(Counter(failure.cause for failure in report.failures)),
        "bytes": report.bytes,
        "audio_seconds": report.seconds,
        "seconds": round(time.monotonic() - started, 2),
    }
    click.echo(json.dumps(summary) if as_json else describe(report, out))
    check_failures(len(report.failures), report.clips, limit)


def label_set_of(clips: Sequence[Clip], manifest: Path) -> LabelSet:
    """The label set of a manifest without a class CSV: only an unlabelled one can do without.

    Raises:
        UserError: the clips have labels.
    """
    from avprep.labels import LabelSet, class_csv_of

    if any(clip.labels for clip in clips):
        raise UserError(
            f"{manifest}: its clips have labels, but there is no class CSV "
            f"{class_csv_of(manifest)}. Name the one it was built with: --labels CSV."
        )
    return LabelSet((), ())


def describe_found(found: Found, out: str) -> str:
    """What lay in the folder before; empty where that was nothing."""
    lines = []
    if found.leftovers:
        lines.append(f"deleted {found.leftovers} unfinished files of processes that are gone")
    if found.damaged:
        named = ", ".join(found.damaged[:5]) + (", …" if found.damaged[5:] else "")
        lines.append(f"{len(found.damaged)} damaged shards are built again: {named}")
    if found.finished:
        lines.append(f"{found.finished} shards are finished, {found.to_build} are to be built")
    return "\n".join(f"{out}: {line}" for line in lines)


def describe(report: BuildReport, out: str) -> str:
    """The summary for a person."""
    from avprep.storage import join

    lines = [
        f"found {report.found} shards, built {report.built}",
        f"{out}: {report.samples} samples, {report.bytes / 1e6:.1f} MB, "
        f"{report.seconds / 3600:.2f} h of audio",
    ]
    if report.incomplete:
        lines.append(incomplete_line(report.incomplete))
    if report.failures:
        lines.append(f"{len(report.failures)} of {report.clips} clips failed:")
        lines.append(failure_table(report.failures))
    if report.complete:
        lines.append(f"complete: {join(out, 'dataset.json')}")
    else:
        lines.append(f"{report.missing} shards are still to be built by other parts")
    return "\n".join(lines)
