"""`avprep manifest`: the table of its commands."""

from __future__ import annotations

import click

from avprep.cli.lazy import LazyCommand, LazyGroup

_BUILD, _EDIT = "avprep.cli.manifest_build", "avprep.cli.manifest_edit"
COMMANDS = {
    "folder": LazyCommand(f"{_BUILD}:folder", "From a folder: sub-folders or a CSV are classes."),
    "audioset": LazyCommand(f"{_BUILD}:audioset", "From AudioSet's segment CSVs and videos."),
    "vggsound": LazyCommand(f"{_BUILD}:vggsound", "From VGGSound's CSV and videos."),
    "vggsounder": LazyCommand(f"{_BUILD}:vggsounder", "From VGGSounder's CSV and videos."),
    "check": LazyCommand(
        "avprep.cli.manifest_check:check", "Check labels, files and duplicates; count classes."
    ),
    "convert": LazyCommand(f"{_EDIT}:convert", "Between .json, .jsonl, .csv, .parquet; new roots."),
    "merge": LazyCommand(f"{_EDIT}:merge", "Several manifests into one."),
    "split": LazyCommand(f"{_EDIT}:split", "Into train, test …, with the same shares of classes."),
    "select": LazyCommand(f"{_EDIT}:select", "Keep the clips that a selection names."),
    "sample": LazyCommand(f"{_EDIT}:sample", "Take a fixed number of clips of every class."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def manifest() -> None:
    """Build, check and change manifests: the lists of clips and labels `avprep shard` packs.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
      avprep manifest check manifest.json
    """
