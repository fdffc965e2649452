"""`avprep duplicates`: near-duplicates inside and between shard sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.option import Options, option
from avprep.options import DuplicateOptions
from avprep.wording import counted


@dataclass(frozen=True)
class Folder(Options):
    """Where everything goes that is found."""

    out: Path = option(help="Folder for duplicates.csv, duplicates.html and selection-NAME.csv.")


@click.command()
@click.argument("shards", metavar="SHARDS…", nargs=-1, required=True)
@flags(target=Folder, options=DuplicateOptions, summary=Summary)
def duplicates(
    shards: tuple[str, ...], target: Folder, options: DuplicateOptions, summary: Summary
) -> None:
    """Find clips that are nearly the same, inside the shard sets SHARDS and between them.

    Finds re-encoded, rescaled, louder or quieter copies that begin up to a second earlier or
    later, by the hashes that `avprep shard` and `avprep measure` compute. Writes a table of the
    groups, a page that plays pairs side by side, and for each set a selection without the
    duplicates. Of each group one clip is kept: one of the split test if there is one, and one of
    train only if there is no other; among these, one of the set named last.

    \b
    Example:
      avprep duplicates shards/train shards/test --out duplicates/
      cavmae pretrain --shards shards/train --select duplicates/selection-train.csv --out runs/pre
    """
    with Bars("duplicates") as bars:
        found = avprep.find_duplicates(shards, target.out, options, bars)
    summary.show(facts_of(found), described(found, options))


def facts_of(found: avprep.Duplicates) -> dict[str, Any]:
    """The summary for a program."""
    return {
        "clips": found.clips,
        "groups": found.groups,
        "in_groups": found.in_groups,
        "leaks": found.leaks,
        "without_picture": found.without_picture,
        "without_sound": found.without_sound,
        "table": str(found.table),
        "page": str(found.page),
        "pairs_shown": found.shown,
        "selections": {
            str(one.path): {"clips": one.clips, "dropped": one.dropped} for one in found.selections
        },
    }


def described(found: avprep.Duplicates, options: DuplicateOptions) -> str:
    """The summary for a person."""
    what = {"both": "picture and sound", "either": "picture or sound"}.get(options.by, options.by)
    lines = [
        f"{counted(found.groups, 'group')} of near-duplicates by {what}: "
        f"{found.in_groups} of {counted(found.clips, 'clip')}"
    ]
    if found.leaks:
        lines.append(f"{counted(found.leaks, 'group')} across sets or splits")
    for count, kind in ((found.without_picture, "picture"), (found.without_sound, "sound")):
        if count and options.by in ("both", "either", kind):
            lines.append(
                f"{counted(count, 'clip')} not compared by {kind}: too little to recognise"
            )
    lines.append(f"{found.table}, {found.page} ({counted(found.shown, 'pair')})")
    lines += (f"{one.path}: {one.clips} kept, {one.dropped} left out" for one in found.selections)
    return "\n".join(lines)
