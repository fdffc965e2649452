"""`avprep report`: a shard set on one HTML page."""

from __future__ import annotations

import json

import click

from avprep.failures import printable
from avprep.wording import counted


@click.command()
@click.argument("shards")
@click.option("--out", required=True, help="HTML file to write, or URL of one.")
@click.option(
    "--clips",
    type=click.IntRange(min=0),
    help="Clips in the gallery. [default: 32, or what --per-class asks for]",
)
@click.option(
    "--per-class",
    type=click.IntRange(min=1),
    help="Clips of each class in the gallery. [default: as even as --clips allows]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the choice of clips.")
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=15.0,
    show_default=True,
    help="Size of the page; clips that would make it larger are left out.",
)
@click.option(
    "--failures",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    help="Failed clips listed with details; all are counted.",
)
@click.option("--title", default="", help="Heading of the page. [default: the folder's name]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def report(
    shards: str,
    out: str,
    clips: int | None,
    per_class: int | None,
    seed: int,
    max_mb: float,
    failures: int,
    title: str,
    as_json: bool,
) -> None:
    """Show the shard set SHARDS on one HTML page that needs no network.

    Totals, classes, durations, failures by cause, and a gallery of clips with their frames,
    spectrogram and playable sound. Reads the indexes, and of the shards only the clips shown.

    \b
    Example:
      avprep report shards/train --out train.html
    """
    from avprep.progress import ProgressBar
    from avprep.report.gallery import GalleryOptions
    from avprep.report.shard_report import ReportOptions, readable_size, write_report

    options = ReportOptions(GalleryOptions(clips, per_class, seed), max_mb, failures, title)
    with ProgressBar("report", "shard") as bar:

        def show(total: int) -> None:
            bar.update(total=total)

        made = write_report(shards, out, options, show)
    size = len(made.page)
    if as_json:
        summary = {
            "page": out,
            "bytes": size,
            "clips": made.clips,
            "too_large": made.too_large,
            "unreadable": made.unreadable,
            "incomplete": made.incomplete,
        }
        click.echo(json.dumps(summary))
        return
    for video_id in made.unreadable:
        click.echo(
            printable(f"{video_id}: cannot be read; run `avprep verify {shards}`."), err=True
        )
    left_out = f", {made.too_large} left out (--max-mb {max_mb:g})" if made.too_large else ""
    click.echo(f"{out}: {readable_size(size)}, {counted(made.clips, 'clip')}{left_out}")
