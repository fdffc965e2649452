"""A shard set as one long list of samples, each known by where its bytes are."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from avprep import storage
from avprep.errors import UserError
from avprep.shards.format import DatasetInfo, SampleEntry, read_dataset, read_index

_OPEN_SHARDS = 80  # file descriptors kept, above the shuffle window


@dataclass(frozen=True)
class StoredSample:
    """The members of one sample, as bytes, by their suffix: `json`, `flac` or `wav`, `0.jpg` …"""

    entry: SampleEntry
    members: dict[str, bytes]


class DamagedSample(Exception):
    """A sample whose bytes are not what the index promises; holds (name, reason)."""


class ShardSet:
    """Samples of a shard set by number. Cheap to copy to a worker: nothing is read until asked.

    Attributes:
        location: folder or URL prefix.
        info: its dataset.json.
    """

    def __init__(self, location: str, info: DatasetInfo) -> None:
        self.location = location
        self.info = info
        self._starts = [0, *accumulate(shard.samples for shard in info.shards)]
        self._entries: dict[int, tuple[SampleEntry, ...]] = {}
        self._files: OrderedDict[int, int] = OrderedDict()

    @classmethod
    def open(cls, location: str | Path) -> ShardSet:
        """Open the shard set that `avprep shard` wrote.

        Raises:
            UserError: no shard set there, or an empty one.
        """
        info = read_dataset(location)
        if not info.samples:
            raise UserError(f"{location}: the shard set holds no sample.")
        return cls(str(location), info)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, object]:
        return {"location": self.location, "info": self.info}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """(mid, display name) of each class."""
        return self.info.labels

    @property
    def num_classes(self) -> int:
        return len(self.info.labels)

    @property
    def frames(self) -> int:
        """Stored frames of a sample."""
        return self.info.options["frames"]

    @property
    def frame_size(self) -> int:
        """Pixels of a frame's side."""
        return self.info.options["frame_size"]

    @property
    def fbank_stats(self) -> tuple[float, float] | None:
        """(mean, std), once `cavmae stats` has run."""
        return self.info.fbank_stats

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard."""
        return [shard.samples for shard in self.info.shards]

    def entry(self, number: int) -> SampleEntry:
        """What the index says of a sample."""
        shard, position = self._locate(number)
        return self._shard_entries(shard)[position]

    def label_indices(self, number: int) -> tuple[int, ...]:
        """The class indices of a sample."""
        return self.entry(number).labels

    def read(self, number: int) -> StoredSample:
        """Read a sample's bytes.

        Raises:
            DamagedSample: the shard is missing, cut short, or holds something else there.
        """
        shard, position = self._locate(number)
        entry = self._shard_entries(shard)[position]
        name = self.info.shards[shard].name
        where = f"{entry.video_id} in {storage.join(self.location, name)}"
        try:
            data = self._read_range(shard, entry.offset, entry.size)
        except OSError as error:
            raise DamagedSample(entry.video_id, f"{where}: {error}") from error
        if len(data) != entry.size:
            raise DamagedSample(entry.video_id, f"{where}: the shard is cut short")
        return StoredSample(entry, split_members(data, entry, where))

    def _locate(self, number: int) -> tuple[int, int]:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def _shard_entries(self, shard: int) -> tuple[SampleEntry, ...]:
        if shard not in self._entries:
            info = self.info.shards[shard]
            index = read_index(self.location, info.name)
            if len(index.samples) != info.samples or index.sha256 != info.sha256:
                raise UserError(
                    f"{storage.join(self.location, info.name)}: its index and dataset.json "
                    "disagree. Run `avprep shard` again."
                )
            self._entries[shard] = index.samples
        return self._entries[shard]

    def _read_range(self, shard: int, offset: int, size: int) -> bytes:
        path = storage.join(self.location, self.info.shards[shard].name)
        if storage.is_url(path):
            return storage.read_range(path, offset, size)
        if shard not in self._files:
            self._files[shard] = os.open(path, os.O_RDONLY)
            if len(self._files) > _OPEN_SHARDS:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(shard)
        return os.pread(self._files[shard], size, offset)


def split_members(data: bytes, entry: SampleEntry, where: str) -> dict[str, bytes]:
    """The members of a sample from its slice of the tar file, by suffix.

    Raises:
        DamagedSample: the slice is not a run of whole members of this sample.
    """
    members: dict[str, bytes] = {}
    offset = 0
    prefix = f"{entry.key}.".encode()
    while offset < len(data):
        header = data[offset : offset + 512]
        name = header[:100].rstrip(b"\0")
        try:
            size = int(header[124:136].rstrip(b"\0 "), 8)
        except ValueError:
            size = -1
        if size < 0 or not name.startswith(prefix):
            raise DamagedSample(entry.video_id, f"{where}: damaged at byte {entry.offset + offset}")
        offset += 512
        members[name[len(prefix) :].decode("ascii", "replace")] = data[offset : offset + size]
        offset += -(-size // 512) * 512
    return members
