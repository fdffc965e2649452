"""`avprep verify`: read a shard set again and check every byte."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from avprep.cli.options import pool_options, worker_pool
from avprep.errors import WorkFailed
from avprep.failures import printable
from avprep.shards.format import DATASET_FILE
from avprep.wording import counted

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from avprep.shards.verify import Findings, ShardCheck


@click.command()
@click.argument("shards")
@click.option("--deep", is_flag=True, help="Also decode all audio and images.")
@click.option(
    "--discard",
    is_flag=True,
    help="Delete the indexes of damaged shards, and other damaged files, so that `avprep shard` "
    "makes them again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@pool_options
def verify(shards: str, deep: bool, discard: bool, as_json: bool, **options: Any) -> None:
    """Compare every byte of the shard set SHARDS with its dataset.json and indexes.

    Finds any flipped bit, cut, missing, renamed or added shard. Ends with exit code 1 if there is
    one, and says which shards to rebuild.

    \b
    Example:
      avprep verify shards/train --deep
    """
    from avprep.progress import ProgressBar
    from avprep.shards.verify import discard_damaged, verify_shard_set

    pool = worker_pool(options)
    with ProgressBar("verify", "shard") as bar:

        def show(check: ShardCheck, total: int) -> None:
            bar.update(total=total)

        findings = verify_shard_set(shards, deep, pool, show)
    click.echo(as_document(findings) if as_json else describe(findings, shards))
    if discard:
        discard_damaged(shards, findings)
    if findings.damaged or findings.files:
        names = [*(check.name for check in findings.damaged), *findings.files]
        todo = "run" if discard else "run `avprep verify --discard` and then"
        raise WorkFailed(
            f"{shorten(names)}: {todo} the `avprep shard` command that built {shards} again; "
            f"it rebuilds just {'this' if len(names) == 1 else 'these'}."
        )
    if findings.strangers:
        raise WorkFailed(
            f"{shorten(findings.strangers)}: not part of {shards}; move away what readers of "
            "*.tar must not take for a part of it."
        )


def describe(findings: Findings, shards: str) -> str:
    """The findings for a person: a line each, and a line for all."""
    lines = [f"{check.name}: {what}" for check in findings.damaged for what in check.problems]
    lines += [f"{name}: {what}" for name, found in findings.files.items() for what in found]
    lines += [f"{name}: dataset.json does not name it" for name in findings.strangers]
    lines.append(
        f"{shards}: {counted(len(findings.checks), 'shard')}, "
        f"{counted(findings.samples, 'sample')}, "
        f"{len(findings.damaged)} damaged"
    )
    if DATASET_FILE in findings.files:
        lines.append(
            f"{DATASET_FILE} is damaged itself: `avprep shard` writes it again from the indexes; "
            "then verify again, and run `cavmae stats` again if it had been run."
        )
    return "\n".join(printable(line) for line in lines)


def as_document(findings: Findings) -> str:
    """The findings as JSON."""
    return json.dumps(
        {
            "shards": len(findings.checks),
            "samples": findings.samples,
            "damaged": {check.name: check.problems for check in findings.damaged},
            "files": dict(findings.files),
            "strangers": findings.strangers,
        }
    )


def shorten(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
