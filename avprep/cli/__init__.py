"""The `avprep` command: a table of commands, each imported only when used."""

from __future__ import annotations

import click

from avprep.cli.lazy import LazyCommand, LazyGroup, run_group

COMMANDS = {
    "extract": LazyCommand("avprep.cli.extract:extract", "Videos → 16 kHz WAV and 10 JPEG frames."),
    "manifest": LazyCommand("avprep.cli.manifest:manifest", "Build, check and change manifests."),
    "labels": LazyCommand("avprep.cli.labels:labels", "Make, check and download class CSVs."),
    "weights": LazyCommand(
        "avprep.cli.weights:weights", "Sampling weights of a manifest's clips, for balanced epochs."
    ),
    "shard": LazyCommand("avprep.cli.shard:shard", "Pack a manifest into WebDataset shards."),
    "index": LazyCommand("avprep.cli.index:index", "Make a shard set from tars of other programs."),
    "status": LazyCommand("avprep.cli.status:status", "Show the progress of a build."),
    "verify": LazyCommand("avprep.cli.verify:verify", "Check every byte of a shard set."),
    "report": LazyCommand("avprep.cli.report:report", "Show a shard set on one HTML page."),
    "measure": LazyCommand("avprep.cli.measure:measure", "Measure the clips of a shard set."),
    "filter": LazyCommand("avprep.cli.filter:filter_", "Select clips by what was measured."),
    "duplicates": LazyCommand(
        "avprep.cli.duplicates:duplicates", "Find near-duplicates inside and between shard sets."
    ),
    "demo-data": LazyCommand("avprep.cli.demo:demo_data", "Make a small labelled video set."),
}


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"max_content_width": 100})
@click.version_option(package_name="avprep-cavmae", prog_name="avprep")
def group() -> None:
    """From a folder of videos to WebDataset shards.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
      avprep shard manifest.json --out shards/
    """


def main() -> None:
    """Entry point of the `avprep` command."""
    run_group(group, "avprep")
