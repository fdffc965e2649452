"""`cavmae convert`: checkpoints from one format to another."""

from __future__ import annotations

from pathlib import Path

import click

import cavmae
from avprep.cli.flags import PATH, flags
from cavmae.cli.options import warn
from cavmae.options import ConvertOptions


@click.command()
@click.argument("src")
@click.argument("dst", type=PATH)
@flags(options=ConvertOptions)
def convert(src: str, dst: Path, options: ConvertOptions) -> None:
    """Convert the checkpoint SRC to DST: published .pth to .safetensors, or back.

    The suffixes determine the formats. All tensors must be present and have the right shapes;
    otherwise an error lists the differences. A .pth stores no mode, criterion or classes: for a
    classifier give --mode, --criterion and --labels, and DST stores them.

    \b
    Example:
      cavmae convert audio_model.25.pth cavmae-base.safetensors
      cavmae convert vgg_65.5.pth vgg.safetensors --criterion ce --labels vggsound.csv
      cavmae convert runs/finetune finetuned.pth
      cavmae convert --vision-mae mae_pretrain_vit_base_full.pth start.safetensors
    """
    from cavmae.model import CAVMAEClassifier

    converted = cavmae.convert(src, dst, options)
    warn(*converted.notes)
    kind = "classifier" if isinstance(converted.model, CAVMAEClassifier) else "pretrained model"
    parameters = sum(value.numel() for value in converted.model.state_dict().values())
    click.echo(f"{converted.file}: {kind}, {parameters / 1e6:.1f} M parameters")
