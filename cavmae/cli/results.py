"""How the commands that use a trained model print what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from avprep.cli.common import Summary
from avprep.option import option
from avprep.wording import first_of

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


def covered(coverage: Coverage | None) -> Iterator[str]:
    """Which clips of a list are there; nothing without a list."""
    if coverage is not None:
        there = coverage.listed - len(coverage.absent)
        rest = f"; absent: {first_of(coverage.absent)}" if coverage.absent else ""
        yield (
            f"{there} of the {coverage.listed} clips that {coverage.file} names are in the shard "
            f"set{rest}"
        )
