"""The record of clips that failed: `failures.csv`, and a table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

from avprep.csvfile import csv_bytes
from avprep.errors import UserError, WorkFailed
from avprep.wording import counted

FAILURES_FILE = "failures.csv"


@dataclass(frozen=True, slots=True)
class ClipFailure:
    """A clip that did not become a sample."""

    video_id: str
    path: str
    stage: str  # "extract", "decode", "pack", "plan"
    cause: str  # one of avprep.errors.CAUSES
    detail: str


def failures_csv(failures: Sequence[ClipFailure]) -> bytes:
    """The content of failures.csv: one line per clip, sorted by id; without zero bytes."""
    ordered = sorted(failures, key=lambda failure: (failure.video_id, failure.path))
    rows = ([text.replace("\0", "\\x00") for text in astuple(one)] for one in ordered)
    return csv_bytes([[field.name for field in fields(ClipFailure)], *rows])


def printable(text: str) -> str:
    """Text for a terminal: names may contain line breaks, control codes or undecodable bytes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def failure_table(failures: Sequence[ClipFailure], examples: int = 3) -> str:
    """Failures by cause, the most frequent first, with a few examples of each."""
    lines = []
    for cause, count in Counter(failure.cause for failure in failures).most_common():
        lines.append(f"  {cause}: {count}")
        named = [failure for failure in failures if failure.cause == cause]
        lines += [f"    {printable(failure.detail)}" for failure in named[:examples]]
        if count > examples:
            lines.append(f"    … and {count - examples} more in {FAILURES_FILE}")
    return "\n".join(lines)


@dataclass(frozen=True)
class FailureLimit:
    """How many clips may fail: a number of them, or a share of all in percent."""

    value: float
    is_share: bool = False

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """`20` clips, or `5%` of them.

        Raises:
            UserError: neither.
        """
        number, is_share = text.removesuffix("%"), text.endswith("%")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not value >= 0 or (is_share and value > 100):
            raise UserError(
                f"--max-failures {text!r}: give a number of clips, or a share such as 5%."
            )
        return cls(value, is_share)

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.is_share else f"{self.value:g}"


def check_failures(failed: int, clips: int, limit: FailureLimit | None) -> None:
    """Turn too many failures into a failed command.

    Raises:
        WorkFailed: no clip succeeded, or more failed than `--max-failures` allows.
    """
    if clips and failed == clips:
        raise WorkFailed(f"none of the {clips} clips could be used; see the causes above.")
    if limit is None:
        return
    if failed > (clips * limit.value / 100 if limit.is_share else limit.value):
        raise WorkFailed(
            f"{failed} of {counted(clips, 'clip')} failed, more than --max-failures {limit}."
        )
