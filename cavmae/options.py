"""Options that data, training and evaluation share. Imports nothing heavy: `--help` shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

Mode = Literal["multimodal", "audioonly", "videoonly", "missingaudioonly", "missingvideoonly"]
MODES: tuple[Mode, ...] = get_args(Mode)  # of a classifier: which modalities it is given
AUDIO_MODES: tuple[Mode, ...] = ("audioonly", "missingaudioonly")
IMAGE_MODES: tuple[Mode, ...] = ("videoonly", "missingvideoonly")
Criterion = Literal["bce", "ce"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)  # sigmoid and softmax give probabilities

Options = TypeVar("Options")


@dataclass(frozen=True)
class ReadOptions:
    """How shards behind a URL are read. Local shards need none of it."""

    retries: int = 6  # tries after the first
    timeout: float = 30.0  # seconds a request
    cache: str | None = None  # local folder that keeps whole shards
    cache_gb: float = 100.0  # size at which the least recently used shards are deleted


@dataclass(frozen=True)
class Selection:
    """Which samples of a shard set are used; empty for all."""

    classes: tuple[str, ...] = ()  # mids or display names: clips that have one of them
    splits: tuple[str, ...] = ()  # as the manifest names them


def pick(cls: type[Options], values: Mapping[str, Any]) -> Options:
    """An options dataclass from those of the values that it has fields for."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in values.items() if name in names})
