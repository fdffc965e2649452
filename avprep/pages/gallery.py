"""Which clips a report shows: a seeded choice, spread evenly over the classes, in one pass."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from dataclasses import dataclass

from avprep.options import GalleryOptions
from avprep.shards.format import SampleEntry

UNLABELLED = -1  # the class of clips that have no class
_OVERHEAD = 20_000  # bytes of a clip's spectrogram, waveform and markup


@dataclass(frozen=True, order=True)
class Candidate:
    """A clip that may be shown; lower ranks come first."""

    rank: int
    shard: str
    entry: SampleEntry


class ClipChooser:
    """Sees every clip of a shard set, remembers a few, and chooses.

    A clip's rank is a digest of the seed and its id. So the choice does not depend on the order
    of the clips or the number of shards, and a set that grows keeps most of it.
    """

    def __init__(self, options: GalleryOptions) -> None:
        self._options = options
        self._kept = options.kept
        # By class; the worst first, by -rank.
        self._heaps: defaultdict[int, list[tuple[int, Candidate]]] = defaultdict(list)

    def offer(self, shard: str, entry: SampleEntry) -> None:
        """Consider one clip."""
        rank = self._rank(entry.video_id)
        for label in entry.labels or (UNLABELLED,):
            heap = self._heaps[label]
            if len(heap) < self._kept:
                heapq.heappush(heap, (-rank, Candidate(rank, shard, entry)))
            elif heap and -heap[0][0] > rank:
                heapq.heapreplace(heap, (-rank, Candidate(rank, shard, entry)))

    def choose(self) -> list[Candidate]:
        """The clips in the order of importance: one for each class, then a second, and so on.

        A clip with several classes counts for each of them.
        """
        ranked = {label: sorted(c for _, c in heap) for label, heap in self._heaps.items()}
        labels = sorted(ranked, key=lambda label: self._rank(f"class {label}"))
        shown = dict.fromkeys(labels, 0)
        chosen: list[Candidate] = []
        taken: set[str] = set()
        for wanted in range(1, self._kept + 1):
            for label in labels:
                if len(chosen) >= self._options.most:
                    return chosen
                rest = ranked[label]
                while shown[label] < wanted and rest:
                    candidate = rest.pop(0)
                    if candidate.entry.video_id in taken:
                        continue
                    taken.add(candidate.entry.video_id)
                    chosen.append(candidate)
                    for other in candidate.entry.labels or (UNLABELLED,):
                        shown[other] += 1
        return chosen

    def _rank(self, name: str) -> int:
        key = f"{self._options.seed}\0{name}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")


def cost_on_page(entry: SampleEntry) -> int:
    """Bytes that a clip takes: its sample as base64, and what else is shown of it."""
    return entry.size * 4 // 3 + _OVERHEAD


def within_size(candidates: list[Candidate], limit: float) -> tuple[list[Candidate], int]:
    """As many candidates, in order, as fit on a page.

    Args:
        candidates: the most important first.
        limit: bytes they may take together.

    Returns:
        those that fit, and the number of the others.
    """
    kept = []
    for candidate in candidates:
        cost = cost_on_page(candidate.entry)
        if cost <= limit:
            limit -= cost
            kept.append(candidate)
    return kept, len(candidates) - len(kept)
