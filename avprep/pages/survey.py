"""What a report says about a shard set, read from its indexes and failures.csv."""

from __future__ import annotations

import csv
import io
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.errors import UserError
from avprep.failures import FAILURES_FILE, ClipFailure
from avprep.options import GalleryOptions
from avprep.pages.gallery import Candidate, ClipChooser
from avprep.pages.quality import Quality, QualitySurvey
from avprep.shards.format import DatasetInfo
from avprep.shards.measured import read_indexes, read_measures


@dataclass(frozen=True)
class Overview:
    """What one pass over the indexes finds.

    Attributes:
        seconds: float64, length of each clip's audio; those without any are left out.
        splits: samples of each split that the manifest names.
        candidates: clips for the gallery, the most important first.
        quality: the measures; None if the set has none.
    """

    seconds: NDArray[np.float64]
    splits: Mapping[str, int]
    candidates: list[Candidate]
    quality: Quality | None


def survey_shards(
    location: str,
    info: DatasetInfo,
    options: GalleryOptions,
    on_shard: Callable[[], None] = lambda: None,
) -> Overview:
    """Read every index once, and what was measured.

    Raises:
        UserError: an index is missing, damaged, or of another build; or measures are.
    """
    lengths = array("q")
    splits: Counter[str] = Counter()
    chooser = ClipChooser(options)
    quality = QualitySurvey() if info.measures else None
    for index in read_indexes(location, info):
        if quality is not None:
            quality.add(index, read_measures(location, index))
        for entry in index.samples:
            if "audio" in entry.modalities:
                lengths.append(entry.num_samples)
            splits[entry.split] += 1
            chooser.offer(index.name, entry)
        on_shard()
    known = np.array(lengths, np.int64)
    seconds = known[known > 0] / info.options["sample_rate"]
    del splits[""]
    seen = quality.result() if quality is not None else None
    return Overview(seconds, splits, chooser.choose(), seen)


def read_failures(location: str) -> list[ClipFailure] | None:
    """The rows of failures.csv; None if it is missing.

    Raises:
        UserError: it is not a CSV.
    """
    path = storage.join(location, FAILURES_FILE)
    data = storage.read_if_there(path)
    if data is None:
        return None
    rows = csv.DictReader(io.StringIO(data.decode("utf-8", "replace"), newline=""))
    names = ("video_id", "path", "stage", "cause", "detail")
    try:
        return [ClipFailure(*(row.get(name) or "" for name in names)) for row in rows]
    except csv.Error as error:
        raise UserError(
            f"{path}: cannot be read as CSV ({error}). Delete it to make the report without the "
            "failures, or run `avprep shard` again to write it again."
        ) from error


def some_of_each_cause(failures: Sequence[ClipFailure], most: int) -> list[ClipFailure]:
    """Up to `most` failures, spread as evenly over the causes as their numbers allow."""
    seen: Counter[str] = Counter()
    numbered = []
    for position, failure in enumerate(failures):
        numbered.append((seen[failure.cause], position))
        seen[failure.cause] += 1
    kept = sorted(position for _, position in sorted(numbered)[:most])
    return [failures[position] for position in kept]
