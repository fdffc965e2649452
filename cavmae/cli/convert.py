"""`cavmae convert`: checkpoints from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import criterion_option, labels_option, mode_option


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option("--vision-mae", is_flag=True, help="SRC is a vision MAE: make initial weights of it.")
@click.option(
    "--module-prefix/--no-module-prefix",
    default=True,
    show_default=True,
    help="Names in a .pth begin with module., as in published files.",
)
@click.option(
    "--audio-frames",
    type=click.IntRange(min=16),
    help="Interpolate positions for clips of this many fbank rows. [default: as SRC]",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=16),
    help="Interpolate positions for images of this many pixels. [default: as SRC]",
)
@click.option("--audio-only", is_flag=True, help="Leave the image weights of a classifier out.")
@mode_option
@criterion_option
@labels_option
def convert(src: Path, dst: Path, labels: Path | None, **values: Any) -> None:
    """Convert the checkpoint SRC to DST: published .pth to .safetensors, or back.

    The endings of the names say the formats. Every tensor must be there and fit, and nothing
    else; else an error lists the difference. A .pth stores no mode, criterion or classes: state
    those of a classifier with --mode, --criterion and --labels, and DST stores them.

    \b
    Example:
      cavmae convert audio_model.25.pth cavmae-base.safetensors
      cavmae convert vgg_65.5.pth vgg.safetensors --criterion ce --labels vggsound.csv
      cavmae convert runs/finetune finetuned.pth
      cavmae convert --vision-mae mae_pretrain_vit_base_full.pth start.safetensors
    """
    from avprep.labels import read_label_csv
    from cavmae.checkpoints import convert as conversion
    from cavmae.checkpoints.usage import warn
    from cavmae.model import CAVMAEClassifier

    options = conversion.ConvertOptions(**values)
    label_set = read_label_csv(labels) if labels is not None else None
    converted = conversion.convert(src, dst, options, label_set)
    warn(converted.notes)
    kind = "classifier" if isinstance(converted.model, CAVMAEClassifier) else "pretrained model"
    parameters = sum(value.numel() for value in converted.model.state_dict().values())
    click.echo(f"{dst}: {kind}, {parameters / 1e6:.1f} M parameters")
