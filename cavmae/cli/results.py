"""How the commands that use a trained model print what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from avprep.cli.common import Summary
from avprep.option import option
from avprep.wording import counted, first_of, lacking_words

if TYPE_CHECKING:  # imported for real where it is needed, to keep --help quick
    from cavmae.evaluation.clips import Coverage


@dataclass(frozen=True)
class OneLine(Summary):
    """How a result is printed, by one of the processes that were started together."""

    as_json: bool = option(False, "Print one line of JSON.", flag="--json")

    def show(self, facts: Mapping[str, Any], words: str) -> None:
        """Print the result, for a program or for a person."""
        from cavmae.distributed import is_main_process
        from cavmae.evaluation.metrics import finite

        if is_main_process():
            super().show(finite(facts), words)


def left_out(unreadable: int, lacking: int) -> Iterator[str]:
    """What is said of clips that a result is not about."""
    if unreadable:
        yield f"{counted(unreadable, 'clip')} could not be read; `avprep verify` says why"
    if lacking:
        yield lacking_words(lacking)


def covered(coverage: Coverage | None) -> Iterator[str]:
    """Which clips of a list are there; nothing without a list."""
    if coverage is not None:
        there = coverage.listed - len(coverage.absent)
        rest = f"; absent: {first_of(coverage.absent)}" if coverage.absent else ""
        yield (
            f"{there} of the {coverage.listed} clips that {coverage.file} names are in the shard "
            f"set{rest}"
        )
