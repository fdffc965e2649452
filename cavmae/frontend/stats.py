"""Mean and standard deviation of a shard set's fbank, in one pass."""

from __future__ import annotations

import torch

from avprep.cli.progress import ProgressBar
from avprep.errors import UserError
from avprep.shards.format import update_dataset
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.frontend.fbank import MEL_BINS, fbank, frame_count, samples_for
from cavmae.frontend.frontend import centred

_BATCH = 16


def measure_stats(
    shards: ShardSet, target_length: int, workers: int, max_bad_samples: int
) -> tuple[float, float, int]:
    """Measure and write `fbank` into dataset.json.

    Only real frames count: neither padding nor what a model of `target_length` rows would cut.

    Args:
        shards: a shard set, or the selection from it that stands for the whole.
        target_length: rows of a model's fbank.
        workers: loading processes.
        max_bad_samples: unreadable samples that are left out.

    Returns:
        mean, standard deviation (of the population), samples.

    Raises:
        UserError: no clip is as long as one fbank window.
        WorkFailed: more than `max_bad_samples` samples are unreadable.
    """
    options = LoaderOptions(
        _BATCH,
        workers,
        shuffle=False,
        frame="middle",
        longest=samples_for(target_length),
        max_bad_samples=max_bad_samples,
    )
    loader = ShardLoader(shards, options)
    count, total, squares = 0, 0.0, 0.0
    samples = 0
    with ProgressBar("stats", "clip", len(shards)) as bar:
        for batch in loader.epoch():
            waveform, lengths = centred(batch)
            energies = fbank(waveform).double()
            rows = torch.arange(energies.shape[1]) < frame_count(lengths)[:, None]
            kept = energies[rows]
            count += len(kept) * MEL_BINS
            total += kept.sum().item()
            squares += kept.square().sum().item()
            samples += len(batch)
            bar.update(len(batch))
    if not count:
        raise UserError(f"{shards.location}: no clip is as long as one fbank window (25 ms).")
    mean = total / count
    std = (squares / count - mean**2) ** 0.5
    update_dataset(
        shards.location,
        fbank={"mean": mean, "std": std, "samples": samples, "target_length": target_length},
    )
    return mean, std, samples
