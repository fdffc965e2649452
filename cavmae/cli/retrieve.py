"""`cavmae retrieve`: how well sounds find their pictures, and pictures their sounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

import cavmae
from avprep.cli.flags import flags
from avprep.wording import lacking_words
from cavmae.cli.results import OneLine
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
    from avprep.cli.progress import Bars

    with Bars("retrieve") as bars:
        facts = cavmae.retrieve(options, bars).facts()
    printed.show(facts, "\n".join(described(facts, options.out)))


def described(facts: Mapping[str, Any], out: Path | None) -> Iterator[str]:
    """The result for a person."""
    yield f"{'':16}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'median rank':>14}"
    for direction, title in (
        ("audio_to_image", "audio → image"),
        ("image_to_audio", "image → audio"),
        ("chance", "chance"),
    ):
        found = facts[direction]
        recalls = "".join(f"{found[f'recall_at_{k}']:8.1%}" for k in (1, 5, 10))
        yield f"{title:16}{recalls}{found['median_rank']:14g}"
    yield f"{facts['clips']} clips, {facts['checkpoint']}"
    if facts["clips_lacking"]:
        yield lacking_words(facts["clips_lacking"])
    if not facts["checkpoint_is_pretrained"]:
        yield "note: this is a classifier, whose streams were not trained to match each other"
    if out is not None:
        yield f"{out}/retrieval.json, {out}/retrieval.html"
