"""`cavmae inpaint`: pictures of what a pretrained model fills in."""

from __future__ import annotations

import click

import cavmae
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.wording import lacking_words
from cavmae.evaluation.options import InpaintOptions


@click.command()
@flags(options=InpaintOptions)
def inpaint(options: InpaintOptions) -> None:
    """Hide patches of clips, let the model fill them in, and draw both.

    One PNG per clip: original, masked and reconstructed, image and spectrogram.

    \b
    Example:
      cavmae inpaint --shards shards/test --checkpoint runs/pretrain --out runs/inpaint
    """
    with Bars("inpaint") as bars:
        result = cavmae.inpaint(options, bars)
    for clip in result.clips:
        losses = {"audio": clip.loss_audio, "image": clip.loss_image}
        shown = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items() if loss is not None)
        click.echo(f"{result.folder / clip.file}   loss: {shown}")
    if result.clips_lacking:
        click.echo(lacking_words(result.clips_lacking))
    if result.norm_pix_loss:
        click.echo(
            "The model predicts patches without their mean and contrast (norm_pix_loss); these "
            "are taken from the original."
        )
