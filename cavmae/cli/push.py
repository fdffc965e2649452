"""`cavmae push`: a trained model to the Hugging Face hub."""

from __future__ import annotations

import click

import cavmae
from avprep.cli.flags import flags
from cavmae.options import PushOptions


@click.command()
@click.argument("checkpoint")
@click.argument("repository", metavar="ORG/NAME")
@flags(options=PushOptions)
def push(checkpoint: str, repository: str, options: PushOptions) -> None:
    """Push CHECKPOINT, a run or a file, to the repository ORG/NAME on the Hugging Face hub.

    Also pushes a model card with the run's recipe, data and figures, and the model's inputs and
    classes. Log in first with `hf auth login`, or set HF_TOKEN. Afterwards every command takes the
    model as hf://ORG/NAME.

    \b
    Example:
      cavmae push runs/finetune me/birds --license cc-by-4.0 --dry-run card/
      cavmae push runs/finetune me/birds --license cc-by-4.0
      cavmae predict --checkpoint hf://me/birds holiday.mp4
    """
    pushed = cavmae.push(checkpoint, repository, options)
    click.echo(f"{pushed.file} → {pushed.where}")
