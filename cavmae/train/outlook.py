"""What can be told of a run before its first step: how long it is, and whether it can learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cavmae.data import Mixture, ShardSet
from cavmae.frontend.fbank import SHIFT, WINDOW
from cavmae.model import ModelConfig
from cavmae.options import Modality, modalities_of
from cavmae.train.options import FinetuneRun, Run

FEWEST_STEPS = 250  # in which random weights learned something in docs/experiments.md
_FILLED = 0.75  # of a model's rows, below which fewer are suggested
_LONGEST = 95  # percentile of the clips' lengths that is to fit


@dataclass(frozen=True)
class Outlook:
    """A run before its first step.

    Attributes:
        clips: number of clips read per epoch.
        steps_per_epoch: of the optimiser.
        steps: number of steps in all epochs.
        steps_done: by earlier calls.
        padding: share of the model's fbank rows that are padding; 0 if it takes no sound.
        fitting_rows: the --audio-frames that would fit, if the model has far too many and may
            have fewer.
        epochs_needed: for FEWEST_STEPS, if random weights are trained in fewer.
        held_out: clips that are evaluated after each epoch.
    """

    clips: int
    steps_per_epoch: int
    steps: int
    steps_done: int = 0
    padding: float = 0.0
    fitting_rows: int | None = None
    epochs_needed: int | None = None
    held_out: int = 0


def outlook(
    options: Run,
    shards: ShardSet | Mixture,
    config: ModelConfig,
    steps_per_epoch: int,
    steps_done: int,
    held_out: int,
) -> Outlook:
    """What a run will be.

    Args:
        options: of the run.
        shards: that it trains on.
        config: of its model.
        steps_per_epoch: of the optimiser.
        steps_done: by earlier calls.
        held_out: clips that are evaluated after each epoch.
    """
    steps = steps_per_epoch * options.epochs
    padding, fitting = 0.0, config.audio_frames
    if "audio" in modalities_read(options, config):
        rows = np.minimum(_rows(shards), config.audio_frames)
        padding = 1 - float(rows.mean()) / config.audio_frames
        fitting = fitting_rows(shards, config)
    is_new = options.init is None
    is_short = is_new and options.lr > 0 and steps < FEWEST_STEPS
    return Outlook(
        len(shards),
        steps_per_epoch,
        steps,
        steps_done,
        padding,
        fitting if is_new and fitting < _FILLED * config.audio_frames else None,
        math.ceil(FEWEST_STEPS / steps_per_epoch) if is_short else None,
        held_out,
    )


def modalities_read(options: Run, config: ModelConfig) -> tuple[Modality, ...]:
    """What a run needs of each clip."""
    if isinstance(options, FinetuneRun):
        return modalities_of(options.mode)
    return config.modalities


def fitting_rows(shards: ShardSet | Mixture, config: ModelConfig) -> int:
    """The fewest fbank rows, in whole patches, that hold all but the longest clips."""
    longest = np.percentile(_rows(shards), _LONGEST, method="inverted_cdf")
    patches = max(math.ceil(longest / config.patch_size), 1)
    return min(patches * config.patch_size, config.audio_frames)


def _rows(shards: ShardSet | Mixture) -> np.ndarray:
    """int64 [N]: fbank rows that each clip fills."""
    return np.maximum(1 + (shards.audio_lengths - WINDOW) // SHIFT, 0)
