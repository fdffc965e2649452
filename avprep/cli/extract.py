"""`avprep extract`: videos become audio and frame files."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from avprep.cli.options import (
    decode_options,
    incomplete_line,
    limit_options,
    pool_options,
    sample_options,
    worker_pool,
)
from avprep.failures import check_failures, failure_table, parse_limit, printable
from avprep.wording import counted


@click.command()
@click.argument("videos", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Output folder.")
@click.option("--max-failures", help="End with exit code 1 above this many (20) or share (5%).")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@decode_options
@pool_options
def extract(
    videos: Path, out: Path, max_failures: str | None, as_json: bool, **options: Any
) -> None:
    """Extract 16 kHz mono audio and 10 frames of every video in the folder VIDEOS.

    Files follow the published layout: audio/ID.wav and frames/frame_{0..9}/ID.jpg. Run the same
    command again after an interruption and it does what is missing. To go straight to shards,
    skip this command: `avprep shard` decodes the videos itself.

    \b
    Example:
      avprep extract videos/ --out extracted/
      avprep manifest folder videos/ --extracted extracted/ --out manifest.json
    """
    from avprep.clips import described_passed_over, discover_clips
    from avprep.extraction import ExtractSettings, extract_clips
    from avprep.progress import ProgressBar

    limit = parse_limit(max_failures) if max_failures is not None else None
    passed_over: list[str] = []
    with ProgressBar("extract", "file") as bar:
        clips = discover_clips(videos, passed_over, bar.update)
    settings = ExtractSettings(videos, out, sample_options(options, "wav"), limit_options(options))
    pool = worker_pool(options)
    started = time.monotonic()
    with ProgressBar("extract", "clip", len(clips)) as bar:

        def show(done: int, failed: int) -> None:
            bar.reach(done, failed=failed)

        report = extract_clips(clips, settings, pool, show)
    if as_json:
        summary = {
            "out": str(out),
            "clips": report.clips,
            "found": report.found,
            "extracted": report.extracted,
            "incomplete": report.incomplete,
            "passed_over": len(passed_over),
            "failed": dict(Counter(failure.cause for failure in report.failures)),
            "seconds": round(time.monotonic() - started, 2),
        }
        click.echo(json.dumps(summary))
    else:
        if report.found:
            click.echo(f"found {counted(report.found, 'clip')} extracted before")
        click.echo(f"{out}: extracted {report.extracted} of {counted(report.clips, 'clip')}")
        if report.incomplete:
            click.echo(incomplete_line(report.incomplete))
        for note in described_passed_over(passed_over):
            click.echo(printable(note))
        if report.failures:
            click.echo(
                f"{counted(len(report.failures), 'clip')} failed:\n{failure_table(report.failures)}"
            )
    check_failures(len(report.failures), report.clips, limit)
