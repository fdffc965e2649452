"""`cavmae export`: a classifier as one program, with the front end inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import criterion_option, labels_option
from cavmae.options import MODES


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@click.option(
    "--mode",
    type=click.Choice(MODES),
    help="Modalities the program is given. [default: as trained]",
)
@criterion_option
@labels_option
@click.option(
    "--waveform",
    type=click.Choice(["int16", "float32"]),
    default="int16",
    show_default=True,
    help="Type of the samples; float32 is in [-1, 1].",
)
def export(**values: Any) -> None:
    """Export the classifier CHECKPOINT to DST (.pt2), to run without this project.

    The program takes waveforms, their lengths and RGB frames, and gives logits. It is compared
    with the model before it is written.

    \b
    Example:
      cavmae export runs/finetune classifier.pt2
      python -c "import torch; print(torch.export.load('classifier.pt2').graph_signature)"
    """
    from cavmae.evaluation.export import run_export

    run_export(values)
