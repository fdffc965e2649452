"""`cavmae probe`: what the features of several models know, in one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

import cavmae
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.wording import counted
from cavmae.cli.results import OneLine, left_out
from cavmae.evaluation.options import ProbeOptions

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from cavmae.evaluation.metrics import Scores
    from cavmae.evaluation.probe import Probed


@click.command()
@click.argument("checkpoints", metavar="CHECKPOINT…", nargs=-1, required=True)
@flags(options=ProbeOptions, printed=OneLine)
def probe(checkpoints: tuple[str, ...], options: ProbeOptions, printed: OneLine) -> None:
    """A linear classifier and nearest neighbours on the features of each CHECKPOINT.

    For comparison, the table also has random weights of the same size.

    \b
    Example:
      cavmae probe runs/a runs/b --shards shards/train --val-shards shards/test
    """
    with Bars("probe") as bars:
        result = cavmae.probe(checkpoints, options, bars)
    printed.show(facts_of(result, options), "\n".join(described(result, options)))


def facts_of(result: cavmae.ProbeResult, options: ProbeOptions) -> dict[str, Any]:
    """The result for a program."""
    return {
        "models": [
            {
                "checkpoint": str(row.checkpoint),
                "random": row.is_random,
                "label_split": row.label_split,
                "known_clips": row.known_clips,
                "linear": _figures(row.linear),
                "neighbours": _figures(row.neighbours),
            }
            for row in result.rows
        ],
        "multi_label": result.is_multi_label,
        "clips": result.clips,
        "known_clips": result.known_clips,
        "clips_unreadable": result.clips_unreadable,
        "clips_lacking": result.clips_lacking,
        "modality": options.modality,
        "frames": options.frames,
        "neighbours": options.neighbours,
        "temperature": options.temperature,
        "penalty": options.penalty,
    }


def _figures(scores: Scores) -> dict[str, float]:
    return {name: getattr(scores, name) for name in ("accuracy", "map", "auc")}


def described(result: cavmae.ProbeResult, options: ProbeOptions) -> Iterator[str]:
    """The result for a person."""
    width = max(len(_name(row)) for row in result.rows) + 2
    yield f"{'':{width}}{'linear probe':20}nearest neighbours"
    yield f"{'':{width}}{'accuracy':>8}{'mAP':>8}    {'accuracy':>8}{'mAP':>8}"
    for row in result.rows:
        linear, votes = row.linear, row.neighbours
        yield (
            f"{_name(row):{width}}{linear.accuracy:8.4f}{linear.map:8.4f}    "
            f"{votes.accuracy:8.4f}{votes.map:8.4f}"
        )
    kind = "several labels per clip: mAP counts" if result.is_multi_label else "one label per clip"
    yield (
        f"{result.clips} clips by {result.known_clips} others ({kind}), features: "
        f"{options.modality}"
    )
    yield from left_out(result.clips_unreadable, result.clips_lacking)


def _name(row: Probed) -> str:
    if row.label_split is not None:
        return f"  labels of {row.label_split} only ({counted(row.known_clips, 'clip')})"
    return f"random start of {row.checkpoint}" if row.is_random else str(row.checkpoint)
