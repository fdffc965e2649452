"""`cavmae export`: a classifier as one program, with the front end inside."""

from __future__ import annotations

from pathlib import Path

import click

import cavmae
from avprep.cli.flags import PATH, flags
from cavmae.cli.options import warn
from cavmae.evaluation.options import ExportOptions


@click.command()
@click.argument("checkpoint")
@click.argument("dst", type=PATH)
@flags(options=ExportOptions)
def export(checkpoint: str, dst: Path, options: ExportOptions) -> None:
    """Export the classifier CHECKPOINT to DST (.pt2), to run without this project.

    The program takes waveforms, their lengths and RGB frames, and gives logits. It is compared
    with the model before it is written.

    \b
    Example:
      cavmae export runs/finetune classifier.pt2
      python -c "import torch; print(torch.export.load('classifier.pt2').graph_signature)"
    """
    result = cavmae.export(checkpoint, dst, options, warn)
    click.echo(
        f"{result.file}: {', '.join(result.inputs)} → {result.classes} logits; differs from the "
        f"model by {result.largest_difference:.1g} at most"
    )
