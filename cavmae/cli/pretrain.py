"""`cavmae pretrain`: train CAV-MAE on a shard set."""

from __future__ import annotations

import click

from avprep.cli.flags import flags
from cavmae.cli.options import RecipeCommand, Rehearsal
from cavmae.train.options import PretrainRun


@click.command(cls=RecipeCommand)
@flags(options=PretrainRun, rehearsal=Rehearsal)
def pretrain(options: PretrainRun, rehearsal: Rehearsal) -> None:
    """Train CAV-MAE: reconstruct masked patches, and match sounds with images. --objective trains a
    system that the paper compares it with.

    Writes RUN/model.safetensors, log.csv, curves.png, result.json, TensorBoard events and
    checkpoints. After an interruption the same command resumes where it was. With --val-shards
    they also show losses, retrieval and k-NN accuracy on clips that are not trained on. --classes
    chooses clips of both sets.

    \b
    Example:
      cavmae pretrain --shards shards/train --out runs/pretrain --model base
      torchrun --standalone --nproc-per-node 8 -m cavmae pretrain \\
          --shards shards/train --out runs/pretrain
    """
    from cavmae.cli.training import train_or_rehearse

    train_or_rehearse(options, rehearsal)
