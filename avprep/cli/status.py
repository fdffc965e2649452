"""`avprep status`: how far a build is, from its files alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import flags
from avprep.wording import counted, duration


@click.command()
@click.argument("shards")
@flags(summary=Summary)
def status(shards: str, summary: Summary) -> None:
    """Show the progress of the build of the shard set SHARDS.

    Reads the files of the folder or URL prefix and writes nothing, so it may run while machines
    are building there, and on any machine.

    \b
    Example:
      avprep status shards/train
    """
    found = avprep.status(shards)
    summary.show(asdict(found), "\n".join(described(found, shards)))


def described(status: avprep.Status, shards: str) -> Iterator[str]:
    """The status for a person."""
    state = "finished" if status.finished else "being built" if status.at_work else "not finished"
    yield (
        f"{shards}: {state}, {status.done} of {counted(status.clips, 'clip')} done in "
        f"{status.shards_done} of {counted(status.shards, 'shard')}, "
        f"{sum(status.failures.values())} failed"
    )
    for cause, count in sorted(status.failures.items(), key=lambda pair: -pair[1]):
        yield f"  {cause}: {count}"
    if status.rate is not None and status.at_work:
        left = "" if status.seconds_left is None else f", {duration(status.seconds_left)} left"
        yield f"{status.rate:.2f} clips/s{left}"
    if status.last_shard is not None:
        when = datetime.fromtimestamp(status.last_shard).isoformat(" ", "seconds")
        yield f"last shard written {when} ({duration(time.time() - status.last_shard)} ago)"
    if not status.finished and not status.at_work and status.seconds_quiet is not None:
        yield (
            f"no file was written for {duration(status.seconds_quiet)}: run the same `avprep "
            "shard` command again unless it is still running; what is finished stays"
        )
