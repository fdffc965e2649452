"""`cavmae eval`: how good a classifier is on a shard set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

import cavmae
from avprep.cli.flags import flags
from avprep.wording import lacking_words
from cavmae.cli.options import RecipeCommand, is_from_recipe, warn
from cavmae.cli.results import OneLine
from cavmae.evaluation.options import EvaluateOptions
from cavmae.options import StatedUsage

if TYPE_CHECKING:  # imported for real inside the command, to keep --help quick
    from cavmae.evaluation.evaluate import EvaluateResult
    from cavmae.evaluation.metrics import Scores


@click.command("eval", cls=RecipeCommand)
@flags(options=EvaluateOptions, printed=OneLine)
def evaluate(options: EvaluateOptions, printed: OneLine) -> None:
    """Accuracy, mAP, AUC and d′ of a classifier.

    Under torchrun the clips are shared among the processes, each read once.

    \b
    Example:
      cavmae eval --shards shards/test --checkpoint runs/finetune
    """
    from avprep.cli.progress import Bars

    recipe = StatedUsage()  # counts where the checkpoint says nothing; a flag counts always
    if is_from_recipe("mode"):
        recipe, options = replace(recipe, mode=options.mode), replace(options, mode=None)
    if is_from_recipe("criterion"):
        recipe = replace(recipe, criterion=options.criterion)
        options = replace(options, criterion=None)
    with Bars("eval") as bars:
        result = cavmae.evaluate(options, recipe, bars, warn)
    printed.show(facts_of(result), "\n".join(described(result)))


def facts_of(result: EvaluateResult) -> dict[str, Any]:
    """The result for a program."""
    facts: dict[str, Any] = {
        **_measures(result.scores),
        "clips": result.clips,
        "clips_selected": result.clips_selected,
        "clips_unreadable": result.clips_unreadable,
        "clips_lacking": result.clips_lacking,
        "clips_in_manifest": result.clips_in_manifest,
        "clips_never_sharded": result.clips_never_sharded,
        "classes": len(result.labels),
        "classes_without_positives": result.scores.left_out,
        "mode": result.mode,
        "criterion": result.criterion,
        "frames": result.frames,
        "fbank_mean": result.fbank_mean,
        "fbank_std": result.fbank_std,
        "checkpoint": str(result.checkpoint),
        "warnings": result.notes,
    }
    if result.each_frame:
        facts["each_frame"] = [_measures(one) for one in result.each_frame]
    return facts


def _measures(scores: Scores) -> dict[str, float]:
    return {name: getattr(scores, name) for name in ("accuracy", "map", "auc", "d_prime")}


def described(result: EvaluateResult) -> Iterator[str]:
    """The result for a person: the figures, and on what they stand."""
    for number, one in enumerate(result.each_frame):
        yield f"frame {number}   {_figures(one)}"
    yield f"{'together  ' if result.each_frame else ''}{_figures(result.scores)}"
    clips = f"{result.clips} of {result.clips_selected} clips"
    if result.clips_unreadable:
        clips += f" ({result.clips_unreadable} unreadable)"
    if result.clips_lacking:
        clips += f"; {lacking_words(result.clips_lacking)}"
    if result.clips_never_sharded:
        clips += (
            f"; {result.clips_never_sharded} of the manifest's {result.clips_in_manifest} "
            "clips could not be decoded and are in no shard"
        )
    how = (
        f"{clips}. Mode {result.mode}, frames {result.frames}, fbank mean "
        f"{result.fbank_mean:.3f} std {result.fbank_std:.3f}, criterion {result.criterion}."
    )
    if empty := result.scores.left_out:
        how += (
            f" {empty} of {len(result.labels)} classes have no clip and are left out of the means."
        )
    yield how
    yield str(result.checkpoint)


def _figures(scores: Scores) -> str:
    return (
        f"accuracy {scores.accuracy:.4f}   mAP {scores.map:.4f}   AUC {scores.auc:.4f}   "
        f"d' {scores.d_prime:.3f}"
    )
