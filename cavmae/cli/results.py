"""How the commands that use a trained model print what they found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avprep.cli.common import Summary
from avprep.option import option


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
