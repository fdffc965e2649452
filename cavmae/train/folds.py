"""Cross-validation: a classifier per fold, trained on the others and evaluated on it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from avprep import storage
from avprep.errors import UserError
from avprep.retries import with_retries
from avprep.shards.format import sample_key
from cavmae.data import open_shards
from cavmae.distributed import joined_world
from cavmae.evaluation.metrics import finite
from cavmae.train.events import Note, OnEvent, ignore
from cavmae.train.options import FinetuneRun, FoldsRun
from cavmae.train.records import written_together
from cavmae.train.runs import FinetuneResult, finetune

_MEASURES = ("accuracy", "map", "auc")


@dataclass(frozen=True)
class FoldsResult:
    """The results of all folds.

    Attributes:
        folder: path or URL with a run directory per fold, and folds.json.
        folds: each fold's run, by the fold's name; its `validation` is the fold's evaluation, by
            the weights of the last epoch.
    """

    folder: str
    folds: Mapping[str, FinetuneResult]

    def values(self, measure: str) -> list[float]:
        """A measure of each fold, in order."""
        return [result.validation[measure] for result in self.folds.values()]

    def facts(self) -> dict[str, Any]:
        """What folds.json says; the deviation is that of a sample, over n - 1."""
        return {
            "folds": {
                name: {measure: result.validation[measure] for measure in _MEASURES}
                for name, result in self.folds.items()
            },
            "mean": {one: statistics.fmean(self.values(one)) for one in _MEASURES},
            "deviation": {one: statistics.stdev(self.values(one)) for one in _MEASURES},
        }


def folds(options: FoldsRun, on_event: OnEvent = ignore) -> FoldsResult:
    """Finetune and evaluate once per fold, or resume after an interruption.

    Folds are the splits of the shard set. Under torchrun all ranks call this together, and all get
    the result.

    Args:
        options: of all runs.
        on_event: called with the runs' events, on the main rank.

    Raises:
        UserError: fewer than two folds, or what `finetune` raises.
        WorkFailed, KeyboardInterrupt: as `finetune` raises them; finished folds are kept.
    """
    names = fold_names(options)
    found: dict[str, FinetuneResult] = {}
    with joined_world(options.device, options.batch_size) as world:
        for number, name in enumerate(names, 1):
            if world.is_main:
                on_event(Note(f"fold {name}, {number} of {len(names)}"))
            found[name] = finetune(run_of(options, name, names), on_event)
        result = FoldsResult(options.out, found)
        with written_together(world, options.out):
            if world.is_main:
                path, facts = storage.join(options.out, "folds.json"), finite(result.facts())
                tries = options.retries if storage.is_url(path) else 0
                with_retries(lambda: storage.write_json(path, facts), tries)
    return result


def fold_names(options: FoldsRun) -> list[str]:
    """The folds of the selected clips, in order: numbers by their value.

    Raises:
        UserError: there are fewer than two.
    """
    shards = open_shards(options.shards, options, ())
    names = sorted(shards.splits, key=lambda name: (len(name), name))
    if len(names) < 2:
        has = f"only {names[0]!r}" if names else "none"
        raise UserError(
            f"{options.shards}: the folds are its splits, but it has {has}. Make its manifest from "
            "a CSV with a column fold or split: `avprep manifest folder DIR --csv CSV`."
        )
    return names


def run_of(options: FoldsRun, fold: str, names: list[str]) -> FinetuneRun:
    """The run that is evaluated on a fold."""
    others = tuple(name for name in names if name != fold)
    shared: dict[str, Any] = {field.name: getattr(options, field.name) for field in fields(options)}
    own: dict[str, Any] = {
        "splits": others,
        "val_shards": options.shards,
        "val_splits": (fold,),
        "val_select": options.select,
        "out": storage.join(options.out, f"fold-{sample_key(fold)}"),
    }
    return FinetuneRun(**{**shared, **own})
