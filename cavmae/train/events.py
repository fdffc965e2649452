"""What a run tells while it works: what it hands to its `on_event`. `cli/training.py` shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from avprep.progress import Progress
from cavmae.train.outlook import Outlook


@dataclass(frozen=True)
class Note:
    """Something to know, in words."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the fbank, and in words where they are from."""

    mean: float
    std: float
    source: str


@dataclass(frozen=True, slots=True)
class Steps(Progress):
    """The optimizer steps done so far, and how the last one went."""

    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """An epoch has ended, and the model was measured.

    Attributes:
        task: "pretrain" or "finetune".
        epoch: counted from 1; 0 before the first step.
        epochs: of the whole run.
        train: means of the epoch's losses and their parts.
        validation: on clips that are not trained on; empty where there are none.
    """

    task: str
    epoch: int
    epochs: int
    train: Mapping[str, float]
    validation: Mapping[str, float]


Event = Note | Normalisation | Outlook | Steps | Measured
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """For callers who do not want to know."""
