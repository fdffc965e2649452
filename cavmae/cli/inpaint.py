"""`cavmae inpaint`: pictures of what a pretrained model fills in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import device_option, reading_options


@click.command()
@click.option("--shards", required=True, help="Folder or URL of the shard set.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Pretrained run or file."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the PNGs.")
@click.option("--clips", type=click.IntRange(min=1), default=8, show_default=True,
              help="How many clips, the first of those selected.")  # fmt: skip
@click.option("--video-id", multiple=True, help="A clip by its name, in place of --clips; repeat.")
@click.option(
    "--mask-ratio",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.75,
    show_default=True,
    help="Share of patches hidden.",
)
@click.option(
    "--mask-mode",
    type=click.Choice(["unstructured", "time", "freq", "tf"]),
    default="unstructured",
    show_default=True,
    help="How audio patches are chosen.",
)
@click.option("--seed", type=int, default=0, show_default=True,
              help="Seed of the mask, which is the same for every clip.")  # fmt: skip
@click.option("--frame", default="middle", show_default=True, help="middle, or a frame's number.")
@click.option(
    "--norm-pix-loss/--no-norm-pix-loss",
    default=None,
    help="Whether the model predicts normalised patches. [default: as stored in the checkpoint]",
)
@reading_options
@device_option
def inpaint(**values: Any) -> None:
    """Hide patches of clips, let the model fill them in, and draw both.

    One PNG a clip: original, masked and reconstructed, image and spectrogram.

    \b
    Example:
      cavmae inpaint --shards shards/test --checkpoint runs/pretrain --out runs/inpaint
    """
    from cavmae.evaluation.inpaint import run_inpainting

    run_inpainting(values)
