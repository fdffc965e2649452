"""Several shard sets that a run draws from in proportion to their shares."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.errors import Unreadable, UserError
from avprep.labels import LabelSet, merge_label_sets
from avprep.shards.format import sample_key
from cavmae.data.reader import check_cache
from cavmae.data.sample import StoredSample, Wanted
from cavmae.data.shardset import ShardSet, open_shards
from cavmae.options import BOTH, Modality, ShardOptions, read_shares


class Mixture:
    """Several shard sets as one long list of samples, one set after the other.

    Attributes:
        sets: with labels of one label set, or without any.
        shares: float64 [sets], of the draws; their sum is 1.
    """

    def __init__(self, sets: Sequence[ShardSet], shares: Sequence[float] | None = None) -> None:
        """Args:
        sets: whose classes are numbered alike.
        shares: above 0, of any sum; None: in proportion to the sets' samples.
        """
        self.sets = tuple(sets)
        weights = np.array(shares or list(map(len, sets)), np.float64)
        self.shares = weights / weights.sum()
        self.starts = np.cumsum([0, *map(len, sets)])

    @property
    def location(self) -> str:
        """All places, for messages."""
        return " + ".join(each.location for each in self.sets)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sets, for columns of the log: the shortest ends of their places that differ."""
        parts = [tuple(filter(None, each.location.split("/"))) for each in self.sets]
        ends = parts
        for length in range(max(map(len, parts)), 0, -1):
            shorter = [part[-length:] for part in parts]
            if len(set(shorter)) == len(parts):
                ends = shorter
        return tuple(".".join(map(sample_key, end)) for end in ends)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def frames(self) -> int:
        """Of which one is drawn; each set's frames are equally likely among them."""
        return math.lcm(*(each.frames for each in self.sets))

    @property
    def frame_size(self) -> int:
        """Pixels of a frame's side."""
        return self.sets[0].frame_size

    @property
    def label_set(self) -> LabelSet:
        """The classes of all sets."""
        return self.sets[0].label_set

    @property
    def num_classes(self) -> int:
        return self.sets[0].num_classes

    @property
    def class_counts(self) -> list[int]:
        """Samples of each class."""
        return np.sum([each.class_counts for each in self.sets], axis=0).tolist()

    @property
    def audio_lengths(self) -> NDArray[np.int64]:
        """int64 [N], see `ShardSet.audio_lengths`."""
        return np.concatenate([each.audio_lengths for each in self.sets])

    @property
    def lacking(self) -> int:
        """Samples that were left out because they lack a modality."""
        return sum(each.lacking for each in self.sets)

    @property
    def fbank_stats(self) -> tuple[float, float] | None:
        """(mean, std) of a mixture whose draws weigh alike; None unless all sets are measured."""
        found = [each.fbank_stats for each in self.sets]
        if None in found:
            return None
        means, deviations = np.array(found).T
        mean = self.shares @ means
        # About the common mean: a difference of squares would be inexact.
        variance = self.shares @ (deviations**2 + (means - mean) ** 2)
        return float(mean), float(np.sqrt(variance))

    def prepare(self) -> None:
        """See `ShardSet.prepare`; all sets share a cache.

        Raises:
            UserError: it is too small for them together, or what `ShardSet.prepare` raises.
        """
        options = self.sets[0].options
        if options.cache is not None:
            kept = [each.info.shards for each in self.sets if storage.is_url(each.location)]
            check_cache(options, self.location, [[one.bytes for one in part] for part in kept])
        for each in self.sets:
            each.prepare()

    def video_id(self, number: int) -> str:
        """The name of a sample's clip."""
        place, own = self._find(number)
        return self.sets[place].video_id(own)

    def own_frame(self, number: int, frame: int) -> int:
        """The frame of a sample that stands for one of the mixture's `frames`."""
        place, own = self._find(number)
        shards = self.sets[place]
        return shards.own_frame(own, frame * shards.frames // self.frames)

    def label_indices(self, number: int) -> tuple[int, ...]:
        """The class indices of a sample."""
        place, own = self._find(number)
        return self.sets[place].label_indices(own)

    def read_many(
        self,
        numbers: Iterable[int],
        scattered: bool = False,
        wanted: Iterable[Wanted | None] = repeat(None),
    ) -> Iterator[StoredSample | Unreadable]:
        """See `ShardSet.read_many`; each set's samples are asked for together."""
        places = [self._find(int(number)) for number in numbers]
        asked = list(zip(places, wanted, strict=False))
        found = [
            each.read_many(
                [own for (place, own), _ in asked if place == number],
                scattered,
                [part for (place, _), part in asked if place == number],
            )
            for number, each in enumerate(self.sets)
        ]
        for place, _ in places:
            yield next(found[place])

    def _find(self, number: int) -> tuple[int, int]:
        """The set of a sample, and its number there."""
        place = int(np.searchsorted(self.starts, number, "right")) - 1
        return place, number - int(self.starts[place])


def open_mixture(
    shards: str | Sequence[str],
    options: ShardOptions,
    modalities: Sequence[Modality] = BOTH,
    labelled: bool = True,
) -> ShardSet | Mixture:
    """The shard set that is named, or a mixture of several; the options choose from each.

    Args:
        shards: see `read_shares`.
        options: which samples of each set are used, and how they are read.
        modalities: that a sample must have.
        labelled: number the classes of all sets alike; without, a mixture has none.

    Raises:
        UserError: wrong shares, a set twice, classes that contradict each other, or what
            `open_shards` raises.
    """
    places, shares = read_shares(shards)
    known: dict[str, str] = {}
    for place in places:
        real = place.rstrip("/") if storage.is_url(place) else os.path.realpath(place)
        if real in known:
            raise UserError(f"--shards {known[real]} and {place} are the same set; give it once.")
        known[real] = place
    sets = [open_shards(place, options, modalities) for place in places]
    if len(sets) == 1:
        return sets[0]
    if not labelled:
        return Mixture([each.without_labels() for each in sets], shares)
    labels = merge_label_sets((each.location, each.label_set) for each in sets)
    return Mixture([each.relabelled(labels) for each in sets], shares)
