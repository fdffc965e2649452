"""`cavmae folds`: finetune and evaluate over the folds of a shard set."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import click

import cavmae
from avprep.cli.flags import flags
from cavmae.cli.options import RecipeCommand, expected_of_recipe
from cavmae.cli.results import OneLine
from cavmae.train.options import FoldsRun


@click.command(cls=RecipeCommand)
@flags(options=FoldsRun, printed=OneLine)
def folds(options: FoldsRun, printed: OneLine) -> None:
    """For each fold, finetune a classifier on the other folds and evaluate it on that one.

    The folds are the splits that the clips have in the manifest; --split chooses some of them.
    Prints mean and standard deviation over the folds, of the weights after the last epoch. Run the
    same command again after an interruption and it does what is missing. --config takes the table
    of `finetune`.

    \b
    Example:
      cavmae folds --shards shards/esc50 --mode audioonly --init runs/pretrain --out runs/esc50
    """
    from cavmae.cli.training import Screen

    out = sys.stderr if printed.as_json else sys.stdout
    with Screen(expected_of_recipe(), out) as screen:
        result = cavmae.folds(options, screen)
    printed.show({"out": str(result.folder), **result.facts()}, "\n".join(described(result)))


def described(result: cavmae.FoldsResult) -> Iterator[str]:
    """The result for a person: a line per fold, and one for all."""
    facts = result.facts()
    mean, deviation = facts["mean"], facts["deviation"]
    for name, measured in facts["folds"].items():
        yield _line(f"fold {name}", {one: f"{value:.4f}" for one, value in measured.items()})
    yield _line("mean", {one: f"{mean[one]:.4f} ± {deviation[one]:.4f}" for one in mean})
    yield f"{result.folder}: folds.json, and a run directory per fold"


def _line(title: str, figures: Mapping[str, str]) -> str:
    titles = {"accuracy": "accuracy", "map": "mAP", "auc": "AUC"}
    return "   ".join([title, *(f"{titles[one]} {text}" for one, text in figures.items())])
