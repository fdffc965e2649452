"""`avprep report`: a shard set on one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.failures import printable
from avprep.option import Options, option
from avprep.options import ReportOptions
from avprep.wording import counted, size

_ALWAYS_TOLD = ("silent", "clipped", "still")


@dataclass(frozen=True)
class Page(Options):
    """Where the page goes."""

    out: str = option(help="HTML file to write, or URL of one.")


@click.command()
@click.argument("shards")
@flags(page=Page, options=ReportOptions, summary=Summary)
def report(shards: str, page: Page, options: ReportOptions, summary: Summary) -> None:
    """Show the shard set SHARDS on one HTML page that needs no network.

    Totals, classes, durations, what was measured, failures by cause, and a gallery of clips with
    their frames, spectrogram and playable sound. Reads the indexes and measures, and of the shards
    only the clips shown. Prints what share of the clips is clipped, silent, still or faulty.

    \b
    Example:
      avprep report shards/train --out train.html
    """
    with Bars("report") as bars:
        made = avprep.report(shards, page.out, options, bars)
    if not summary.as_json:
        for video_id in made.unreadable:
            note = f"{video_id}: cannot be read; run `avprep verify {shards}`."
            click.echo(printable(note), err=True)
    summary.show(facts_of(made, page.out), described(made, shards, page.out, options))


def facts_of(made: avprep.ReportSummary, out: str) -> dict[str, Any]:
    """The summary for a program."""
    return {
        "page": out,
        "bytes": len(made.page),
        "clips": made.clips,
        "too_large": made.too_large,
        "unreadable": made.unreadable,
        "incomplete": made.incomplete,
        "faults": dict(made.faults),
    }


def described(made: avprep.ReportSummary, shards: str, out: str, options: ReportOptions) -> str:
    """The summary for a person."""
    left_out = (
        f", {made.too_large} left out (--max-mb {options.max_mb:g})" if made.too_large else ""
    )
    page = f"{out}: {size(len(made.page))}, {counted(made.clips, 'clip')}{left_out}"
    if not made.faults:
        return f"{page}\nnot measured: run `avprep measure {shards}`"
    shares = ", ".join(
        f"{name} {count / made.samples:.1%}"
        for name, count in made.faults.items()
        if count or name in _ALWAYS_TOLD
    )
    return f"{page}\nclips by fault: {shares}"
