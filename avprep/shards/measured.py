"""`shard-NNNNNN.measures.json`: the measures of a shard's samples, in the order of its index.

A file of its own beside the index, because training reads every index and no measure, and because
sets that were built before they were measured get it later.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from avprep import storage
from avprep.errors import UserError
from avprep.shards.format import DatasetInfo, ShardIndex, ShardInfo, index_name, read_index
from avprep.shards.seal import sealed, unsealed

MEASURES_SUFFIX = ".measures.json"

Read = TypeVar("Read")

_REQUESTS_AT_ONCE = 16


@dataclass(frozen=True)
class ShardMeasures:
    """What was measured of a shard's samples.

    Attributes:
        name: of the tar file.
        sha256: of the tar file.
        columns: the values of each measure, one per sample.
    """

    name: str
    sha256: str
    columns: Mapping[str, tuple[float | str, ...]]

    @classmethod
    def of_rows(
        cls, name: str, sha256: str, rows: Iterable[Mapping[str, float | str]]
    ) -> ShardMeasures:
        """From what `measure_clip` says of each sample."""
        rows = list(rows)
        return cls(name, sha256, {key: tuple(row[key] for row in rows) for key in rows[0]})

    def to_bytes(self) -> builtins.bytes:
        """UTF-8 JSON, the same bytes for the same content."""
        return sealed({"name": self.name, "sha256": self.sha256, "measures": dict(self.columns)})

    @classmethod
    def from_bytes(cls, data: builtins.bytes, index: ShardIndex) -> ShardMeasures:
        """Parse the measures of the shard that an index describes.

        Raises:
            ValueError: they are damaged, or of another shard; says how.
        """
        raw = unsealed(data)
        try:
            columns = {str(key): tuple(values) for key, values in raw["measures"].items()}
            found = cls(raw["name"], raw["sha256"], columns)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the measures of a shard ({error!r})") from error
        if (found.name, found.sha256) != (index.name, index.sha256):
            raise ValueError("of another build than the shard")
        if any(len(values) != len(index.samples) for values in columns.values()):
            raise ValueError("not one value per sample")
        return found


def measures_name(shard_name: str) -> str:
    """`shard-000000.tar` → `shard-000000.measures.json`."""
    return shard_name.removesuffix(".tar") + MEASURES_SUFFIX


def find_measures(location: str | Path, index: ShardIndex) -> ShardMeasures | None:
    """The measures of a shard, if they are there.

    Raises:
        ValueError: see `ShardMeasures.from_bytes`.
    """
    data = storage.read_if_there(storage.join(location, measures_name(index.name)))
    return None if data is None else ShardMeasures.from_bytes(data, index)


def read_measures(location: str | Path, index: ShardIndex) -> ShardMeasures:
    """The measures of a shard.

    Raises:
        UserError: they are missing or damaged.
    """
    path = storage.join(location, measures_name(index.name))
    try:
        found = find_measures(location, index)
    except ValueError as error:
        raise UserError(
            f"{path}: {error}. Run `avprep measure {location}`, which writes it again."
        ) from error
    if found is None:
        raise UserError(
            f"{path}: missing. This shard set was built without measures, or copied without them: "
            f"run `avprep measure {location}`."
        )
    return found


def read_indexes(location: str | Path, info: DatasetInfo) -> Iterator[ShardIndex]:
    """The indexes of a shard set, in order.

    Raises:
        UserError: one is missing, damaged, or of another build.
    """
    return _several_at_a_time(lambda shard: checked_index(location, shard), info.shards)


def read_measured(
    location: str | Path, info: DatasetInfo
) -> Iterator[tuple[ShardIndex, ShardMeasures]]:
    """The indexes of a shard set with the measures of their samples, in order.

    Raises:
        UserError: the set was not measured, or a file is missing, damaged, or of another build.
    """
    if not info.measures:
        raise UserError(f"{location}: was built without measures. Run `avprep measure {location}`.")

    def read(shard: ShardInfo) -> tuple[ShardIndex, ShardMeasures]:
        index = checked_index(location, shard)
        return index, read_measures(location, index)

    return _several_at_a_time(read, info.shards)


def checked_index(location: str | Path, shard: ShardInfo) -> ShardIndex:
    """The index of a shard that dataset.json names.

    Raises:
        UserError: it is missing, damaged, or of another build.
    """
    index = read_index(location, shard.name)
    if index.sha256 != shard.sha256:
        path = storage.join(location, index_name(shard.name))
        raise UserError(f"{path}: this index and dataset.json disagree. Run `avprep shard` again.")
    return index


def _several_at_a_time(
    read: Callable[[ShardInfo], Read], shards: Sequence[ShardInfo]
) -> Iterator[Read]:
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as threads:
        for start in range(0, len(shards), _REQUESTS_AT_ONCE):
            yield from threads.map(read, shards[start : start + _REQUESTS_AT_ONCE])
