"""`avprep index`: a dataset.json for tars that other programs wrote."""

from __future__ import annotations

from collections import Counter

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.failures import failure_table
from avprep.options import IndexOptions
from avprep.wording import counted


@click.command()
@click.argument("tars", nargs=-1, required=True)
@flags(options=IndexOptions, summary=Summary)
def index(tars: tuple[str, ...], options: IndexOptions, summary: Summary) -> None:
    """Make a shard set of TARS that other programs wrote, without copying them.

    TARS are files, or folders with such files, as webdataset or tar write them. Members of a
    sample are recognised by their suffixes: what follows the first dot of the name. Training
    takes 16 kHz mono FLAC or WAV, and square JPEG pictures of one size. Tars of videos, as
    video2dataset writes them, are for `avprep manifest folder`.

    \b
    Example:
      avprep index theirs/*.tar --audio flac --frame '{n}.jpg' --labels json:labels
    """
    with Bars("index") as bars:
        found = avprep.index_tars(tars, options, bars)
    facts = {
        "shards": found.out,
        "tars": found.shards,
        "samples": found.samples,
        "classes": found.classes,
        "audio_seconds": found.seconds,
        "left_out": dict(Counter(problem.cause for problem in found.problems)),
    }
    lines = [
        f"{found.out}: {counted(found.shards, 'shard')}, {counted(found.samples, 'sample')}, "
        f"{counted(found.classes, 'class')}, {found.seconds / 3600:.2f} h of audio"
    ]
    if found.problems:
        lines += [f"{len(found.problems)} left out:", failure_table(found.problems)]
    summary.show(facts, "\n".join(lines))
