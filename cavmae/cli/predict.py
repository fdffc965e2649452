"""`cavmae predict`: the most probable labels of video files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from avprep.options import DecodeOptions, IsolationOptions
from cavmae.cli.options import criterion_option, device_option, labels_option
from cavmae.options import MODES

_DECODE, _LIMITS = DecodeOptions(), IsolationOptions()


@click.command()
@click.argument("videos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Run or checkpoint file."
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True,
              help="Labels a file.")  # fmt: skip
@labels_option
@click.option(
    "--mode",
    type=click.Choice(MODES),
    help="Modalities to use. [default: as trained, less what a file does not have]",
)
@criterion_option
@click.option(
    "--frames",
    default="all",
    show_default=True,
    help="all (their probabilities are averaged), middle, or a frame's number.",
)
@click.option("--start", type=click.FloatRange(min=0), help="First second to look at.")
@click.option("--end", type=click.FloatRange(min=0, min_open=True), help="Second to stop at.")
@click.option(
    "--channels",
    type=click.Choice(["first", "mix"]),
    default=_DECODE.channels,
    show_default=True,
    help="Mono from the first channel, as published, or from all of them.",
)
@click.option(
    "--decoder",
    type=click.Choice(["auto", "pyav", "ffmpeg"]),
    default=_DECODE.decoder,
    show_default=True,
    help="auto: PyAV, and ffmpeg + OpenCV for files that PyAV cannot read.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=_LIMITS.time_limit,
    show_default=True,
    help="Seconds that decoding one file may take.",
)
@click.option(
    "--memory-limit",
    type=click.FloatRange(min=0.25),
    default=_LIMITS.memory_limit,
    show_default=True,
    help="GiB that decoding one file may take.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Files decoded at a time.",
)
@click.option("--max-failures", help="End with exit code 1 above this many (20) or share (5%).")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON a file.")
@device_option
def predict(**values: Any) -> None:
    """The most probable labels of each of VIDEOS, which are files or folders.

    A file without video, or without audio, is classified by what it has. A file that cannot be
    decoded is listed with its cause; the exit code is 1 when that is every file, or more than
    --max-failures.

    \b
    Example:
      cavmae predict --checkpoint runs/finetune holiday.mp4 videos/
    """
    from cavmae.evaluation.prediction_report import run_prediction

    run_prediction(values)
