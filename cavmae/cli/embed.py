"""`cavmae embed`: features of every clip, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import (
    bad_samples_option,
    device_option,
    reading_options,
    workers_option,
)


@click.command()
@click.option("--shards", required=True, help="Folder or URL of the shard set.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Run or checkpoint file."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file: .safetensors or .npz.",
)
@click.option(
    "--modality",
    type=click.Choice(["both", "audio", "image"]),
    default="both",
    show_default=True,
    help="Whose features; each modality passes the model alone.",
)
@click.option(
    "--tokens",
    type=click.Choice(["pooled", "patches"]),
    default="pooled",
    show_default=True,
    help="The mean over a clip's patches, or the feature of each patch.",
)
@click.option(
    "--frames",
    default="middle",
    show_default=True,
    help="middle, all (their features are averaged), or a frame's number.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the stored features.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True,
              help="Clips a batch.")  # fmt: skip
@reading_options
@bad_samples_option
@workers_option
@device_option
def embed(**values: Any) -> None:
    """Compute the features of every clip of a shard set.

    Nothing is masked. After an interruption the same command resumes where it
    was; the file appears when it is whole.

    \b
    Example:
      cavmae embed --shards shards/test --checkpoint runs/pretrain --out test.safetensors
      torchrun --standalone --nproc-per-node 8 -m cavmae embed --shards shards/train \\
          --checkpoint runs/pretrain --out train.npz --modality audio
    """
    from cavmae.evaluation.embed import run_embedding

    run_embedding(values)
