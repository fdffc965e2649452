"""What a report says about the measures of a shard set: histograms, faults, and the worst clips."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avprep.pages.gallery import Candidate
from avprep.pages.histogram import Histogram
from avprep.quality.faults import FAULTS, Fault
from avprep.quality.measures import MEASURES, QUIETEST_DB, SOUND_MEASURES
from avprep.shards.format import ShardIndex
from avprep.shards.measured import ShardMeasures

_WORST = 3  # clips of each fault
_BINS = 25


@dataclass(frozen=True)
class MeasureView:
    """A measure over the clips that have sound, or frames, if it is one of these."""

    name: str
    what: str
    clips: int
    histogram: Histogram
    fault: Fault | None
    found: int  # clips with the fault
    line: float  # where in the histogram the threshold lies, from 0 to 1


@dataclass(frozen=True)
class WorstClip:
    """A clip with its values of the measures of which it is among the worst."""

    candidate: Candidate
    values: Mapping[str, float]


@dataclass(frozen=True)
class Quality:
    """The measures of a shard set."""

    measures: tuple[MeasureView, ...]
    worst: tuple[WorstClip, ...]

    @property
    def faults(self) -> dict[str, int]:
        """Clips with each fault."""
        return {view.fault.name: view.found for view in self.measures if view.fault}


class QualitySurvey:
    """Sees the measures of every clip and remembers their values and the worst clips."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[NDArray[np.float64]]] = defaultdict(list)
        self._worst: dict[str, list[tuple[float, str, Candidate]]] = {f.name: [] for f in FAULTS}

    def add(self, index: ShardIndex, measures: ShardMeasures) -> None:
        """The measures of a shard's clips."""
        has = {
            modality: np.array([modality in entry.modalities for entry in index.samples], bool)
            for modality in ("audio", "image")
        }
        for name in MEASURES:
            is_there = has["audio" if name in SOUND_MEASURES else "image"]
            values = np.array(measures.columns[name], np.float64)
            self._values[name].append(values[is_there])
            for fault in FAULTS:
                if fault.measure == name:
                    self._keep_worst(fault, values, np.flatnonzero(is_there), index)

    def _keep_worst(
        self, fault: Fault, values: NDArray[np.float64], rows: NDArray[np.intp], index: ShardIndex
    ) -> None:
        order = values if fault.is_above else -values
        found = [*self._worst[fault.name]]
        for row in rows[fault.found_in(values[rows])]:
            entry = index.samples[row]
            candidate = Candidate(0, index.name, entry)
            found.append((float(-order[row]), entry.video_id, candidate))
        self._worst[fault.name] = heapq.nsmallest(_WORST, found, key=lambda one: one[:2])

    def result(self) -> Quality:
        """What was seen."""
        views = tuple(_view(name, np.concatenate(self._values[name])) for name in MEASURES)
        return Quality(views, tuple(self._worst_clips()))

    def _worst_clips(self) -> Iterable[WorstClip]:
        candidates: dict[str, Candidate] = {}
        values: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for fault in FAULTS:
            for badness, video_id, candidate in self._worst[fault.name]:
                candidates[video_id] = candidate
                values[video_id][fault.measure] = -badness if fault.is_above else badness
        return (WorstClip(candidate, values[name]) for name, candidate in candidates.items())


def _view(name: str, values: NDArray[np.float64]) -> MeasureView:
    fault = next((fault for fault in FAULTS if fault.measure == name), None)
    low, high = (QUIETEST_DB, 0.0) if name.endswith("_db") else (0.0, 1.0)
    counts, edges = np.histogram(values, _BINS, (low, high))
    return MeasureView(
        name=name,
        what=MEASURES[name],
        clips=len(values),
        # Nothing lies beyond the range, so the last bin has no tail.
        histogram=Histogram(tuple(edges.round(2).tolist()), tuple(counts.tolist()), low),
        fault=fault,
        found=int(fault.found_in(values).sum()) if fault else 0,
        line=(fault.threshold - low) / (high - low) if fault else 0.0,
    )
