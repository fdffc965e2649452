"""A shard set as one long list of samples, each known by where its bytes are."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.errors import Unreadable, UserError
from avprep.failures import printable
from avprep.labels import LabelSet
from avprep.retries import with_retries
from avprep.selection import select
from avprep.shards.format import (
    DatasetInfo,
    SampleEntry,
    ShardInfo,
    read_dataset,
    read_index,
    stored_members,
    weigh_classes,
)
from avprep.wording import counted, first_of
from cavmae.data.reader import Range, Reader, open_reader
from cavmae.data.sample import DamagedSample, StoredSample, Wanted
from cavmae.data.table import SampleTable, build_table
from cavmae.distributed import is_main_process
from cavmae.options import BOTH, Modality, ReadOptions, ShardOptions

_INDEXES_AT_ONCE = 16  # fetched together from a URL

_log = logging.getLogger(__name__)


class ShardSet:
    """Samples of a shard set, or of a selection from it, by number.

    Cheap to open: the shards' indexes are read when the first sample is asked for.

    Attributes:
        location: folder or URL prefix.
        info: its dataset.json, also for a selection.
        options: how it is read.
        lacking: samples that were left out because they lack a modality.
    """

    def __init__(
        self,
        location: str,
        info: DatasetInfo,
        options: ReadOptions,
        table: SampleTable | None = None,
        rows: NDArray[np.int64] | None = None,
        lacking: int = 0,
    ) -> None:
        """Args:
        location: folder or URL prefix.
        info: its dataset.json.
        options: how it is read.
        table: of its indexes, if they have been read.
        rows: int64, ascending: the rows of the table that are selected. None for all.
        lacking: samples that are not, because they lack a modality.
        """
        self.location = location
        self.info = info
        self.options = options
        self.lacking = lacking
        self._table = table
        self._rows = rows
        self._reader: Reader | None = None

    @classmethod
    def open(cls, location: str | Path, options: ReadOptions | None = None) -> ShardSet:
        """Open the shard set that `avprep shard` wrote.

        Args:
            location: folder or URL prefix.
            options: retries, timeout and cache for URLs.

        Raises:
            UserError: no shard set there, or an empty one.
        """
        options = options or ReadOptions()
        if storage.is_url(location):
            info = with_retries(lambda: read_dataset(location), options.retries)
        else:
            info = read_dataset(location)
        if not info.samples:
            raise UserError(f"{location}: the shard set holds no sample.")
        return cls(str(location), info, options)

    def select(
        self,
        classes: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        file: Path | None = None,
    ) -> ShardSet:
        """The samples that have one of these classes, belong to one of these splits and are named.

        The label set stays as it is. `shuffled_order` reads only what is selected.

        Args:
            classes: mids or display names; None for any.
            splits: as the manifest names them; None for any.
            file: the selection that names them; None for any. What it finds is logged.

        Raises:
            UserError: a class or split is unknown, the file is no selection, or nothing is left.
        """
        table = self.table
        chosen = np.zeros(len(table), bool)
        chosen[self._rows if self._rows is not None else slice(None)] = True
        if classes is not None:
            wanted = [self._class_index(name) for name in classes]
            hits = np.isin(table.labels, wanted)
            with_class = np.zeros(len(table), bool)
            with_class[table.rows_of_labels()[hits]] = True
            chosen &= with_class
        if splits is not None:
            if strangers := sorted(set(splits) - set(table.splits)):
                known = ", ".join(sorted(filter(None, table.splits))) or "none"
                raise UserError(
                    f"{self.location}: no split {strangers[0]!r}; its splits are {known}."
                )
            chosen &= np.isin(table.split, [table.splits.index(name) for name in splits])
        if file is not None:
            chosen &= self._named_in(file)
        rows = np.flatnonzero(chosen)
        if not len(rows):
            raise UserError(f"{self.location}: the selection holds no sample.")
        return ShardSet(self.location, self.info, self.options, table, rows, self.lacking)

    def _named_in(self, file: Path) -> NDArray[np.bool_]:
        """Which rows of the table a selection names; logs how many, and ids that no clip has."""
        table = self.table
        found = select(file, map(table.video_id, range(len(table))))
        text = f"{file}: names {len(found.positions)} of {counted(len(table), 'clip')}"
        text += f" of {self.location}"
        if found.strangers:
            text += f"; {counted(len(found.strangers), 'id')} not in the shard set: "
            text += first_of(found.strangers)
        if is_main_process():
            _log.log(logging.WARNING if found.strangers else logging.INFO, printable(text))
        named = np.zeros(len(table), bool)
        named[list(found.positions)] = True
        return named

    def having(self, modalities: Sequence[Modality]) -> ShardSet:
        """The samples that have all of these modalities.

        Raises:
            UserError: there is none.
        """
        if not self.info.lacking().keys() & set(modalities):
            return self
        rows = np.arange(len(self.table)) if self._rows is None else self._rows
        fitting = rows[np.all([self.table.has(name)[rows] for name in modalities], axis=0)]
        if not len(fitting):
            words = {"audio": "audio", "image": "frames"}
            raise UserError(
                f"{self.location}: none of its {len(rows)} samples has "
                f"{' and '.join(words[name] for name in modalities)}. Choose what they have "
                "(--mode, --modality or --objective), or another shard set."
            )
        lacking = self.lacking + len(rows) - len(fitting)
        return ShardSet(self.location, self.info, self.options, self.table, fitting, lacking)

    def relabelled(self, labels: LabelSet) -> ShardSet:
        """The same samples, their classes numbered by a label set that has all of them."""
        if labels == self.label_set:
            return self
        places = np.array([labels.index_of(mid) for mid, _ in self.labels], np.int32)
        counts = np.zeros(len(labels), np.int64)
        counts[places] = self.info.class_counts
        extra = dict(self.info.extra)
        if self.info.class_weights is not None:
            weights = np.zeros(len(labels))
            weights[places] = self.info.class_weights
            extra["weights"] = {"classes": weights.tolist()}
        info = replace(
            self.info,
            labels=tuple(zip(labels.mids, labels.names, strict=True)),
            class_counts=tuple(counts.tolist()),
            extra=extra,
        )
        table = replace(self.table, labels=places[self.table.labels])
        return ShardSet(self.location, info, self.options, table, self._rows, self.lacking)

    def without_labels(self) -> ShardSet:
        """The same samples, with neither labels nor classes."""
        table = self.table
        starts = np.zeros_like(table.label_starts)
        table = replace(table, labels=table.labels[:0], label_starts=starts)
        info = replace(self.info, labels=(), class_counts=())
        return ShardSet(self.location, info, self.options, table, self._rows, self.lacking)

    @property
    def rows_sha256(self) -> str:
        """Which samples of the set these are; empty for all."""
        return hashlib.sha256(self._rows.tobytes()).hexdigest() if self._rows is not None else ""

    @property
    def sets(self) -> tuple[ShardSet, ...]:
        """This one, as `Mixture.sets` are several."""
        return (self,)

    def subset(self, numbers: Sequence[int] | NDArray[np.int64]) -> ShardSet:
        """Some of the samples.

        Args:
            numbers: of the samples, ascending.
        """
        chosen = np.asarray(numbers, dtype=np.int64)
        rows = chosen if self._rows is None else self._rows[chosen]
        return ShardSet(self.location, self.info, self.options, self.table, rows, self.lacking)

    def __len__(self) -> int:
        return len(self._rows) if self._rows is not None else self.info.samples

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_reader": None}  # open files stay with their process

    @property
    def table(self) -> SampleTable:
        """Where every sample lies; read from the shards' indexes when first needed.

        Raises:
            UserError: an index is missing, damaged, or of another build.
        """
        if self._table is None:
            self._table = self._read_table()
        return self._table

    @property
    def reader(self) -> Reader:
        """Reads the shards' bytes; of this process, or of the one it was forked from.

        Raises:
            UserError: the cache is too small, or its folder cannot be made.
        """
        if self._reader is None:
            sizes = {shard.name: shard.bytes for shard in self.info.shards}
            self._reader = open_reader(self.location, self.options, sizes)
        return self._reader

    def prepare(self) -> None:
        """Read and open all that processes forked from this one can share, or fail here.

        Raises:
            UserError: see `table` and `reader`.
        """
        _ = self.table, self.reader

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """(mid, display name) of each class."""
        return self.info.labels

    @property
    def label_set(self) -> LabelSet:
        """The same as a label set."""
        mids, names = zip(*self.labels, strict=True) if self.labels else ((), ())
        return LabelSet(mids, names)

    @property
    def num_classes(self) -> int:
        return len(self.info.labels)

    @property
    def class_counts(self) -> list[int]:
        """Samples of each class."""
        if self._rows is None:
            return list(self.info.class_counts)
        selected = np.isin(self.table.rows_of_labels(), self._rows)
        return np.bincount(self.table.labels[selected], minlength=self.num_classes).tolist()

    @property
    def class_weights(self) -> NDArray[np.float64]:
        """float64 [classes]: what `avprep weights` stored; else of the classes' counts here.

        A selection has counts of its own, so what was stored for the whole does not fit it.
        """
        stored = self.info.class_weights
        if stored is not None and self._rows is None:
            return np.array(stored, np.float64)
        return np.array(weigh_classes(self.class_counts))

    @property
    def frames(self) -> int:
        """Stored frames of a sample."""
        return self.info.options["frames"]

    @property
    def frame_size(self) -> int:
        """Pixels of a frame's side."""
        return self.info.options["frame_size"]

    @property
    def num_samples(self) -> NDArray[np.int64]:
        """int64 [N]: samples of each clip's audio; 0 where an index does not say."""
        lengths = self.table.num_samples
        return lengths if self._rows is None else lengths[self._rows]

    @property
    def audio_lengths(self) -> NDArray[np.int64]:
        """int64 [N]: samples of each clip's audio; the set's mean where an index does not say."""
        lengths = self.num_samples
        heard = self.info.modalities.get("audio", self.info.samples) or 1
        mean = round(self.info.seconds / heard * self.info.options["sample_rate"])
        return np.where(lengths > 0, lengths, mean)

    @property
    def fbank_stats(self) -> tuple[float, float] | None:
        """(mean, std), once `cavmae stats` has run."""
        return self.info.fbank_stats

    @property
    def shard_sizes(self) -> list[int]:
        """Samples of each shard."""
        if self._rows is None:
            return [shard.samples for shard in self.info.shards]
        shards = self.table.shard[self._rows]
        return np.bincount(shards, minlength=len(self.info.shards)).tolist()

    def entry(self, number: int) -> SampleEntry:
        """What the index says of a sample."""
        return self.table.entry(self._row(number))

    def video_id(self, number: int) -> str:
        """The name of a sample's clip."""
        return self.table.video_id(self._row(number))

    def own_frame(self, number: int, frame: int) -> int:
        """The frame of a sample that stands for one of the set's `frames`: a picture has one."""
        sizes = self.table.member_sizes[self._row(number)]
        stored = int(np.count_nonzero(sizes[2:])) or self.frames
        return frame * stored // self.frames

    def label_indices(self, number: int) -> tuple[int, ...]:
        """The class indices of a sample."""
        return self.table.label_indices(self._row(number))

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the samples, in no order; without those that have none."""
        codes = self.table.split if self._rows is None else self.table.split[self._rows]
        return tuple(filter(None, (self.table.splits[code] for code in np.unique(codes))))

    def sample_weights(self, class_weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of its classes' weights for each sample.

        Args:
            class_weights: float64 [classes].

        Returns:
            float64 [N].
        """
        weights = self.table.sums_over_labels(class_weights)
        return weights if self._rows is None else weights[self._rows]

    def read_many(
        self,
        numbers: Iterable[int],
        scattered: bool = False,
        wanted: Iterable[Wanted | None] = repeat(None),
    ) -> Iterator[StoredSample | Unreadable]:
        """Read samples' bytes, in order: one range of each.

        Args:
            numbers: of the samples.
            scattered: they are spread over the whole set, see `Reader`.
            wanted: what of each; None for all.

        Yields:
            The sample; or what is wrong: its shard is missing, cut short, unreachable, or holds
            something else there.
        """
        reader = self.reader
        entries, ranges = [], []
        for number, part in zip(numbers, wanted, strict=False):
            row = self._row(int(number))
            entry = self.table.entry(row)
            span = entry.span(part.audio, part.frames) if part else (entry.offset, entry.size)
            entries.append(entry)
            ranges.append(Range(self.info.shards[self.table.shard[row]].name, *span))
        found = reader.read_many(ranges, scattered)
        for entry, asked, data in zip(entries, ranges, found, strict=True):
            where = f"{entry.video_id} in {storage.join(self.location, asked.shard)}"
            if isinstance(data, Unreadable):
                yield Unreadable(data.cause, f"{where}: {data.detail}")
            elif len(data) != asked.size:
                yield Unreadable("truncated", f"{where}: the shard is cut short")
            else:
                try:
                    audio = self.info.options["audio"]
                    yield StoredSample(entry, stored_members(entry, data, asked.offset, audio))
                except ValueError as error:
                    place = f"from byte {asked.offset} of the shard"
                    yield Unreadable("garbage", f"{where}, {place}: {error}")

    def read(self, number: int) -> StoredSample:
        """Read one sample's bytes.

        Raises:
            DamagedSample: see `read_many`.
        """
        (sample,) = self.read_many([number], scattered=True)
        if isinstance(sample, Unreadable):
            raise DamagedSample(sample.detail)
        return sample

    def _row(self, number: int) -> int:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        return number if self._rows is None else int(self._rows[number])

    def _class_index(self, name: str) -> int:
        for index, names in enumerate(self.labels):
            if name in names:
                return index
        known = [either for names in self.labels for either in names]
        near = difflib.get_close_matches(name, known, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{self.location}: no class {name!r}.{hint}")

    def _read_table(self) -> SampleTable:
        if not storage.is_url(self.location):
            return build_table(map(self._read_entries, self.info.shards))

        def read(shard: ShardInfo) -> tuple[SampleEntry, ...]:
            return with_retries(lambda: self._read_entries(shard), self.options.retries)

        with ThreadPoolExecutor(_INDEXES_AT_ONCE) as pool:
            return build_table(pool.map(read, self.info.shards))

    def _read_entries(self, shard: ShardInfo) -> tuple[SampleEntry, ...]:
        index = read_index(self.location, shard.name)
        if len(index.samples) != shard.samples or index.sha256 != shard.sha256:
            raise UserError(
                f"{storage.join(self.location, shard.name)}: its index and dataset.json disagree. "
                "Run `avprep shard` again."
            )
        return index.samples


def open_shards(
    location: str | Path, options: ShardOptions, modalities: Sequence[Modality] = BOTH
) -> ShardSet:
    """The shard set, or the selection from it that the options describe.

    Args:
        location: folder or URL prefix.
        options: which samples are used, and how they are read.
        modalities: that a sample must have.

    Raises:
        UserError: no shard set there, or the selection holds nothing.
    """
    shards = ShardSet.open(location, options)
    if options.classes or options.splits or options.select:
        shards = shards.select(options.classes or None, options.splits or None, options.select)
    return shards.having(modalities)
