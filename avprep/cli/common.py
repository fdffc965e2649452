"""What several commands have in common: flags about what they print, and words of summaries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from avprep.failures import FailureLimit
from avprep.option import Options, option


@dataclass(frozen=True)
class Summary(Options):
    """How a command says what it did."""

    as_json: bool = option(False, "Print the summary as JSON.", flag="--json")

    def show(self, facts: Mapping[str, Any], words: str) -> None:
        """Print the summary, for a program or for a person."""
        click.echo(json.dumps(facts) if self.as_json else words)


@dataclass(frozen=True)
class Tolerance(Options):
    """How many failed clips make a failed command."""

    max_failures: FailureLimit | None = option(
        None, "End with exit code 1 above this many (20) or share (5%)."
    )


@dataclass(frozen=True)
class ClassCsv(Options):
    """The class CSV of a manifest."""

    labels: Path | None = option(
        None, "Class CSV (index,mid,display_name). [default: M.classes.csv beside M.json]"
    )


def incomplete_line(count: int) -> str:
    """What summaries say of samples whose files hold less than they promise."""
    return (
        f"incomplete: {count} (files that hold less than they promise, such as interrupted "
        "downloads)"
    )


def lacking_line(samples: int, modalities: Mapping[str, int]) -> str:
    """What summaries say of samples that lack a modality; empty where none does."""
    words = {"audio": "without audio", "image": "without frames"}
    counts = {name: samples - modalities.get(name, samples) for name in words}
    return ", ".join(f"{words[name]}: {count}" for name, count in counts.items() if count)
