"""`avprep verify`: read a shard set again and check every byte."""

from __future__ import annotations

from typing import Any

import click

import avprep
from avprep.cli.common import Summary, lacking_line
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.errors import WorkFailed
from avprep.failures import printable
from avprep.options import PoolOptions, VerifyOptions
from avprep.shards.format import DATASET_FILE
from avprep.wording import counted, first_of


@click.command()
@click.argument("shards")
@flags(options=VerifyOptions, summary=Summary, pool=PoolOptions)
def verify(shards: str, options: VerifyOptions, summary: Summary, pool: PoolOptions) -> None:
    """Compare every byte of the shard set SHARDS with its dataset.json and indexes.

    Finds any flipped bit, cut, missing, renamed or added shard. Ends with exit code 1 if there is
    one, and says which shards to rebuild.

    \b
    Example:
      avprep verify shards/train --deep
    """
    with Bars("verify") as bars:
        findings = avprep.verify(shards, options, pool, bars)
    summary.show(facts_of(findings), describe(findings, shards))
    refuse_damage(findings, shards, options.discard)


def refuse_damage(findings: avprep.Findings, shards: str, is_discarded: bool) -> None:
    """Raises:
    WorkFailed: something is damaged, or does not belong to the shard set.
    """
    if findings.damaged or findings.files:
        names = [*(check.name for check in findings.damaged), *findings.files]
        todo = "run" if is_discarded else "run `avprep verify --discard` and then"
        raise WorkFailed(
            f"{first_of(names)}: {todo} the `avprep shard` command that built {shards} again; "
            f"it rebuilds just {'this' if len(names) == 1 else 'these'}."
        )
    if findings.strangers:
        raise WorkFailed(
            f"{first_of(findings.strangers)}: not part of {shards}. Move it away, or "
            "programs that read *.tar will take it for a part of the set."
        )


def describe(findings: avprep.Findings, shards: str) -> str:
    """The findings for a person: a line each, and a line for all."""
    lines = [f"{check.name}: {what}" for check in findings.damaged for what in check.problems]
    lines += [f"{name}: {what}" for name, found in findings.files.items() for what in found]
    lines += [f"{name}: dataset.json does not name it" for name in findings.strangers]
    lines.append(
        f"{shards}: {counted(len(findings.checks), 'shard')}, "
        f"{counted(findings.samples, 'sample')}, "
        f"{len(findings.damaged)} damaged"
    )
    if lacking := lacking_line(findings.samples, findings.modalities):
        lines.append(lacking)
    if DATASET_FILE in findings.files:
        lines.append(
            f"{DATASET_FILE} is damaged itself: `avprep shard` writes it again from the indexes; "
            "then verify again, and run `cavmae stats` again if it had been run."
        )
    return "\n".join(printable(line) for line in lines)


def facts_of(findings: avprep.Findings) -> dict[str, Any]:
    """The findings for a program."""
    return {
        "shards": len(findings.checks),
        "samples": findings.samples,
        "modalities": findings.modalities,
        "damaged": {check.name: check.problems for check in findings.damaged},
        "files": dict(findings.files),
        "strangers": findings.strangers,
    }
