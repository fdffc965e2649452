"""Where every sample of a shard set lies and what it is, in a few arrays.

A million samples as Python objects are a gigabyte in every loading process. As arrays they are
about a hundred megabytes, built once, and processes that are forked share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avprep.shards.format import SampleEntry, sample_key


@dataclass(frozen=True)
class SampleTable:
    """One row a sample, in the order of the shards.

    Attributes:
        shard: int32 [N], number of its shard.
        offset: int64 [N], its first byte in the shard.
        size: int64 [N], its bytes.
        label_starts: int64 [N + 1], where its labels begin in `labels`.
        labels: int32 [all labels of all samples].
        name_starts: int64 [N + 1], where its video_id begins in `names`.
        names: video_ids one after another, UTF-8.
        split: int32 [N], position in `splits`.
        splits: names of the splits; "" where the manifest gave none.
        num_samples: int64 [N], samples of its audio; 0 where the index does not say.
        member_sizes: int32 [N, most members of a sample], as in `SampleEntry.sizes`, then zeros.
        member_starts: int64, the same of `SampleEntry.starts`; no column where no entry has them.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    label_starts: NDArray[np.int64]
    labels: NDArray[np.int32]
    name_starts: NDArray[np.int64]
    names: bytes
    split: NDArray[np.int32]
    splits: tuple[str, ...]
    num_samples: NDArray[np.int64]
    member_sizes: NDArray[np.int32]
    member_starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shard)

    def video_id(self, row: int) -> str:
        """The clip's name."""
        name = self.names[self.name_starts[row] : self.name_starts[row + 1]]
        return name.decode("utf-8", "surrogatepass")

    def label_indices(self, row: int) -> tuple[int, ...]:
        """The clip's classes."""
        return tuple(self.labels[self.label_starts[row] : self.label_starts[row + 1]].tolist())

    def has(self, modality: str) -> NDArray[np.bool_]:
        """bool [N]: whether each clip has a modality; an index that does not say is of both."""
        sizes = self.member_sizes
        place = {"audio": 1, "image": 2}[modality]
        is_unknown = ~sizes.any(axis=1)
        return np.asarray(is_unknown | (sizes[:, place : place + 1] > 0).any(axis=1))

    def entry(self, row: int) -> SampleEntry:
        """What the shard's index says of a sample."""
        video_id = self.video_id(row)
        sizes = self.member_sizes[row].tolist()
        while sizes and not sizes[-1]:
            sizes.pop()
        return SampleEntry(
            sample_key(video_id),
            video_id,
            int(self.offset[row]),
            int(self.size[row]),
            self.label_indices(row),
            self.splits[self.split[row]],
            int(self.num_samples[row]),
            sizes=tuple(sizes),
            starts=tuple(self.member_starts[row, : len(sizes)].tolist()),
        )

    def rows_of_labels(self) -> NDArray[np.int64]:
        """int64 [all labels]: the row that each entry of `labels` belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.label_starts))

    def sums_over_labels(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64 [N]: the sum of a per-class value over each sample's classes."""
        sums = np.bincount(self.rows_of_labels(), values[self.labels], minlength=len(self))
        return sums.astype(np.float64)  # integers where no sample has a label


def build_table(shards: Iterable[Sequence[SampleEntry]]) -> SampleTable:
    """The table of shards given in order."""
    shard: list[NDArray[np.int32]] = []
    offset: list[NDArray[np.int64]] = []
    size: list[NDArray[np.int64]] = []
    label_counts: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int32]] = []
    name_lengths: list[NDArray[np.int64]] = []
    names: list[bytes] = []
    split: list[NDArray[np.int32]] = []
    num_samples: list[NDArray[np.int64]] = []
    member_sizes: list[NDArray[np.int64]] = []
    member_starts: list[NDArray[np.int64]] = []
    codes: dict[str, int] = {}
    for number, entries in enumerate(shards):
        ids = [entry.video_id.encode("utf-8", "surrogatepass") for entry in entries]
        shard.append(np.full(len(entries), number, np.int32))
        offset.append(np.array([entry.offset for entry in entries], np.int64))
        size.append(np.array([entry.size for entry in entries], np.int64))
        label_counts.append(np.array([len(entry.labels) for entry in entries], np.int64))
        labels.append(np.array([label for entry in entries for label in entry.labels], np.int32))
        name_lengths.append(np.array([len(name) for name in ids], np.int64))
        names.append(b"".join(ids))
        num_samples.append(np.array([entry.num_samples for entry in entries], np.int64))
        member_sizes.append(_padded([entry.sizes for entry in entries]))
        member_starts.append(_padded([entry.starts for entry in entries]))
        split.append(
            np.array([codes.setdefault(entry.split, len(codes)) for entry in entries], np.int32)
        )
    return SampleTable(
        _joined(shard, np.int32),
        _joined(offset, np.int64),
        _joined(size, np.int64),
        _starts(label_counts),
        _joined(labels, np.int32),
        _starts(name_lengths),
        b"".join(names),
        _joined(split, np.int32),
        tuple(codes),
        _joined(num_samples, np.int64),
        _stacked(member_sizes).astype(np.int32),
        _stacked(member_starts),
    )


def _joined(parts: list[NDArray], dtype: type) -> NDArray:
    return np.concatenate([*parts, np.empty(0, dtype)])


def _padded(rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Rows of several lengths, with zeros at their ends."""
    padded = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for own, row in zip(padded, rows, strict=True):
        own[: len(row)] = row
    return padded


def _stacked(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Matrices below one another, with zeros at the ends of the narrower ones."""
    widest = max((part.shape[1] for part in parts), default=0)
    whole = np.zeros((sum(map(len, parts)), widest), np.int64)
    start = 0
    for part in parts:
        whole[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return whole


def _starts(counts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(_joined(counts, np.int64))])
