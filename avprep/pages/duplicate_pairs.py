"""The page of `avprep duplicates`: pairs of clips side by side, to see and hear."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from avprep.pages.gallery import Candidate, cost_on_page
from avprep.pages.page import render_page
from avprep.pages.shard_report import GalleryClip, gallery_clip
from avprep.shards.format import read_index


@dataclass(frozen=True)
class Place:
    """Where a sample is."""

    location: str  # of the shard set
    shard: str
    position: int  # among the samples of the shard


@dataclass(frozen=True)
class FoundPair:
    """Two clips that are nearly the same."""

    group: int
    kept: Place
    other: Place
    picture: float  # distances; NaN where that cannot be told
    sound: float


@dataclass(frozen=True)
class ShownClip:
    """One side of a pair."""

    place: Place
    clip: GalleryClip


@dataclass(frozen=True)
class ShownPair:
    """A pair as the template shows it."""

    found: FoundPair
    sides: tuple[ShownClip, ShownClip]
    distances: tuple[tuple[str, str], ...]  # what is compared, and how near it is


def show_pairs(pairs: Sequence[FoundPair], max_mb: float) -> list[ShownPair]:
    """As many of the pairs, in order, as fit on a page of this size, with their frames and sound.

    Raises:
        UserError: an index is missing or damaged.
    """
    indexes = functools.cache(read_index)
    room = max_mb * 1e6 - _PAGE_OVERHEAD
    shown = []
    for pair in pairs:
        places = pair.kept, pair.other
        entries = [indexes(place.location, place.shard).samples[place.position] for place in places]
        room -= sum(map(cost_on_page, entries))
        if room < 0:
            break
        one, other = (
            ShownClip(place, gallery_clip(place.location, Candidate(0, place.shard, entry)))
            for place, entry in zip(places, entries, strict=True)
        )
        compared = (("pictures", pair.picture), ("sound", pair.sound))
        shown.append(
            ShownPair(pair, (one, other), tuple((name, _in_words(n)) for name, n in compared))
        )
    return shown


def duplicates_page(pairs: Sequence[ShownPair], counts: Mapping[str, int], title: str) -> bytes:
    """The page.

    Args:
        pairs: in the order of the page.
        counts: what was counted, and how many there are.
        title: what was compared.
    """
    return render_page(
        "avprep.pages",
        "duplicates.html",
        ("clip.js",),
        pairs=pairs,
        counts=counts,
        title=title,
        version=metadata.version("avprep-cavmae"),
    )


def _in_words(distance: float) -> str:
    return "cannot be told" if math.isnan(distance) else f"distance {distance:.2f}"


_PAGE_OVERHEAD = 30_000  # bytes of style and script
