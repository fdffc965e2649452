"""`cavmae retrieve`: how well sounds find their pictures, and pictures their sounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

import cavmae
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from cavmae.cli.options import warn
from cavmae.cli.results import OneLine, covered, left_out
from cavmae.evaluation.options import RetrieveOptions


@click.command()
@flags(options=RetrieveOptions, printed=OneLine)
def retrieve(options: RetrieveOptions, printed: OneLine) -> None:
    """Recall at 1, 5, 10 and median rank, from audio to image and back.

    Every clip's audio looks for its own frame among those of all clips, and the other way round.

    \b
    Example:
      cavmae retrieve --shards shards/test --checkpoint runs/pretrain --out runs/retrieval
    """
    with Bars("retrieve") as bars:
        result = cavmae.retrieve(options, bars, warn)
    printed.show(result.facts(), "\n".join(described(result)))


def described(result: cavmae.RetrieveResult) -> Iterator[str]:
    """The result for a person."""
    facts = result.facts()
    yield from covered(result.coverage)
    width = 26 if any(result.intervals) else 8
    heads = "".join(f"R@{k}".rjust(width) for k in (1, 5, 10))
    yield f"{'':16}{heads}{'median rank':>14}"
    for direction, title in (
        ("audio_to_image", "audio → image"),
        ("image_to_audio", "image → audio"),
        ("chance", "chance"),
    ):
        found = facts[direction]
        recalls = "".join(f"{_recall(found, k):>{width}}" for k in (1, 5, 10))
        yield f"{title:16}{recalls}{found['median_rank']:14g}"
    numbers = ", ".join(map(str, result.frames))
    yield (
        f"{result.clips} clips, frame {numbers}, {result.audio_frames} rows of the fbank, "
        f"{result.checkpoint}"
    )
    yield from left_out(result.clips_unreadable, result.clips_lacking)
    if not result.is_pretrained:
        yield "note: this is a classifier; finetuning does not train sounds to match pictures"
    if (out := result.options.out) is not None:
        yield f"{out}/retrieval.json, {out}/retrieval.html"


def _recall(found: Mapping[str, Any], k: int) -> str:
    low, high = found.get(f"recall_at_{k}_interval", (None, None))
    between = f" [{low:.1%}, {high:.1%}]" if low is not None else ""
    return f"{found[f'recall_at_{k}']:.1%}{between}"
