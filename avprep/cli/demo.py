"""`avprep demo-data`: a small labelled video set to try everything on."""

from __future__ import annotations

from pathlib import Path

import click

from avprep.options import DemoDataOptions

_DEFAULTS = DemoDataOptions()


@click.command("demo-data")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--train-clips",
    type=click.IntRange(min=1),
    default=_DEFAULTS.train_clips,
    show_default=True,
    help="Clips per class.",
)
@click.option(
    "--test-clips",
    type=click.IntRange(min=1),
    default=_DEFAULTS.test_clips,
    show_default=True,
    help="Clips per class.",
)
@click.option(
    "--seconds",
    type=float,
    default=_DEFAULTS.seconds,
    show_default=True,
    help="Length of a clip.",
)
@click.option(
    "--seed",
    type=int,
    default=_DEFAULTS.seed,
    show_default=True,
    help="Seed of all that varies.",
)
@click.option(
    "--workers", type=click.IntRange(min=0), default=0, help="Processes. [default: one per core]"
)
def demo_data(
    out: Path, train_clips: int, test_clips: int, seconds: float, seed: int, workers: int
) -> None:
    """Make a video set of 8 classes in OUT: train/CLASS/*, test/CLASS/* and labels.csv.

    Picture and sound together tell the class, and what a clip shows says how it sounds: large
    shapes sound low, light backgrounds hiss. Most files are H.264+AAC mp4, some mkv, webm and avi
    with other codecs. Two files are broken on purpose, to show how such files are reported.

    \b
    Example:
      avprep demo-data runs/demo/videos
    """
    from avprep.demo_data import BROKEN, make_demo_data
    from avprep.jobs import PoolOptions
    from avprep.progress import ProgressBar

    options = DemoDataOptions(train_clips, test_clips, seconds, seed)
    with ProgressBar("demo-data", "clip") as bar:
        labels = make_demo_data(out, options, PoolOptions(workers), bar.reach)
    clips = (train_clips + test_clips) * len(labels)
    click.echo(f"{out}: {clips} clips in {len(labels)} classes, and {len(BROKEN)} broken files")
