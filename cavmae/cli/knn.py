"""`cavmae knn`: how well a clip's nearest neighbours tell its labels."""

from __future__ import annotations

from typing import Any

import click

import cavmae
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from cavmae.cli.results import OneLine, left_out
from cavmae.evaluation.options import KnnOptions


@click.command()
@flags(options=KnnOptions, printed=OneLine)
def knn(options: KnnOptions, printed: OneLine) -> None:
    """Accuracy, mAP and AUC of a nearest-neighbour classifier on a model's features.

    Nothing is trained: a quick look at what a pretrained model has learned. --classes chooses clips
    of both sets, --split those of --shards and --val-split those of --val-shards.

    \b
    Example:
      cavmae knn --shards shards/train --val-shards shards/test --checkpoint runs/pretrain
    """
    with Bars("knn") as bars:
        result = cavmae.knn(options, bars)
    printed.show(facts_of(result, options), described(result, options))


def facts_of(result: cavmae.KnnResult, options: KnnOptions) -> dict[str, Any]:
    """The result for a program."""
    return {
        "accuracy": result.scores.accuracy,
        "map": result.scores.map,
        "auc": result.scores.auc,
        "clips": result.clips,
        "known_clips": result.known_clips,
        "clips_unreadable": result.clips_unreadable,
        "clips_lacking": result.clips_lacking,
        "leave_one_out": result.leave_one_out,
        "modality": options.modality,
        "neighbours": options.neighbours,
        "temperature": options.temperature,
        "frames": options.frames,
        "checkpoint": str(result.checkpoint),
    }


def described(result: cavmae.KnnResult, options: KnnOptions) -> str:
    """The result for a person."""
    scores = result.scores
    how = "each by all others" if result.leave_one_out else f"by {result.known_clips} others"
    rest = "".join(f"\n{line}" for line in left_out(result.clips_unreadable, result.clips_lacking))
    return (
        f"accuracy {scores.accuracy:.4f}   mAP {scores.map:.4f}   AUC {scores.auc:.4f}\n"
        f"{result.clips} clips, {how}, {options.neighbours} neighbours, features: "
        f"{options.modality}, {result.checkpoint}{rest}"
    )
