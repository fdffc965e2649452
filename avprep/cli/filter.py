"""`avprep filter`: select clips by what was measured of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.options import FilterOptions
from avprep.wording import counted

_LISTED = 20  # classes


@click.command("filter")
@click.argument("shards")
@flags(options=FilterOptions, summary=Summary)
def filter_(shards: str, options: FilterOptions, summary: Summary) -> None:
    """Write a selection of the clips of SHARDS that meet a condition on their measures.

    Reads what was measured when the set was built, or by `avprep measure`; decodes nothing and
    changes no shard. The commands of `cavmae` take the selection as --select, and `avprep manifest
    select` makes a manifest of it. Besides the measures, a condition may name video_id, split,
    seconds, complete, audio and image.

    \b
    Example:
      avprep filter shards/train --where "rms_db > -50 and stillness < 0.98" --out good.csv
      cavmae pretrain --shards shards/train --select good.csv --out runs/pretrain
    """
    with Bars("filter") as bars:
        found = avprep.filter_clips(shards, options, bars)
    facts = {
        "selection": str(options.out),
        "clips": found.clips,
        "kept": found.kept,
        "classes": [asdict(one) for one in found.classes],
    }
    summary.show(facts, "\n".join(described(found, options)))


def described(found: avprep.Filtered, options: FilterOptions) -> Iterator[str]:
    """The result for a person: how many clips each class loses, the greatest losses first."""
    losing = [one for one in found.classes if one.kept < one.clips]
    losing.sort(key=lambda one: (one.kept / one.clips, one.kept - one.clips, one.name))
    for one in losing[:_LISTED]:
        share = 1 - one.kept / one.clips
        yield f"{one.name}: drops {one.clips - one.kept} of {one.clips} ({share:.0%})"
    if len(losing) > _LISTED:
        yield f"… and {counted(len(losing) - _LISTED, 'class')} more; --json lists all"
    yield (
        f"{options.out}: keeps {found.kept} of {counted(found.clips, 'clip')}, drops "
        f"{found.clips - found.kept}"
    )
