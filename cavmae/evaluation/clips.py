"""The clips of a shard set on their way through a model: in order, each once, counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from avprep.errors import UserError
from avprep.progress import OnProgress, Progress
from avprep.selection import select
from avprep.wording import counted, first_of
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World
from cavmae.evaluation.options import LoadOptions, OneResult
from cavmae.frontend import FrontEnd
from cavmae.frontend.fbank import samples_for
from cavmae.options import BOTH, Modality

Rows = dict[str, Tensor]  # of some clips, a row for each; `index`: int64, their places in the set


@dataclass(frozen=True)
class Coverage:
    """Which clips of a list are there.

    Attributes:
        file: the list.
        location: of the shard set.
        listed: ids in the list.
        absent: those that the shard set, or the selection from it, lacks.
    """

    file: Path
    location: str
    listed: int
    absent: tuple[str, ...]

    def facts(self) -> dict[str, object]:
        """By name, as JSON has them."""
        return {
            "ids": str(self.file),
            "ids_listed": self.listed,
            "ids_absent": len(self.absent),
            "absent": self.absent[:5],
        }

    def notes(self) -> tuple[str, ...]:
        """What a person should know before the work begins."""
        if not self.absent:
            return ()
        return (
            f"{self.location}: lacks {len(self.absent)} of the {self.listed} clips that "
            f"{self.file} names: {first_of(self.absent)}",
        )


def listed_clips(shards: ShardSet, file: Path) -> tuple[ShardSet, Coverage]:
    """The clips of a list, and which ones are not there.

    Raises:
        UserError: the list cannot be read, or none of its clips is there.
    """
    found = select(file, map(shards.video_id, range(len(shards))))
    listed = len(found.positions) + len(found.strangers)
    if not found.positions:
        raise UserError(
            f"{file}: {shards.location} has none of the {counted(listed, 'clip')} that it names "
            f"({first_of(found.strangers)}); its ids look like {shards.video_id(0)}. "
            "Give the shard set that the list was made for."
        )
    coverage = Coverage(file, shards.location, listed, found.strangers)
    return shards.subset(found.positions), coverage


def chosen_frames(choice: OneResult, stored: int) -> list[int]:
    """Numbers of the frames that a choice means, of a clip that has this many.

    Raises:
        UserError: there is no such frame.
    """
    if choice == "all":
        return list(range(stored))
    number = stored // 2 if choice == "middle" else choice
    if number >= max(stored, 1):
        raise UserError(f"--frames {number}: the samples have frames 0 to {stored - 1}.")
    return [number]


def clip_loader(
    shards: ShardSet,
    frontend: FrontEnd,
    options: LoadOptions,
    frame: OneResult,
    world: World,
    modalities: tuple[Modality, ...] = BOTH,
) -> ShardLoader:
    """Reads this rank's share of the clips in order, as much of each as the model can see."""
    return ShardLoader(
        shards,
        LoaderOptions(
            options.batch_size,
            options.workers,
            shuffle=False,
            frame=frame,
            modalities=modalities,
            max_bad_samples=options.max_bad_samples,
            longest=samples_for(frontend.options.target_length),
        ),
        world.rank,
        world.size,
    )


def in_order(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, in the order of the shard set."""
    order = torch.cat([part["index"] for part in parts]).argsort()
    return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}


def clip_counter(
    on_progress: OnProgress, world: World, total: int, done: int = 0
) -> Callable[[int], None]:
    """A function to call with the number of clips done since; of several ranks, the main one tells.

    Args:
        on_progress: gets what is done so far.
        world: this process among its peers.
        total: clips of this rank, in all.
        done: of them, before the work begins.
    """

    def count(more: int) -> None:
        nonlocal done
        done += more
        if world.is_main:
            on_progress(Progress("clip", done, total))

    count(0)
    return count


def share_counter(on_progress: OnProgress, world: World, *sets: ShardSet) -> Callable[[int], None]:
    """The same for all clips of some sets that fall to this rank."""
    shares = (len(range(world.rank, len(shards), world.size)) for shards in sets)
    return clip_counter(on_progress, world, sum(shares))
