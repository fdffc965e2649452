"""`cavmae compare`: two classifiers on the same clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import cavmae
from avprep.cli.flags import PATH, flags
from cavmae.cli.results import OneLine
from cavmae.evaluation.options import CompareOptions

_TITLES = {"accuracy": "accuracy", "map": "mAP"}


@click.command()
@click.argument("first", metavar="A", type=PATH)
@click.argument("second", metavar="B", type=PATH)
@flags(options=CompareOptions, printed=OneLine)
def compare(first: Path, second: Path, options: CompareOptions, printed: OneLine) -> None:
    """Whether the classifier of scores B is better than that of A, and how sure that is.

    A and B are files that `cavmae eval --scores` wrote of the same clips.

    \b
    Example:
      cavmae eval --shards shards/test --checkpoint runs/a --scores a.npz
      cavmae eval --shards shards/test --checkpoint runs/b --scores b.npz
      cavmae compare a.npz b.npz
    """
    result = cavmae.compare(first, second, options)
    printed.show(facts_of(result), "\n".join(described(result)))


def facts_of(result: cavmae.CompareResult) -> dict[str, Any]:
    """The result for a program."""
    return {
        "first": str(result.first),
        "second": str(result.second),
        "clips": result.clips,
        "only_first": result.only_first,
        "only_second": result.only_second,
        "bootstrap": result.draws,
        **{
            name: {
                "first": found.first,
                "second": found.second,
                "difference": found.second - found.first,
                "interval": [found.interval.low, found.interval.high],
                "p_value": found.p_value,
            }
            for name, found in result.figures.items()
        },
    }


def described(result: cavmae.CompareResult) -> Iterator[str]:
    """The result for a person."""
    yield f"A  {result.first}"
    yield f"B  {result.second}"
    yield f"{'':10}{'A':>8}{'B':>9}{'B - A':>10}   {'95 % interval':20}p"
    for name, found in result.figures.items():
        low, high = found.interval.low, found.interval.high
        between = f"[{low:+.4f}, {high:+.4f}]"
        yield (
            f"{_TITLES[name]:10}{found.first:8.4f} {found.second:8.4f} "
            f"{found.second - found.first:+9.4f}   {between:20}{found.p_value:.2g}"
        )
    left_out = result.only_first + result.only_second
    rest = f"; {result.only_first} only in A and {result.only_second} only in B are left out"
    yield f"{result.clips} clips in both, {result.draws} draws{rest if left_out else ''}"
