"""`cavmae finetune`: train a classifier on a shard set."""

from __future__ import annotations

import click

from avprep.cli.flags import flags
from cavmae.cli.options import RecipeCommand, Rehearsal
from cavmae.train.options import FinetuneRun


@click.command(cls=RecipeCommand)
@flags(options=FinetuneRun, rehearsal=Rehearsal)
def finetune(options: FinetuneRun, rehearsal: Rehearsal) -> None:
    """Train a classifier on audio and frames, starting from a pretrained CAV-MAE.

    Evaluates on the middle frame after each epoch and keeps the best weights as
    RUN/best.safetensors. --classes and --split choose training clips; --classes also those of
    --val-shards.

    \b
    Example:
      cavmae finetune --shards shards/train --val-shards shards/test \\
          --init runs/pretrain --out runs/finetune
    """
    from cavmae.cli.training import train_or_rehearse

    train_or_rehearse(options, rehearsal)
