"""`avprep verify`: read a shard set again and check every byte."""

from __future__ import annotations

import json
from typing import Any

import click

from avprep.cli.options import pool_options, progress_bar
from avprep.errors import UserError, WorkFailed


@click.command()
@click.argument("shards")
@click.option("--deep", is_flag=True, help="Also decode all audio and images.")
@click.option(
    "--discard",
    is_flag=True,
    help="Delete the indexes of damaged shards, so that `avprep shard` builds those anew.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@pool_options
def verify(shards: str, deep: bool, discard: bool, as_json: bool, **options: Any) -> None:
    """Compare every byte of the shard set SHARDS with its dataset.json and indexes.

    Ends with exit code 1 if a shard is damaged, and says which.

    \b
    Example:
      avprep verify shards/train --deep
    """
    from avprep.jobs import PoolOptions
    from avprep.shards.format import read_dataset
    from avprep.shards.verify import ShardCheck, discard_shards, verify_shard_set
    from avprep.storage import is_url

    if discard and is_url(shards):
        raise UserError(f"{shards}: --discard works on local folders only.")
    pool = PoolOptions(options["workers"], options["backend"], options["address"])
    with progress_bar(len(read_dataset(shards).shards), "shard", "verify") as bar:

        def show(check: ShardCheck) -> None:
            bar.update()

        checks = verify_shard_set(shards, deep, pool, show)
    damaged = [check for check in checks if check.problems]
    samples = sum(check.samples for check in checks)
    if as_json:
        findings = {check.name: list(check.problems) for check in damaged}
        click.echo(json.dumps({"shards": len(checks), "samples": samples, "damaged": findings}))
    else:
        for check in damaged:
            click.echo("\n".join(f"{check.name}: {problem}" for problem in check.problems))
        click.echo(f"{shards}: {len(checks)} shards, {samples} samples, {len(damaged)} damaged")
    if discard:
        discard_shards(shards, checks)
    if damaged:
        names = ", ".join(check.name for check in damaged[:5]) + (", …" if damaged[5:] else "")
        todo = "run" if discard else "run `avprep verify --discard` and then"
        raise WorkFailed(
            f"{names}: {todo} the `avprep shard` command that built {shards} again; "
            "it rebuilds just these."
        )
