"""`avprep demo-data`: a small labelled video set to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

import avprep
from avprep.cli.flags import PATH, flags
from avprep.cli.progress import Bars
from avprep.options import DemoDataOptions, PoolOptions
from avprep.wording import counted


@click.command("demo-data")
@click.argument("out", type=PATH)
@flags(options=DemoDataOptions, pool=PoolOptions, without=("backend", "address"))
def demo_data(out: Path, options: DemoDataOptions, pool: PoolOptions) -> None:
    """Make a video set of 8 classes in OUT: train/CLASS/* and test/CLASS/*.

    Picture and sound together determine the class, and the sound depends on the picture: large
    shapes sound low, light backgrounds hiss. Most files are H.264+AAC mp4, some mkv, webm and avi
    with other codecs. Two files are broken on purpose, to show how such files are reported.

    \b
    Example:
      avprep demo-data runs/demo/videos
    """
    with Bars("demo-data") as bars:
        made = avprep.make_demo_data(out, options, pool, bars)
    click.echo(
        f"{out}: {counted(made.clips, 'clip')} in {made.classes} classes, "
        f"and {len(made.broken)} broken files"
    )
