"""`cavmae embed`: features of every clip, in one file."""

from __future__ import annotations

import click

import cavmae
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.wording import counted, lacking_words
from cavmae.evaluation.options import EmbedOptions


@click.command()
@flags(options=EmbedOptions)
def embed(options: EmbedOptions) -> None:
    """Compute the features of every clip of a shard set.

    Nothing is masked. After an interruption the same command resumes where it
    was; the file appears when it is complete.

    \b
    Example:
      cavmae embed --shards shards/test --checkpoint runs/pretrain --out test.safetensors
      torchrun --standalone --nproc-per-node 8 -m cavmae embed --shards shards/train \\
          --checkpoint runs/pretrain --out train.npz --modality audio
    """
    from cavmae.distributed import is_main_process

    with Bars("embed") as bars:
        result = cavmae.embed(options, bars)
    if not is_main_process():
        return
    if result.was_complete:
        click.echo(f"{result.file}: complete already")
        return
    unreadable = result.clips_unreadable
    note = f", {counted(unreadable, 'clip')} could not be read" if unreadable else ""
    note += f", {lacking_words(result.clips_lacking)}" if result.clips_lacking else ""
    click.echo(f"{result.file}: {counted(result.clips, 'clip')}{note}")
