"""Mean and standard deviation of a shard set's fbank, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from avprep.errors import UserError
from avprep.progress import OnProgress, Progress, ignore
from avprep.shards.format import update_dataset
from cavmae.data import LoaderOptions, ShardLoader, open_shards
from cavmae.frontend.fbank import MEL_BINS, fbank, frame_count, samples_for
from cavmae.frontend.frontend import centred
from cavmae.options import StatsOptions

_BATCH = 16


@dataclass(frozen=True)
class FbankStats:
    """What was measured.

    Attributes:
        mean: mean of all values.
        std: their standard deviation (of the population).
        samples: number of samples measured.
        unreadable: number of samples left out because they could not be read.
    """

    mean: float
    std: float
    samples: int
    unreadable: int


def stats(
    location: str | Path, options: StatsOptions | None = None, on_progress: OnProgress = ignore
) -> FbankStats:
    """Measure the fbank's mean and std over a shard set, or over a selection of its clips.

    Padding and rows after `target_length` do not count. Writes `fbank` into dataset.json, where
    training finds it.

    Args:
        location: folder or URL prefix of the set.
        options: which samples, and how they are read.
        on_progress: called with the clips that are done.

    Raises:
        UserError: no shard set there, or no clip is as long as one fbank window.
        WorkFailed: more than `max_bad_samples` samples are unreadable.
    """
    options = options or StatsOptions()
    shards = open_shards(location, options, ("audio",))
    loader = ShardLoader(
        shards,
        LoaderOptions(
            _BATCH,
            options.workers,
            shuffle=False,
            modalities=("audio",),
            longest=samples_for(options.target_length),
            max_bad_samples=options.max_bad_samples,
        ),
    )
    count, total, squares = 0, 0.0, 0.0
    samples = 0
    on_progress(Progress("clip", samples, len(shards)))
    for batch in loader.epoch():
        waveform, lengths = centred(batch)
        energies = fbank(waveform).double()
        rows = torch.arange(energies.shape[1]) < frame_count(lengths)[:, None]
        kept = energies[rows]
        count += len(kept) * MEL_BINS
        total += kept.sum().item()
        squares += kept.square().sum().item()
        samples += len(batch)
        on_progress(Progress("clip", samples, len(shards)))
    if not count:
        raise UserError(f"{location}: no clip is as long as one fbank window (25 ms).")
    mean = total / count
    deviation = (squares / count - mean**2) ** 0.5
    found = FbankStats(mean, deviation, samples, len(loader.bad_samples))
    update_dataset(
        shards.location,
        fbank={
            "mean": found.mean,
            "std": found.std,
            "samples": found.samples,
            "target_length": options.target_length,
        },
    )
    return found
