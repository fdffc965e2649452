"""`avprep measure`: measure the clips of a shard set that was built without measures."""

from __future__ import annotations

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.errors import WorkFailed
from avprep.options import PoolOptions
from avprep.wording import counted, first_of


@click.command()
@click.argument("shards")
@flags(summary=Summary, pool=PoolOptions)
def measure(shards: str, summary: Summary, pool: PoolOptions) -> None:
    """Measure loudness, stillness and so on of every clip of the shard set SHARDS.

    For sets of older versions: `avprep shard` measures while it builds. Writes a .measures.json
    beside each index; shards and indexes stay as they are. Run it again after an interruption and
    it does what is missing.

    \b
    Example:
      avprep measure shards/train --workers 8
    """
    with Bars("measure") as bars:
        done = avprep.measure(shards, pool, bars)
    facts = {"found": done.found, "measured": done.measured, "unreadable": done.unreadable}
    summary.show(
        facts,
        f"{shards}: {counted(done.measured, 'clip')} measured, {done.found} measured before",
    )
    if done.unreadable:
        raise WorkFailed(
            f"{counted(len(done.unreadable), 'clip')} cannot be read: {first_of(done.unreadable)}. "
            f"They count as silent and black; run `avprep verify --deep {shards}`."
        )
