"""`cavmae stats`: mean and standard deviation of a shard set's fbank."""

from __future__ import annotations

from typing import Any

import click

from cavmae.cli.options import bad_samples_option, reading_options, workers_option


@click.command()
@click.argument("shards")
@click.option(
    "--target-length",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="fbank rows of a clip that count; padding never does.",
)
@reading_options
@workers_option
@bad_samples_option
def stats(
    shards: str, target_length: int, workers: int, max_bad_samples: int, **reading: Any
) -> None:
    """Measure the fbank's mean and standard deviation over SHARDS.

    Writes them into SHARDS/dataset.json, from where training takes them. Those of a selection stand
    for the whole set there: select what is trained on.

    \b
    Example:
      cavmae stats shards/train
      cavmae stats shards/all --split train
    """
    from cavmae.data import open_shards
    from cavmae.frontend.stats import measure_stats

    chosen = open_shards(shards, reading)
    mean, std, samples = measure_stats(chosen, target_length, workers, max_bad_samples)
    click.echo(f"{shards}: fbank mean {mean:.4f}, std {std:.4f} over {samples} samples")
